import csv
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mm_rotssl.apis import sort, sort_images
from mm_rotssl.datasets import BrokenImageError, Digits
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import write_image

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / 'configs/_base_/datasets/digits.py'
MODEL = """
model = dict(
    type='mm_rotssl.SelfClassifier',
    backbone=dict(
        type='mm_rotssl.ExemplarNet', arch='4c3-6c3', dropout=0.0,
        out_indices=(0, 1)),
    neck=dict(
        type='mm_rotssl.SelfClassifierNeck', in_channels=6, hid_channels=8,
        out_channels=8, norm_cfg=None),
    head=dict(
        type='mm_rotssl.SelfClassifierHead', in_channels=8,
        num_classes=(7, 12)))
"""
MEAN, STD = np.array([100.0, 120.0, 140.0]), np.array([60.0, 70.0, 80.0])
CELL = sort.THUMBNAIL + sort.GAP


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'photos'
    path.mkdir()
    return path


@pytest.fixture
def config(tmp_path, folder):
    """Images of a folder, whose files hold BGR for the loader."""
    path = tmp_path / 'config.py'
    path.write_text(
        f"""default_scope = 'mmpretrain'
data_preprocessor = dict(
    type='SelfSupDataPreprocessor', bgr_to_rgb=True,
    mean={MEAN.tolist()}, std={STD.tolist()})
{MODEL}
val_dataloader = dict(
    batch_size=5,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mm_rotssl.ImageFolder',
        data_root={str(folder)!r},
        test_mode=True,
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(type='Resize', scale=(16, 16)),
            dict(type='PackInputs')]))
"""
    )
    return path


@pytest.fixture
def digits(tmp_path):
    path = tmp_path / 'digits.py'
    path.write_text(
        f"""_base_ = {str(DIGITS)!r}
{MODEL}
val_dataloader = dict(
    batch_size=50, dataset=dict(size=16, indices=range(60)))
"""
    )
    return path


def build(config):
    cfg = Config.fromfile(config)
    init_default_scope('mmpretrain')
    return MODELS.build(
        {**cfg.model, 'data_preprocessor': cfg.data_preprocessor}
    )


@pytest.fixture
def checkpoint(config, tmp_path):
    """Weights that put random colors into different classes."""
    torch.manual_seed(7)
    model = build(config)
    with torch.no_grad():
        colors = 2 * torch.randn(500, 3, 1, 1).expand(-1, -1, 16, 16)
        feats = model.backbone(colors)[-1].mean((2, 3))
        layers = model.neck.mlp
        layers[0].weight *= 50
        layers[0].bias -= layers[0](feats).mean(0)
        layers[-1].bias -= layers(feats).mean(0)
    path = tmp_path / 'run' / 'epoch_3.pth'
    path.parent.mkdir()
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def fails(*args, error=ValueError, **kwargs):
    with pytest.raises(error) as caught:
        sort_images(*args, **kwargs)
    return str(caught.value)


def colors(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3))


def write(path, color, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, tuple(map(int, color))).save(path)


