# The linear probes of RotNet's Places205 experiments: those of ImageNet, on
# other images. Run with
#   --cfg-options model.backbone.init_cfg.checkpoint=<rotnet checkpoint>
_base_ = [
    '../../_base_/models/alexnet-bn_linear.py',
    '../../_base_/datasets/places205.py',
    '../../_base_/schedules/sgd_steplr_35e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=_base_.data_preprocessor, head=dict(num_classes=205)
)

train_dataloader = dict(batch_size=192)
val_dataloader = dict(batch_size=192)
test_dataloader = val_dataloader

default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))
