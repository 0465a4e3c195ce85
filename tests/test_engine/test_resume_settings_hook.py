"""What a resumed run takes from its config, and what from the checkpoint."""

import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.models.utils import CosineEMA
from torch import nn
from torch.utils.data import Dataset

from mm_rotssl.registry import DATASETS, MODELS
from mm_rotssl.utils import InputError, parse_config_text

COUNTER = itertools.count()
LOOPS = {
    'epochs': dict(by_epoch=True, max_epochs=2),
    'steps': dict(by_epoch=False, max_iters=6),
}


@MODELS.register_module()
class Point(BaseModel):
    """A weight that is pulled to the data, and its average over time."""

    def __init__(self, averaged=False):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.target = CosineEMA(self.layer, momentum=0.5) if averaged else None

    def init_weights(self):
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, inputs, mode='loss'):
        if self.target is not None:
            self.target.update_parameters(self.layer)
        return dict(loss=(self.layer(inputs) - inputs).square().mean())


@DATASETS.register_module()
class Twelve(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([index / 12]))


class Rates(Hook):
    """Note what is set at each step."""

    def __init__(self):
        self.groups = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.param_groups
        self.groups.append(
            [{k: v for k, v in g.items() if k != 'params'} for g in groups]
        )

    def values(self, key):
        return [groups[0][key] for groups in self.groups]


def run(folder, resume=None, hooks=(), model=None, saving=None, **settings):
    """Train on 12 images, four a step, and note the settings."""
    settings.setdefault('train_cfg', LOOPS['epochs'])
    optimizer = settings.pop('optimizer', {})
    by_epoch = 'max_epochs' in settings['train_cfg']
    cfg = Config(
        dict(
            model=dict(type='mm_rotssl.Point', **(model or {})),
            train_dataloader=dict(
                batch_size=settings.pop('batch_size', 4),
                dataset=dict(type='mm_rotssl.Twelve'),
                sampler=dict(
                    type='DefaultSampler' if by_epoch else 'InfiniteSampler',
                    shuffle=True,
                ),
                collate_fn=dict(type='default_collate'),
            ),
            optim_wrapper=settings.pop('wrapper', {})
            | dict(
                optimizer=optimizer
                if 'type' in optimizer
                else dict(type='SGD', lr=0.05, momentum=0.9) | optimizer
            ),
            work_dir=str(folder),
            default_scope='mmpretrain',
            experiment_name=f'resume_settings_{next(COUNTER)}',
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook',
                    interval=1,
                    **{'by_epoch': by_epoch, **(saving or {})},
                )
            ),
            custom_hooks=[
                dict(type='mm_rotssl.EpochSeedHook'),
                dict(type='mm_rotssl.ResumeSettingsHook'),
                *hooks,
            ],
            log_level='ERROR',
            load_from=None if resume is None else str(resume),
            resume=resume is not None,
            **settings,
        )
    )
    runner = Runner.from_cfg(cfg)
    rates = Rates()
    runner.register_hook(rates, 'VERY_LOW')
    runner.train()
    return runner, rates


def cosine(**settings):
    return dict(
        dict(type='CosineAnnealingLR', convert_to_iter_based=True), **settings
    )


def epochs(number):
    return dict(by_epoch=True, max_epochs=number)


def steps(number):
    return dict(by_epoch=False, max_iters=number)


