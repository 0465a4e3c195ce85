"""The commands `train` and `test`, and the scripts for clusters."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mm_rotssl import apis
from mm_rotssl.cli import main

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / 'configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py'

# A run of a second or so; it keeps the name of the config in other ways.
TINY = """
_base_ = ['{base}']
model = dict(
    backbone=dict(base_channels={width}, num_stages=3, out_indices=(0, 1, 2)),
    head=dict(in_channels={width}))
train_cfg = dict(max_epochs=1)
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=True)]
train_dataloader = dict(batch_size=16, dataset=dict(indices=48))
val_cfg = None
val_dataloader = None
val_evaluator = None
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / 'tiny.py'
    path.write_text(TINY.format(base=DIGITS, width=6))
    return path


def call(monkeypatch, command, *words):
    monkeypatch.setattr(sys, 'argv', ['mm-rotssl', *map(str, words)])
    main(command)


def load(monkeypatch, *words):
    """The config that the command would train."""
    configs = []
    with monkeypatch.context() as patch:
        patch.setattr('mm_rotssl.apis.train_model', configs.append)
        call(patch, 'train', *words)
    return configs[0]


def run(*words, script='train.py', expect=0, **environ):
    command = [sys.executable] if script.endswith('.py') else []
    result = subprocess.run(
        [*command, str(ROOT / 'tools' / script), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
            'PYTHON': sys.executable,
            **environ,
        },
    )
    text = result.stdout + result.stderr
    assert (result.returncode == 0) == (expect == 0), text
    return text


def weights(path):
    return torch.load(path, map_location='cpu', weights_only=False)[
        'state_dict'
    ]


def test_missing_files(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=r'config file "gone\.py".*looked'):
        load(monkeypatch, 'gone.py')
    gone = tmp_path / 'gone.pth'
    for words in (['--resume', gone], ['--cfg-options', f'load_from={gone}']):
        with pytest.raises(SystemExit, match=r'checkpoint ".*gone\.pth" does'):
            load(monkeypatch, DIGITS, *words)


def test_work_dir(monkeypatch, tiny):
    name = 'work_dirs/rotnet_nin-w24_1xb128-15e_digits'
    assert load(monkeypatch, DIGITS).work_dir == name
    assert load(monkeypatch, DIGITS, '--work-dir', 'a').work_dir == 'a'
    tiny.write_text(tiny.read_text() + 'work_dir = "b"\n')
    assert load(monkeypatch, tiny).work_dir == 'b'
    assert load(monkeypatch, tiny, '--work-dir', 'a').work_dir == 'a'


def test_resume_auto(monkeypatch, tmp_path, tiny):
    start = tmp_path / 'start.pth'
    start.write_bytes(b'')
    words = [tiny, '--work-dir', tmp_path / 'w', '--cfg-options']
    words += [f'load_from={start}']
    # nothing there yet: the weights to begin with are kept
    cfg = load(monkeypatch, *words, '--resume')
    assert not cfg.resume
    assert cfg.load_from == str(start)
    newest = tmp_path / 'w' / 'epoch_1.pth'
    newest.parent.mkdir()
    torch.save({}, newest)
    (tmp_path / 'w' / 'last_checkpoint').write_text(str(newest))
    for value in ([], ['auto']):
        cfg = load(monkeypatch, *words, '--resume', *value)
        assert cfg.resume
        assert cfg.load_from == str(newest)
    cfg = load(monkeypatch, *words, '--resume', start)
    assert cfg.resume
    assert cfg.load_from == str(start)


def test_resume_of_damaged_checkpoints(monkeypatch, tmp_path, tiny):
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(
        SystemExit, match=r'Error: .* names no checkpoint, and'
    ):
        load(monkeypatch, tiny, '--work-dir', tmp_path, '--resume')


def test_divergence_ends_with_one_line(monkeypatch, tmp_path, tiny):
    words = [tiny, '--work-dir', tmp_path, '--epochs', 9, '--lr', 1e30]
    with pytest.raises(SystemExit) as info:
        call(monkeypatch, 'train', *words)
    assert re.fullmatch(
        r'Error: Training has diverged\. loss.* is not finite since step \d '
        r'\(epoch 1\); .* Nothing was saved\.',
        info.value.code,
    )
    assert not list(tmp_path.rglob('*.pth'))