def probabilities(config, checkpoint, images, mean=MEAN, std=STD):
    """Of the classes; images (N, H, W, 3), RGB."""
    model = build(config).eval()
    model.load_state_dict(
        torch.load(checkpoint, weights_only=True)['state_dict']
    )
    inputs = (np.asarray(images, np.float64) - mean) / std
    inputs = torch.from_numpy(inputs.transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        maps = model.backbone(inputs)[-1].double().numpy()
    weights = {k: v.double().numpy() for k, v in model.state_dict().items()}
    hidden = maps.mean((2, 3)) @ weights['neck.mlp.0.weight'].T
    hidden += weights['neck.mlp.0.bias']
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    embeds = hidden @ weights['neck.mlp.2.weight'].T
    embeds += weights['neck.mlp.2.bias']
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    name = 'head.classifiers.0.parametrizations.weight.original'
    lengths, directions = weights[f'{name}0'], weights[f'{name}1']
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    powers = np.exp(embeds @ (lengths * directions).T / 0.1)
    return powers / powers.sum(1, keepdims=True)


def read_table(out):
    text = (out / 'classes.csv').read_bytes().decode(errors='surrogateescape')
    header, *rows = csv.reader(io.StringIO(text, newline=''))
    assert header == ['image', 'class', 'confidence']
    return {name: (int(label), float(conf)) for name, label, conf in rows}


def check_table(out, names, wanted):
    """One row an image, with the class and its probability."""
    table = read_table(out)
    assert list(table) == names
    for name, row in zip(names, wanted, strict=True):
        label, confidence = table[name]
        assert label == row.argmax()
        assert confidence == pytest.approx(row.max(), abs=1e-4)


def read_sections(out):
    """Class, size, percent, mean confidence and image, in their order."""
    return re.findall(
        r'<h2>Class (\d+) <small>(\d+) images, ([\d.]+) % of all, mean '
        r'confidence ([\d.]+)</small></h2>\n<img src="([^"]+)"',
        (out / 'index.html').read_text(),
    )


def cells(path, count):
    """Middles of the thumbnails, in the order of reading."""
    sheet = np.asarray(Image.open(path).convert('RGB'))
    rows, across = -(-count // 12), min(count, 12)
    assert sheet.shape == (rows * CELL, across * CELL, 3)
    half = CELL // 2
    found = sheet[half::CELL, half::CELL].reshape(-1, 3)
    assert (found[count:] > 250).all()
    return found[:count]


@pytest.mark.parametrize('shown', [None, 3])
def test_table_page_and_sheets(config, checkpoint, folder, shown):
    painted = colors(61)
    names = [f'{i:03d}.png' for i in range(61)]
    for name, color in zip(names, painted, strict=True):
        write(folder / name, color)
    options = {} if shown is None else dict(max_shown=shown)
    done = sort_images(config, checkpoint, **options)
    out = checkpoint.parent / 'classes'
    images = np.broadcast_to(painted[:, None, None], (61, 16, 16, 3))
    wanted = probabilities(config, checkpoint, images)
    check_table(out, names, wanted)

    labels, surest = wanted.argmax(1), wanted.max(1)
    sizes = np.bincount(labels)
    order = sorted(set(labels.tolist()), key=lambda k: (-sizes[k], k))
    # otherwise the order would not show
    assert len(order) > 3
    assert sizes.max() > 12
    sections = read_sections(out)
    assert [int(section[0]) for section in sections] == order
    for label, size, share, mean, image in sections:
        members = np.flatnonzero(labels == int(label))
        assert int(size) == len(members)
        assert float(share) == pytest.approx(
            100 * len(members) / 61, abs=0.051
        )
        assert float(mean) == pytest.approx(surest[members].mean(), abs=0.0051)
        assert image == f'class_{int(label):05d}.jpg'
        # true colors, the surest first
        members = members[np.argsort(-surest[members])][: shown or 36]
        np.testing.assert_allclose(
            cells(out / image, len(members)), painted[members], atol=8
        )
    assert {path.name for path in out.iterdir()} == {
        *('index.html', 'classes.csv', '.mm_rotssl_output'),
        *(section[-1] for section in sections),
    }
    title = f'{len(order)} classes of 61 images'
    page = (out / 'index.html').read_text()
    assert f'<title>{title}</title>' in page
    assert f'<h1>{title}</h1>' in page
    assert done == (61, len(order), out / 'classes.csv', out / 'index.html')


def test_config_for_unlabeled_images(config, checkpoint, folder, tmp_path):
    """Without validation; a test set says how images are prepared."""
    painted = colors(5)
    for name, color in zip('abcde', painted, strict=True):
        write(folder / f'{name}.png', color)
    cfg = Config.fromfile(config)
    cfg.test_dataloader = cfg.pop('val_dataloader')
    cfg.dump(tmp_path / 'unlabeled.py')
    sort_images(tmp_path / 'unlabeled.py', checkpoint)
    images = np.broadcast_to(painted[:, None, None], (5, 16, 16, 3))
    check_table(
        checkpoint.parent / 'classes',
        [f'{name}.png' for name in 'abcde'],
        probabilities(config, checkpoint, images),
    )


def test_red_is_red(config, checkpoint, folder, tmp_path):
    write(folder / 'red.png', (255, 0, 0))
    out = tmp_path / 'out'
    sort_images(str(config), str(checkpoint), out=str(out))
    (section,) = read_sections(out)
    assert section[1:3] == ('1', '100.0')
    ((red, green, blue),) = cells(out / section[-1], 1)
    assert red > 245
    assert max(green, blue) < 10
    assert not (checkpoint.parent / 'classes').exists()


@pytest.mark.parametrize('slash', ['', '/'])
def test_names_of_a_folder(config, checkpoint, tmp_path, slash):
    other = tmp_path / 'other [bold] folder'
    names = [
        'a/b/c.png',
        'a/Über Bäume.png',
        'a, "b"/x,y.png',
        '"quoted".png',
        'new\nline.png',
        ' leading.PNG',
        '<b>&amp;.png',
        '日本.png',
        os.fsdecode(b'not \xfc utf-8.png'),
    ]
    painted = colors(len(names), 1)
    for name, color in zip(names, painted, strict=True):
        write(other / name, color)
    (other / 'notes.txt').write_text('no image')
    sort_images(config, checkpoint, f'{other}{slash}')
    out = checkpoint.parent / 'classes'
    wanted = dict(
        zip(
            names,
            probabilities(
                config,
                checkpoint,
                np.broadcast_to(
                    painted[:, None, None], (len(names), 16, 16, 3)
                ),
            ),
            strict=True,
        )
    )
    found = list(read_table(out))
    assert sorted(found) == sorted(names)
    check_table(out, found, [wanted[name] for name in found])


def test_images_in_memory(digits, checkpoint):
    sort_images(digits, checkpoint, max_shown=5)
    out = checkpoint.parent / 'classes'
    dataset = Digits(split='val', size=16, indices=range(60))
    infos = [dataset.get_data_info(i) for i in range(60)]
    images = np.stack([info['img'] for info in infos])
    wanted = probabilities(digits, checkpoint, images, 78, 87)
    check_table(out, [info['img_path'] for info in infos], wanted)
    labels = wanted.argmax(1)
    for label, *_, image in read_sections(out):
        members = np.flatnonzero(labels == int(label))
        surest = members[np.argmax(wanted.max(1)[members])]
        sheet = np.asarray(Image.open(out / image).convert('L'))
        first = np.kron(images[surest, ..., 0], np.ones((6, 6)))
        assert np.abs(sheet[:96, :96] - first).mean() < 3


@pytest.mark.parametrize('wrapper', ['RepeatDataset', 'KFoldDataset'])
def test_wrapped_dataset(digits, checkpoint, tmp_path, wrapper):
    """Names, classes and thumbnails are of the same image."""
    arguments = dict(
        RepeatDataset='times=2', KFoldDataset='fold=1, num_splits=3, seed=4'
    )[wrapper]
    path = tmp_path / 'wrapped.py'
    path.write_text(
        f"""_base_ = {str(digits)!r}
val_dataloader = dict(batch_size=7, dataset=dict(
    _delete_=True, type={wrapper!r}, {arguments},
    dataset=dict(
        type='mm_rotssl.Digits', split='val', size=16, indices=range(24),
        pipeline=[dict(type='PackInputs')])))
"""
    )
    sort_images(path, checkpoint, max_shown=1)
    out = checkpoint.parent / 'classes'
    dataset = Digits(split='val', size=16, indices=range(24))
    infos = [dataset.get_data_info(i) for i in range(24)]
    images = np.stack([info['img'] for info in infos])
    wanted = probabilities(digits, checkpoint, images, 78, 87)
    names = [info['img_path'] for info in infos]
    # a fold is in an order of its own
    found = list(read_table(out))
    assert len(found) == dict(RepeatDataset=24, KFoldDataset=16)[wrapper]
    places = np.array([names.index(name) for name in found])
    check_table(out, found, wanted[places])
    for label, *_, image in read_sections(out):
        members = places[wanted[places].argmax(1) == int(label)]
        surest = members[np.argmax(wanted.max(1)[members])]
        sheet = np.asarray(Image.open(out / image).convert('L'))
        first = np.kron(images[surest, ..., 0], np.ones((6, 6)))
        assert np.abs(sheet[:96, :96] - first).mean() < 3


def test_images_of_all_sizes(config, checkpoint, folder):
    painted = colors(6, 2)
    sizes = [(16, 16), (300, 40), (3, 500), (1, 1), (900, 1), (64, 48)]
    names = [f'{i}.png' for i in range(6)]
    for name, color, size in zip(names, painted, sizes, strict=True):
        write(folder / name, color, size)
    Image.new('L', (20, 30), 77).save(folder / 'gray.png')
    Image.new('1', (20, 30), 1).save(folder / 'white.png')
    # as they are, one at a time, and gray ones through to the sheet
    path = config.with_name('sizes.py')
    path.write_text(
        f"""_base_ = {str(config)!r}
val_dataloader = dict(dataset=dict(pipeline=[
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='ResizeEdge', scale=16),
    dict(type='CenterCrop', crop_size=16),
    dict(type='PackInputs')]))
"""
    )
    sort_images(path, checkpoint)
    painted = np.concatenate([painted, [[77] * 3, [255] * 3]])
    wanted = probabilities(
        config,
        checkpoint,
        np.broadcast_to(painted[:, None, None], (8, 16, 16, 3)),
    )
    out = checkpoint.parent / 'classes'
    check_table(out, [*names, 'gray.png', 'white.png'], wanted)


def test_sheet_keeps_the_proportions():
    black = [(40, 10), (300, 600), (2, 1000), (1000, 2), (96, 96)]
    images = [np.zeros((*size, 3), np.uint8) for size in black]
    # pixels of a small one stay sharp
    board = np.indices((16, 16)).sum(0) % 2 * 255
    images.append(np.repeat(board[..., None], 3, 2).astype(np.uint8))
    # fine stripes of a large one turn gray
    stripes = np.zeros((960, 960, 3), np.uint8)
    stripes[:, ::2] = 255
    images.append(stripes)
    data = sort._sheet(images * 2)
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert('L')).astype(int)
    assert sheet.shape == (2 * CELL, 12 * CELL)
    for place, (height, width) in enumerate(black):
        cell = sheet[:CELL, place * CELL : (place + 1) * CELL]
        scale = 96 / max(height, width)
        dark = cell < 128
        # a JPEG shows a line of one pixel, if paler
        assert dark.any(1).sum() == max(1, round(height * scale))
        assert dark.any(0).sum() == max(1, round(width * scale))
        # in the middle
        middle = np.argwhere(dark).mean(0)
        np.testing.assert_allclose(middle, [47.5, 47.5], atol=1)
        # as in the second row
        again = 7 + place
        top, left = again // 12 * CELL, again % 12 * CELL
        copy = sheet[top : top + CELL, left : left + CELL]
        assert np.abs(copy - cell).mean() < 3
    cell = sheet[:96, 5 * CELL : 5 * CELL + 96]
    assert np.abs(cell - np.kron(board, np.ones((6, 6)))).mean() < 20
    cell = sheet[:96, 6 * CELL : 6 * CELL + 96]
    assert np.abs(cell - 127).max() < 20


def damage(folder, names):
    """Files that are empty, cut off or no images."""
    for i, name in enumerate(names):
        write(folder / name, (1, 2, 3))
        content = (folder / name).read_bytes()
        (folder / name).write_bytes((b'', content[:40], b'text' * 30)[i % 3])


def test_broken_files_are_passed_over(log, config, checkpoint, folder):
    painted = colors(9, 3)
    good = [f'{10 * i:03d}.png' for i in range(9)]
    for name, color in zip(good, painted, strict=True):
        write(folder / name, color)
    # more than the ten that training would stand, also in front and at last
    broken = [f'{i:03d}.png' for i in (*range(31, 40), 11, 12, 85, 99)]
    broken.append('%.png')
    damage(folder, broken)
    sort_images(config, checkpoint, folder)
    said = log.read_text()
    for name in broken:
        assert said.count(f'Broken image skipped: {folder}/{name}') == 1
    wanted = probabilities(
        config,
        checkpoint,
        np.broadcast_to(painted[:, None, None], (9, 16, 16, 3)),
    )
    out = checkpoint.parent / 'classes'
    check_table(out, good, wanted)
    # thumbnails too are of the right images
    labels, surest = wanted.argmax(1), wanted.max(1)
    for label, size, *_, image in read_sections(out):
        members = np.flatnonzero(labels == int(label))
        assert int(size) == len(members)
        members = members[np.argsort(-surest[members])]
        np.testing.assert_allclose(
            cells(out / image, len(members)), painted[members], atol=8
        )


def test_broken_files_that_stop_the_run(config, checkpoint, folder):
    write(folder / 'a.png', (9, 9, 9))
    damage(folder, ['b.png', 'c.png'])
    # the dataset of the config does not stand them
    message = fails(config, checkpoint, error=BrokenImageError)
    assert message.startswith(f'{folder}/b.png: the file is empty')
    assert 'Repair or remove the file, or name the folder with --images' in (
        message
    )
    (folder / 'a.png').write_bytes(b'')
    message = fails(config, checkpoint, folder, error=RuntimeError)
    assert '3 broken images' in message
    for name in 'abc':
        assert f'{folder}/{name}.png' in message
    assert not (checkpoint.parent / 'classes').exists()


def test_errors_say_what_to_do(config, digits, checkpoint, folder, tmp_path):
    message = fails(
        config, checkpoint, tmp_path / 'none', error=FileNotFoundError
    )
    assert message.startswith(f'There is no "{tmp_path}/none')
    message = fails(config, checkpoint, folder, error=RuntimeError)
    assert message.startswith(f'No image was found in "{folder}')
    write(folder / 'a.png', (9, 9, 9))
    message = fails(config, tmp_path / 'no.pth', error=FileNotFoundError)
    assert 'no.pth" does not exist' in message
    message = fails(
        config, checkpoint, cfg_options={'model.neck.in_channels': 5}
    )
    assert 'was made by another architecture' in message
    # images in memory, of a size that nothing tells
    options = {'train_dataloader.dataset.pipeline': []}
    message = fails(digits, checkpoint, folder, cfg_options=options)
    assert 'does not tell the size of an image' in message
    assert "dict(type='mm_rotssl.LoadIntactImage')" in message
    for number in (0, -3, sort.MAX_SHOWN + 1):
        message = fails(config, checkpoint, max_shown=number)
        assert message == (
            f'max_shown={number} must be from 1 to {sort.MAX_SHOWN}.'
        )

    cfg = Config.fromfile(config)
    cfg.pop('val_dataloader')
    cfg.dump(tmp_path / 'bare.py')
    message = fails(tmp_path / 'bare.py', checkpoint)
    assert 'The config has neither val_dataloader' in message

    path = tmp_path / 'two.py'
    cfg = Config.fromfile(config)
    part = cfg.val_dataloader.dataset
    cfg.val_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[part, part]
    )
    cfg.dump(path)
    assert 'Make one dataset of them' in fails(path, checkpoint)
    assert not (checkpoint.parent / 'classes').exists()


