import shutil

import cv2
import numpy as np
import pytest
from subjects import (
    blobs,
    build_network,
    build_subject,
    write_classes,
    write_flat,
)
from torch.utils.data import DataLoader, Subset

from mm_rotssl.apis import duplicates
from mm_rotssl.apis.duplicates import (
    Duplicate,
    bottom_dataset,
    duplicate_remarks,
    find_duplicates,
)
from mm_rotssl.evaluation.feature_store import FeatureStore


@pytest.fixture(scope='module')
def model():
    return build_network()


@pytest.fixture(scope='module')
def labeled(tmp_path_factory):
    """Folders of a reference and a test set with planted duplicates."""
    root = tmp_path_factory.mktemp('labeled')
    reference = write_classes(root / 'reference', 6, seed=0)
    test = write_classes(root / 'test', 4, seed=1)
    # the same pixels under another name, even in another class
    shutil.copy(reference / 'cat/2.png', test / 'owl/leaked.png')
    # brighter, and compressed with loss
    image = cv2.imread(str(reference / 'dog/3.png'))
    brighter = cv2.convertScaleAbs(image, alpha=0.9, beta=20)
    file = str(test / 'dog/nearly.jpg')
    cv2.imwrite(file, brighter, [cv2.IMWRITE_JPEG_QUALITY, 95])
    shutil.copy(test / 'owl/1.png', test / 'owl/twin.png')
    return reference, test


def names(found):
    return {(d.sets, d.names, d.equal) for d in found}


def test_planted_duplicates_and_nothing_else(model, labeled):
    reference, test = labeled
    subject = build_subject(model, FeatureStore(), test, reference, test)
    found = find_duplicates(subject)
    leaked = ('test', 'reference')
    assert names(found) == {
        (leaked, ('owl/leaked.png', 'cat/2.png'), True),
        (leaked, ('dog/nearly.jpg', 'dog/3.png'), False),
        (('test', 'test'), ('owl/1.png', 'owl/twin.png'), True),
    }
    # equal ones first
    assert [d.equal for d in found] == [True, True, False]
    assert [d.correlation == 1 for d in found] == [True, True, False]
    # the places are those of the images
    for duplicate in found:
        for which, place, name in zip(
            duplicate.sets, duplicate.places, duplicate.names, strict=True
        ):
            dataset = getattr(subject, which).dataset
            path = dataset.get_data_info(place)['img_path']
            assert path.endswith(f'/{name}')


def test_among_images_without_labels(model, tmp_path):
    folder = write_flat(tmp_path / 'flat', 9, seed=2)
    shutil.copy(folder / '05.png', folder / '20.png')
    found = find_duplicates(build_subject(model, FeatureStore(), folder))
    assert names(found) == {(('images',) * 2, ('05.png', '20.png'), True)}


def test_some_of_the_images(model, tmp_path):
    """A subset's images are named as in the folder; others are not seen."""
    folder = write_flat(tmp_path / 'flat', 9, seed=2)
    for name in ('20.png', '21.png'):
        shutil.copy(folder / '05.png', folder / name)
    subject = build_subject(model, FeatureStore(), folder)
    whole = subject.images.dataset
    subject.images = DataLoader(
        Subset(Subset(whole, range(2, 11)), [0, 3, 7]),
        collate_fn=subject.images.collate_fn,
    )
    assert bottom_dataset(subject.images) is whole
    found = find_duplicates(subject)
    assert [d.places for d in found] == [(5, 9)]
    assert [d.names for d in found] == [('05.png', '20.png')]


def draw(count, seed):
    return np.random.default_rng(seed).permutation(count)[:8].tolist()


def test_only_some_are_looked_for(model, tmp_path, monkeypatch):
    """Of very many images."""
    folder = write_flat(tmp_path / 'flat', 8, seed=2)
    for i in range(8):
        shutil.copy(folder / f'{i:02}.png', folder / f'{i + 10}.png')
    monkeypatch.setattr(duplicates, 'MAX_QUERIES', 8)
    drawn = draw(16, seed=0)
    twice = {(i, i + 8) for i in drawn if i + 8 in drawn}
    found = find_duplicates(build_subject(model, FeatureStore(), folder))
    assert {d.places for d in found} == twice
    assert twice


def test_only_some_test_images_are_looked_for(model, labeled, monkeypatch):
    monkeypatch.setattr(duplicates, 'MAX_QUERIES', 8)
    reference, test = labeled
    subject = build_subject(model, FeatureStore(), test, reference, test)
    files = [
        subject.test.dataset.get_data_info(i)['img_path'] for i in range(15)
    ]
    leaked = {str(test / 'owl/leaked.png'), str(test / 'dog/nearly.jpg')}
    seen = set()
    for seed in range(4):
        subject.seed = seed
        drawn = {files[i] for i in draw(15, seed)}
        found = [d for d in find_duplicates(subject) if 'reference' in d.sets]
        assert {files[d.places[0]] for d in found} == drawn & leaked
        seen |= drawn & leaked
    assert seen


def test_different_images_of_one_color_are_not_equal(model, tmp_path):
    (tmp_path / 'flat').mkdir()
    for i, shade in enumerate((0, 1, 200)):
        image = np.full((8, 8, 3), shade, np.uint8)
        cv2.imwrite(str(tmp_path / 'flat' / f'{i}.png'), image)
    subject = build_subject(model, FeatureStore(), tmp_path / 'flat')
    assert find_duplicates(subject) == []


def test_remarks():
    def make(sets, places, equal=True):
        files = tuple(
            f'{s}/{p}.png' for s, p in zip(sets, places, strict=True)
        )
        return Duplicate(sets, places, files, equal, 1.0)

    leaked = ('test', 'reference')
    assert duplicate_remarks([]) == []
    # an image that is there twice counts once
    found = [make(leaked, (3, i)) for i in range(2)]
    (remark,) = duplicate_remarks(found)
    assert remark.startswith('1 test image is in the reference set, too')
    assert 'test/3.png = reference/0.png, test/3.png = reference/1' in remark
    found = [make(leaked, (i, i)) for i in range(9)]
    (remark,) = duplicate_remarks(found)
    assert remark.startswith('9 test images are in')
    assert remark.count('=') == 5
    assert 'and 4 more' in remark
    first, second = duplicate_remarks(
        [make(('images', 'images'), (0, 1)), make(('test', 'test'), (2, 3))]
    )
    assert first.startswith(
        '1 pair of test images is equal, or nearly: test/2'
    )
    assert second.startswith('1 pair of images is equal')


def test_stand_ins_are_not_alike():
    """What the tests above take for granted."""
    rng = np.random.default_rng(0)
    images = np.stack([blobs(rng).ravel() for _ in range(30)])
    correlation = np.corrcoef(images) - np.eye(30)
    assert correlation.max() < 0.8
