"""Images of four channels, from training to the exported file."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mm_rotssl.apis import (
    estimate_rotation_noise,
    evaluate,
    export,
    sort_images,
    write_seed_patches,
)
from mm_rotssl.evaluation import FINE_TUNING

pytestmark = pytest.mark.usefixtures('quick')
# as the custom configs, in small
CONFIG = """
default_scope = 'mmpretrain'
data_preprocessor = dict(
    type='mm_rotssl.MultiChannelDataPreprocessor',
    mean=[{unit} * 116.0] * 4, std=[{unit} * 58.0] * 4,
    rgb_channels=(2, 1, 0))
load = dict(
    type='mm_rotssl.LoadIntactImage', color_type='unchanged',
    to_float32={real})
test_pipeline = [load, dict(type='CenterCrop', crop_size=16),
                 dict(type='mm_rotssl.PackInputs')]
loader = dict(
    batch_size=6, num_workers=0, collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False))
labeled = dict(
    type='mm_rotssl.ImageFolder', data_root={folder!r}, with_label=True,
    test_mode=True, pipeline=test_pipeline)
train_dataloader = dict(
    loader, dataset=dict(
        type='mm_rotssl.ImageFolder', data_root={folder!r},
        pipeline=[
            load,
            dict(type='mm_rotssl.RandomResizedCropFlip', scale=16,
                 flip_prob=0.5),
            dict(type='mm_rotssl.PackInputs')]))
model = dict(
    type='mm_rotssl.RotNet', data_preprocessor=data_preprocessor,
    backbone=dict(
        type='mm_rotssl.NIN', in_channels=4, base_channels=6, num_stages=3,
        out_indices=(0, 2)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=6))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_dataloader = dict(loader, dataset=dict(labeled, data_root={test!r}))
val_cfg = dict(
    type='mm_rotssl.KNNValLoop',
    reference_dataloader=dict(loader, dataset=labeled))
val_evaluator = [dict(type='mm_rotssl.RotationAccuracy'),
                 dict(type='mm_rotssl.KNNAccuracy', k=1)]
log_level = 'ERROR'
randomness = dict(seed=0)
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setitem(FINE_TUNING, 'epochs', 1)


def write_images(folder, real, seed):
    """Only the fourth channel tells the class."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate('ab'):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            image = rng.integers(90, 140, (20, 24, 4), np.uint8)
            image[..., 3] = 30 + 180 * label
            if real:
                values = image.astype(np.float32) / 1000
                cv2.imwrite(str(folder / name / f'{i}.tif'), values)
            else:
                cv2.imwrite(str(folder / name / f'{i}.png'), image)


@pytest.fixture(params=[False, True], ids=['8-bit', 'real'])
def config(request, tmp_path):
    for seed, name in enumerate(('images', 'test')):
        write_images(tmp_path / name, request.param, seed)
    path = tmp_path / 'config.py'
    path.write_text(
        CONFIG.format(
            folder=str(tmp_path / 'images'),
            test=str(tmp_path / 'test'),
            real=request.param,
            unit=0.001 if request.param else 1,
        )
    )
    return path


def train(config, tmp_path):
    cfg = Config.fromfile(config)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.experiment_name = tmp_path.name
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner, tmp_path / 'run' / 'epoch_1.pth'


def test_training_validation_and_evaluation(config, tmp_path):
    runner, checkpoint = train(config, tmp_path)
    # what tells them apart is in the fourth channel
    assert runner.val_loop.run()['knn/best'] > 90
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    first = next(v for k, v in weights.items() if 'backbone' in k)
    assert first.shape[1] == 4
    found = evaluate(
        f'{config}@{checkpoint}',
        tmp_path / 'out',
        options=dict(knn=dict(k=[3]), linear=dict(shots=[1], draws=1)),
        report=lambda _: None,
    )
    knn = [
        one['runs'][0][0]
        for one in found['measurements']
        if (one['protocol'], one['entry'])
        == ('knn', found['entries'][0]['name'])
    ]
    assert max(knn) > 90
    names = {one['file'] for one in found['figures']}
    assert {'filters.png', 'neighbors.png'} <= names
    for name in names:
        assert (tmp_path / 'out' / name).stat().st_size > 5000


def test_page_of_sorted_images(config, tmp_path):
    with config.open('a') as file:
        file.write(
            """
model = dict(
    type='mm_rotssl.SelfClassifier', data_preprocessor=data_preprocessor,
    backbone=model['backbone'],
    neck=dict(
        type='mm_rotssl.SelfClassifierNeck', in_channels=6, hid_channels=8,
        out_channels=8, norm_cfg=None),
    head=dict(
        type='mm_rotssl.SelfClassifierHead', in_channels=8,
        num_classes=(3, )))
"""
        )
    cfg = Config.fromfile(config)
    runner = Runner(
        cfg.model, str(tmp_path), experiment_name=f'sort{tmp_path.name}'
    )
    torch.save(runner.model.state_dict(), tmp_path / 'weights.pth')
    done = sort_images(
        config, tmp_path / 'weights.pth', tmp_path / 'images', tmp_path / 'out'
    )
    assert done.num_images == 12
    sheets = sorted((tmp_path / 'out').glob('class_*.jpg'))
    for sheet in sheets:
        with Image.open(sheet) as image:
            # gray noise around the mean of the three channels that are shown
            middle = np.asarray(image)[40:56, 40:56].astype(int)
            assert 70 < middle.mean() < 160
            assert middle.std() > 1


def test_rotation_noise(config, tmp_path):
    done = estimate_rotation_noise(config, tmp_path / 'noise', folds=2)
    assert len(done.noise.keys) == 12
    assert done.figure.stat().st_size > 5000


def test_seed_patches_and_deformation(config, tmp_path):
    with config.open('a') as file:
        file.write(
            """
train_dataloader = dict(
    loader, dataset=dict(
        type='mm_rotssl.ExemplarDataset',
        dataset=dict(
            type='mm_rotssl.ImageFolder',
            data_root=labeled['data_root'], pipeline=[load]),
        seed_patches=dict(num_exemplars=4, patch_size=12, scales=(1.0, )),
        num_deformations=2,
        pipeline=[
            dict(type='mm_rotssl.RandomDeformation', patch_size=12,
                 recolor=False, on_device=True),
            dict(type='mm_rotssl.PackInputs',
                 algorithm_keys=('exemplar_label', 'deformation'))]))
data_preprocessor['type'] = 'mm_rotssl.DeformationDataPreprocessor'
data_preprocessor['patch_size'] = 12
model = dict(
    type='mm_rotssl.ExemplarCNN', data_preprocessor=data_preprocessor,
    backbone=model['backbone'], neck=model['neck'],
    head=dict(
        type='mm_rotssl.ExemplarHead', in_channels=6, num_exemplars=4))
val_dataloader = val_cfg = val_evaluator = None
"""
        )
    done = write_seed_patches(config, tmp_path / 'seeds.npz')
    assert len(done.seed_patches) == 4
    for figure in done[2:]:
        assert figure.stat().st_size > 2000
    _, checkpoint = train(config, tmp_path)
    assert checkpoint.is_file()


def test_export(config, tmp_path):
    _, checkpoint = train(config, tmp_path)
    out = tmp_path / 'backbone.pth'
    export(config, checkpoint, 'mmpretrain', out)
    weights = torch.load(out, weights_only=True)
    weights = weights.get('state_dict', weights)
    assert next(iter(weights.values())).shape[1] == 4
