"""Small networks and folders of images, to measure and to draw."""

import cv2
import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from mm_rotssl.datasets import ImageFolder
from mm_rotssl.evaluation.subject import Subject
from mm_rotssl.registry import MODELS

COLORS = dict(cat=(0, 0, 220), dog=(0, 200, 0), owl=(200, 0, 0))
PIPELINE = [
    dict(type='mm_rotssl.LoadIntactImage', color_type='unchanged'),
    dict(type='mm_rotssl.PackInputs'),
]


def blobs(rng, size=16, channels=3):
    """Smooth noise, in which no two images are alike: uint8 (S, S, C)."""
    coarse = rng.integers(0, 256, (4, 4, channels), np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return image.reshape(size, size, channels)


def write_classes(folder, each, seed):
    """A sub-folder for each class, whose images are of its color."""
    rng = np.random.default_rng(seed)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            image = blobs(rng) // 2 + np.array(color, np.uint8) // 2
            cv2.imwrite(str(folder / name / f'{i}.png'), image)
    return folder


def write_flat(folder, count, seed, channels=3):
    """Images without labels."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        image = blobs(rng, channels=channels)
        cv2.imwrite(str(folder / f'{i:02}.png'), image)
    return folder


def build_loader(folder, with_label=False):
    """Files that can't be read are passed over."""
    init_default_scope('mmpretrain')
    dataset = ImageFolder(
        str(folder),
        with_label=with_label,
        pipeline=PIPELINE,
        serialize_data=False,
    )
    return DataLoader(dataset, batch_size=8, collate_fn=default_collate)


def build_network(seed=0, channels=3, **backbone):
    """RotNet of stages 1 and 3, in eval mode."""
    init_default_scope('mmpretrain')
    torch.manual_seed(seed)
    model = MODELS.build(
        dict(
            type='mm_rotssl.RotNet',
            backbone=dict(
                type='mm_rotssl.NIN',
                in_channels=channels,
                base_channels=6,
                num_stages=3,
                out_indices=(0, 2),
                **backbone,
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=6),
            data_preprocessor=dict(
                type='mm_rotssl.MultiChannelDataPreprocessor',
                mean=[120.0] * channels,
                std=[60.0] * channels,
                bgr_to_rgb=channels == 3,
            ),
        )
    )
    return model.eval()


def build_subject(model, store, images, reference=None, test=None):
    """Of folders; those with labels have a sub-folder a class."""
    labeled = [
        None if folder is None else build_loader(folder, with_label=True)
        for folder in (reference, test)
    ]
    return Subject(model, store, build_loader(images), *labeled)
