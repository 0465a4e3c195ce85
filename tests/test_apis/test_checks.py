"""What is said before a run is built: images, schedule, misspelled keys."""

import logging
import re

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from stand_ins import draw_images

from mm_rotssl import apis
from mm_rotssl.apis import read_config, read_training_config, train_model
from mm_rotssl.apis.checks import build_datasets, check_schedule
from mm_rotssl.datasets import Digits
from mm_rotssl.utils import InputError, list_configs

DIGITS = 'rotnet_nin-w24_1xb128-15e_digits'
CUSTOM = sorted(name for name in list_configs() if name.endswith('_custom'))


def folder(path, **settings):
    return (
        dict(type='mm_rotssl.ImageFolder', data_root=str(path), pipeline=[])
        | settings
    )


def dataloader(dataset, **settings):
    return (
        dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dataset,
        )
        | settings
    )


def config(dataset, **settings):
    loader = dataloader(dataset, **settings)
    return Config(dict(default_scope='mmpretrain', train_dataloader=loader))


@pytest.fixture
def images(tmp_path):
    draw_images(tmp_path / 'images', 6, size=(8, 8))
    return tmp_path / 'images'


def test_missing_images(tmp_path, images):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    gone, listed = tmp_path / 'gone', str(tmp_path / 'list.txt')
    stacked = dict(
        type='mm_rotssl.StackedDataset',
        datasets=dict(a=folder(images), b=folder(gone)),
    )
    exemplars = dict(
        type='mm_rotssl.ExemplarDataset',
        dataset=folder(images),
        seed_patches=str(tmp_path / 'seeds.npz'),
        num_deformations=1,
        pipeline=[],
    )
    for dataset, message in (
        (folder(gone), r'There is no folder ".*gone.?"'),
        (folder(''), r'was given no folder: set data_root'),
        (folder(tmp_path / 'empty'), r'No image was found in ".*empty.?"'),
        (folder(tmp_path / 'file'), r'There is no folder ".*file.?"'),
        (folder(images, ann_file=listed), r'no list ".*list\.txt" of images'),
        (stacked, r'There is no folder ".*gone.?"'),
        (exemplars, r'seeds\.npz'),
    ):
        with pytest.raises(
            InputError, match=f'^train_dataloader: .*{message}'
        ) as info:
            build_datasets(config(dataset))
        assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    'key', ['val_dataloader', 'val_cfg.reference_dataloader']
)
def test_missing_images_of_validation(tmp_path, images, key):
    cfg = config(folder(images))
    cfg.val_dataloader = dataloader(folder(images))
    cfg.val_cfg = dict(reference_dataloader=dataloader(folder(images)))
    assert build_datasets(cfg)[1] == 2
    cfg.merge_from_dict({f'{key}.dataset.data_root': str(tmp_path / 'gone')})
    with pytest.raises(InputError, match=f'^{key}: There is no folder'):
        build_datasets(cfg)


@pytest.mark.parametrize(
    ('size', 'processes', 'steps'),
    [(6, 1, 1), (7, 1, None), (3, 2, 1), (4, 2, None), (2, 3, 1)],
)
def test_fewer_images_than_a_batch(
    monkeypatch, images, size, processes, steps
):
    cfg = config(folder(images), drop_last=True, batch_size=size)
    if processes > 1:
        cfg.launcher = 'pytorch'
        monkeypatch.setenv('WORLD_SIZE', str(processes))
        monkeypatch.setenv('RANK', '0')
    if steps:
        assert build_datasets(cfg)[1] == steps
        return
    each = 6 // processes
    with pytest.raises(
        InputError,
        match=rf'^train_dataloader: {each} images.*batch_size={size}.*'
        rf'drop_last=True.* to {each} or less \(--batch-size\)',
    ):
        build_datasets(cfg)
    # an incomplete batch is one, too
    cfg.train_dataloader.drop_last = False
    assert build_datasets(cfg)[1] == 1
    # and the first process looks for all
    cfg.train_dataloader.drop_last = True
    if processes > 1:
        monkeypatch.setenv('RANK', '1')
        assert build_datasets(cfg) == ({}, None)


def test_endless_samplers_have_enough(images):
    cfg = config(
        folder(images),
        drop_last=True,
        batch_size=64,
        sampler=dict(type='InfiniteSampler'),
    )
    assert build_datasets(cfg)[1] == 0


