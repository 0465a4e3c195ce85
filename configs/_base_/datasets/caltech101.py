# Caltech-101 as images in folders, to measure features on:
#
#   python tools/evaluation/evaluate_svm.py CONFIG CHECKPOINT \
#       --protocol caltech101 --data configs/_base_/datasets/caltech101.py
#
# Leave BACKGROUND_Google out of the folder, as the papers do. The protocol
# draws training and test images from one and the same set.
reference_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mm_rotssl.ImageFolder',
        data_root='data/101_ObjectCategories',
        with_label=True,
        test_mode=True,
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(type='Resize', scale=(150, 150)),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = reference_dataloader
test_dataloader = val_dataloader
val_cfg = dict(
    type='mm_rotssl.KNNValLoop', reference_dataloader=reference_dataloader
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