def test_full_disk_ends_with_one_line(monkeypatch, tmp_path, tiny):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # more than the log, less than a checkpoint
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(SystemExit) as info:
            call(monkeypatch, 'train', tiny, '--work-dir', tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    path = tmp_path / 'epoch_1.pth'
    want = f'Error: "{path}" can\'t be written: File too large.'
    assert info.value.code == want
    assert not [p for p in tmp_path.rglob('*') if '.pth' in p.name]
    assert not (tmp_path / 'last_checkpoint').exists()


def test_amp(monkeypatch):
    monkeypatch.setattr('mm_rotssl.apis.train.get_device', lambda: 'cpu')
    with pytest.raises(SystemExit, match=r'--amp: .* needs a GPU'):
        load(monkeypatch, DIGITS, '--amp')
    monkeypatch.setattr('mm_rotssl.apis.train.get_device', lambda: 'cuda')
    cfg = load(monkeypatch, DIGITS, '--amp')
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.optim_wrapper.optimizer.lr == 0.1


def test_no_validate(monkeypatch):
    cfg = load(monkeypatch, DIGITS, '--no-validate')
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None


@pytest.mark.parametrize(
    ('batch_size', 'factor'), [(128, 1.0), (256, 2.0), (32, 0.25)]
)
def test_auto_scale_lr(monkeypatch, tmp_path, tiny, batch_size, factor):
    words = [tiny, '--work-dir', tmp_path, '--cfg-options']
    words += [f'train_dataloader.batch_size={batch_size}']
    assert not load(monkeypatch, *words).auto_scale_lr.get('enable')
    cfg = load(monkeypatch, *words, '--auto-scale-lr')
    runner = Runner.from_cfg(cfg)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(wrapper, runner.auto_scale_lr)
    assert wrapper.get_lr()['lr'] == [pytest.approx(0.1 * factor)]


def test_auto_scale_lr_without_base(monkeypatch, tiny):
    tiny.write_text(tiny.read_text() + 'auto_scale_lr = dict(_delete_=True)\n')
    with pytest.raises(SystemExit, match='base_batch_size'):
        load(monkeypatch, tiny, '--auto-scale-lr')


def test_two_processes_without_gpu(tmp_path, tiny):
    # each process writes its weights at the end
    (tmp_path / 'both.py').write_text(
        'import torch\n'
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n'
        '@HOOKS.register_module()\n'
        'class SaveOnAllRanks(Hook):\n'
        '    def after_train(self, runner):\n'
        '        model = runner.model.module\n'
        '        torch.save(\n'
        '            dict(state_dict=model.state_dict(),\n'
        '                 world_size=runner.world_size),\n'
        f'            f"{tmp_path}/rank{{runner.rank}}.pth")\n'
    )
    tiny.write_text(
        tiny.read_text() + "custom_imports = dict(imports=['both'])\n"
        "custom_hooks = [dict(type='SaveOnAllRanks'),"
        ' *_base_.custom_hooks]\n'
    )
    text = run(
        tiny,
        2,
        f'--work-dir={tmp_path / "w"}',
        script='dist_train.sh',
        PYTHONPATH=str(tmp_path),
    )
    # 48 images in batches of 16 for each of two
    assert re.search(r'\[1\]\[2/2\]', text), text
    ranks = [
        torch.load(tmp_path / f'rank{rank}.pth', weights_only=True)
        for rank in range(2)
    ]
    assert [rank['world_size'] for rank in ranks] == [2, 2]
    saved = weights(tmp_path / 'w' / 'epoch_1.pth')
    trained = dict(ranks[0]['state_dict'])
    for name, value in saved.items():
        assert torch.equal(value, trained[name]), name
        # statistics of BatchNorm are each process's own
        if 'running' not in name:
            assert torch.equal(value, ranks[1]['state_dict'][name]), name


def test_dist_train_usage():
    text = run(DIGITS, script='dist_train.sh', expect=2)
    assert 'usage: ' in text
    assert 'CONFIG PROCESSES' in text


def test_slurm_train(tmp_path):
    """Its command line, with an `srun` that prints it."""
    fake = tmp_path / 'srun'
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    place = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', PYTHON='python3')
    words = ['part', 'job', 'my config.py', 'out', '--resume']
    text = run(
        *words,
        script='slurm_train.sh',
        GPUS='4',
        SRUN_ARGS='--time 10 --quiet',
        **place,
    )
    assert text.splitlines() == [
        *('--partition', 'part', '--job-name', 'job'),
        *('--ntasks', '4', '--ntasks-per-node', '4'),
        *('--cpus-per-task', '5', '--kill-on-bad-exit=1'),
        *('--gres', 'gpu:4', '--time', '10', '--quiet'),
        *('python3', '-u', str(ROOT / 'tools/train.py'), 'my config.py'),
        *('--work-dir', 'out', '--launcher', 'slurm', '--resume'),
    ]
    text = run(*words, script='slurm_train.sh', GRES='', **place)
    assert '--gres' not in text
    assert 'usage: ' in run('part', script='slurm_train.sh', expect=2)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A finished run through the command line."""
    folder = tmp_path_factory.mktemp('trained')
    config = folder / 'tiny.py'
    config.write_text(TINY.format(base=DIGITS, width=6))
    text = run(config, '--work-dir', folder / 'w')
    return folder, text


def test_command_line(trained):
    folder, text = trained
    assert 'rotation_accuracy' in text
    assert (folder / 'w' / 'epoch_1.pth').is_file()
    # the config beside it can be trained again
    assert Config.fromfile(folder / 'w' / 'tiny.py').train_cfg.max_epochs == 1


@pytest.mark.parametrize('resume', [False, True])
def test_other_architecture(monkeypatch, tmp_path, trained, resume):
    config = tmp_path / 'wide.py'
    config.write_text(TINY.format(base=DIGITS, width=12))
    checkpoint = trained[0] / 'w' / 'epoch_1.pth'
    words = [config, '--work-dir', tmp_path / 'w']
    words += (
        ['--resume', checkpoint]
        if resume
        else ['--cfg-options', f'load_from={checkpoint}']
    )
    runner = Runner.from_cfg(load(monkeypatch, *words))
    with pytest.raises(ValueError, match='another architecture') as info:
        runner.train()
    message = str(info.value)
    assert str(checkpoint) in message
    assert 'of another shape' in message
    assert 'Use the config' in message


def test_other_head(monkeypatch, tmp_path, trained):
    """It is no obstacle to a start, but to going on."""
    checkpoint = trained[0] / 'w' / 'epoch_1.pth'
    words = [trained[0] / 'tiny.py', '--work-dir', tmp_path / 'w']
    options = ['--cfg-options', 'model.rotations=0,180']
    cfg = load(monkeypatch, *words, '--resume', checkpoint, *options)
    with pytest.raises(ValueError, match=r'head\.fc\.weight: \(4, 6\)'):
        Runner.from_cfg(cfg).train()
    options.append(f'load_from={checkpoint}')
    cfg = load(monkeypatch, *words, *options)
    cfg.experiment_name = 'other_head_start'
    Runner.from_cfg(cfg).train()
    assert (tmp_path / 'w' / 'epoch_1.pth').is_file()


def test_resumed_run(monkeypatch, tmp_path, trained):
    folder = tmp_path / 'w'
    shutil.copytree(trained[0] / 'w', folder)
    shutil.copy(trained[0] / 'tiny.py', tmp_path)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    runs = []
    train_model = apis.train_model
    monkeypatch.setattr(
        'mm_rotssl.apis.train_model', lambda cfg: runs.append(train_model(cfg))
    )
    call(
        monkeypatch,
        'train',
        tmp_path / 'tiny.py',
        *('--work-dir', folder, '--resume'),
        *('--cfg-options', 'train_cfg.max_epochs=2', 'experiment_name=more'),
    )
    (runner,) = runs
    # three steps of the epoch that was left
    assert (runner.epoch, runner.iter) == (2, 6)
    log = (folder / runner.timestamp / f'{runner.timestamp}.log').read_text()
    assert 'resumed epoch: 1' in log
    assert re.search(r'Epoch\(train\)\s+\[2\]', log)
    assert not re.search(r'Epoch\(train\)\s+\[1\]', log)
    assert (folder / 'epoch_2.pth').is_file()


def test_mistakes_in_a_run_keep_their_traceback(monkeypatch, tiny):
    """Other than those in the arguments."""
    text = tiny.read_text().replace('indices=48', "indices='a'")
    tiny.write_text(text)
    with pytest.raises(TypeError):
        call(monkeypatch, 'train', tiny, '--work-dir', tiny.parent / 'w')


def test_folder_of_images_by_shortcuts(monkeypatch, tmp_path):
    """The config for one's own images, by its name, without --cfg-options."""
    rng = np.random.default_rng(0)
    for i in range(8):
        image = rng.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f'{i}.png')
    call(
        monkeypatch,
        'train',
        'rotnet_resnet18_1xb64-100e_custom',
        *('--data', tmp_path, '--work-dir', tmp_path / 'w'),
        *('--epochs', 1, '--batch-size', 4, '--crop-size', 32, '--lr', 0.5),
        *('--cfg-options', 'default_hooks.logger.interval=1'),
        'train_dataloader.num_workers=0',
    )
    (log,) = (tmp_path / 'w').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    # two steps, of a cosine over both
    assert [line['step'] for line in lines] == [1, 2]
    assert [line['lr'] for line in lines] == pytest.approx([0.5, 0.25])
    assert (tmp_path / 'w' / 'epoch_1.pth').is_file()


