"""A report with its real protocols, of networks of other packages."""

import pytest
import timm
import torch
from subjects import write_classes

from mm_rotssl.apis import evaluate, find_entry

QUICK = dict(report=lambda _: None, max_images=20)


@pytest.fixture(scope='module')
def entry(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('weights') / 'w.pth'
    torch.save(timm.create_model('test_resnet').state_dict(), file)
    return find_entry(file, 'timm:test_resnet')


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    for seed, name in enumerate(('train', 'val')):
        write_classes(folder / name, 10, seed)
    return folder / 'train', folder / 'val'


def test_default_protocols_of_a_network_of_timm(entry, folders, tmp_path):
    report = evaluate(
        entry, tmp_path, images=folders[1], labeled=folders, **QUICK
    )
    names = {one['protocol'] for one in report['measurements']}
    assert names >= {'geometry', 'knn', 'linear', 'clusters', 'views'}
    # it has no head to predict with, and a classifier's are not its own
    assert 'own-predictions' not in names
    assert all(one['stage'] for one in report['measurements'])
    assert (tmp_path / 'report.html').is_file()


def test_diverged_network(entry, folders, tmp_path):
    weights = torch.load(entry.runs[0].checkpoint, weights_only=True)
    # finite, but what comes of them is not
    weights['layer4.0.conv1.weight'].fill_(3e38)
    file = tmp_path / 'large.pth'
    torch.save(weights, file)
    bad = find_entry(file, 'timm:test_resnet')
    with pytest.raises(ValueError, match=r'large: .* are NaN or infinite'):
        evaluate(
            [entry, bad],
            tmp_path / 'out',
            images=folders[1],
            labeled=folders,
            protocols=['linear'],
            **QUICK,
        )
