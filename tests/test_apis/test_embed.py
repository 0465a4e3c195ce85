"""Features of images as files of other programs."""

import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mm_rotssl.apis import (
    embed,
    load_network,
    read_network,
    write_embeddings,
)

CONFIG = """
_base_ = ['{root}/configs/rotnet/rotnet_resnet18_1xb64-100e_custom.py']
model = dict(
    backbone=dict(_delete_=True, type='mm_rotssl.NIN', base_channels=6,
        num_stages=3, out_indices=(0, 2)),
    head=dict(in_channels=6))
test_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(pipeline=[
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='CenterCrop', crop_size=16),
    dict(type='PackInputs')]))
"""
NAMES = ['a/1.png', 'a/2 ü.png', 'b/3.png']


@pytest.fixture
def run(tmp_path):
    """A config, a checkpoint beside it, and images."""
    (tmp_path / 'run').mkdir()
    config = tmp_path / 'run/a.py'
    config.write_text(CONFIG.format(root=Path(__file__).parents[2]))
    model = load_without_weights(config)
    torch.save(model.state_dict(), tmp_path / 'run/epoch_1.pth')
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'images' / name)
    return tmp_path


def load_without_weights(config):
    from mm_rotssl.apis import build_untrained

    return build_untrained(read_network(config), 0)


def expected(run, stage):
    cfg = read_network(run / 'run/a.py')
    model = load_network(cfg, run / 'run/epoch_1.pth').eval()
    pixels = np.stack(
        [np.asarray(Image.open(run / 'images' / name)) for name in NAMES]
    )
    settings = cfg.model.data_preprocessor
    inputs = (pixels - np.array(settings.mean)) / settings.std
    with torch.no_grad():
        maps = model.backbone(torch.tensor(inputs).permute(0, 3, 1, 2).float())
    return maps[stage].mean((2, 3)).numpy()


@pytest.mark.parametrize(('stage', 'place'), [(None, 1), ('1', 0)])
def test_npz(run, stage, place):
    out = run / 'o/f.npz'
    found = embed(run / 'run', out, images=run / 'images', stage=stage)
    assert found == (3, [3, 6][place], ['1', '3'][place], ('1', '3'))
    with np.load(out) as file:
        assert set(file) == {'features', 'images'}
        assert file['images'].tolist() == NAMES
        assert file['features'].dtype == np.float32
        np.testing.assert_allclose(
            file['features'], expected(run, place), rtol=1e-4, atol=1e-5
        )


def test_csv(run):
    out = run / 'f.csv'
    embed(
        run / 'run/a.py', out, run / 'run/epoch_1.pth', images=run / 'images'
    )
    with open(out, newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    assert rows[0] == ['image', *(f'f{i}' for i in range(6))]
    assert [row[0] for row in rows[1:]] == NAMES
    embed(run / 'run', run / 'f.npz', images=run / 'images')
    with np.load(run / 'f.npz') as file:
        # not a digit is lost
        got = np.array([row[1:] for row in rows[1:]], np.float32)
        assert np.array_equal(got, file['features'])


def test_labels_of_the_config(run):
    config = run / 'run/a.py'
    config.write_text(
        config.read_text()
        + f"""
val_dataloader = dict(batch_size=2, num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mm_rotssl.ImageFolder', with_label=True,
        data_root='{run / 'images'}', pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'), dict(type='PackInputs')]))
"""
    )
    embed(run / 'run', run / 'f.npz')
    with np.load(run / 'f.npz') as file:
        assert file['labels'].tolist() == [0, 0, 1]
        assert file['images'].tolist() == NAMES


def test_parquet(run):
    parquet = pytest.importorskip('pyarrow.parquet')
    embed(run / 'run', run / 'f.parquet', images=run / 'images')
    table = parquet.read_table(run / 'f.parquet').to_pydict()
    assert table['image'] == NAMES
    got = np.stack([table[f'f{i}'] for i in range(6)], 1)
    np.testing.assert_allclose(got, expected(run, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('suffix', 'count'),
    [('.csv', 20_000), ('.parquet', 40_000), ('.npz', 90_000)],
)
def test_more_rows_than_are_in_memory_at_once(tmp_path, suffix, count):
    """A part of 4,096 rows has 2 MB; NumPy's parts of a file have 16."""
    if suffix == '.parquet':
        parquet = pytest.importorskip('pyarrow.parquet')
    rows = np.memmap(tmp_path / 'rows', '<f4', 'w+', shape=(count, 128))
    rows[:, 0] = np.arange(len(rows))
    labels = torch.arange(len(rows)) % 7
    names = [f'{i}.jpg' for i in range(len(rows))]
    out = tmp_path / f'f{suffix}'
    tracemalloc.start()
    write_embeddings(out, torch.from_numpy(rows), names, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.6 * rows.nbytes
    if suffix == '.npz':
        with np.load(out) as file:
            found = [file['images'], file['labels'], file['features'][:, 0]]
    elif suffix == '.parquet':
        table = parquet.read_table(out, columns=['image', 'label', 'f0'])
        found = [np.array(column) for column in table.to_pydict().values()]
    else:
        with open(out, newline='', encoding='utf-8') as file:
            next(file)
            parts = [line[:3] for line in csv.reader(file)]
        image, label, first = map(np.array, zip(*parts, strict=True))
        found = [image, label.astype(int), first.astype(float)]
    for got, want in zip(
        found, (names, labels.numpy(), rows[:, 0]), strict=True
    ):
        assert np.array_equal(got, want)


def test_errors_come_before_any_work(run, monkeypatch):
    with pytest.raises(ValueError, match=r'f\.txt: must end in \.npz, \.csv'):
        embed(run / 'run', run / 'f.txt')
    with pytest.raises(ValueError, match='--stage 9: the stages are 1, 3'):
        embed(run / 'run', run / 'f.npz', images=run / 'images', stage='9')
    monkeypatch.setitem(__import__('sys').modules, 'pyarrow.parquet', None)
    with pytest.raises(ValueError, match='pip install pyarrow'):
        embed(run / 'run', run / 'f.parquet', images=run / 'images')
    with pytest.raises(FileNotFoundError, match='There is no "nowhere"'):
        embed(run / 'run', run / 'f.npz', images='nowhere')
    with pytest.raises(ValueError, match='--images FOLDER'):
        embed(run / 'run', run / 'f.npz')
    assert not list(run.glob('f.*'))
