# Linear evaluation as by SwAV and Barlow Twins in mmselfsup.
_base_ = ['./resnet50-linear_8xb32-steplr-100e_in1k.py']

optim_wrapper = dict(optimizer=dict(lr=0.3, weight_decay=1e-6))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, T_max=100)]
