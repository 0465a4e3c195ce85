"""Features on the disk: what they are, when they are taken from there."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from torch.utils.data import ConcatDataset, DataLoader, Subset

from mm_rotssl.apis import build_ordered_dataloader
from mm_rotssl.evaluation import feature_store
from mm_rotssl.evaluation.feature_store import FeatureStore
from mm_rotssl.evaluation.variants import RandomViews, Rotations
from mm_rotssl.registry import MODELS

NIN = dict(
    type='mm_rotssl.NIN', base_channels=6, num_stages=3, out_indices=(0, 2)
)
MEAN, STD = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]


def build_model(seed=0, **settings):
    init_default_scope('mmpretrain')
    torch.manual_seed(seed)
    settings = (
        dict(
            type='mm_rotssl.RotNet',
            backbone=NIN,
            head=dict(type='mm_rotssl.RotationHead', in_channels=6),
            neck=dict(type='GlobalAveragePooling'),
            data_preprocessor=dict(mean=MEAN, std=STD),
        )
        | settings
    )
    return MODELS.build(settings)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / 'images'
    for number in range(10):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        file = folder / 'ab'[number % 2] / f'{number}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), image)
    return folder


def load(folder, batch_size=3, crop=16, **settings):
    return build_ordered_dataloader(
        dict(
            batch_size=batch_size,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            dataset=dict(
                type='mm_rotssl.ImageFolder',
                data_root=str(folder),
                max_broken=100,
                pipeline=[
                    dict(type='mm_rotssl.LoadIntactImage'),
                    dict(type='CenterCrop', crop_size=crop),
                    dict(type='PackInputs'),
                ],
                **settings,
            ),
        )
    )


def paths(folder):
    return sorted(folder.rglob('*.png'), key=lambda path: path.as_posix())


def by_hand(model, images):
    """Pooled maps of images (N, H, W, 3), each on its own."""
    with torch.no_grad():
        inputs = torch.tensor((np.stack(images) - MEAN) / STD).float()
        maps = model.backbone(inputs.permute(0, 3, 1, 2))
    return [one.double().mean((2, 3)).numpy() for one in maps]


@pytest.fixture
def count(monkeypatch):
    """How many images go through a backbone."""
    seen = []
    run = feature_store.backbone_outputs

    def outputs(model, inputs):
        seen.append(len(inputs))
        return run(model, inputs)

    monkeypatch.setattr(feature_store, 'backbone_outputs', outputs)
    return lambda: [sum(seen), seen.clear()][0]


def test_features_are_the_pooled_maps(folder, count):
    model = build_model().eval()
    images = [cv2.imread(str(path)) for path in paths(folder)]
    found = FeatureStore().extract(model, load(folder))
    assert count() == 10
    assert list(found.stages) == ['1', '3']
    for got, want in zip(
        found.stages.values(), by_hand(model, images), strict=True
    ):
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-6)
    assert found.index.tolist() == list(range(10))
    assert found.labels is None


def test_network_that_flattens_with_view(folder):
    """As mmpretrain's VGG with classes does; it can't take channels last."""

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(3, 4, 3)
            self.linear = torch.nn.Linear(4 * 14 * 14, 5)
            self.broken = False

        def forward(self, x):
            x = self.conv(x)
            if self.broken:
                raise RuntimeError('a fault of its own')
            return (self.linear(x.view(len(x), -1)),)

    model = build_model()
    model.backbone = Flat()
    image = cv2.imread(str(paths(folder)[0]))
    inputs = torch.tensor((image - MEAN) / STD).float().permute(2, 0, 1)
    want = model.backbone(inputs.contiguous()[None])[0][0]
    found = FeatureStore().extract(model, load(folder)).stages['1']
    assert found.shape == (10, 5)
    torch.testing.assert_close(found[0], want.detach())
    model.backbone.broken = True
    with pytest.raises(RuntimeError, match='of its own'):
        FeatureStore().extract(model, load(folder))


def test_labels_and_subsets(folder):
    loader = load(folder, with_label=True)
    model = build_model()
    found = FeatureStore().extract(model, loader)
    assert found.labels.tolist() == [0] * 5 + [1] * 5
    part = DataLoader(
        Subset(loader.dataset, [7, 2]),
        batch_size=2,
        collate_fn=loader.collate_fn,
    )
    some = FeatureStore().extract(model, part)
    assert (some.index.tolist(), some.labels.tolist()) == ([7, 2], [1, 0])
    torch.testing.assert_close(some.stages['3'], found.stages['3'][[7, 2]])


def test_nothing_is_extracted_twice(folder, tmp_path, count):
    store, model = FeatureStore(tmp_path / 'store'), build_model()
    first = store.extract(model, load(folder))
    assert count() == 10
    again = FeatureStore(tmp_path / 'store').extract(
        build_model(), load(folder, batch_size=4)
    )
    assert count() == 0
    for name, feats in first.stages.items():
        assert torch.equal(again.stages[name], feats)


def replace_file(folder):
    cv2.imwrite(str(paths(folder)[3]), np.zeros((16, 16, 3), np.uint8))


def touch_file(folder):
    # as many bytes, written later
    file = paths(folder)[3]
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))


def remove_file(folder):
    paths(folder)[0].unlink()


@pytest.mark.parametrize(
    'change',
    [
        dict(file=replace_file),
        dict(file=touch_file),
        dict(file=remove_file),
        dict(crop=12),
        dict(seed=1),
        dict(data_preprocessor=dict(mean=[0.0] * 3, std=STD)),
        dict(data_preprocessor=dict(mean=MEAN, std=STD, bgr_to_rgb=True)),
        dict(backbone=dict(NIN, out_indices=(1, 2))),
        dict(variant=Rotations()),
        dict(variant=RandomViews(1)),
        dict(variant=RandomViews(1, seed=1)),
        dict(input_size=20),
    ],
    ids=lambda change: getattr(change.get('file'), '__name__', str(change)),
)
def test_what_has_changed_is_noticed(folder, tmp_path, count, change):
    store = FeatureStore(tmp_path / 'store')
    store.extract(build_model(), load(folder))
    store.extract(build_model(), load(folder), variant=RandomViews(1, seed=2))
    count()
    change.pop('file', id)(folder)
    crop = change.pop('crop', 16)
    asked = {
        name: change.pop(name)
        for name in ('variant', 'input_size')
        if name in change
    }
    store.extract(build_model(**change), load(folder, crop=crop), **asked)
    assert count() >= 9


def test_other_labels_of_the_same_files(folder, tmp_path):
    store, model = FeatureStore(tmp_path / 'store'), build_model()
    for labels in ([0, 1, 1], [1, 0, 1]):
        names = [f'{path.parent.name}/{path.name}' for path in paths(folder)]
        (folder / 'list.txt').write_text(
            ''.join(
                f'{name} {label}\n'
                for name, label in zip(names, labels, strict=False)
            )
        )
        loader = load(folder, ann_file='list.txt', with_label=True)
        assert store.extract(model, loader).labels.tolist() == labels


class InterruptedRunError(Exception):
    pass


def test_an_interrupted_call_goes_on(folder, tmp_path, count, monkeypatch):
    monkeypatch.setattr(feature_store, 'FLUSHED_ROWS', 1)
    model = build_model()
    store = FeatureStore(tmp_path / 'store')
    run = feature_store.backbone_outputs

    def outputs(model, inputs):
        if count_done[0] == 6:
            raise InterruptedRunError
        count_done[0] += len(inputs)
        return run(model, inputs)

    count_done = [0]
    with monkeypatch.context() as patch:
        patch.setattr(feature_store, 'backbone_outputs', outputs)
        with pytest.raises(InterruptedRunError):
            store.extract(model, load(folder))
    count()
    # what was written after the last time that it was counted is no row
    (entry,) = (tmp_path / 'store').iterdir()
    with open(entry / 'stage-1', 'ab') as file:
        file.write(b'half')
    found = store.extract(model, load(folder))
    assert count() == 4
    whole = FeatureStore().extract(model, load(folder))
    for name, feats in whole.stages.items():
        assert torch.equal(found.stages[name], feats)
    assert found.index.tolist() == list(range(10))


@pytest.mark.parametrize('damage', ['shorter', 'no JSON', 'gone'])
def test_a_damaged_entry_is_made_again(folder, tmp_path, count, damage):
    store, model = FeatureStore(tmp_path / 'store'), build_model()
    first = store.extract(model, load(folder)).stages['3'].clone()
    count()
    (entry,) = (tmp_path / 'store').iterdir()
    if damage == 'shorter':
        content = (entry / 'stage-3').read_bytes()
        (entry / 'stage-3').write_bytes(content[:-4])
    elif damage == 'no JSON':
        (entry / 'state.json').write_bytes(b'{"seen":')
    else:
        (entry / 'labels').unlink()
    assert torch.equal(store.extract(model, load(folder)).stages['3'], first)
    assert count() == 10


def test_what_cannot_be_read_is_passed_over(folder):
    model = build_model()
    whole = FeatureStore().extract(model, load(folder))
    for number in (0, 4):
        paths(folder)[number].write_bytes(b'no image')
    found = FeatureStore().extract(model, load(folder))
    assert found.index.tolist() == [1, 2, 3, 5, 6, 7, 8, 9]
    torch.testing.assert_close(
        found.stages['3'], whole.stages['3'][found.index]
    )
    turned = FeatureStore().extract(model, load(folder), Rotations())
    assert len(turned.stages['3']) == 4 * 8


def test_rotations(folder):
    model = build_model().eval()
    found = FeatureStore().extract(model, load(folder), Rotations())
    images = [cv2.imread(str(path)) for path in paths(folder)]
    turned = [np.rot90(one, turns) for one in images for turns in range(4)]
    for got, want in zip(
        found.stages.values(), by_hand(model, turned), strict=True
    ):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-6)


def test_random_views_are_the_images_own(folder):
    """Whatever the batch they come in, and the network."""
    views = RandomViews(3)
    model = build_model()
    found = FeatureStore().extract(model, load(folder), views)
    other = FeatureStore().extract(model, load(folder, batch_size=7), views)
    torch.testing.assert_close(found.stages['3'], other.stages['3'])
    # none is like another
    assert len(found.stages['3'].unique(dim=0)) == 30


def test_random_views_show_a_part_of_the_image():
    """Mirrored or not, as bright as asked for, each about as often."""
    height, width = 40, 24
    ramp = np.arange(height)[:, None] * 2 + np.zeros((height, width))
    ramp = np.stack([ramp, np.arange(width) * 4 + 0 * ramp], 0) + 1
    image = torch.tensor(ramp)[None].float()
    plain = RandomViews(200, area=(0.25, 0.25), brightness=0.0)
    mirrored = 0
    tops = set()
    for (view,) in plain(image, torch.tensor([5])):
        assert view.shape == (2, height, width)
        rows, columns = view[0, :, 0], view[1, 0]
        # half as high and half as wide, so that it rises half as fast
        assert (rows[-1] - rows[0]).item() == pytest.approx(38, abs=1.5)
        mirrored += columns[0] > columns[-1]
        assert (columns.max() - columns.min()).item() == pytest.approx(
            44, abs=3
        )
        tops.add(round((rows[0].item() - 1) / 2))
    assert 70 < mirrored < 130
    assert tops == set(range(min(tops), max(tops) + 1))
    assert max(tops) - min(tops) == 20
    bright = RandomViews(200, area=(1.0, 1.0), brightness=0.4)
    factors = [
        (view.mean() / image.mean()).item()
        for (view,) in bright(image, torch.tensor([5]))
    ]
    assert 0.6 <= min(factors) < 0.65
    assert 1.35 < max(factors) <= 1.4
    # 8 bits have an end
    white = torch.full((1, 3, 8, 8), 250, dtype=torch.uint8)
    for (view,) in bright(white, torch.tensor([0])):
        assert view.dtype == torch.uint8
        assert int(view.max()) - int(view.min()) == 0


HOST_NECK = dict(
    type='NonLinearNeck', in_channels=6, hid_channels=6, out_channels=5
)
ALGORITHMS = {
    'simclr': (
        dict(
            type='SimCLR',
            neck=HOST_NECK,
            head=dict(
                type='ContrastiveHead', loss=dict(type='CrossEntropyLoss')
            ),
        ),
        lambda model, maps: model.neck((maps[-1],))[0],
    ),
    'swav': (
        dict(
            type='SwAV',
            neck=dict(
                type='SwAVNeck',
                in_channels=6,
                hid_channels=6,
                out_channels=5,
                with_avg_pool=True,
            ),
            head=dict(type='SwAVHead', loss=dict(type='SwAVLoss', feat_dim=5)),
        ),
        lambda model, maps: model.neck([(maps[-1],)]),
    ),
    'self-classifier': (
        dict(
            type='mm_rotssl.SelfClassifier',
            neck=dict(
                type='mm_rotssl.SelfClassifierNeck',
                in_channels=6,
                hid_channels=6,
                out_channels=5,
                num_layers=2,
            ),
            head=dict(
                type='mm_rotssl.SelfClassifierHead',
                in_channels=5,
                num_classes=[3],
            ),
        ),
        lambda model, maps: model.neck(maps[-1].mean((2, 3))),
    ),
}


@pytest.mark.parametrize('name', ALGORITHMS)
def test_embedding(folder, name):
    """Where an algorithm projects its features, also of several stages."""
    settings, project = ALGORITHMS[name]
    model = MODELS.build(
        dict(
            settings,
            backbone=NIN,
            data_preprocessor=dict(
                type='SelfSupDataPreprocessor', mean=MEAN, std=STD
            ),
        )
    ).eval()
    found = FeatureStore().extract(model, load(folder))
    assert list(found.stages) == ['1', '3', 'embedding']
    images = np.stack([cv2.imread(str(path)) for path in paths(folder)])
    inputs = torch.tensor((images - MEAN) / STD).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        want = project(model, model.backbone(inputs))
    assert want.shape == (10, 5)
    torch.testing.assert_close(found.stages['embedding'], want)


def test_images_of_several_sizes(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for number, side in enumerate((8, 9)):
        image = np.zeros((side, side, 3), np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), image)
    loader = build_ordered_dataloader(
        dict(
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='pseudo_collate'),
            dataset=dict(
                type='mm_rotssl.ImageFolder',
                data_root=str(folder),
                pipeline=[
                    dict(type='mm_rotssl.LoadIntactImage'),
                    dict(type='PackInputs'),
                ],
            ),
        )
    )
    with pytest.raises(ValueError, match=r'sizes.*\(8, 8\).*\(9, 9\).*Resize'):
        FeatureStore().extract(build_model(), loader)


def test_no_image_can_be_read(tmp_path):
    Path(tmp_path / 'images').mkdir()
    (tmp_path / 'images/a.png').write_bytes(b'')
    with pytest.raises((ValueError, RuntimeError), match=r'broken|read'):
        FeatureStore().extract(build_model(), load(tmp_path / 'images'))


def test_several_datasets_in_one_are_refused(folder):
    """Images of both have the same places."""
    loader = load(folder)
    both = ConcatDataset([loader.dataset, loader.dataset])
    loader = DataLoader(both, collate_fn=loader.collate_fn)
    with pytest.raises(ValueError, match='ConcatDataset can not be evaluated'):
        FeatureStore().extract(build_model(), loader)