def test_network_without_classes(digits, tmp_path):
    path = tmp_path / 'rotnet.py'
    path.write_text(
        f"""_base_ = {str(digits)!r}
model = dict(
    _delete_=True,
    type='mm_rotssl.RotNet',
    backbone=dict(type='mm_rotssl.NIN', base_channels=6, num_stages=3),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=6))
"""
    )
    torch.save(build(path).state_dict(), tmp_path / 'rotnet.pth')
    message = fails(path, tmp_path / 'rotnet.pth')
    assert message.startswith('RotNet gives no classes. Take a config')
    assert not (tmp_path / 'classes').exists()


def test_no_sheets_of_classes_that_are_gone(config, checkpoint, folder):
    for i, color in enumerate(colors(30, 4)):
        write(folder / f'{i:02d}.png', color)
    sort_images(config, checkpoint)
    out = checkpoint.parent / 'classes'
    before = {section[-1] for section in read_sections(out)}
    kept = ['class_1.jpg', 'class_00001.png', 'class_00001_old.jpg']
    kept += ['my_class_00001.jpg', 'class_photo.jpg', 'sub/class_00001.jpg']
    for name in kept:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text('mine')
    write_image(out / 'class_00777.jpg', b'of another network')
    (out / 'class_00778.jpg').write_text('mine')
    kept.append('class_00778.jpg')
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    sort_images(config, checkpoint)
    (section,) = read_sections(out)
    assert {section[-1]} < before
    assert len(read_table(out)) == 1
    assert {
        str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()
    } == {
        'index.html',
        'classes.csv',
        '.mm_rotssl_output',
        section[-1],
        *kept,
    }


def test_the_highest_sheet_can_be_written(monkeypatch):
    monkeypatch.setattr(sort, 'COLUMNS', 1)
    rows = sort.MAX_SHOWN // 12
    dot = np.full((1, 1, 3), 90, np.uint8)
    with Image.open(io.BytesIO(sort._sheet([dot] * rows))) as sheet:
        assert sheet.height == rows * CELL


def test_the_page_is_no_input_of_the_next_one(config, checkpoint, folder):
    for i, color in enumerate(colors(5, 4)):
        write(folder / f'{i}.png', color)
    for _ in range(2):
        done = sort_images(config, checkpoint, folder, folder / 'classes')
        assert done.num_images == 5
        # even among the images
        assert sort_images(config, checkpoint, folder, folder).num_images == 5
