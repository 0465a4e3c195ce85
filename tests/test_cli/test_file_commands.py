"""The commands that write files, with what they hand on and print."""

import argparse
import functools
import inspect
import re
import runpy
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mm_rotssl import apis
from mm_rotssl.cli import convert_mmselfsup, sample_patches
from mm_rotssl.converters.mmselfsup import LABELS, convert_checkpoint_file
from mm_rotssl.datasets import RotationNoise
from mm_rotssl.datasets.exemplar.seed_patch_sampling import ENERGIES
from mm_rotssl.registry import MODELS

TOOLS = Path(__file__).parents[2] / 'tools'
FUNCTIONS = {
    'convert-mmselfsup': convert_checkpoint_file,
    'digit-scenes': apis.write_digit_scenes,
    'estimate-noise': apis.estimate_rotation_noise,
    'export': apis.export,
    'sample-patches': apis.write_seed_patches,
    'sort': apis.sort_images,
}
# that are something else on the command line: cuda if there is one, a list
# of words, and another function
OTHERWISE = {'device', 'cfg_options', 'config'}


@pytest.mark.parametrize('command', FUNCTIONS)
def test_defaults_are_those_of_the_function(command):
    module = import_module(f'mm_rotssl.cli.{command.replace("-", "_")}')
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    names = {'from_version': 'version'}
    options = {
        names.get(action.dest, action.dest): action.default
        for action in parser._actions
        if action.option_strings
        and not action.required
        and action.dest not in ('help', 'local_rank')
    }
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(
            FUNCTIONS[command]
        ).parameters.items()
        if parameter.default is not parameter.empty
    }
    for name in OTHERWISE:
        options.pop(name, None)
        defaults.pop(name, None)
    assert options == defaults


def test_choices_are_what_the_functions_know():
    assert tuple(ENERGIES) == sample_patches.ENERGIES
    assert tuple(LABELS) == convert_mmselfsup.VERSIONS


@pytest.mark.parametrize(
    ('script', 'command'),
    [
        ('dataset_converters/digit_scenes.py', 'digit-scenes'),
        ('estimate_rotation_noise.py', 'estimate-noise'),
        ('model_converters/export_backbone.py', 'export'),
        ('model_converters/mmselfsup_to_mm_rotssl.py', 'convert-mmselfsup'),
        ('sample_seed_patches.py', 'sample-patches'),
        ('sort_images.py', 'sort'),
    ],
)
def test_script_of_a_command(run_cli, monkeypatch, capsys, script, command):
    with pytest.raises(SystemExit):
        run_cli(command, '--help')
    expected = capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [script, '--help'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOLS / script), run_name='__main__')
    assert capsys.readouterr().out == expected
    assert f'usage: mm-rotssl {command} ' in expected


@pytest.fixture
def given(monkeypatch):
    """Replace a function; what it was called with, by name."""

    def replace(name, result=None, error=None):
        function = getattr(apis, name)
        calls = {}

        @functools.wraps(function)
        def note(*args, **kwargs):
            bound = inspect.signature(function).bind(*args, **kwargs)
            bound.apply_defaults()
            calls.update(bound.arguments)
            if error is not None:
                raise error
            return result

        monkeypatch.setattr(apis, name, note)
        return calls

    return replace


# --- what is handed on, and printed -----------------------------------------


def test_export(run_cli, given, capsys):
    export = apis.Export(
        120, 1.5e-7, dict(mean=[1.5], to_rgb=True), 'do\nthis'
    )
    calls = given('export', export)
    words = ['cfg.py', 'a.pth', '--to', 'timm', '--out', 'b/c.pth']
    run_cli('export', *words)
    assert calls == dict(
        config='cfg.py',
        checkpoint='a.pth',
        target='timm',
        out=Path('b/c.pth'),
        source='mm_rotssl',
        size=64,
        cfg_options={},
    )
    assert capsys.readouterr().out == (
        'tensors     120 matched\n'
        'features    differ by at most 1.5e-07 of the largest value\n'
        'images      mean=[1.5], to_rgb=True\n'
        'written     b/c.pth\n'
        '\n'
        'do\nthis\n'
    )
    words[3] = 'detectron2'
    run_cli(
        *('export', *words, '--from', 'torchvision', '--size', 32),
        *('--cfg-options', 'model.backbone.depth=18'),
    )
    assert calls['source'] == 'torchvision'
    assert calls['size'] == 32
    assert calls['cfg_options'] == {'model.backbone.depth': 18}
    assert 'could not be compared' in capsys.readouterr().out


