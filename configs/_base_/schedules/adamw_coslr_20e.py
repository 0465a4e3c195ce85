# A schedule that fits small networks on the embedded digits. It lasts as long
# as the run.
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=2e-3, weight_decay=1e-4))
param_scheduler = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    convert_to_iter_based=True,
)
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=20)
