"""Labels of two datasets mean the same class if its name is the same."""

import re

import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from mm_rotssl.datasets import Digits, ImageFolder
from mm_rotssl.evaluation.labels import list_classes, match_labels


def folder(root, classes):
    for name in classes:
        (root / name).mkdir(parents=True)
        Image.new('L', (4, 4)).save(root / name / '0.png')
    return ImageFolder(str(root), with_label=True)


def listed(root, labels, **kwargs):
    """A list file that numbers its classes."""
    root.mkdir(exist_ok=True)
    for label in labels:
        Image.new('L', (4, 4)).save(root / f'{label}.png')
    (root / 'list.txt').write_text(
        ''.join(f'{label}.png {label}\n' for label in labels)
    )
    return ImageFolder(
        str(root), ann_file='list.txt', with_label=True, **kwargs
    )


def test_a_missing_class_shifts_nothing(tmp_path):
    reference = folder(tmp_path / 'reference', 'abc')
    test = folder(tmp_path / 'test', 'ac')
    assert list_classes(test) == ['a', 'c']
    assert match_labels(reference, test).tolist() == [0, 2]
    # through what wraps a dataset
    assert match_labels(
        Subset(reference, [0]), Subset(test, [1])
    ).tolist() == [
        0,
        2,
    ]
    assert match_labels(reference, reference) is None


def test_another_order(tmp_path):
    reference = listed(
        tmp_path / 'r', range(3), metainfo=dict(classes=('x', 'y', 'z'))
    )
    test = listed(
        tmp_path / 't', range(3), metainfo=dict(classes=['z', 'x', 'y'])
    )
    assert match_labels(reference, test).tolist() == [2, 0, 1]


def test_a_class_that_can_never_be_right(tmp_path):
    reference = folder(tmp_path / 'reference', 'abc')
    test = folder(tmp_path / 'test', 'abd')
    with pytest.raises(
        ValueError,
        match=r'^val_dataloader has images of classes that '
        r'val_cfg\.reference_dataloader does not have.*right: d\. .*: a, b, c',
    ):
        match_labels(reference, test)
    # without an image it does no harm
    (tmp_path / 'test/d/0.png').unlink()
    test = ImageFolder(str(tmp_path / 'test'), with_label=True)
    assert match_labels(reference, test).tolist() == [0, 1, -1]


def test_names_that_tell_nothing(tmp_path):
    reference = listed(
        tmp_path / 'r', range(3), metainfo=dict(classes=['x', 'x', 'z'])
    )
    test = listed(tmp_path / 't', range(2), metainfo=dict(classes=['x', 'z']))
    with pytest.raises(ValueError, match='x is there twice'):
        match_labels(reference, test)
    assert match_labels(reference, reference) is None


def test_numbers_without_names(tmp_path):
    reference = listed(tmp_path / 'r', range(3))
    assert match_labels(reference, listed(tmp_path / 't', [0, 2])) is None
    wrong = listed(tmp_path / 'w', [1, 3])
    text = 'label 3 is in one of them only, and val_cfg.reference_dataloader'
    with pytest.raises(ValueError, match=re.escape(text)):
        match_labels(reference, wrong)
    named = folder(tmp_path / 'named', 'abc')
    assert match_labels(named, reference) is None
    with pytest.raises(ValueError, match=r'label 3 .*val_dataloader has no'):
        match_labels(named, wrong)
    with pytest.raises(ValueError, match='label 2 '):
        match_labels(reference, folder(tmp_path / 'two', 'ab'))


def test_datasets_with_names_of_their_own():
    train, test = Digits(), Digits('val')
    assert match_labels(train, test) is None
    other = Digits(
        'val', metainfo=dict(classes=[str(9 - i) for i in range(10)])
    )
    matched = match_labels(train, other)
    torch.testing.assert_close(matched, 9 - torch.arange(10))
