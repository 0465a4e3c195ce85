# Linear evaluation as by Self-Classifier.
_base_ = ['./resnet50-linear_8xb32-coslr-100e_in1k.py']

train_dataloader = dict(batch_size=512)

optim_wrapper = dict(
    optimizer=dict(type='mm_rotssl.LARC', lr=0.8, weight_decay=0.0)
)
auto_scale_lr = dict(base_batch_size=4096)