def test_sort(run_cli, given, capsys, tmp_path):
    # longer than a line
    out = tmp_path / ('long ' * 30).strip()
    found = apis.SortedImages(7, 3, out / 'classes.csv', out / 'index.html')
    calls = given('sort_images', found)
    run_cli('sort', 'cfg.py', 'a.pth')
    assert calls == dict(
        config='cfg.py',
        checkpoint='a.pth',
        images=None,
        out=None,
        max_shown=36,
        device='cuda' if torch.cuda.is_available() else 'cpu',
        cfg_options={},
    )
    assert capsys.readouterr().out == (
        '7 images in 3 classes\n'
        f'table   {out}/classes.csv\n'
        f'page    {out}/index.html\n'
    )
    run_cli(
        *('sort', 'cfg.py', 'a.pth', '--images', 'photos', '--out', 'new'),
        *('--max-shown', 5, '--device', 'cpu'),
        *('--cfg-options', 'val_dataloader.num_workers=2'),
    )
    assert calls == dict(
        config='cfg.py',
        checkpoint='a.pth',
        images='photos',
        out=Path('new'),
        max_shown=5,
        device='cpu',
        cfg_options={'val_dataloader.num_workers': 2},
    )


def test_estimate_noise(run_cli, given, capsys):
    noise = RotationNoise([], np.zeros((0, 4)), (0, 90, 180, 270))
    found = apis.NoiseEstimate(noise, 'two\nlines', Path('a'), Path('b'))
    calls = given('estimate_rotation_noise', found)
    run_cli('estimate-noise', 'cfg.py')
    assert calls == dict(
        config='cfg.py',
        work_dir=None,
        folds=5,
        seed=0,
        launcher='none',
        cfg_options={},
    )
    assert capsys.readouterr().out == (
        'two\nlines\nprobabilities a\nfigure        b\n'
    )
    # not the first of several processes
    calls = given('estimate_rotation_noise')
    run_cli(
        *('estimate-noise', 'cfg.py', '--work-dir', 'w', '--folds', 2),
        *('--seed', 3, '--launcher', 'pytorch', '--cfg-options', 'a.b=c,d'),
    )
    assert calls == dict(
        config='cfg.py',
        work_dir=Path('w'),
        folds=2,
        seed=3,
        launcher='pytorch',
        cfg_options={'a.b': ['c', 'd']},
    )
    assert capsys.readouterr().out == ''


