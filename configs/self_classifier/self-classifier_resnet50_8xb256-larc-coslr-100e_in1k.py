# Self-Classifier on ImageNet with 2,048 images a step, the authors' script of
# their ablation.
_base_ = ['./self-classifier_resnet50_66xb62-larc-coslr-100e_in1k.py']

train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=2.4))
param_scheduler = _base_.param_scheduler
# from 0.3
param_scheduler[0].start_factor = 0.125
auto_scale_lr = dict(base_batch_size=2048)
