"""Configs that were written before 0.1.0."""

import re
from pathlib import Path

from mmengine.config import Config

from mm_rotssl.apis import read_config
from mm_rotssl.apis.old_names import ARGUMENTS, TYPES, translate_old_names

CHANGELOG = Path(__file__).resolve().parents[2] / 'CHANGELOG.md'


def test_all_names_of_the_changelog():
    table = CHANGELOG.read_text().split('### Registered types')[1]
    types, arguments = table.split('### Arguments in configs')
    rows = dict(
        re.findall(
            r'^\| `mm_rotssl\.(\w+)`.* \| `mm_rotssl\.(\w+)`', types, re.M
        )
    )
    assert rows == TYPES
    arguments = arguments.split('### Options')[0]
    rows = re.findall(
        r'^\| `(\w+)` of `(\w+)`.* \| `(\w+)` \|', arguments, re.M
    )
    assert {kind: {old: new} for old, kind, new in rows} == ARGUMENTS


def test_old_names_are_read(tmp_path):
    base = 'rotnet_nin-w24_1xb128-15e_digits'
    path = read_config(base).filename
    (tmp_path / 'old.py').write_text(f"""
_base_ = [{path!r}]
pipeline = [
    dict(type='mm_rotssl.LoadImageFromFile', color_type='grayscale'),
    dict(type='RandomResizedCrop', scale=32),
    dict(type='mm_rotssl.RandomResizedCrop', scale=32),
]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_cfg = dict(
    type='mm_rotssl.KNNValLoop', bank_dataloader=dict(batch_size=7)
)
custom_hooks = [dict(type='mm_rotssl.CheckpointGuardHook')]
""")
    cfg = read_config(
        tmp_path / 'old.py', {'val_cfg.reference_dataloader.batch_size': 9}
    )
    # another package's part of the same name is not touched
    assert [step.type for step in cfg.train_dataloader.dataset.pipeline] == [
        'mm_rotssl.LoadIntactImage',
        'RandomResizedCrop',
        'mm_rotssl.RandomResizedCropFlip',
    ]
    assert 'bank_dataloader' not in cfg.val_cfg
    assert cfg.val_cfg.reference_dataloader.batch_size == 9
    assert cfg.custom_hooks[0].type == 'mm_rotssl.CheckpointCheckHook'


def test_old_sampling_of_exemplars():
    part = Config(
        dict(
            a=[dict(type='mm_rotssl.ExemplarDataset', seeds=dict(num_seeds=5))]
        )
    )
    translate_old_names(part._cfg_dict)
    assert part.a[0] == dict(
        type='mm_rotssl.ExemplarDataset', seed_patches=dict(num_exemplars=5)
    )