def test_sample_patches(run_cli, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        apis.seed_patches, '_draw', lambda *_: ('one', 'another')
    )
    rng = np.random.default_rng(0)
    for i in range(25):
        image = rng.integers(0, 256, (40, 50, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{i}.png'), image)
    out = tmp_path / 'a.npz'
    run_cli(
        *('sample-patches', tmp_path, '--out', out),
        *('--num-exemplars', 21, '--patch-size', 16, '--scales', 1, 0.64),
        *('--energy', 'gradient', '--max-per-image', 2, '--seed', 5),
    )
    found = apis.seed_patches.SeedPatches.load(out)
    assert found.patch_size == 16
    assert found.made_by == dict(
        num_exemplars=21,
        scales=[1.0, 0.64],
        energy='gradient',
        max_per_image=2,
        random_seed=5,
        images_looked_at=25,
    )
    large = (found.scales == 1).sum()
    assert capsys.readouterr().out.splitlines()[-4:] == [
        f'21 seed patches from {len(found.keys)} of 25 images, by '
        f'scale 1: {large}, 0.64: {21 - large}',
        str(out),
        'one',
        'another',
    ]


def test_options_of_a_config(run_cli, given):
    seed_patches = apis.seed_patches.SeedPatches(
        *([], np.zeros((0, 2)), np.zeros(0, int)),
        *(np.zeros((0, 2)), np.zeros(0), 8, dict(images_looked_at=0)),
    )
    calls = given('write_seed_patches', (seed_patches,))
    run_cli('sample-patches', 'cfg.py', '--cfg-options', 'a.b=1', 'c=d')
    assert calls['images'] == 'cfg.py'
    assert calls['cfg_options'] == {'a.b': 1, 'c': 'd'}


def test_digit_scenes(run_cli, tmp_path, capsys):
    pytest.importorskip('pycocotools')
    words = ['--train', 3, '--val', 2, '--size', 64, '--seed', 5]
    run_cli('digit-scenes', tmp_path / 'a', *words)
    written = sorted((tmp_path / 'a').glob('coco/*2017/*.jpg'))
    assert len(written) == 5
    assert cv2.imread(str(written[0])).shape == (64, 64, 3)
    digits = [
        (tmp_path / f'a/coco/annotations/instances_{split}2017.json')
        .read_text()
        .count('"image_id"')
        for split in ('train', 'val')
    ]
    printed = [
        f'train: 3 scenes of {digits[0]} digits',
        f'val: 2 scenes of {digits[1]} digits',
    ]
    assert capsys.readouterr().out.splitlines() == [
        *printed,
        str(tmp_path / 'a/coco'),
        str(tmp_path / 'a/VOCdevkit'),
    ]
    preview = tmp_path / 'page.png'
    run_cli(
        *('digit-scenes', tmp_path / 'b', *words),
        *('--unlabeled', 3, '--preview', preview),
    )
    assert capsys.readouterr().out.splitlines() == [
        *printed,
        str(tmp_path / 'b/coco'),
        str(tmp_path / 'b/VOCdevkit'),
        str(tmp_path / 'b/unlabeled'),
        str(preview),
    ]
    assert len(np.unique(cv2.imread(str(preview)))) > 99
    # the same random seed gives the same images
    for path in written:
        again = tmp_path / 'b' / path.relative_to(tmp_path / 'a')
        assert again.read_bytes() == path.read_bytes()


def test_convert_mmselfsup(run_cli, tmp_path, capsys):
    source, target = tmp_path / 'a.pth', tmp_path / 'b.pth'
    weights = {
        'backbone.conv1.weight': torch.ones(2),
        'head.fc_cls.weight': torch.arange(4.0).view(4, 1),
        'head.fc_cls.bias': torch.zeros(4),
    }
    torch.save(weights, source)
    run_cli('convert-mmselfsup', source, target, '--from-version', '1.x')
    converted = torch.load(target, weights_only=True)['state_dict']
    assert converted['head.fc.weight'].flatten().tolist() == [0, 3, 2, 1]
    assert capsys.readouterr().out == f'Written: {target}\n'
    # which version it is of is not known
    with pytest.raises(SystemExit) as error:
        run_cli('convert-mmselfsup', source, tmp_path / 'c.pth')
    assert str(error.value).startswith(f'Error: {source}: The checkpoint does')

    source, target = tmp_path / 'a.py', tmp_path / 'b.py'
    source.write_text(
        "model = dict(type='RotationPred', backbone=dict(type='ResNet', "
        "depth=18), head=dict(type='ClsHead', with_avg_pool=True, "
        "in_channels=512, num_classes=4))\nload_from = 'old.pth'\n"
    )
    run_cli('convert-mmselfsup', '--config', source, target)
    assert "'mm_rotssl.RotNet'" in target.read_text()
    remark, written = capsys.readouterr().out.splitlines()
    assert remark.startswith('load_from="old.pth"')
    assert written == f'Written: {target}'


def test_export_of_a_checkpoint(run_cli, tmp_path, capsys):
    """All the way, with a network of a few weights."""
    config = tmp_path / 'cfg.py'
    backbone = "type='mm_rotssl.ExemplarNet', arch='4c3-6c3'"
    config.write_text(
        f'model = dict(backbone=dict({backbone}))\n'
        'data_preprocessor = dict(mean=[1.5], std=[2.5])\n'
    )
    weights = MODELS.build(eval(f'dict({backbone})')).state_dict()
    checkpoint, out = tmp_path / 'a.pth', tmp_path / 'b.pth'
    torch.save({f'backbone.{k}': v for k, v in weights.items()}, checkpoint)
    words = ['export', config, checkpoint, '--to', 'mmpretrain', '--out', out]
    run_cli(*words)
    assert torch.load(out, weights_only=True).keys() == weights.keys()
    text = capsys.readouterr().out
    assert 'images      mean=[1.5], std=[2.5]\n' in text
    assert (
        '# The other settings of the backbone, and data_preprocessor, as in '
        f'{config}.' in text
    )
    # the config is another one
    with pytest.raises(SystemExit, match=r'^Error: The backbone of ".*a\.pth'):
        run_cli(*words, '--cfg-options', 'model.backbone.arch=4c3-8c3')


# --- what is refused --------------------------------------------------------


@pytest.mark.parametrize(
    'error', [ValueError('a reason'), FileNotFoundError('a reason')]
)
@pytest.mark.parametrize(
    ('function', 'words'),
    [
        ('write_digit_scenes', ['digit-scenes', 'a']),
        ('estimate_rotation_noise', ['estimate-noise', 'a.py']),
        ('sort_images', ['sort', 'a.py', 'a.pth']),
        ('write_seed_patches', ['sample-patches', 'a']),
    ],
)
def test_errors(run_cli, given, function, words, error):
    given(function, error=error)
    with pytest.raises(SystemExit, match=r'^Error: a reason$'):
        run_cli(*words)


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['sample-patches', 'a', '--energy', 'other'], 'band_pass.*gradient'),
        (['sample-patches', 'a', '--scales'], '--scales'),
        (['export', 'a', 'b', '--out', 'c', '--to', 'other'], 'mmdet.*timm'),
        (['export', 'a', 'b', '--size', '0'], '--size: 0 must be a positive'),
        (['export', 'a', 'b', '--out', 'c'], 'required: --to'),
        (['convert-mmselfsup', 'a', 'b', '--from-version', '2'], '0.x.*1.x'),
    ],
)
def test_arguments_that_make_no_sense(run_cli, capsys, words, said):
    with pytest.raises(SystemExit) as error:
        run_cli(*words)
    assert error.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def test_without_pycocotools(run_cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)
    with pytest.raises(SystemExit, match=r'^Error: .*install pycocotools'):
        run_cli('digit-scenes', tmp_path / 'a', '--train', 1)
    assert not (tmp_path / 'a').exists()