def test_options_have_precedence_over_shortcuts(monkeypatch):
    cfg = load(
        monkeypatch,
        DIGITS,
        *('--lr', 0.5, '--batch-size', 3, '--epochs', 30),
        *('--cfg-options', 'optim_wrapper.optimizer.lr=0.25'),
        'train_cfg.max_epochs=20',
    )
    assert cfg.optim_wrapper.optimizer.lr == 0.25
    assert cfg.train_dataloader.batch_size == 3
    assert cfg.train_cfg.max_epochs == 20


@pytest.mark.parametrize(
    'words',
    [
        ('--launcher', 'ssh'),
        ('--epochs', '0'),
        ('--batch-size', '-1'),
        ('--crop-size', '0.5'),
        ('--lr', 'high'),
    ],
)
def test_wrong_values(monkeypatch, capsys, words):
    with pytest.raises(SystemExit) as info:
        load(monkeypatch, DIGITS, *words)
    assert info.value.code == 2
    assert f'argument {words[0]}' in capsys.readouterr().err


def test_processes_are_prepared(monkeypatch):
    """The launcher arrives where processes are connected."""
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr('mm_rotssl.apis.config.get_device', lambda: 'cpu')
    for words in (('train', DIGITS), ('test', DIGITS, 'a.pth')):
        with pytest.raises(SystemExit, match='Error: --launcher pytorch: RAN'):
            call(monkeypatch, *words, '--launcher', 'pytorch')


