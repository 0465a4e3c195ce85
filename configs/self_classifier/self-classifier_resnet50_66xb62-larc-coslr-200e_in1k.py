# Self-Classifier on ImageNet, the authors' recipe for 200 epochs.
_base_ = ['./self-classifier_resnet50_66xb62-larc-coslr-100e_in1k.py']

train_cfg = dict(max_epochs=200)
