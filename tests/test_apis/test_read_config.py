"""Reading a config: by file or name, changed by options; CPU processes."""

import os
import re

import pytest
import torch
from mmengine.config import Config

from mm_rotssl.apis import prepare_cpu_processes, read_config
from mm_rotssl.cli.common import parse_cfg_options

DIGITS = 'rotnet_nin-w24_1xb128-15e_digits'


@pytest.fixture
def environ(monkeypatch):
    """A machine without a GPU; changes of the environment are undone."""
    copy = dict(os.environ)
    monkeypatch.setattr(os, 'environ', copy)
    monkeypatch.setattr('mm_rotssl.apis.config.get_device', lambda: 'cpu')
    return copy


def test_config_by_name_or_file(tmp_path, monkeypatch):
    cfg = read_config(DIGITS)
    assert cfg.model.type == 'mm_rotssl.RotNet'
    # where a file has the name, it is the file
    monkeypatch.chdir(tmp_path)
    (tmp_path / DIGITS).write_text('')
    (tmp_path / DIGITS).rename(f'{DIGITS}.py')
    assert 'model' in read_config(DIGITS)
    assert 'model' not in read_config(f'{DIGITS}.py')
    with pytest.raises(FileNotFoundError, match=r'"gone\.py" does not exist'):
        read_config('gone.py')


@pytest.mark.parametrize(
    ('option', 'where', 'near'),
    [
        ('train_cgf.max_epochs=1', 'the config', 'train_cfg'),
        ('randomnes=1', 'the config', 'randomness'),
        ('wrok_dir=a', 'the config', 'work_dir'),
        ('train_dataloader.datset.size=8', 'train_dataloader', 'dataset'),
        ('model.bakbone.num_stages=3', 'model', 'backbone'),
        ('optim_wrapper.optimzer.lr=1', 'optim_wrapper', 'optimizer'),
        # the last component, which the engine might not look at for long
        (
            'default_hooks.checkpoint.intervall=1',
            'default_hooks.checkpoint',
            'interval',
        ),
        ('model.backbone.base_chanels=6', 'model.backbone', 'base_channels'),
        ('train_cfg.max_epoch=1', 'train_cfg', 'max_epochs'),
    ],
)
def test_misspelled_option(option, where, near):
    with pytest.raises(ValueError, match='Did you mean') as info:
        read_config(DIGITS, parse_cfg_options([option]))
    message = str(info.value)
    assert f'--cfg-options {option.split("=")[0]}: there is no' in message
    assert f' in {where}. Did you mean "{near}"?' in message
    assert 'Known here: ' in message


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('param_scheduler.3.T_max=5', 'no "3" in param_scheduler.*here: 0'),
        ('param_scheduler.3=5', 'no "3" in param_scheduler.*here: 0'),
        ('model.type.name=a', "model.type is 'mm_rotssl.RotNet'.*no keys"),
        ('load_from.path=a', 'load_from is None in this config'),
        ('zzz=1', 'no "zzz" in the config. Known here'),
    ],
)
def test_option_without_place(option, message):
    with pytest.raises(ValueError, match=message):
        read_config(DIGITS, parse_cfg_options([option]))


@pytest.mark.parametrize(
    ('option', 'place'),
    [
        ('data_preprocessor.mean=0', 'model.data_preprocessor'),
        ('reference_dataloader.batch_size=64', 'val_cfg.reference_dataloader'),
        ('test_pipeline.0.type=a', 'val_dataloader.dataset.pipeline'),
    ],
)
def test_intermediate_values_are_not_options(option, place):
    with pytest.raises(ValueError, match='the runner never reads') as info:
        read_config(DIGITS, parse_cfg_options([option]))
    assert place in str(info.value)


def test_options_of_the_runner_that_a_config_leaves_out(tmp_path):
    """Configs of mmdet and mmseg name no seed."""
    config = tmp_path / 'short.py'
    config.write_text("model = dict(type='A')\n")
    cfg = read_config(config, {'randomness.seed': 3})
    assert cfg.randomness == dict(seed=3)


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_configs_of_missing_packages(monkeypatch, tmp_path, package):
    config = tmp_path / 'short.py'
    config.write_text(f"_base_ = '{package}::a/b.py'\n")
    monkeypatch.setattr('mmengine.config.config.is_installed', lambda _: False)
    with pytest.raises(
        ValueError, match=rf'short\.py builds on.*{package}.*\[transfer\]"\.'
    ):
        read_config(config)


@pytest.mark.downstream
def test_configs_of_mmseg(tmp_path):
    """Which the fork distributes under another name."""
    name = 'fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'
    config = tmp_path / 'short.py'
    config.write_text(f"_base_ = 'mmseg::{name}'\n")
    cfg = read_config(config)
    assert cfg.model.backbone.type == 'ResNetV1c'
    assert cfg.default_scope == 'mmseg'