WARM = dict(type='LinearLR', start_factor=0.1)
# First settings, those of the resumed run.
SCHEDULES = {
    'longer': (
        dict(train_cfg=epochs(2), param_scheduler=cosine(T_max=2)),
        dict(train_cfg=epochs(4), param_scheduler=cosine(T_max=4)),
    ),
    'follows': (
        dict(train_cfg=epochs(2), param_scheduler=cosine()),
        dict(train_cfg=epochs(4), param_scheduler=cosine()),
    ),
    'by epoch': (
        dict(train_cfg=epochs(2), param_scheduler=[cosine(T_max=2)]),
        dict(
            train_cfg=epochs(4),
            param_scheduler=[dict(type='MultiStepLR', milestones=[1, 3])],
        ),
    ),
    'steps': (
        dict(
            train_cfg=steps(6),
            param_scheduler=dict(type='CosineAnnealingLR', by_epoch=False),
        ),
        dict(
            train_cfg=steps(12),
            param_scheduler=dict(type='PolyLR', power=2, by_epoch=False),
        ),
    ),
    'warm-up': (
        dict(
            train_cfg=epochs(2),
            param_scheduler=[
                dict(WARM, by_epoch=False, end=2),
                cosine(begin=1, eta_min=1e-4),
            ],
        ),
        dict(
            train_cfg=epochs(4),
            param_scheduler=[
                dict(WARM, by_epoch=False, end=5),
                cosine(begin=1, eta_min=1e-3),
                dict(type='ExponentialLR', gamma=0.5, by_epoch=True),
            ],
        ),
    ),
    'rate': (
        dict(train_cfg=epochs(4), param_scheduler=cosine()),
        dict(
            train_cfg=epochs(4),
            param_scheduler=cosine(),
            optimizer=dict(lr=0.2),
        ),
    ),
    'none before': (
        dict(train_cfg=epochs(2)),
        dict(train_cfg=epochs(4), param_scheduler=cosine()),
    ),
    'none now': (
        dict(train_cfg=epochs(2), param_scheduler=cosine()),
        dict(train_cfg=epochs(4)),
    ),
    'momentum': (
        dict(
            train_cfg=epochs(2),
            param_scheduler=[
                dict(type='CosineAnnealingMomentum', by_epoch=True, T_max=2)
            ],
        ),
        dict(
            train_cfg=epochs(4),
            param_scheduler=[
                dict(type='CosineAnnealingMomentum', by_epoch=True, T_max=4)
            ],
        ),
    ),
    'betas': (
        dict(
            train_cfg=epochs(2),
            optimizer=dict(type='AdamW', lr=0.01, betas=(0.9, 0.99)),
            param_scheduler=dict(type='LinearMomentum', end=2),
        ),
        dict(
            train_cfg=epochs(4),
            optimizer=dict(type='AdamW', lr=0.01, betas=(0.8, 0.95)),
            param_scheduler=dict(type='LinearMomentum', end=4),
        ),
    ),
    'groups': (
        dict(
            train_cfg=epochs(2),
            param_scheduler=cosine(),
            wrapper=dict(paramwise_cfg=dict(bias_lr_mult=2.0)),
        ),
        dict(
            train_cfg=epochs(4),
            param_scheduler=cosine(),
            wrapper=dict(
                paramwise_cfg=dict(bias_lr_mult=0.5, bias_decay_mult=0.0)
            ),
            optimizer=dict(weight_decay=0.1),
        ),
    ),
    'milestones': (
        dict(
            train_cfg=epochs(4),
            param_scheduler=[dict(type='MultiStepLR', milestones=[1, 3])],
        ),
    )
    * 2,
    'one cycle': (
        dict(
            train_cfg=epochs(2),
            param_scheduler=dict(
                type='OneCycleLR', eta_max=0.5, convert_to_iter_based=True
            ),
        ),
        dict(
            train_cfg=epochs(4),
            param_scheduler=dict(
                type='OneCycleLR', eta_max=0.5, convert_to_iter_based=True
            ),
        ),
    ),
    'batch': (
        dict(train_cfg=epochs(2), param_scheduler=cosine()),
        dict(train_cfg=epochs(2), param_scheduler=cosine(), batch_size=2),
    ),
}


@pytest.mark.parametrize('name', SCHEDULES)
def test_schedule_is_that_of_an_uninterrupted_run(tmp_path, name):
    before, now = SCHEDULES[name]
    run(tmp_path / 'before', **before)
    stop = 'iter_3' if 'max_iters' in now['train_cfg'] else 'epoch_1'
    resumed, rates = run(
        tmp_path / 'now', tmp_path / 'before' / f'{stop}.pth', **now
    )
    whole, expected = run(tmp_path / 'whole', **now)
    assert resumed.iter == whole.iter
    left = len(rates.groups)
    assert 0 < left < len(expected.groups)
    assert rates.groups == expected.groups[-left:]


