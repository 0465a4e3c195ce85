"""How images of a folder are prepared for a network."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mm_rotssl.apis import build_ordered_dataloader, read_config
from mm_rotssl.apis.sources import (
    folder_dataloader,
    image_settings,
    labeled_settings,
)

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture
def folder(tmp_path):
    """Red images, wider than high, in two classes."""
    for name in ('a/1.png', 'b/2.png'):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True)
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[..., 0] = 200
        Image.fromarray(pixels).save(path)
    return tmp_path / 'images'


def first(settings):
    return build_ordered_dataloader(settings).dataset[0]['inputs'].numpy()


def test_as_a_config_for_files_says(folder):
    cfg = read_config('rotnet_resnet18_1xb64-100e_custom')
    image = first(folder_dataloader(cfg, folder))
    assert image.shape == (3, 224, 224)
    # blue, green, red: the preprocessor turns them round
    assert image.mean((1, 2)).tolist() == [0, 0, 200]


def test_as_images_in_memory_are(folder):
    """Of their size, in their order of colors."""
    cfg = read_config('rotnet_nin_1xb128-steplr-200e_cifar10')
    image = first(folder_dataloader(cfg, folder))
    assert image.shape == (3, 32, 32)
    assert image.mean((1, 2)).tolist() == [200, 0, 0]
    assert not cfg.model.data_preprocessor.get('bgr_to_rgb', False)


def test_labels_of_folders_and_lists(folder):
    cfg = read_config('rotnet_resnet18_1xb64-100e_custom')
    (folder / 'list.txt').write_text('b/2.png 1\na/1.png 0\n')
    found = labeled_settings(cfg, (folder, folder / 'list.txt'))
    labels = [
        [
            int(item['data_samples'].gt_label)
            for item in build_ordered_dataloader(settings).dataset
        ]
        for settings in found
    ]
    assert labels == [[0, 1], [1, 0]]
    # of files that are not below the list
    (folder / 'meta').mkdir()
    (folder / 'meta/list.txt').write_text('2.png 3\n')
    there = f'{folder}/meta/list.txt@{folder}/b'
    dataset = build_ordered_dataloader(labeled_settings(cfg, [there] * 2)[0])
    info = dataset.dataset.get_data_info(0)
    assert (info['img_path'], info['gt_label']) == (f'{folder}/b/2.png', 3)
    with pytest.raises(FileNotFoundError, match=r'no "lists/a\.txt"'):
        labeled_settings(cfg, ['lists/a.txt@b'] * 2)
    with pytest.raises(FileNotFoundError, match=r'no "nowhere".*LIST@FOLDER'):
        labeled_settings(cfg, [f'{folder}/meta/list.txt@nowhere'] * 2)
    # those of the config, or none
    assert labeled_settings(cfg) is None
    digits = read_config('rotnet_nin-w24_1xb128-15e_digits')
    reference, test = labeled_settings(digits)
    assert reference['dataset']['split'] == 'train'
    assert test['dataset']['split'] == 'val'


def test_images_of_the_config(folder):
    digits = read_config('rotnet_nin-w24_1xb128-15e_digits')
    assert image_settings(digits)['dataset']['split'] == 'val'
    custom = 'rotnet_resnet18_1xb64-100e_custom'
    cfg = read_config(
        custom, {'train_dataloader.dataset.data_root': str(folder)}
    )
    # prepared as for judging
    settings = image_settings(cfg)
    assert settings['dataset']['data_root'] == str(folder)
    assert first(settings).shape == (3, 224, 224)
    with pytest.raises(ValueError, match=r'names no images.*--images FOLDER'):
        image_settings(read_config(custom))


def test_what_does_not_tell(folder):
    with pytest.raises(ValueError, match='has neither val_dataloader nor'):
        folder_dataloader(Config(dict(model={})), folder)
    with pytest.raises(FileNotFoundError, match='There is no "none"'):
        folder_dataloader(Config(dict(model={})), 'none')


def test_config_that_only_trains(folder):
    """As mmpretrain's of self-supervised algorithms: 256, then 224."""
    crop = dict(type='RandomResizedCrop', scale=28)
    cfg = Config(dict(train_dataloader=dict(dataset=dict(pipeline=[crop]))))
    settings = folder_dataloader(cfg, folder)
    assert first(settings).shape == (3, 28, 28)
    assert settings['dataset']['pipeline'][1]['scale'] == 32


def test_images_that_cannot_be_read_are_passed_over(folder):
    """mmcv's own loading ends in an assertion."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    good = len(list(folder.rglob('*.png')))
    assert good
    (folder / 'broken.png').write_bytes(b'broken')
    try:
        loader = build_ordered_dataloader(
            dict(
                folder_dataloader(cfg, folder),
                batch_size=1,
                num_workers=0,
                collate_fn=dict(type='default_collate'),
            )
        )
        samples = [batch['data_samples'][0] for batch in loader]
    finally:
        (folder / 'broken.png').unlink()
    assert len({sample.sample_idx for sample in samples}) == good
