import argparse
import io
import tarfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Harmful
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import CosineAnnealingLR, MultiStepLR, OneCycleLR
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint

from mm_rotssl.utils import read_checkpoint


def read_as_the_engine_does(path):
    return _load_checkpoint(str(path), map_location='cpu')


READERS = pytest.mark.parametrize(
    'read', [read_checkpoint, read_as_the_engine_does]
)


class Reduced:
    """Unpickled, it calls a function."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def refused(read, path, trace, message='and reading that could run code'):
    with pytest.raises(ValueError, match=message) as info:
        read(path)
    assert path.name in str(info.value)
    assert not trace.exists()


@READERS
@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'place', ['state_dict', 'meta', 'message_hub', 'optimizer']
)
def test_checkpoints_run_no_code(tmp_path, read, zipped, place):
    trace = tmp_path / 'trace'
    checkpoint = dict(state_dict={'weight': torch.ones(2)})
    checkpoint[place] = dict(log_scalars=[Harmful(trace)])
    path = tmp_path / 'a.pth'
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    refused(read, path, trace, 'holds .*mkdir, and reading that could run')


@READERS
def test_getattr_leads_nowhere(tmp_path, read):
    trace, path = tmp_path / 'trace', tmp_path / 'a.pth'
    for owner, name in (
        (OrderedDict, 'fromkeys'),
        (HistoryBuffer(), 'mean'),
        # what `getattr` gives is no owner
        (Reduced(getattr, HistoryBuffer, 'mean'), '__globals__'),
    ):
        torch.save(dict(extra=Reduced(getattr, owner, name)), path)
        refused(read, path, trace)
    # nor can it be called, and it stays without a trace
    method = Reduced(getattr, HistoryBuffer, '__subclasses__')
    torch.save(dict(state_dict={}, extra=method), path)
    assert read(path) == dict(state_dict={})
    for args in ((), (str(trace),)):

        class Call:
            def __reduce__(self, args=args):
                return Called(), args

        class Called:
            def __reduce__(self):
                return getattr, (HistoryBuffer, '__subclasses__')

            def __call__(self):
                pass

        torch.save(dict(extra=Call()), path)
        refused(read, path, trace, 'is damaged')


@READERS
def test_a_tar_archive_is_refused(tmp_path, read):
    trace, path = tmp_path / 'trace', tmp_path / 'a.pth'
    content = io.BytesIO()
    torch.save(Harmful(trace), content, _use_new_zipfile_serialization=False)
    with tarfile.open(path, 'w') as archive:
        for name in ('storages', 'tensors', 'pickle'):
            info = tarfile.TarInfo(name)
            info.size = len(content.getvalue())
            content.seek(0)
            archive.addfile(info, content)
    refused(read, path, trace, 'is a tar archive')


@READERS
def test_arrays_of_objects_are_refused(tmp_path, read):
    path = tmp_path / 'a.pth'
    for array in (np.array([{}]), np.zeros(2, [('a', 'f4')])):
        torch.save(dict(meta=array), path)
        refused(read, path, tmp_path / 'trace', r'holds numpy\.dtype')


@READERS
def test_what_a_run_saves_arrives(tmp_path, read):
    hub = MessageHub('test_checkpoint')
    for value in (3.0, 1.0, 2.0):
        hub.update_scalar('train/loss', value)
    hub.update_info('best', np.float64(0.5))
    hub.update_info('names', ['a', 'b'])
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    schedulers = [
        OneCycleLR(optimizer, eta_max=0.2, total_steps=9),
        MultiStepLR(optimizer, milestones=[2, 2, 5]),
        CosineAnnealingLR(optimizer, T_max=4),
    ]
    model = torch.nn.Linear(2, 2)
    saved = dict(
        state_dict=model.state_dict(),
        message_hub=hub.state_dict(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[s.state_dict() for s in schedulers],
        meta=dict(
            palette=np.asfortranarray([[0, 1, 2], [3, 4, 5]], '>u2'),
            classes=np.array(['x', 'yz']),
            nested=(ConfigDict(a=dict(b=1)), [np.int64(3)], torch.Size([2])),
        ),
        args=argparse.Namespace(lr=0.1),
    )
    path = tmp_path / 'a.pth'
    torch.save(saved, path)
    found = read(path)
    # settings of another code are passed over
    assert list(found) == list(saved)[:-1]
    # a model's versions of its parts
    assert found['state_dict']._metadata == saved['state_dict']._metadata
    assert torch.equal(found['state_dict']['weight'], model.weight)

    other = MessageHub('test_checkpoint_other')
    other.load_state_dict(found['message_hub'])
    curve = other.get_scalar('train/loss')
    assert [curve.min(), curve.mean(), curve.current()] == [1, 2, 2]
    curve.update(0.0)
    assert curve.data[0].tolist() == [3, 1, 2, 0]
    assert other.get_info('best') == 0.5
    assert other.get_info('names') == ['a', 'b']

    for scheduler, state in zip(
        schedulers, found['param_schedulers'], strict=True
    ):
        scheduler.load_state_dict(state)
        optimizer.step()
        scheduler.step()
    meta = found['meta']
    assert meta['palette'].tolist() == [[0, 1, 2], [3, 4, 5]]
    meta['palette'] += 1  # no view of the file's bytes
    assert meta['classes'].tolist() == ['x', 'yz']
    assert meta['nested'] == ({'a': {'b': 1}}, [3], torch.Size([2]))
    assert isinstance(meta['nested'][2], torch.Size)
    # and is saved as any other
    torch.save(found, path)
    read(path)


@READERS
def test_a_flipped_bit_is_noticed(tmp_path, read):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict={'weight': torch.full((9,), 1.5)}), path)
    content = bytearray(path.read_bytes())
    place = content.index(np.full(9, 1.5, np.float32).tobytes())
    content[place + 9] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'damaged: .*data/0 .* checksum'):
        read(path)


def test_other_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}), 'a.pth')
    Path('half.pth').write_bytes(Path('a.pth').read_bytes()[:200])
    Path('empty.pth').touch()
    Path('text.pth').write_text('weights')
    for name in ('half.pth', 'empty.pth', 'text.pth'):
        with pytest.raises(ValueError, match=f'{name}" is damaged'):
            read_checkpoint(name)
    torch.save([1], 'list.pth')
    with pytest.raises(ValueError, match='holds a list'):
        read_checkpoint('list.pth')
    with pytest.raises(FileNotFoundError, match=r'none\.pth" does not exist'):
        read_checkpoint('none.pth')


def test_the_engine_reads_safely_from_everywhere(tmp_path, monkeypatch):
    trace, path = tmp_path / 'trace', tmp_path / 'a.pth'
    torch.save(dict(state_dict=Harmful(trace)), path)
    folder = tmp_path / 'hub/checkpoints'
    folder.mkdir(parents=True)
    path.rename(folder / 'a.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    # found in the cache of downloads
    with pytest.raises(ValueError, match=r'https://x\.invalid/a\.pth" '):
        _load_checkpoint('https://x.invalid/a.pth')
    assert not trace.exists()
    for scheme, loader in CheckpointLoader._schemes.items():
        # what a hook has read is in memory
        assert scheme == 'checked://' or hasattr(loader, '__wrapped__'), scheme
    # other code still decides for itself
    assert torch.load is torch.serialization.load


def test_the_engine_gets_no_text_to_run(tmp_path):
    """Resuming runs ``meta['config']``, which nothing saves any more."""
    path = tmp_path / 'a.pth'
    torch.save(dict(meta=dict(config='import os', epoch=1)), path)
    assert read_as_the_engine_does(path)['meta'] == dict(epoch=1)


def test_a_declared_class_is_admitted_but_not_in_our_place(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(a=Reduced(getattr, OrderedDict, 'fromkeys')), path)
    with torch.serialization.safe_globals([getattr]):
        with pytest.raises(ValueError, match='getattr'):
            read_checkpoint(path)
        assert getattr in torch.serialization.get_safe_globals()
    assert getattr not in torch.serialization.get_safe_globals()
    torch.save(dict(a=slice(1, 2)), path)
    with pytest.raises(ValueError, match='slice'):
        read_checkpoint(path)
    with torch.serialization.safe_globals([slice]):
        assert read_checkpoint(path) == dict(a=slice(1, 2))
