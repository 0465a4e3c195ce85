# Self-Classifier on ImageNet, the authors' recipe for 400 epochs.
_base_ = ['./self-classifier_resnet50_66xb62-larc-coslr-100e_in1k.py']

param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 400
param_scheduler[1].T_max = 390

train_cfg = dict(max_epochs=400)
