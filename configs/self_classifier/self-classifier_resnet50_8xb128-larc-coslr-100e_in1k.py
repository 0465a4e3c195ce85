# Self-Classifier on ImageNet with 1,024 images a step, the authors' rate.
_base_ = ['./self-classifier_resnet50_8xb32-larc-coslr-100e_in1k.py']

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=1.2))
auto_scale_lr = dict(base_batch_size=1024)
