# The color augmentation of SimCLR and its followers on small images. For
# images in BGR order, as they are read from files; for images in RGB order set
# `to_rgb` and `to_bgr` to False and turn `channel_weights` around.
flip = dict(type='RandomFlip', prob=0.5)
color_jitter = dict(
    type='RandomApply',
    transforms=[
        dict(type='NumpyToPIL', to_rgb=True),
        # torchvision's: mmpretrain's fails with numpy 2 in older mmcv
        dict(
            type='torchvision/ColorJitter',
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
        ),
        dict(type='PILToNumpy', to_bgr=True),
    ],
    prob=0.8,
)
grayscale = dict(
    type='RandomGrayscale',
    prob=0.2,
    keep_channels=True,
    # Pillow's, whose gray the official codes have: 0.114, 0.587 and 0.299 of
    # blue, green and red. They add up to 65,536, so white remains white.
    channel_weights=(7471, 38470, 19595),
)
