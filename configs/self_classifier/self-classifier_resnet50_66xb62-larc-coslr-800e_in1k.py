# Self-Classifier on ImageNet, the authors' script for 800 epochs. Its rate is
# 3.2, where their paper says 4.8.
_base_ = ['./self-classifier_resnet50_66xb62-larc-coslr-100e_in1k.py']

optim_wrapper = dict(optimizer=dict(lr=3.2))
train_cfg = dict(max_epochs=800)
