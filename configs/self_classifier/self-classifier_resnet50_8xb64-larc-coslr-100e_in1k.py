# Self-Classifier on ImageNet with 512 images a step, the authors' script of
# their ablation: no warm-up.
_base_ = ['./self-classifier_resnet50_8xb32-larc-coslr-100e_in1k.py']

# the authors' of all but 256 images a step
model = dict(queue=dict(length=262144))

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=0.6))
auto_scale_lr = dict(base_batch_size=512)
