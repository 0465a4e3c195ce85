# adamw_coslr_20e.py, shortened for real images on two cores.
_base_ = ['./adamw_coslr_20e.py']

train_cfg = dict(max_epochs=6, val_interval=6)
