# Exemplar-CNN on STL-10 with the small network of the first paper: 8,000
# seed patches, else the recipe of the middle network. The seed patches:
#
#   python tools/sample_seed_patches.py \
#       configs/exemplar_cnn/exemplar-cnn_64c5-64c5-128f_1xb128-steplr-156e_stl10.py
_base_ = ['./exemplar-cnn_64c5-128c5-256c5-512f_1xb128-steplr-156e_stl10.py']

model = dict(
    backbone=dict(
        arch='64c5-64c5-128f',
        out_indices=(0, 1, 2),
        init_cfg=dict(
            std=0.005,
            override=[
                dict(name='stage1', type='Normal', std=0.0001, bias=0.1),
                dict(name='stage2', type='Normal', std=0.01, bias=0.1),
            ],
        ),
    ),
    head=dict(in_channels=128, num_exemplars=8000, init_cfg=dict(std=0.01)),
)

# 10,000 steps an epoch again
train_dataloader = dict(
    dataset=dict(
        seed_patches='data/stl10/seed_patches_8000.npz', num_deformations=160
    )
)

# its third layer is fully connected
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'stage3.conv.weight': dict(decay_mult=1)})
)