def test_nothing_is_built_before(monkeypatch, tmp_path, images):
    monkeypatch.setattr(Runner, 'from_cfg', pytest.fail)
    cfg = config(folder(tmp_path / 'gone'))
    with pytest.raises(InputError, match='no folder'):
        train_model(cfg)
    cfg = config(folder(images))
    cfg.train_cfg = dict(max_epochs=4)
    # 2 of 8 steps
    cfg.param_scheduler = dict(
        type='CosineAnnealingLR', T_max=2, by_epoch=False
    )
    with pytest.raises(InputError, match='climb again'):
        train_model(cfg)


def test_datasets_are_built_once(monkeypatch, tmp_path):
    built = []
    full_init = Digits.full_init

    def count(self):
        if not self._fully_initialized:
            built.append(self.test_mode)
        full_init(self)

    monkeypatch.setattr(Digits, 'full_init', count)
    cfg = read_training_config(
        DIGITS,
        {
            'model.backbone.base_channels': 6,
            'train_dataloader.dataset.indices': 8,
            'train_dataloader.num_workers': 0,
            'val_dataloader.dataset.indices': 4,
            'val_cfg.reference_dataloader.dataset.indices': 4,
            'model.head.in_channels': 6,
        },
        epochs=1,
        work_dir=tmp_path,
    )
    runner = train_model(cfg)
    assert len(built) == 3
    assert len(runner.train_dataloader.dataset) == 8
    # what is saved tells how the dataset is made
    saved = Config.fromfile(tmp_path / f'{DIGITS}.py')
    assert saved.train_dataloader.dataset.type == 'mm_rotssl.Digits'
    assert saved.to_dict() == cfg.to_dict()


def schedule(*schedulers, model=None, **loop):
    return Config(
        dict(
            model=model or {},
            param_scheduler=list(schedulers),
            train_cfg=loop or dict(max_epochs=4),
        )
    )


def cosine(**settings):
    return dict(type='CosineAnnealingLR', **settings)


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (
            schedule(cosine(T_max=2)),
            r'^param_scheduler\.T_max=2 ends after 2 of 4 epochs, .* climb '
            r'again\. Use --epochs 4, .*, or leave T_max out\.$',
        ),
        (
            schedule(dict(type='ConstantLR', end=1), cosine(begin=1, T_max=2)),
            r'^param_scheduler\.1\.T_max=2 ends after 3 of 4 epochs',
        ),
        (
            schedule(dict(type='CosineAnnealingMomentum', T_max=2)),
            r'climb again',
        ),
        (schedule(dict(type='OneCycleLR', total_steps=3)), r'total_steps=3'),
        (
            schedule(cosine(T_max=2, by_epoch=False), max_iters=3),
            r'T_max=2 ends after 2 of 3 steps, .* Change both, or leave',
        ),
        (
            schedule(cosine(T_max=39, by_epoch=False)),
            r'T_max=39 ends after 39 of 40 steps',
        ),
        (
            schedule(cosine(begin=4)),
            r'begins after 4 epochs, and the run ends after 4\. Use --epochs',
        ),
        (
            schedule(cosine(), max_iters=3),
            r'counts epochs, but a run of train_cfg\.max_iters=3 has none',
        ),
    ],
)
def test_refused_schedules(cfg, message):
    with pytest.raises(InputError, match=message):
        check_schedule(cfg, 10)


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (schedule(cosine(T_max=5)), r'T_max=5 goes on after the 4 epochs'),
        (
            schedule(dict(type='MultiStepLR', milestones=[2, 6])),
            r'milestones=\[2, 6\] goes on after the 4 epochs',
        ),
        (schedule(cosine(end=3)), r'ends after 75% of the run'),
        (
            schedule(cosine(end=2), dict(type='CosineRestartLR', periods=[3])),
            r'ends after 75% of the run',
        ),
        (
            schedule(
                dict(type='PolyLR', end=20, by_epoch=False), max_iters=10
            ),
            r'end=20 goes on after the 10 steps of the run',
        ),
        (
            schedule(model=dict(task=dict(noise_start_epoch=4))),
            r'model\.task\.noise_start_epoch=4 is not reached in a run of 4',
        ),
    ],
)
def test_warned_schedules(monkeypatch, cfg, message):
    said = []
    monkeypatch.setattr(
        'mm_rotssl.apis.checks.print_log', lambda *words: said.append(words)
    )
    check_schedule(cfg, 10)
    assert len(said) == 1
    assert re.search(message, said[0][0])
    assert said[0][1:] == ('current', logging.WARNING)


