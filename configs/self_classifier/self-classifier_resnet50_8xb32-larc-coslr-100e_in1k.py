# Self-Classifier on ImageNet with 256 images a step, the authors' script of
# their ablation: no warm-up and a shorter queue.
_base_ = ['./self-classifier_resnet50_66xb62-larc-coslr-100e_in1k.py']

model = dict(queue=dict(length=16384))

train_dataloader = dict(batch_size=32)

# 0.3 for 256 images
optim_wrapper = dict(optimizer=dict(lr=0.3))
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.001,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
auto_scale_lr = dict(base_batch_size=256)
