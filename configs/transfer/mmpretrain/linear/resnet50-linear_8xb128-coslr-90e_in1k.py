# Linear evaluation as by MoCo v3.
_base_ = ['./resnet50-linear_8xb32-steplr-100e_in1k.py']

train_dataloader = dict(batch_size=128)

optim_wrapper = dict(optimizer=dict(lr=0.4))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, T_max=90)]
auto_scale_lr = dict(base_batch_size=1024)
train_cfg = dict(max_epochs=90)