@pytest.mark.parametrize(
    'cfg',
    [
        schedule(),
        schedule(cosine()),
        schedule(cosine(T_max=4)),
        schedule(cosine(T_max=40, by_epoch=False)),
        # climbs on purpose
        schedule(cosine(T_max=2, end=4)),
        schedule(dict(type='LinearLR', end=2)),
        schedule(dict(type='LinearLR', end=2), cosine(begin=2)),
        schedule(cosine(end=3), dict(type='CosineRestartLR', periods=[4])),
        schedule(dict(type='MultiStepLR', milestones=[2, 3])),
        schedule(dict(type='PolyLR', end=10, by_epoch=False), max_iters=10),
        schedule(model=dict(noise_start_epoch=3)),
        Config(dict(param_scheduler=dict(a=[cosine(T_max=1)]))),
        Config({}),
    ],
)
def test_schedules_that_fit(monkeypatch, cfg):
    monkeypatch.setattr('mm_rotssl.apis.checks.print_log', pytest.fail)
    check_schedule(cfg, 10)
    check_schedule(cfg)


@pytest.mark.parametrize('name', sorted(list_configs()))
def test_schedules_of_the_shipped_configs_fit(monkeypatch, name):
    monkeypatch.setattr('mm_rotssl.apis.checks.print_log', pytest.fail)
    cfg = Config.fromfile(list_configs()[name][0])
    if cfg.get('train_cfg'):
        check_schedule(cfg)


@pytest.mark.parametrize('name', CUSTOM)
def test_schedules_follow_the_length_of_the_run(name):
    """In one key, whichever way it is given."""
    cfg = read_training_config(name, {'train_cfg.max_epochs': 4})
    check_schedule(cfg)
    other = read_training_config(name, epochs=4)
    assert cfg.param_scheduler == other.param_scheduler
    # the engine puts the length of the run in their place
    assert not {'T_max', 'end'} & cfg.param_scheduler.keys()


@pytest.mark.parametrize(
    ('text', 'key', 'near'),
    [
        ('modle = dict(type="A")', 'modle', 'model'),
        ('trian_cfg = dict(max_epochs=3)', 'trian_cfg', 'train_cfg'),
        ('param_schedulers = []', 'param_schedulers', 'param_scheduler'),
        ('workdir = "a"', 'workdir', 'work_dir'),
    ],
)
def test_misspelled_keys(tmp_path, text, key, near):
    path = tmp_path / 'config.py'
    base = list_configs()[DIGITS][0]
    path.write_text(f'_base_ = [{str(base)!r}]\n{text}\n')
    message = rf'config\.py: nothing reads "{key}". Did you mean "{near}"\?'
    with pytest.raises(ValueError, match=message):
        read_config(path)
    # in a file that builds on it, too
    child = tmp_path / 'child.py'
    child.write_text("_base_ = ['config.py']\n")
    with pytest.raises(ValueError, match=f'nothing reads "{key}"'):
        read_config(child)


def test_misspelled_key_of_a_json_file(tmp_path):
    path = tmp_path / 'config.json'
    path.write_text('{"modle": {"type": "A"}}')
    with pytest.raises(ValueError, match=r'nothing reads "modle"'):
        read_config(path)


def test_intermediate_values_are_no_misspelled_keys(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        'crop_size = 96\n'
        'models = dict(type="A", size=crop_size)\n'
        'model = dict(**models)\n'
        'labeled_dataloader = dict(batch_size=4)\n'
    )
    child = tmp_path / 'child.py'
    child.write_text(
        "_base_ = ['config.py']\n"
        'val_dataloader = dict(**_base_.labeled_dataloader)\n'
    )
    cfg = read_config(child)
    # as a run leaves it beside its checkpoints: the values were copied
    cfg.dump(tmp_path / 'dumped.py')
    assert read_config(tmp_path / 'dumped.py').to_dict() == cfg.to_dict()
    with pytest.raises(ValueError, match='"labeled_dataloader"'):
        read_config(path)


def test_input_errors_end_a_command_with_one_line(monkeypatch, tmp_path):
    from mm_rotssl.cli import main

    monkeypatch.setattr(apis, 'read_training_config', lambda *_, **__: cfg)
    cfg = config(folder(tmp_path / 'gone'))
    monkeypatch.setattr('sys.argv', ['mm-rotssl', 'train', 'any.py'])
    with pytest.raises(SystemExit, match=r'^Error: train_dataloader: There'):
        main()
