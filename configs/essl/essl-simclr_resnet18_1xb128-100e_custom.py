# SimCLR with rotation prediction beside it, on a folder of one's own images. One
# setting has no default, the folder:
#
#   mm-rotssl train essl-simclr_resnet18_1xb128-100e_custom --data FOLDER
#
# The other algorithms have such a config to build on too, e.g.
# ../byol/byol_resnet18_1xb128-100e_custom.py.
_base_ = [
    '../simclr/simclr_resnet18_1xb128-100e_custom.py',
    '../_base_/models/essl_resnet18.py',
]

# ----------------------- What people change most -----------------------
# Folder, batch, epochs and rate: see the first of the configs above.

# Weight of the rotation loss; that of the paper.
weight = 0.4

# -----------------------------------------------------------------------
model = dict(
    _base_.essl,
    _delete_=True,
    algorithm=_base_.model,
    # the authors' number of layers for images of 224 pixels
    head=dict(_base_.essl.head, num_hidden=3),
    weight=weight,
)
# two views of each image, and a small crop, which is rotated
train_dataloader = dict(dataset=dict(pipeline=_base_.essl_pipeline))
