"""Small stand-ins for the datasets that the configs name."""

import json
import pickle
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10
from PIL import Image

from mm_rotssl.datasets import STL10, Digits, sample_seed_patches
from mm_rotssl.registry import DATASETS, MODELS

BOXES = {'person': (20, 10, 80, 90), 'dog': (40, 60, 120, 124)}


class ReversedDigits(Digits):
    """The same images and names of classes, numbered from the other end."""

    METAINFO = dict(classes=Digits.METAINFO['classes'][::-1])

    def load_data_list(self):
        return [
            dict(info, gt_label=9 - info['gt_label'])
            for info in super().load_data_list()
        ]


@pytest.fixture
def reversed_digits(monkeypatch):
    """Options of a config that validates on them."""
    monkeypatch.setitem(
        DATASETS._module_dict, 'ReversedDigits', ReversedDigits
    )
    return {'val_dataloader.dataset.type': 'mm_rotssl.ReversedDigits'}


def draw_images(folder, count, suffix='.jpg', size=(48, 40)):
    """Draw some images, of noise, into a folder."""
    rng = np.random.default_rng(count)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(image).save(folder / f'{i}{suffix}')


def write_cifar10(root):
    rng = np.random.default_rng(0)
    names = [*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch']
    folder = root / 'cifar-10-batches-py'
    folder.mkdir(parents=True)
    for name in names:
        images = rng.integers(0, 256, (4, 3072), np.uint8)
        content = pickle.dumps(dict(data=images, labels=[0, 1, 2, 3]))
        (folder / name).write_bytes(content)


def write_stl10(root):
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    for part in ('train', 'test', 'unlabeled'):
        images = rng.integers(0, 256, (2, 3, 96, 96), np.uint8)
        (root / f'{part}_X.bin').write_bytes(images.tobytes())
        labels = np.arange(2, dtype=np.uint8) + 1
        (root / f'{part}_y.bin').write_bytes(labels.tobytes())


def write_coco(root):
    for split in ('train', 'val'):
        draw_images(root / f'{split}2017', 2, size=(128, 128))
        annotations = [
            dict(
                id=2 * image + i,
                image_id=image,
                category_id=i,
                bbox=[x0, y0, x1 - x0, y1 - y0],
                area=(x1 - x0) * (y1 - y0),
                segmentation=[[x0, y0, x1, y0, x1, y1, x0, y1]],
                iscrowd=0,
            )
            for image in range(2)
            for i, (x0, y0, x1, y1) in enumerate(BOXES.values())
        ]
        content = dict(
            images=[
                dict(id=i, file_name=f'{i}.jpg', width=128, height=128)
                for i in range(2)
            ],
            annotations=annotations,
            categories=[dict(id=i, name=name) for i, name in enumerate(BOXES)],
        )
        file = root / f'annotations/instances_{split}2017.json'
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))


def write_voc(root):
    """Boxes as in the release, classes of pixels as for segmentation."""
    draw_images(root / 'JPEGImages', 2, size=(128, 128))
    boxes = ''.join(
        f'<object><name>{name}</name><difficult>0</difficult><bndbox>'
        f'<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>'
        '</bndbox></object>'
        for name, (x0, y0, x1, y1) in BOXES.items()
    )
    text = (
        '<annotation><size><width>128</width><height>128</height></size>'
        f'{boxes}</annotation>'
    )
    classes = np.zeros((128, 128), np.uint8)
    classes[60:124, 40:120] = 12
    for folder in ('Annotations', 'SegmentationClass', 'SegmentationClassAug'):
        (root / folder).mkdir()
        for i in range(2):
            if folder == 'Annotations':
                (root / folder / f'{i}.xml').write_text(text)
            else:
                Image.fromarray(classes).save(root / folder / f'{i}.png')
    for kind, splits in dict(
        Main=('trainval', 'test'), Segmentation=('train', 'aug', 'val')
    ).items():
        (root / 'ImageSets' / kind).mkdir(parents=True)
        for split in splits:
            (root / f'ImageSets/{kind}/{split}.txt').write_text('0\n1\n')


def write_cityscapes(root):
    for split in ('train', 'val'):
        images = root / f'leftImg8bit/{split}/city'
        draw_images(images, 2, '_leftImg8bit.png', (64, 128))
        labels = root / f'gtFine/{split}/city'
        labels.mkdir(parents=True)
        for i in range(2):
            classes = np.full((64, 128), i, np.uint8)
            classes[:, 64:] = 10
            name = f'{i}_gtFine_labelTrainIds.png'
            Image.fromarray(classes).save(labels / name)


def write_data(data):
    """Write the ``data`` that configs name.

    That is but for the scenes of digits, which a command of ours draws.

    Args:
        data (Path): New folder.
    """
    write_cifar10(data / 'cifar10')
    write_stl10(data / 'stl10/stl10_binary')
    for split in ('train', 'test'):
        for label in BOXES:
            draw_images(data / f'cifar10/{split}/{label}', 2, '.png', (32, 32))
    for split in ('train', 'val'):
        draw_images(data / f'imagenet/{split}', 4)
    for name in ('train', 'val', 'train_1percent', 'train_10percent'):
        lists = data / f'imagenet/meta/{name}.txt'
        lists.parent.mkdir(exist_ok=True)
        lists.write_text(''.join(f'{i}.jpg {i}\n' for i in range(4)))
    places = data / 'places205'
    folder = 'data/vision/torralba/deeplearning/images256'
    draw_images(places / folder, 4, size=(256, 256))
    (places / 'trainvalsplit_places205').mkdir()
    for split in ('train', 'val'):
        file = places / f'trainvalsplit_places205/{split}_places205.csv'
        file.write_text(''.join(f'{i}.jpg {i}\n' for i in range(4)))
    write_coco(data / 'coco')
    for year in (2007, 2012):
        write_voc(data / f'VOCdevkit/VOC{year}')
    write_cityscapes(data / 'cityscapes')


@pytest.fixture(scope='session')
def stand_ins(tmp_path_factory):
    """A folder with the ``data`` and ``work_dirs`` that configs name."""
    root = tmp_path_factory.mktemp('stand_ins')
    write_data(root / 'data')
    draw_images(root / 'data/digit_scenes/unlabeled', 4, size=(32, 32))
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type='mm_rotssl.NIN', num_stages=4))
    weights = {
        f'backbone.{key}': value
        for key, value in backbone.state_dict().items()
    }
    (root / 'work_dirs').mkdir()
    torch.save(weights, root / 'work_dirs/rotnet.pth')
    return root


@pytest.fixture
def in_stand_ins(stand_ins, monkeypatch):
    """What is relative in a config is found in the stand-ins."""
    monkeypatch.chdir(stand_ins)
    # they are not the released files
    monkeypatch.setattr(CIFAR10, '_check_integrity', Mock(return_value=True))
    monkeypatch.setattr(STL10, '_verify', Mock())
    file = stand_ins / 'data/stl10/seed_patches.npz'
    if not file.exists():
        images = STL10('data/stl10', 'unlabeled')
        sample_seed_patches(images, num_exemplars=2, scales=(1.0,)).save(file)
        file.with_stem('seed_patches_8000').write_bytes(file.read_bytes())
    return stand_ins


@pytest.fixture
def quick_runner(monkeypatch):
    """Nothing of a run that takes seconds and is not the config's doing."""
    # the runner logs the config, whose layout takes long, and the compilers
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    # for large datasets
    monkeypatch.setattr('mmengine.dataset.base_dataset.gc.collect', int)
