"""The comparison of pairs: what is measured, summed up and written."""

import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from mm_rotssl.apis import read_labeled_config
from mm_rotssl.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
SIZE = 'nin-w24_1xb128-20e_digits'


@pytest.fixture
def essl(monkeypatch):
    """The script, with trainings that leave the network as it begins."""
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import essl

    def train(config, folder, *arguments):
        (seed,) = (
            int(argument.partition('=')[2])
            for argument in arguments
            if argument.startswith('randomness.seed=')
        )
        cfg = read_labeled_config(config)
        init_default_scope(cfg.default_scope)
        # plain another network, so that the ways differ
        set_random_seed(seed + 10 * config.stem.startswith('simsiam'))
        model = MODELS.build(cfg.model)
        model.init_weights()
        log = folder / 'time/vis_data/scalars.json'
        log.parent.mkdir(parents=True)
        lines = [
            dict(step=1, iter=1, rotation_accuracy=1.0),
            dict(step=2, iter=2, rotation_accuracy=50.0 + seed),
        ]
        log.write_text('\n'.join(map(json.dumps, lines)))
        torch.save(dict(state_dict=model.state_dict()), folder / 'last.pth')
        return folder / 'last.pth'

    def read_small(config, options):
        cfg = read_labeled_config(config, options)
        for loader in (cfg.val_cfg.reference_dataloader, cfg.val_dataloader):
            loader.dataset.update(indices=300, serialize_data=False)
        return cfg

    monkeypatch.setattr(essl, 'read_labeled_config', read_small)
    monkeypatch.setattr(essl, 'train', train)
    return essl


def test_table_and_files(essl, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        'sys.argv',
        [
            *('essl.py', SIZE, '--out', str(tmp_path), '--device', 'cpu'),
            *('--algorithms', 'simsiam', '--seeds', '0', '1'),
        ],
    )
    essl.main()
    found = json.loads((tmp_path / 'summary.json').read_text())
    plain, rotated = found['runs']['simsiam'].values()
    assert [one['seed'] for one in plain] == [0, 1]
    for other, run in zip(plain, rotated, strict=True):
        # that network is the untrained one
        untrained = found['untrained'][str(run['seed'])]
        for key in ('knn', 'linear'):
            assert run[key] == pytest.approx(untrained[key])
            assert 20 < run[key] < 100
        assert other['knn'] != run['knn']
        assert run['rotation'] == 50 + run['seed']
    out = capsys.readouterr().out
    assert found['table'] in out
    numbers = [
        [float(n) for n in re.findall(r'\d+\.\d', line)]
        for line in found['table'].splitlines()[2:]
    ]
    ends = [
        number
        for key in ('knn', 'linear')
        for runs in (plain, rotated)
        for number in (
            statistics.mean(run[key] for run in runs),
            np.std([run[key] for run in runs], ddof=1),
        )
    ]
    expected = [*ends[2:4], *ends[6:8]], [*ends, 50.5, 0.7]
    for row, want in zip(numbers, expected, strict=True):
        np.testing.assert_allclose(row, want, atol=0.051)
    assert (tmp_path / 'comparison.png').stat().st_size > 10_000


def test_refuses_a_size_without_configs(essl, tmp_path, monkeypatch):
    monkeypatch.setattr('sys.argv', ['essl.py', 'no', '--out', str(tmp_path)])
    with pytest.raises(SystemExit, match=r'moco_no\.py" does not exist'):
        essl.main()
