# DeepCluster-v2 on a folder of one's own images. One setting has no default, the
# folder:
#
#   mm-rotssl train deepcluster-v2_resnet18_1xb128-100e_custom --data FOLDER
_base_ = [
    '../_base_/models/deepcluster-v2_resnet18.py',
    '../_base_/datasets/folder_two_views.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

# ----------------------- What people change most -----------------------
# (--data, --batch-size, --epochs and --lr set them on the command line, and
# --crop-size the side of the views, 224 pixels.)

# The folder, searched with all its sub-folders.
data_root = ''
# Images a step, each in two views; halve this if memory runs out, and give
# --auto-scale-lr.
batch_size = 128
# Processes that read and crop images; the number of cores at most.
num_workers = 4
# Passes over the folder. What counts are the steps: with fewer than some
# 10,000 images train longer.
max_epochs = 100
# For 128 images a step.
base_lr = 0.06
# Clusters of each classifier: some ten times as many as classes are expected,
# no more than images.
num_clusters = [100, 100, 100]

# -----------------------------------------------------------------------
model = dict(head=dict(num_classes=num_clusters))
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(data_root=data_root),
)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(max_epochs=max_epochs)

default_hooks = dict(logger=dict(interval=10))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
    dict(type='mm_rotssl.RelabelHook', train_mode=True),
]
