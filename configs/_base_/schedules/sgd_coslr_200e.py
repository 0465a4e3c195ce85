# For a ResNet on CIFAR-10, batches of 512: rate and decay as comparisons of
# these algorithms there use them. The schedule lasts as long as the run.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.24, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    convert_to_iter_based=True,
)
auto_scale_lr = dict(base_batch_size=512)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=10)
