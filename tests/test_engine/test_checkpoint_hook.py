"""A whole checkpoint is there at any time, and found."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers import Harmful
from mmengine.hooks import Hook
from mmengine.runner.checkpoint import _load_checkpoint
from tiny_run import build_runner

from mm_rotssl.engine.hooks import CheckpointHook
from mm_rotssl.utils import InputError, newest_checkpoint, read_checkpoint

HOOKS = ['CheckpointCheckHook']


def files(folder):
    """What is left there, but the config."""
    return sorted(
        p.name for p in folder.iterdir() if p.is_file() and p.suffix != '.py'
    )


class Killed(BaseException):
    pass


def kill_at(monkeypatch, number):
    """Stop before the ``number``-th change of the folder from now on."""
    steps = []

    def killing(change):
        def wrapper(*args, **kwargs):
            steps.append(change)
            if len(steps) == number:
                raise Killed
            return change(*args, **kwargs)

        return wrapper

    for name in ('replace', 'remove'):
        monkeypatch.setattr(os, name, killing(getattr(os, name)))


@pytest.mark.parametrize(
    ('number', 'named'), enumerate([None, None, 1, 1, 2, 2, 2, 3], start=1)
)
def test_killed_at_any_moment(tmp_path, monkeypatch, number, named):
    """An epoch moves a checkpoint and its name, and deletes the last."""
    runner = build_runner(tmp_path, checkpoint=dict(max_keep_ckpts=1))
    with monkeypatch.context() as patch:
        kill_at(patch, number)
        with pytest.raises(Killed):
            runner.train()
    pointer = tmp_path / 'last_checkpoint'
    assert pointer.exists() == (named is not None)
    if named:
        assert read_checkpoint(pointer.read_text())['meta']['epoch'] == named
    newest = newest_checkpoint(tmp_path)
    if number == 1:
        assert newest is None
        assert files(tmp_path) == []
        return
    assert not [name for name in files(tmp_path) if name.startswith('.')]
    runner = build_runner(tmp_path, HOOKS, resume=True)
    runner.train()
    assert runner.epoch == 3
    assert read_checkpoint(tmp_path / 'epoch_3.pth')['meta']['epoch'] == 3


@pytest.mark.parametrize(
    'settings',
    [
        dict(max_keep_ckpts=1, save_optimizer=False),
        dict(interval=2, max_keep_ckpts=2, published_keys=['state_dict']),
        dict(interval=2, save_last=False, filename_tmpl='e{}.pth'),
        dict(by_epoch=False, interval=4, save_begin=2, out_dir=''),
    ],
)
def test_files_are_those_of_the_engine(tmp_path, settings):
    found = []
    for scope in ('', 'mm_rotssl.'):
        root = tmp_path / f'{scope}files'
        if 'out_dir' in settings:
            settings['out_dir'] = str(root / 'other')
        torch.manual_seed(0)
        checkpoint = dict(settings, type=f'{scope}CheckpointHook')
        build_runner(root / 'run', checkpoint=checkpoint).train()
        found.append(
            {
                # without the checksum of a published one
                str(file.relative_to(root)).split('-')[0]: (
                    read_checkpoint(file)['state_dict']
                    if file.suffix == '.pth'
                    else Path(file.read_text()).name
                )
                for file in root.rglob('*')
                if file.suffix == '.pth' or file.name == 'last_checkpoint'
            }
        )
    theirs, ours = found
    assert len(theirs) >= 2
    assert theirs.keys() == ours.keys()
    for name, want in theirs.items():
        if name.endswith('last_checkpoint'):
            assert ours[name] == want
        else:
            assert all(torch.equal(ours[name][k], want[k]) for k in want)


def test_only_what_is_outdated_is_deleted(tmp_path):
    build_runner(tmp_path, checkpoint=dict(max_keep_ckpts=2)).train()
    assert files(tmp_path) == ['epoch_2.pth', 'epoch_3.pth', 'last_checkpoint']
    assert newest_checkpoint(tmp_path) == str(tmp_path / 'epoch_3.pth')


def test_full_disk(tmp_path, monkeypatch):
    build_runner(tmp_path, epochs=1).train()
    before = (tmp_path / 'epoch_1.pth').read_bytes()
    runner = build_runner(
        tmp_path, HOOKS, resume=True, checkpoint=dict(max_keep_ckpts=1)
    )

    def full(self, data):
        with open(self, 'wb') as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_bytes', full)
        with pytest.raises(OSError, match=r'epoch_2\.pth" can\'t be written'):
            runner.train()
    assert files(tmp_path) == ['epoch_1.pth', 'last_checkpoint']
    assert (tmp_path / 'epoch_1.pth').read_bytes() == before
    runner = build_runner(tmp_path, HOOKS, resume=True)
    runner.train()
    assert runner.epoch == 3


class Best(Hook):
    """Give the scores that a validation would."""

    def __init__(self, scores):
        self.scores = scores

    def after_train_epoch(self, runner):
        hook = next(h for h in runner.hooks if isinstance(h, CheckpointHook))
        # in a run the epoch has been counted before validation
        runner.train_loop._epoch += 1
        hook.after_val_epoch(runner, self.scores[runner.epoch - 1])
        runner.train_loop._epoch -= 1


@pytest.mark.parametrize('keys', [['acc'], ['acc', 'mAP']])
def test_the_best_is_kept_until_a_better_one_is_there(
    tmp_path, monkeypatch, keys
):
    removed = []
    original = os.remove

    def remove(path):
        # the next one is there already
        removed.append((Path(path).name, files(tmp_path)))
        original(path)

    monkeypatch.setattr(os, 'remove', remove)
    scores = [dict.fromkeys(keys, value) for value in (0.1, 0.3, 0.2)]
    runner = build_runner(tmp_path, checkpoint=dict(save_best=keys))
    runner.register_hook(Best(scores), 'LOWEST')
    runner.train()
    for key in keys:
        best = f'best_{key}_epoch_2.pth'
        assert best in files(tmp_path)
        assert f'best_{key}_epoch_1.pth' not in files(tmp_path)
        ((_, there),) = [r for r in removed if r[0].startswith(f'best_{key}')]
        assert best in there
        read_checkpoint(tmp_path / best)
    saved = read_checkpoint(tmp_path / 'epoch_3.pth')
    info = saved['message_hub']['runtime_info']
    best = 'best_ckpt' if len(keys) == 1 else 'best_ckpt_mAP'
    assert info[best].endswith(f'best_{keys[-1]}_epoch_2.pth')


def damage(folder, how):
    """Spoil the last checkpoint, or its name."""
    last, pointer = folder / 'epoch_3.pth', folder / 'last_checkpoint'
    if how == 'empty pointer':
        pointer.write_text('')
    elif how == 'no pointer':
        pointer.unlink()
    elif how == 'gone':
        last.unlink()
    elif how == 'empty':
        last.write_bytes(b'')
    elif how == 'truncated':
        last.write_bytes(last.read_bytes()[:-500])
    else:
        content = bytearray(last.read_bytes())
        weight = read_checkpoint(last)['state_dict']['head.weight']
        content[content.index(weight.numpy().tobytes())] ^= 1
        last.write_bytes(content)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    build_runner(folder).train()
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    for file in trained.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    return tmp_path


@pytest.mark.parametrize(
    ('how', 'epoch', 'what'),
    [
        ('empty pointer', 3, 'names no checkpoint'),
        ('no pointer', 3, 'names no checkpoint'),
        ('gone', 2, 'is gone'),
        ('empty', 2, 'is damaged'),
        ('truncated', 2, 'is damaged'),
        ('flipped', 2, 'is damaged'),
    ],
)
def test_resume_finds_the_newest_whole_one(copied, capsys, how, epoch, what):
    damage(copied, how)
    # neither of them is to go on from
    (copied / 'best_acc_epoch_9.pth').write_bytes(
        (copied / 'epoch_1.pth').read_bytes()
    )
    runner = build_runner(copied, HOOKS, epochs=4, resume=True)
    capsys.readouterr()
    runner.train()
    out = capsys.readouterr()
    lines = [x for x in (out.out + out.err).splitlines() if what in x]
    assert len(lines) == 1
    assert f'epoch_{epoch}.pth", the newest whole one' in lines[0]
    assert runner._load_from == str(copied / f'epoch_{epoch}.pth')
    assert runner.epoch == 4


def test_names_are_numbers_not_texts(copied):
    (copied / 'epoch_10.pth').write_bytes(
        (copied / 'epoch_1.pth').read_bytes()
    )
    damage(copied, 'gone')
    assert newest_checkpoint(copied).endswith('epoch_10.pth')


def test_a_copied_folder(copied, tmp_path):
    """The one that it was copied from has what the pointer names, too."""
    other = tmp_path / 'other'
    shutil.copytree(copied, other)
    shutil.copy(copied / 'epoch_3.pth', other / 'epoch_2.pth')
    pointer = copied / 'epoch_3.pth'
    (other / 'last_checkpoint').write_text(str(pointer))
    assert newest_checkpoint(other) == str(other / 'epoch_3.pth')
    (other / 'epoch_3.pth').write_bytes(b'')
    (other / 'epoch_10.pth').unlink(missing_ok=True)
    assert newest_checkpoint(other) == str(other / 'epoch_2.pth')


def test_a_moved_folder(copied):
    (copied / 'last_checkpoint').write_text('work_dirs/old/epoch_3.pth')
    assert newest_checkpoint(copied) == str(copied / 'epoch_3.pth')


def test_nothing_whole(copied):
    for file in copied.glob('*.pth'):
        file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match=r'no other in .* is whole'):
        newest_checkpoint(copied)


def test_nothing_saved(tmp_path):
    torch.save(dict(weight=torch.ones(1)), tmp_path / 'weights_100.pth')
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / 'none') is None
    runner = build_runner(tmp_path, HOOKS, epochs=1, resume=True)
    runner.train()
    assert runner.epoch == 1


def test_other_storages_are_left_alone(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('s3://bucket/epoch_3.pth')
    assert newest_checkpoint(tmp_path) == 's3://bucket/epoch_3.pth'
    hook = CheckpointHook(out_dir='s3://bucket')
    with pytest.raises(ImportError, match='petrel'):
        hook.before_train(build_runner(tmp_path))
    assert hook.backend_args is None


def test_its_published_file_can_be_read(tmp_path):
    keys = ['meta', 'state_dict']
    build_runner(
        tmp_path, epochs=1, checkpoint=dict(published_keys=keys)
    ).train()
    (published,) = tmp_path.glob('epoch_1-*.pth')
    assert list(read_checkpoint(published)) == keys


@pytest.mark.parametrize('place', ['state_dict', 'message_hub', 'optimizer'])
@pytest.mark.parametrize('way', ['file', 'auto', 'load_from'])
def test_a_run_runs_no_code_of_a_checkpoint(copied, way, place):
    trace, path = copied / 'trace', copied / 'epoch_3.pth'
    checkpoint = _load_checkpoint(str(path))
    checkpoint[place]['more'] = Harmful(trace)
    torch.save(checkpoint, path)
    runner = build_runner(
        copied,
        epochs=4,
        resume=way != 'load_from',
        load_from=None if way == 'auto' else str(path),
    )
    with pytest.raises(InputError, match='could run code'):
        runner.train()
    assert not trace.exists()


def test_a_run_runs_no_config_of_a_checkpoint(copied):
    trace, path = copied / 'trace', copied / 'epoch_3.pth'
    checkpoint = _load_checkpoint(str(path))
    checkpoint['meta']['config'] = f'import os; os.mkdir({str(trace)!r})'
    torch.save(checkpoint, path)
    runner = build_runner(copied, epochs=4, resume=True)
    runner.train()
    assert runner.epoch == 4
    assert not trace.exists()
    # its curve goes on
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 8
