from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mm_rotssl.apis import build_ordered_dataloader, load_network
from mm_rotssl.registry import DATASETS

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / 'configs/_base_/datasets/digits.py'


def test_limited_reference_set_is_a_random_part_in_the_order_of_the_data():
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict(
        dict(
            reference_dataloader=dict(
                batch_size=50,
                dataset=dict(
                    indices=list(range(5, 155)), serialize_data=False
                ),
                sampler=dict(shuffle=True),
            )
        )
    )
    settings = cfg.reference_dataloader
    init_default_scope('mmpretrain')
    whole = DATASETS.build(settings.dataset)
    parts = []
    for seed in (0, 0, 1):
        loader = build_ordered_dataloader(settings, 40, seed)
        rows = torch.cat([batch['inputs'] for batch in loader])
        assert len(rows) == 40
        for i, row in enumerate(rows):
            assert torch.equal(row, loader.dataset[i]['inputs'])
        parts.append(loader.dataset.indices)
        assert parts[-1] == sorted(set(parts[-1]))
        assert torch.equal(rows[3], whole[parts[-1][3]]['inputs'])
    assert parts[0] == parts[1] != parts[2]
    # more than the first ones of a dataset that is sorted by class
    assert max(parts[0]) > 100


def test_checkpoint_that_is_not_there():
    with pytest.raises(FileNotFoundError, match=r'"nowhere\.pth" does not ex'):
        load_network(Config(), 'nowhere.pth')
