# Self-Classifier with rotation prediction beside it.
_base_ = [
    '../self_classifier/self-classifier_32c5-32c5-128f_1xb128-20e_digits.py',
    '../_base_/models/essl_nin-w24.py',
]

model = dict(
    _base_.essl,
    _delete_=True,
    algorithm=_base_.model,
    head=dict(_base_.essl.head, in_channels=128),
)
# this network takes images of one size: the crop is a third view
views = dict(_base_.train_pipeline[0], num_views=[3])
train_dataloader = dict(
    dataset=dict(pipeline=[views, *_base_.train_pipeline[1:]])
)
val_evaluator = [
    *_base_.val_evaluator,
    dict(type='mm_rotssl.RotationAccuracy'),
]
test_evaluator = val_evaluator