def test_rates_of_the_longer_run(tmp_path):
    """As a number that was computed by hand."""
    before, now = SCHEDULES['longer']
    run(tmp_path, **before)
    _, rates = run(tmp_path, tmp_path / 'epoch_2.pth', **now)
    assert rates.values('lr') == pytest.approx(
        [0.0250, 0.0185, 0.0125, 0.0073, 0.0033, 0.0009], abs=5e-5
    )


@pytest.mark.parametrize('loop', [epochs, steps])
def test_other_settings_of_the_optimizer(tmp_path, loop):
    """The schedule is the same, and is not computed again."""
    length = 4 if loop is epochs else 12
    settings = dict(
        train_cfg=loop(length),
        param_scheduler=cosine(by_epoch=loop is epochs)
        if loop is epochs
        else dict(type='CosineAnnealingLR', by_epoch=False),
    )
    _, whole = run(tmp_path, **settings)
    stop = tmp_path / ('epoch_2.pth' if loop is epochs else 'iter_6.pth')
    changed = dict(weight_decay=0.125, momentum=0.5, nesterov=True)
    _, rates = run(tmp_path, stop, optimizer=changed, **settings)
    assert rates.values('lr') == whole.values('lr')[6:]
    for key, value in changed.items():
        assert rates.values(key) == [value] * 6


def test_plateau_keeps_what_it_has_seen(tmp_path):
    plateau = dict(type='ReduceOnPlateauLR', patience=0, begin=0)
    settings = dict(train_cfg=epochs(4), param_scheduler=plateau)
    path = tmp_path / 'epoch_2.pth'
    run(tmp_path, **settings)
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['param_schedulers'][0].update(best=0.25, num_bad_epochs=3)
    checkpoint['optimizer']['param_groups'][0]['lr'] = 0.005
    torch.save(checkpoint, path)
    runner, rates = run(tmp_path, path, **settings)
    assert rates.values('lr') == [0.005] * 6
    assert runner.param_schedulers[0].best == 0.25
    assert runner.param_schedulers[0].num_bad_epochs == 3
    # the rate that it would have by now from another start is unknown
    for change in (
        dict(optimizer=dict(lr=0.1)),
        dict(param_scheduler=dict(plateau, patience=1)),
    ):
        with pytest.raises(InputError, match=r'^param_scheduler: .*Plateau'):
            run(tmp_path, path, **settings | change)


def test_steps_of_another_batch_size(tmp_path):
    """They are those of the epochs done, for an average over time, too."""
    model = dict(averaged=True)
    settings = dict(train_cfg=epochs(2), model=model)
    run(tmp_path, **settings)
    path = tmp_path / 'epoch_1.pth'
    runner, _ = run(tmp_path, path, batch_size=1, **settings)
    assert (runner.epoch, runner.iter) == (2, 24)
    assert runner.model.target.steps == 24
    runner, _ = run(tmp_path, path, **settings)
    assert (runner.epoch, runner.iter) == (2, 6)
    assert runner.model.target.steps == 6


def test_within_an_epoch(tmp_path):
    """A checkpoint of a run of epochs, saved between two of them."""
    saving = dict(by_epoch=False)
    settings = dict(train_cfg=epochs(2), param_scheduler=cosine())
    run(tmp_path, saving=saving, **settings)
    runner, rates = run(tmp_path, tmp_path / 'iter_4.pth', **settings)
    # the epoch begins anew, at the step where it stopped
    assert runner.iter == 4 + 3
    assert len(rates.groups) == 3


@pytest.mark.parametrize(('seed', 'used'), [(None, 3), (3, 3), (4, 4)])
def test_seed(tmp_path, seed, used):
    run(tmp_path, randomness=dict(seed=3))
    runner, _ = run(
        tmp_path,
        tmp_path / 'epoch_1.pth',
        randomness=dict(seed=seed),
    )
    assert runner.seed == used
    assert runner.train_dataloader.sampler.seed == used