def test_measured_checkpoint(monkeypatch, capfd, trained):
    folder, _ = trained
    checkpoint = folder / 'w' / 'epoch_1.pth'
    small = (
        'model.backbone.num_stages=3',
        'model.backbone.out_indices=0,1,2',
        'model.head.in_channels=6',
        'test_cfg.reference_dataloader.dataset.indices=48',
        'test_dataloader.dataset.indices=30',
        # nothing is saved, so there is no best
        'default_hooks.checkpoint.save_best=knn/stage3',
    )
    words = ('test', DIGITS, checkpoint, '--cfg-options', *small)
    call(monkeypatch, *words, 'model.backbone.base_channels=6')
    text = capfd.readouterr().out
    metrics = json.loads(text[text.rindex('\n{') :])
    assert {'rotation/accuracy', 'knn/stage1', 'knn/stage3'} <= set(metrics)
    # every answer is one of 4 * 30 and of 30 images
    for name, count in (('rotation/accuracy', 120), ('knn/stage3', 30)):
        right = metrics[name] * count / 100
        assert right == pytest.approx(round(right), abs=1e-4)
    assert list((folder / 'w' / 'test').glob('*/*.log'))

    with pytest.raises(SystemExit, match=r'Error: .*epoch_1\.pth.*another a'):
        call(monkeypatch, *words, 'experiment_name=wide')
    # what is measured is said by other keys
    message = r'val_dataloader\.dataset\.indices changes nothing.*Say test_dat'
    with pytest.raises(SystemExit, match=message):
        call(monkeypatch, *words, 'val_dataloader.dataset.indices=3')
    with pytest.raises(SystemExit, match=r'Error: .*no\.pth" does not exist'):
        call(monkeypatch, 'test', DIGITS, 'no.pth')
    # it tells how images are prepared, and has no metric
    with pytest.raises(SystemExit, match='names no images to test'):
        call(monkeypatch, 'test', 'rotnet_resnet18_1xb64-100e_custom', 'a')
