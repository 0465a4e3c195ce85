# A random view of an image of 32 pixels, read from a file, for algorithms that
# compare two of them; and a small crop, which E-SSL rotates. Crops are resized by
# OpenCV, without the antialiasing of the official codes, which counts where crops
# are far larger than views; with backend='pillow' of the crop they are as there.
_base_ = './color_jitter.py'

view = [
    dict(
        type='mm_rotssl.RandomResizedCropFlip',
        scale=32,
        crop_ratio_range=(0.2, 1.0),
    ),
    _base_.flip,
    _base_.color_jitter,
    _base_.grayscale,
]
small_crop = [dict(view[0], scale=16), *view[1:]]
