"""Neighbors of the training images, by the features of a network."""

import numpy as np
import pytest
import torch
from stand_ins import draw_images

from mm_rotssl.apis import (
    build_untrained,
    mine_neighbors,
    read_network,
)
from mm_rotssl.datasets import Digits, Neighbors, image_keys
from mm_rotssl.evaluation.feature_store import FeatureStore, network_outputs


@pytest.fixture
def run(tmp_path):
    """Of a network of one stage and an embedding, untrained."""
    cfg = read_network('simclr_nin-w24_1xb128-20e_digits')
    cfg.train_dataloader.dataset.indices = 40
    (tmp_path / 'run').mkdir()
    cfg.dump(tmp_path / 'run/a.py')
    model = build_untrained(cfg, 0)
    torch.save(
        dict(state_dict=model.state_dict()), tmp_path / 'run/epoch_1.pth'
    )
    model.eval()
    return tmp_path / 'run', model


def expected(model, stage, k):
    """By a loop over all pairs."""
    dataset = Digits(split='train', pipeline=[], indices=40)
    mean = torch.tensor([78.0]).view(1, 1, 1)
    images = torch.stack(
        [
            torch.from_numpy(dataset.get_data_info(i)['img'])
            .permute(2, 0, 1)
            .float()
            for i in range(40)
        ]
    )
    with torch.no_grad():
        outputs = network_outputs(model, (images - mean) / 87.0)
    rows = outputs[stage].double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for i, row in enumerate(rows):
        order = sorted(
            (j for j in range(40) if j != i), key=lambda j: -(row @ rows[j])
        )
        found.append(order[:k])
    labels = [dataset.get_data_info(i)['gt_label'] for i in range(40)]
    right = [
        labels[i] == labels[j] for i, row in enumerate(found) for j in row
    ]
    return found, image_keys(dataset), 100 * np.mean(right)


@pytest.mark.parametrize(
    ('stage', 'name'), [(None, 'embedding'), ('3', '3'), ('1', '1')]
)
def test_as_all_pairs(run, tmp_path, stage, name):
    folder, model = run
    out = tmp_path / 'n.npz'
    found = mine_neighbors(
        folder, out, k=5, stage=stage, report=lambda _: None
    )
    positions, keys, purity = expected(model, name, 5)
    assert found.stage == name
    read = Neighbors.load(out)
    assert read.keys == keys
    assert read.made_by['stage'] == name
    # float32 may exchange two that are as near
    same = np.mean(read.positions == np.array(positions))
    assert same > 0.98
    assert found.purity == pytest.approx(purity, abs=1)


def test_an_image_that_is_there_twice(run, tmp_path, monkeypatch):
    """Its copy may come before itself; none is its own neighbor."""
    folder, _ = run
    extract = FeatureStore.extract

    def doubled(self, *args, **kwargs):
        found = extract(self, *args, **kwargs)
        rows = found.stages['embedding'].clone()
        rows[1::2] = rows[::2]
        found.stages['embedding'] = rows
        return found

    monkeypatch.setattr(FeatureStore, 'extract', doubled)
    found = mine_neighbors(folder, tmp_path / 'n.npz', k=1, report=lambda _: 0)
    pairs = np.arange(40) ^ 1
    assert found.neighbors.positions[:, 0].tolist() == pairs.tolist()


def test_what_can_not_be_found(run, tmp_path):
    folder, _ = run
    out = tmp_path / 'n.npz'
    for changes, said in (
        (dict(k=40), 'from 1 to 39'),
        (dict(stage='9'), 'the stages are 1, 2, 3, embedding'),
    ):
        with pytest.raises(ValueError, match=said):
            mine_neighbors(folder, out, report=lambda _: None, **changes)
    broken = tmp_path / 'images'
    broken.mkdir()
    draw_images(broken, 4, size=(32, 32))
    (broken / '9.jpg').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'1 of 5 images .* check-images'):
        mine_neighbors(folder, out, images=broken, k=2, report=lambda _: None)
    assert not out.exists()
    (broken / '9.jpg').unlink()
    found = mine_neighbors(folder, out, images=broken, k=2, report=print)
    assert sorted(found.neighbors.keys) == [f'{i}.jpg' for i in range(4)]
    # without labels
    assert found.purity is None
