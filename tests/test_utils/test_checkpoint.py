import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from mm_rotssl.utils import read_checkpoint


class Evil:
    def __reduce__(self):
        return os.system, ('touch evil',)


def test_checkpoints_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, extra=Evil()), 'evil.pth')
    with pytest.raises(ValueError, match='system, and reading that could'):
        read_checkpoint('evil.pth')
    assert not Path('evil').exists()

    # `getattr` is admitted by name and must stay without effect
    class Getattr:
        def __reduce__(self):
            return getattr, (OrderedDict, 'fromkeys')

    torch.save(dict(state_dict={}, extra=Getattr()), 'getattr.pth')
    assert not callable(read_checkpoint('getattr.pth')['extra'])

    Path('half.pth').write_bytes(Path('evil.pth').read_bytes()[:200])
    Path('empty.pth').touch()
    Path('text.pth').write_text('weights')
    for name in ('half.pth', 'empty.pth', 'text.pth'):
        with pytest.raises(ValueError, match=f'{name}" is damaged'):
            read_checkpoint(name)
    torch.save([1], 'list.pth')
    with pytest.raises(ValueError, match='holds a list'):
        read_checkpoint('list.pth')