def test_right_options_arrive():
    words = [
        'model.backbone.base_channels=6',
        'param_scheduler.0.T_max=3',
        # new keys: an argument of the runner, and one left at its default
        'experiment_name=try',
        'train_dataloader.drop_last=True',
        'train_dataloader.dataset.indices=64',
    ]
    cfg = read_config(DIGITS, parse_cfg_options(words))
    assert cfg.model.backbone.base_channels == 6
    assert cfg.param_scheduler[0].T_max == 3
    assert cfg.param_scheduler[0].type == 'CosineAnnealingLR'
    assert cfg.experiment_name == 'try'
    assert cfg.train_dataloader.drop_last is True
    assert cfg.train_dataloader.dataset.indices == 64


def test_gpus_are_left_to_the_engine(environ, monkeypatch):
    environ.pop('LOCAL_RANK', None)
    monkeypatch.setattr('mm_rotssl.apis.config.get_device', lambda: 'cuda')
    for launcher in ('none', 'slurm', 'pytorch'):
        cfg = Config(dict(launcher=launcher))
        prepare_cpu_processes(cfg)
        assert cfg.to_dict() == dict(launcher=launcher)
        assert not torch.distributed.is_initialized()
        # what the engine reads for this launcher only
        assert environ.get('LOCAL_RANK') == (
            '0' if launcher == 'pytorch' else None
        )


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_launcher_without_its_environment(environ, launcher):
    cfg = Config(dict(launcher=launcher))
    with pytest.raises(ValueError, match=rf'--launcher {launcher}: .*RANK|ID'):
        prepare_cpu_processes(cfg)
    environ.update(
        RANK='0',
        SLURM_PROCID='0',
        SLURM_NTASKS='1',
        SLURM_LOCALID='0',
        OMPI_COMM_WORLD_RANK='0',
        OMPI_COMM_WORLD_SIZE='1',
        OMPI_COMM_WORLD_LOCAL_RANK='0',
        WORLD_SIZE='1',
        LOCAL_RANK='0',
    )
    if launcher != 'slurm':
        with pytest.raises(ValueError, match='set MASTER_ADDR'):
            prepare_cpu_processes(cfg)


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_schedulers_without_gpu(environ, tmp_path, launcher):
    environ['MASTER_PORT'] = '0'
    if launcher == 'slurm':
        # the host's name comes from a command of slurm's
        command = tmp_path / 'scontrol'
        command.write_text('#!/bin/sh\necho localhost\necho other\n')
        command.chmod(0o755)
        environ.update(
            PATH=f'{tmp_path}:{environ["PATH"]}',
            SLURM_NODELIST='node[1-2]',
            SLURM_PROCID='0',
            SLURM_NTASKS='1',
            SLURM_LOCALID='0',
        )
    else:
        environ.update(
            MASTER_ADDR='localhost',
            OMPI_COMM_WORLD_RANK='0',
            OMPI_COMM_WORLD_SIZE='1',
            OMPI_COMM_WORLD_LOCAL_RANK='0',
        )
    cfg = Config(dict(launcher=launcher, find_unused_parameters=True))
    prepare_cpu_processes(cfg)
    try:
        assert torch.distributed.get_backend() == 'gloo'
        assert torch.distributed.get_world_size() == 1
        assert environ['MASTER_ADDR'] == 'localhost'
        assert environ['LOCAL_RANK'] == '0'
        assert cfg.model_wrapper_cfg.device_ids is None
        assert cfg.model_wrapper_cfg.find_unused_parameters
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ('word', 'value'),
    [
        ('data_root=a spaced name', 'a spaced name'),
        ('data_root=123', '123'),
        ('data_root=a,b [1]', 'a,b [1]'),
        ('a.data_prefix.img=1,2', '1,2'),
        ('work_dir=None', None),
        # any other key's value that looks like a path
        ('folder=a b/c, d', 'a b/c, d'),
        ('folder=C:\\a, b', 'C:\\a, b'),
        # what is no path is read as ever
        ('seed_patches.num_exemplars=12', 12),
        ('steps=1, 2', [1, 2]),
        (
            'steps=[(1,2.5), [a b, None ],true]',
            [(1, 2.5), ['a b', None], True],
        ),
        ('files=[a/b c, d/e]', ['a/b c', 'd/e']),
        ("name='a b'", 'a b'),
        ('lr=1e-3', 0.001),
    ],
)
def test_values_of_options(word, value):
    assert parse_cfg_options([word]) == {word.split('=')[0]: value}


@pytest.mark.parametrize('word', ['lr', '=1', 'steps=[1,2'])
def test_option_that_cannot_be_read(word):
    with pytest.raises(SystemExit, match=re.escape(f'{word}: ')):
        parse_cfg_options([word])
