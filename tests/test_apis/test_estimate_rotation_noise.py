import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from gloo import run_on_two
from matplotlib.figure import Figure
from matplotlib.image import imread
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mm_rotssl.apis import estimate_rotation_noise, rotation_noise
from mm_rotssl.datasets import Digits, RotationNoise, image_keys
from mm_rotssl.models import RotNet
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import fingerprint

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / 'configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py'
COUNT, FOLDS, EPOCHS, SEED = 41, 2, 2, 4
# random crops make the images of training other ones
SMALL = f"""
_base_ = {str(BASE)!r}
model = dict(
    backbone=dict(base_channels=6, num_stages=3, out_indices=(0, 1, 2)),
    head=dict(in_channels=6))
train_cfg = dict(max_epochs={EPOCHS})
train_dataloader = dict(
    batch_size=7,
    dataset=dict(
        size=16,
        indices=list(range(100, 100 + {COUNT})),
        pipeline=[
            dict(type='RandomCrop', crop_size=16, padding=4),
            dict(type='PackInputs')]))
val_dataloader = dict(dataset=dict(size=16))
"""


def write_config(path, more=''):
    path.write_text(SMALL + more)
    return path


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / 'config.py')


def estimate(config, work_dir, folds=FOLDS, seed=SEED, **kwargs):
    return estimate_rotation_noise(config, work_dir, folds, seed, **kwargs)


class Spy:
    """Notes the images of each step of training, by fold."""

    def __init__(self, patch, stop_after=None):
        self.seen = {}
        self.steps = 0
        fold_now = []
        estimate_fold, loss = rotation_noise._estimate_fold, RotNet.loss

        def spy_fold(cfg, fold, *args):
            fold_now.append(fold)
            estimate_fold(cfg, fold, *args)

        def spy_loss(model, inputs, data_samples=None):
            if self.steps == stop_after:
                raise KeyboardInterrupt
            self.steps += 1
            self.seen.setdefault(fold_now[-1], []).extend(
                sample.img_path for sample in data_samples
            )
            return loss(model, inputs, data_samples)

        patch.setattr(rotation_noise, '_estimate_fold', spy_fold)
        patch.setattr(RotNet, 'loss', spy_loss)


@pytest.fixture
def spy(monkeypatch):
    return Spy(monkeypatch)


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing takes longest. What was to be drawn."""
    calls = []

    def note(*args):
        calls.append(args)
        return Figure((1, 1))

    monkeypatch.setattr(rotation_noise, 'plot_orientation', note)
    return calls


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run from beginning to end: work dir, what it trained on, result."""
    folder = tmp_path_factory.mktemp('whole')
    config = write_config(folder / 'config.py')
    with pytest.MonkeyPatch.context() as patch:
        spy = Spy(patch)
        done = estimate(config, folder / 'work')
    return folder / 'work', spy.seen, done


def pixels_of(data):
    """Key -> pixels, in the order of a dataset with its images."""
    return {
        key: data.get_data_info(i)['img']
        for i, key in enumerate(image_keys(data))
    }


def digits():
    return pixels_of(Digits(size=16, indices=range(100, 100 + COUNT)))


