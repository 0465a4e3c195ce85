# The linear probes of RotNet's official code. Its configs say lr=0.1, which
# their table of rates replaces before the first step: 0.01, 0.002, 0.0004,
# 0.00008.
optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[5, 15, 25], gamma=0.2
)
auto_scale_lr = dict(base_batch_size=192)

train_cfg = dict(by_epoch=True, max_epochs=35, val_interval=5)
val_cfg = {}
test_cfg = val_cfg
val_evaluator = dict(type='mm_rotssl.StageAccuracy', topk=(1, 5))
test_evaluator = val_evaluator
