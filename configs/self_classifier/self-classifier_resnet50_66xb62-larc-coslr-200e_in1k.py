# Self-Classifier on ImageNet, the authors' recipe for 200 epochs.
_base_ = ['./self-classifier_resnet50_66xb62-larc-coslr-100e_in1k.py']

param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 200
param_scheduler[1].T_max = 190

train_cfg = dict(max_epochs=200)