def held_out(keys, folds=FOLDS, seed=SEED):
    """The images of each fold, as mmpretrain divides them."""
    order = list(range(len(keys)))
    np.random.default_rng(seed).shuffle(order)
    ends = [len(keys) * fold // folds for fold in range(folds + 1)]
    return [
        [keys[i] for i in order[ends[fold] : ends[fold + 1]]]
        for fold in range(folds)
    ]


def scores(config, checkpoint, images, rotations=(0, 90, 180, 270)):
    """Class probabilities (N, R, R) of each image's copies."""
    init_default_scope('mmpretrain')
    model = MODELS.build(Config.fromfile(config).model).eval()
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)
    model.load_state_dict(state['state_dict'])
    found = []
    for image in images:
        copies = [
            np.rot90(image, angle // 90).transpose(2, 0, 1)
            for angle in rotations
        ]
        images = (torch.from_numpy(np.stack(copies).copy()) - 78.0) / 87.0
        with torch.no_grad():
            maps = model.backbone(images)[-1].double().numpy()
        linear = model.head.fc
        logits = maps.mean((2, 3)) @ linear.weight.detach().double().numpy().T
        logits += linear.bias.detach().double().numpy()
        e = np.exp(logits - logits.max(1, keepdims=True))
        found.append(e / e.sum(1, keepdims=True))
    return np.array(found)


def state_of(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_the_file(whole):
    work_dir, _, done = whole
    noise = RotationNoise.load(work_dir / 'rotation_noise.npz')
    assert noise.keys == list(digits())
    assert noise.probabilities.shape == (COUNT, 4)
    assert noise.probabilities.min() >= 0
    assert noise.probabilities.max() <= 1
    # rows differ, none was left out
    assert len(np.unique(noise.probabilities, axis=0)) == COUNT
    assert noise.rotations == (0, 90, 180, 270)
    assert noise.made_by['folds'] == FOLDS
    assert noise.made_by['seed'] == SEED
    assert noise.made_by['config'].endswith('config.py')
    assert noise.made_by['cfg_options'] == {}
    # the image is one, and the files are named
    page = imread(work_dir / 'orientation.png')
    assert np.ptp(page) > 0.5
    assert done.file == work_dir / 'rotation_noise.npz'
    assert done.figure == work_dir / 'orientation.png'
    np.testing.assert_array_equal(
        done.noise.probabilities, noise.probabilities
    )
    assert done.summary.startswith(f'{COUNT} images, {FOLDS} folds')
    # nothing unfinished is left
    assert {path.name for path in work_dir.iterdir()} == {
        *('fold0', 'fold1', 'estimation.json'),
        *('rotation_noise.npz', 'orientation.png', '.mm_rotssl_output'),
    }


def test_no_image_is_judged_by_a_network_that_has_seen_it(whole):
    work_dir, seen, _ = whole
    images = digits()
    noise = RotationNoise.load(work_dir / 'rotation_noise.npz')
    rows = dict(zip(noise.keys, noise.probabilities, strict=True))
    parts = held_out(list(images))
    assert sorted(key for part in parts for key in part) == sorted(images)
    for fold, part in enumerate(parts):
        # in each epoch all the others, once
        others = [key for key in images if key not in part]
        assert sorted(seen[fold]) == sorted(others * EPOCHS)

        folder = work_dir / f'fold{fold}'
        _, checkpoint = sorted(folder.glob('epoch_*.pth'))
        assert checkpoint.name == f'epoch_{EPOCHS}.pth'
        want = scores(
            work_dir.parent / 'config.py',
            checkpoint,
            [images[key] for key in part],
        )
        np.testing.assert_allclose(
            np.stack([rows[key] for key in part]), want[:, :, 0], atol=2e-6
        )
        hits = want.argmax(2) == np.arange(4)
        assert noise.made_by['rotation_accuracy'][fold] == pytest.approx(
            100 * hits.mean()
        )
    # the other network says something else
    wrong = scores(
        work_dir.parent / 'config.py',
        work_dir / f'fold0/epoch_{EPOCHS}.pth',
        [images[key] for key in parts[1]],
    )
    got = np.stack([rows[key] for key in parts[1]])
    assert np.abs(got - wrong[:, :, 0]).max() > 1e-3


@pytest.mark.usefixtures('undrawn')
def test_a_second_run_does_nothing_again(whole, config, spy):
    work_dir = config.parent / 'work'
    shutil.copytree(whole[0], work_dir)
    before = state_of(work_dir)
    want = RotationNoise.load(work_dir / 'rotation_noise.npz')
    estimate(config, work_dir)
    assert spy.steps == 0
    after = state_of(work_dir)
    assert set(after) == set(before)
    for name in before:
        # the results are written anew
        if name not in ('rotation_noise.npz', 'orientation.png'):
            assert after[name] == before[name], name
    again = RotationNoise.load(work_dir / 'rotation_noise.npz')
    assert again.keys == want.keys
    made_by = dict(want.made_by, config=str(config))
    assert again.made_by == made_by
    np.testing.assert_array_equal(again.probabilities, want.probabilities)


# 20 or 21 images of the other fold, in batches of 7
STEPS = 3


@pytest.mark.usefixtures('undrawn')
@pytest.mark.parametrize(
    ('stop_after', 'left'),
    # in the second epoch; in the first, of which nothing is saved
    [(STEPS + 1, (EPOCHS - 1) * STEPS), (2, EPOCHS * STEPS)],
)
def test_an_interrupted_run_goes_on(
    whole, config, monkeypatch, stop_after, left
):
    work_dir = config.parent / 'work'
    # the first fold is done
    shutil.copytree(whole[0] / 'fold0', work_dir / 'fold0')
    shutil.copy(whole[0] / 'estimation.json', work_dir)
    before = state_of(work_dir / 'fold0')
    with monkeypatch.context() as patch:
        spy = Spy(patch, stop_after)
        with pytest.raises(KeyboardInterrupt):
            estimate(config, work_dir)
    assert set(spy.seen) == {1}
    assert not (work_dir / 'fold1/rotation_noise.npz').exists()
    assert not (work_dir / 'rotation_noise.npz').exists()
    assert (work_dir / 'fold1/epoch_1.pth').exists() == (stop_after > STEPS)

    spy = Spy(monkeypatch)
    estimate(config, work_dir)
    assert state_of(work_dir / 'fold0') == before
    # only what was not done
    assert spy.steps == left
    assert set(spy.seen) == {1}
    got = RotationNoise.load(work_dir / 'rotation_noise.npz')
    want = RotationNoise.load(whole[0] / 'rotation_noise.npz')
    assert got.keys == want.keys
    np.testing.assert_array_equal(got.probabilities, want.probabilities)
    accuracy = 'rotation_accuracy'
    assert got.made_by[accuracy] == want.made_by[accuracy]


@pytest.mark.usefixtures('undrawn')
def test_a_run_that_was_stopped_before_it_predicted(whole, config, spy):
    work_dir = config.parent / 'work'
    shutil.copytree(whole[0], work_dir)
    for name in ('rotation_noise.npz', 'fold0/rotation_noise.npz'):
        (work_dir / name).unlink()
    # the checkpoint is named with its path
    (work_dir / 'fold0/last_checkpoint').write_text(
        str(work_dir / f'fold0/epoch_{EPOCHS}.pth')
    )
    estimate(config, work_dir)
    assert spy.steps == 0
    got = RotationNoise.load(work_dir / 'rotation_noise.npz')
    want = RotationNoise.load(whole[0] / 'rotation_noise.npz')
    np.testing.assert_array_equal(got.probabilities, want.probabilities)


@pytest.mark.usefixtures('undrawn')
@pytest.mark.parametrize(
    ('cut_off', 'steps'),
    [
        # the file of a fold is written again from its last checkpoint
        (['rotation_noise.npz'], 0),
        # the pointer to the newest checkpoint is not needed
        (['rotation_noise.npz', 'last_checkpoint'], 0),
        # an epoch is done again
        (['rotation_noise.npz', f'epoch_{EPOCHS}.pth'], STEPS),
        # the fold is done again
        (
            ['rotation_noise.npz']
            + [f'epoch_{i}.pth' for i in range(1, EPOCHS + 1)],
            EPOCHS * STEPS,
        ),
    ],
)
@pytest.mark.parametrize('kept', [0, 0.5])
def test_what_was_killed_while_it_was_written(
    whole, config, spy, cut_off, steps, kept
):
    work_dir = config.parent / 'work'
    shutil.copytree(whole[0], work_dir)
    for name in cut_off:
        path = work_dir / 'fold1' / name
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
    estimate(config, work_dir)
    assert spy.steps == steps
    got = RotationNoise.load(work_dir / 'rotation_noise.npz')
    want = RotationNoise.load(whole[0] / 'rotation_noise.npz')
    np.testing.assert_array_equal(got.probabilities, want.probabilities)


@pytest.mark.usefixtures('undrawn')
def test_a_damaged_description(whole, config, spy):
    work_dir = config.parent / 'work'
    shutil.copytree(whole[0], work_dir)
    (work_dir / 'estimation.json').write_text('{"images": ')
    message = fails(config, work_dir)
    assert 'estimation.json" is damaged' in message
    assert 'Name another --work-dir, or delete it.' in message
    assert spy.steps == 0
    # nothing was done under it
    for fold in range(FOLDS):
        shutil.rmtree(work_dir / f'fold{fold}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotation_noise, '_estimate_fold', stop)
        with pytest.raises(KeyboardInterrupt):
            estimate(config, work_dir)
    assert json.loads((work_dir / 'estimation.json').read_text())['seed'] == 4


def stop(*_):
    raise KeyboardInterrupt


def fails(*args, **kwargs):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        estimate(*args, **kwargs)
    return str(caught.value)


def test_another_estimation_in_the_same_folder(whole, spy):
    work_dir, *_ = whole
    before = state_of(work_dir)
    message = fails(
        work_dir.parent / 'config.py',
        work_dir,
        folds=3,
        cfg_options={'train_dataloader.dataset.indices': 30},
    )
    assert f'"{work_dir}" holds an estimation with another ' in message
    # what differs, and nothing else
    assert 'another images, folds, train_dataloader. Name another' in message
    assert spy.steps == 0
    assert state_of(work_dir) == before


def test_what_makes_another_estimation(config, tmp_path):
    keys = ['a', 'b', 'c']
    rest = (2, 0, tmp_path / 'w')
    cfg = Config.fromfile(config)
    check = rotation_noise._check_work_dir
    check(cfg, keys, *rest)
    check(Config.fromfile(config), keys, *rest)
    for other in (keys[:2], ['a', 'c', 'b'], ['a', 'b', 'd']):
        with pytest.raises(ValueError, match=r'with another images\. Name'):
            check(cfg, other, *rest)
    assert (
        json.loads((tmp_path / 'w/estimation.json').read_text())['images']
        == f'3, {fingerprint(keys)}'
    )
    with pytest.raises(ValueError, match=r'with another folds, seed\. Name'):
        check(cfg, keys, 3, 1, rest[-1])
    for name, key, value in (
        ('model', 'model.backbone.base_channels', 12),
        ('train_dataloader', 'train_dataloader.batch_size', 8),
        ('optim_wrapper', 'optim_wrapper.optimizer.lr', 0.2),
        ('param_scheduler', 'param_scheduler.0.T_max', 3),
        ('train_cfg', 'train_cfg.max_epochs', 3),
        ('load_from', 'load_from', 'weights.pth'),
        (
            'pipeline of validation',
            'val_dataloader.dataset.pipeline.0.algorithm_keys',
            ['a', 'b'],
        ),
    ):
        changed = Config.fromfile(config)
        changed.merge_from_dict({key: value})
        with pytest.raises(ValueError, match=rf'another {name}\. Name anoth'):
            check(changed, keys, *rest)


NO_PIPELINE = """
val_dataloader = val_evaluator = val_cfg = test_pipeline = None
"""
REPEATED = """
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=2,
    dataset=dict(type='mm_rotssl.Digits', size=16, indices=30,
                 pipeline=[dict(type='PackInputs')])))
"""
NO_ROTATIONS = """
model = dict(
    _delete_=True, type='SimSiam',
    backbone=dict(type='mm_rotssl.NIN', base_channels=6),
    neck=dict(type='NonLinearNeck', in_channels=6, hid_channels=6,
              out_channels=6),
    head=dict(type='LatentPredictHead',
              loss=dict(type='CosineSimilarityLoss'),
              predictor=dict(type='NonLinearNeck', in_channels=6,
                             hid_channels=6, out_channels=6)))
"""
BY_ITERATION = """
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=4, val_interval=4)
"""
NO_INDEX = """
val_dataloader = dict(dataset=dict(
    pipeline=[dict(type='PackInputs', meta_keys=('img_shape', ))]))
"""
NEVER_UPRIGHT = 'model = dict(rotations=(90, 270))'
FEW = 'train_dataloader = dict(dataset=dict(indices=3))'


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (NO_PIPELINE, 'add test_pipeline=['),
        (REPEATED, 'train_dataloader.dataset is a RepeatDataset'),
        (REPEATED, 'give the dataset inside it'),
        (NEVER_UPRIGHT, '(90, 270) holds no 0'),
        (NO_ROTATIONS, 'model.type=SimSiam predicts no rotations'),
        (BY_ITERATION, 'train_cfg has no max_epochs'),
        (NO_INDEX, 'sample_idx'),
        (FEW, 'folds=4: there are only 3 images'),
    ],
)
def test_errors_say_what_to_do(config, tmp_path, spy, more, said):
    write_config(config, more)
    assert said in fails(config, tmp_path / 'work', folds=4)
    # before anything was done
    assert spy.steps == 0
    assert not (tmp_path / 'work').exists()


def test_one_fold_is_none(config):
    assert fails(config, None, folds=1) == 'folds=1 must be at least 2.'


def test_default_folder(config, tmp_path, monkeypatch):
    """It bears the name of the config."""
    monkeypatch.chdir(tmp_path)
    folders = []
    monkeypatch.setattr(
        rotation_noise,
        '_check_work_dir',
        lambda *args: folders.append(args[-1]) or 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        estimate(config.rename('net_b1.5.py'), None)
    assert folders == [Path('work_dirs/rotation_noise/net_b1.5')]


def test_images_are_judged_without_augmentation(config):
    cfg = Config.fromfile(config)
    plain = [dict(type='PackInputs')]
    train = cfg.train_dataloader.dataset.pipeline.copy()
    assert rotation_noise._plain_dataset(cfg)['pipeline'] == plain
    # the rest is that of training, which stays as it is
    assert rotation_noise._plain_dataset(cfg)['split'] == 'train'
    assert cfg.train_dataloader.dataset.pipeline == train
    cfg.test_pipeline = [dict(type='A'), *plain]
    assert rotation_noise._plain_pipeline(cfg) == plain
    cfg.val_dataloader = None
    assert rotation_noise._plain_pipeline(cfg) == [dict(type='A'), *plain]


FOLDER = """
default_scope = 'mmpretrain'
model = dict(
    type='mm_rotssl.RotNet',
    rotations=(180, 0),
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[78.0] * 3, std=[87.0] * 3),
    backbone=dict(type='mm_rotssl.NIN', num_stages=3, base_channels=6),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=6))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05))
train_cfg = dict(by_epoch=True, max_epochs=1)
test_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mm_rotssl.ImageFolder',
        data_root={root!r},
        pipeline=test_pipeline))
"""


@pytest.mark.usefixtures('undrawn')
def test_a_broken_image_has_the_probability_0(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'ö').mkdir(parents=True)
    images = {
        f'{"ö/" if i % 2 else ""}{i:02}.png': np.random.default_rng(
            i
        ).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        for i in range(11)
    }
    for key, image in images.items():
        (folder / key).write_bytes(cv2.imencode('.png', image)[1].tobytes())
    broken = folder / 'ö/03.png'
    broken.write_bytes(broken.read_bytes()[:300])
    config = tmp_path / 'photos.py'
    config.write_text(FOLDER.format(root=str(folder)))
    work_dir = tmp_path / 'work'
    # no upright copy first, and three folds of different sizes
    estimate(config, work_dir, folds=3, seed=0)
    noise = RotationNoise.load(work_dir / 'rotation_noise.npz')
    keys = sorted(key for key in images if '/' not in key)
    keys += sorted(key for key in images if '/' in key)
    assert sorted(noise.keys) == sorted(keys)
    assert noise.rotations == (180, 0)
    rows = dict(zip(noise.keys, noise.probabilities.tolist(), strict=True))
    assert rows.pop('ö/03.png') == [0, 0]
    assert noise.made_by['not_read'] == ['ö/03.png']
    for fold, part in enumerate(held_out(noise.keys, 3, 0)):
        part = [key for key in part if key in rows]
        want = scores(
            config,
            work_dir / f'fold{fold}/epoch_1.pth',
            [images[key] for key in part],
            (180, 0),
        )
        # "un-rotated" is the second class here
        np.testing.assert_allclose(
            [rows[key] for key in part], want[:, :, 1], atol=2e-6
        )


def made(count=40, rotations=(0, 90, 180, 270), seed=0):
    rng = np.random.default_rng(seed)
    return RotationNoise(
        list(digits())[:count],
        rng.random((count, len(rotations))).astype(np.float32) ** 0.5,
        rotations,
        dict(rotation_accuracy=[50.25, 61.5, 70.0], not_read=[]),
    )


@pytest.mark.parametrize('rotations', [(0, 90, 180, 270), (90, 0)])
def test_summary(rotations):
    gamma = 2
    noise = made(40, rotations)
    # a tie has no clear orientation, a weight of 0.5 is not below it
    noise.probabilities[0] = 0.5
    unclear, weights = 0, []
    for row in noise.probabilities.tolist():
        scores = dict(zip(rotations, row, strict=True))
        upright = scores.pop(0)
        unclear += max(scores.values()) >= upright
        weights += [1 - p**gamma for p in scores.values()]
    count = len(weights)
    low, lowest = (
        100 * sum(w < bound for w in weights) / count for bound in (0.5, 0.1)
    )
    assert 0 < lowest < low < 100
    text = rotation_noise._summary(noise)
    assert text.startswith('40 images, 3 folds. ')
    chance = 100 // len(rotations)
    assert f': 60.6 % (50.2, 61.5, 70.0; chance {chance}).' in text
    assert f'\n{100 * unclear / 40:.1f} % have no clear' in text
    assert f'(guessing: {100 - chance})' in text
    found = re.search(
        r'1 - p\^(\S+): mean (\S+); below 0\.5: (\S+) %; below 0\.1: (\S+) %',
        text,
    )
    assert [float(group) for group in found.groups()] == pytest.approx(
        [
            gamma,
            round(sum(weights) / count, 3),
            round(low, 1),
            round(lowest, 1),
        ],
        abs=1e-9,
    )


def test_summary_by_folder_without_what_was_not_read():
    keys = ['a/1', 'a/2', 'b/1', 'b/2', 'b/3']
    clear, unclear, nothing = [1, 0, 0, 0], [0.2, 0, 0.5, 0], [0, 0, 0, 0]
    rows = [clear, unclear, clear, clear, nothing]
    accuracy = dict(rotation_accuracy=[50.0])
    noise = RotationNoise(
        keys,
        np.array(rows, np.float32),
        (0, 90, 180, 270),
        dict(accuracy, not_read=['b/3']),
    )
    text = rotation_noise._summary(noise)
    assert text.startswith('4 images, ')
    assert '\n25.0 % have no clear' in text
    assert '\n  by folder: b 0, a 50\n' in text
    assert text.endswith(
        '1 images could not be read and are left out; '
        'they have the weight 1: b/3'
    )
    # too many folders say nothing
    many = [f'{i}/1' for i in range(21)]
    noise = RotationNoise(
        many,
        np.zeros((21, 4), np.float32),
        noise.rotations,
        dict(accuracy, not_read=[]),
    )
    assert 'by folder' not in rotation_noise._summary(noise)
    assert 'could not be read' not in rotation_noise._summary(noise)


IN_MEMORY = """
custom_imports = dict(imports=['in_memory'])
train_dataloader = dict(
    dataset=dict(_delete_=True, type='InMemory', pipeline=[
        dict(type='PackInputs')]))
"""


@pytest.mark.usefixtures('undrawn')
def test_equal_images_in_memory(config, tmp_path, monkeypatch):
    """They have one name, and in the file one row."""
    (tmp_path / 'in_memory.py').write_text(
        'import numpy as np\n'
        'from mmengine.dataset import BaseDataset\n'
        'from mm_rotssl.registry import DATASETS\n'
        '@DATASETS.register_module()\n'
        'class InMemory(BaseDataset):\n'
        '    def load_data_list(self):\n'
        '        numbers = [*range(12), 3, 3, 7]\n'
        '        return [dict(img=np.random.RandomState(i).randint('
        '0, 256, (16, 16, 3), np.uint8)) for i in numbers]\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    write_config(
        config, IN_MEMORY.replace("'InMemory'", "'mm_rotssl.InMemory'")
    )
    work_dir = tmp_path / 'work'
    estimate(config, work_dir)
    noise = RotationNoise.load(work_dir / 'rotation_noise.npz')
    assert len(noise.keys) == 12
    assert all(key.startswith('pixels:') for key in noise.keys)
    # once more, from the folds that are done
    estimate(config, work_dir)


def test_the_figure_shows_the_least_and_the_most_clear(tmp_path, undrawn):
    noise = made()
    data = Digits(
        size=16,
        indices=range(100, 140),
        pipeline=[dict(type='mmpretrain.PackInputs')],
    )
    path = tmp_path / 'w/orientation.png'
    assert rotation_noise._draw(noise, data, None, path) == path
    assert path.is_file()
    ((groups, rotations, title),) = undrawn
    assert rotations == noise.rotations
    margins = {
        i: row[0] - max(row[1:])
        for i, row in enumerate(noise.probabilities.tolist())
    }
    unclear = sum(margin <= 0 for margin in margins.values())
    assert '40 images' in title
    assert f'{100 * unclear / 40:.1f} %' in title
    order = sorted(margins, key=margins.get)
    for group, want in zip(groups.values(), (order, order[::-1]), strict=True):
        assert len(group) == 24
        for (image, row), i in zip(group, want, strict=False):
            assert np.array_equal(image, data.get_data_info(i)['img'])
            np.testing.assert_array_equal(row, noise.probabilities[i])
    assert [name.split()[0] for name in groups] == ['Most', 'Least']


def estimate_on_one_of_two(rank, config, work_dir):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_ADDR='-'
    )
    with pytest.MonkeyPatch.context() as patch:
        # both are connected
        patch.setattr(torch.distributed, 'init_process_group', lambda **_: 0)
        patch.setattr(
            rotation_noise, 'plot_orientation', lambda *_: Figure((1, 1))
        )
        done = estimate(config, work_dir, launcher='pytorch')
    return torch.tensor(0 if done is None else len(done.noise.keys))


def test_two_processes(config, tmp_path, monkeypatch):
    """Nothing is lost where the images are dealt out and padded."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    work_dir = tmp_path / 'work'
    counts = run_on_two(estimate_on_one_of_two, config, work_dir, timeout=240)
    # one of them tells what was found
    assert counts == [COUNT, 0]
    noise = RotationNoise.load(work_dir / 'rotation_noise.npz')
    keys = list(digits())
    assert noise.keys == keys
    images = digits()
    for fold, part in enumerate(held_out(keys, 2, SEED)):
        checkpoint = work_dir / f'fold{fold}/epoch_{EPOCHS}.pth'
        want = scores(config, checkpoint, [images[key] for key in part])
        got = [noise.probabilities[keys.index(key)] for key in part]
        np.testing.assert_allclose(got, want[:, :, 0], atol=2e-6)
