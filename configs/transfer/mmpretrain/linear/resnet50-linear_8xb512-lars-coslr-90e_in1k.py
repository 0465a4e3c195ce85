# Linear evaluation as by SimSiam, with which its authors measure SimCLR, MoCo,
# BYOL and SwAV too.
_base_ = ['./resnet50-linear_8xb128-coslr-90e_in1k.py']

train_dataloader = dict(batch_size=512)

optim_wrapper = dict(optimizer=dict(type='LARS', lr=1.6))
auto_scale_lr = dict(base_batch_size=4096)