def test_without_the_average(tmp_path):
    """The trained weights go on, whose place in the file the average has."""
    hooks = [dict(type='EMAHook', momentum=0.01)]
    settings = dict(train_cfg=epochs(2), randomness=dict(seed=0))
    plain, _ = run(tmp_path / 'plain', **settings)
    run(tmp_path / 'ema', hooks=hooks, **settings)
    path = tmp_path / 'ema/epoch_1.pth'
    averaged = torch.load(path, weights_only=False)['state_dict']
    other = torch.load(tmp_path / 'plain/epoch_1.pth', weights_only=False)
    assert not torch.equal(
        averaged['layer.weight'], other['state_dict']['layer.weight']
    )
    for now in ([], hooks):
        runner, _ = run(tmp_path / 'now', path, hooks=now, **settings)
        for name, value in runner.model.state_dict().items():
            assert torch.equal(value, plain.model.state_dict()[name]), name


def test_best_of_another_figure(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    run(tmp_path, saving=dict(save_best=None))
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['message_hub']['runtime_info'].update(best_score=90.0)
    torch.save(checkpoint, path)
    runner, _ = run(tmp_path, path, saving=dict(save_best=None))
    assert runner.message_hub.get_info('best_score') == 90.0
    runner, _ = run(tmp_path, path, saving=dict(save_best='a', rule='less'))
    assert runner.message_hub.get_info('best_score') is None


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(train_cfg=epochs(1)), r'max_epochs=1: the checkpoint has 2 beh'),
        (dict(train_cfg=steps(12)), r'max_iters: .* run with max_epochs=2'),
        (
            dict(optimizer=dict(type='AdamW', lr=0.1)),
            r'optimizer\.type=AdamW: the checkpoint has the state of SGD',
        ),
        (
            dict(wrapper=dict(paramwise_cfg=dict(bias_lr_mult=2.0))),
            r'paramwise_cfg: the optimizer has 2 groups of 2 par.* 1 of 2',
        ),
    ],
)
def test_what_cannot_be_obeyed(tmp_path, settings, message):
    run(tmp_path)
    with pytest.raises(InputError, match=message) as info:
        run(tmp_path, tmp_path / 'epoch_2.pth', **settings)
    assert '\n' not in str(info.value)


def test_state_that_an_optimizer_lacks(tmp_path):
    adam = dict(type='Adam', lr=0.1)
    run(tmp_path, optimizer=adam)
    with pytest.raises(InputError, match='amsgrad=True: the checkpoint lack'):
        run(
            tmp_path,
            tmp_path / 'epoch_1.pth',
            optimizer=adam | dict(amsgrad=True),
        )
    # of the same class, which shares all but the decay
    with pytest.raises(InputError, match=r'type=AdamW: .* state of Adam\.'):
        run(
            tmp_path,
            tmp_path / 'epoch_1.pth',
            optimizer=adam | dict(type='AdamW'),
        )


def test_weights_alone(tmp_path):
    runner, _ = run(tmp_path)
    torch.save(dict(state_dict=runner.model.state_dict()), tmp_path / 'w.pth')
    with pytest.raises(InputError, match=r'Leave out --resume .*w\.pth\.$'):
        run(tmp_path, tmp_path / 'w.pth')
    # a start from them is what the message advises
    path = tmp_path / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint['optimizer']
    torch.save(checkpoint, path)
    settings = dict(train_cfg=epochs(4), param_scheduler=cosine())
    _, rates = run(tmp_path, path, **settings)
    _, whole = run(tmp_path, **settings)
    assert rates.values('lr') == whole.values('lr')[3:]


def test_a_config_is_read_and_not_run(tmp_path):
    cfg = Config(
        dict(
            a=dict(b=[1, -2.5, (None, True)], c='x'),
            d={'no name': dict(e=float)},
            f=[dict(g=1), dict(g=2)],
        )
    )
    assert parse_config_text(cfg.pretty_text) == dict(
        a=dict(b=[1, -2.5, (None, True)], c='x'),
        d={'no name': dict(e='float')},
        f=[dict(g=1), dict(g=2)],
    )
    harm = f'a = open({str(tmp_path / "harm")!r}, "w")\nb = dict(c=1)\n'
    assert parse_config_text(harm)['b'] == dict(c=1)
    assert not (tmp_path / 'harm').exists()
    assert parse_config_text('no python') == {}
