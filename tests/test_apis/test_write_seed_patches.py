from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from mmengine.config import Config

from mm_rotssl.apis import seed_patches as api
from mm_rotssl.apis import write_seed_patches
from mm_rotssl.datasets import (
    Digits,
    ImageFolder,
    SeedPatches,
    sample_seed_patches,
)
from mm_rotssl.datasets.exemplar.seed_patches import cut_window
from mm_rotssl.datasets.transforms import RandomDeformation

ROOT = Path(__file__).resolve().parents[2]
(DIGITS,) = ROOT.glob('configs/exemplar_cnn/*_digits.py')
CONFIG = """
model = dict(
    data_preprocessor=dict({order}),
    head=dict(num_exemplars=20))
train_dataloader = dict(
    dataset=dict(
        type={type!r},
        dataset=dict(
            type='mm_rotssl.ImageFolder',
            data_root={folder!r},
            pipeline=[dict(type='mm_rotssl.LoadIntactImage')]),
        seed_patches={seed_patches!r},
        pipeline=[
            dict(
                type='mm_rotssl.RandomDeformation',
                patch_size=24,
                preset='paper',
                rotation=45,
                on_device=True),
            dict(type='PackInputs')]))
"""
# what of it is drawn
DEFORMATION = dict(patch_size=24, preset='paper', rotation=45)


def image(number):
    """With red on the left, blue on the right, in BGR order."""
    rng = np.random.default_rng(number)
    img = rng.integers(0, 100, (64, 60 + number, 3), np.uint8)
    img[:, :30, 2] += 150
    img[:, 30:, 0] += 150
    return img


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    for i in range(25):
        path = folder / f'{i % 3}' / f'ü {i:02d}.png'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode('.png', image(i))[1].tobytes())
    return folder


@pytest.fixture
def config(folder, tmp_path):
    def write(
        seed_patches='', kind='mm_rotssl.ExemplarDataset', order='to_rgb=True'
    ):
        path = tmp_path / 'config.py'
        path.write_text(
            CONFIG.format(
                folder=str(folder),
                seed_patches=seed_patches,
                type=kind,
                order=order,
            )
        )
        return path

    return write


@pytest.fixture
def pages(monkeypatch):
    """What is drawn: rows, title and note. The page is red, more and more."""
    found = []

    def note(*args):
        found.append(args)
        return Figure((1, 1), facecolor=(len(found) / 5, 0, 0))

    monkeypatch.setattr(api, 'plot_patches', note)
    return found


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing takes longest."""
    monkeypatch.setattr(api, '_draw', lambda *_: (None, None))


def image_of(key):
    return image(int(Path(key).stem.split()[1]))


def check_pages(
    pages, seed_patches, path, bgr, deformation, image_of=image_of
):
    """The sheet of seed patches and their deformations, drawn anew."""
    size = seed_patches.patch_size
    plain, deformed = [], []
    deform = RandomDeformation(**deformation, bgr=bgr)
    # of the order of the channels that is to be drawn
    turn = -1 if bgr else 1
    for i in range(min(144, len(seed_patches))):
        place = (
            image_of(seed_patches.keys[seed_patches.images[i]]),
            seed_patches.centers[i],
            seed_patches.scales[i],
            size,
        )
        plain.append(cut_window(*place, size)[0][..., ::turn])
        if i < 10:
            window, valid = cut_window(*place, deform.window_size)
            deformed.append([plain[-1]])
            for k in range(17):
                results = dict(
                    img=window, valid=valid, deformation_seed=(0, i, k)
                )
                img = deform(results)['img']
                deformed[-1].append(img[..., ::turn])
    sheet = [plain[i : i + 18] for i in range(0, len(plain), 18)]
    assert len(pages) == 2
    for number, name, expected in (
        (0, 'sheet', sheet),
        (1, 'deformations', deformed),
    ):
        rows = pages[number][0]
        assert [len(row) for row in rows] == [len(row) for row in expected]
        for row, wanted in zip(rows, expected, strict=True):
            np.testing.assert_array_equal(np.stack(row), np.stack(wanted))
        page = imread(path.with_name(f'{path.stem}_{name}.png'))
        assert page[5, 5, 0] == pytest.approx((number + 1) / 5)
    assert f'{len(plain)} of {len(seed_patches)} seed patches' in pages[0][1]


def equal(one, other):
    for name in ('sizes', 'images', 'centers', 'scales'):
        np.testing.assert_array_equal(
            getattr(one, name), getattr(other, name), name
        )
    return one.keys == other.keys and one.made_by == other.made_by


def test_folder(folder, tmp_path, pages):
    path = tmp_path / 'new' / 'seeds.npz'
    done = write_seed_patches(
        folder,
        path,
        num_exemplars=21,
        patch_size=16,
        scales=(1.0, 0.64),
        energy='gradient',
        max_per_image=2,
        random_seed=5,
    )
    seed_patches = SeedPatches.load(path)
    assert seed_patches.made_by == dict(
        num_exemplars=21,
        scales=[1.0, 0.64],
        energy='gradient',
        max_per_image=2,
        random_seed=5,
        images_looked_at=25,
    )
    assert seed_patches.patch_size == 16
    assert len(seed_patches) == 21
    assert equal(done.seed_patches, seed_patches)
    loaded = ImageFolder(
        str(folder), pipeline=[dict(type='mm_rotssl.LoadIntactImage')]
    )
    assert equal(
        seed_patches,
        sample_seed_patches(loaded, 21, 16, (1.0, 0.64), 'gradient', 2, 5),
    )
    # images are read as BGR
    check_pages(pages, seed_patches, path, True, dict(patch_size=16))
    assert '16 pixels at scales 0.64, 1' in pages[0][2]
    assert done[1:] == (
        path,
        path.with_name('seeds_sheet.png'),
        path.with_name('seeds_deformations.png'),
    )
    # the sheets are no images for training
    written = path.with_name('.mm_rotssl_output')
    assert sorted(path.parent.iterdir()) == sorted((*done[1:], written))


def test_the_same_again(folder, tmp_path):
    first, again = (
        write_seed_patches(
            str(folder), tmp_path / f'{name}.npz', num_exemplars=5
        )
        for name in 'ab'
    )
    seed_patches = SeedPatches.load(first.file)
    assert equal(seed_patches, SeedPatches.load(again.file))
    for path, other in zip(first[2:], again[2:], strict=True):
        assert path.read_bytes() == other.read_bytes()
        # something is on it
        assert len(np.unique(imread(path))) > 99
    # settings of the authors' code, but for the number
    assert seed_patches.patch_size == 32
    assert seed_patches.made_by == dict(
        num_exemplars=5,
        scales=[1.0, 0.8, 0.64, 0.512],
        energy='band_pass',
        max_per_image=1,
        random_seed=0,
        images_looked_at=25,
    )


def test_config(config, tmp_path, monkeypatch, pages):
    monkeypatch.chdir(tmp_path)
    write_seed_patches(config('work/its own.npz'))
    path = tmp_path / 'work/its own.npz'
    seed_patches = SeedPatches.load(path)
    # what is trained: as many classes, of the same size
    assert seed_patches.made_by == dict(
        num_exemplars=20,
        scales=[1.0, 0.8, 0.64, 0.512],
        energy='band_pass',
        max_per_image=1,
        random_seed=0,
        images_looked_at=25,
    )
    check_pages(pages, seed_patches, path, True, DEFORMATION)


@pytest.mark.parametrize(
    ('order', 'bgr'),
    [
        # what the network is to be shown as RGB is BGR
        ('bgr_to_rgb=True', True),
        ('to_rgb=True', True),
        ('to_rgb=False', False),
        ('', False),
    ],
)
def test_order_of_the_channels(config, tmp_path, monkeypatch, order, bgr):
    given = []

    def note(*args):
        given.append(args[2])
        return None, None

    monkeypatch.setattr(api, '_draw', note)
    write_seed_patches(
        config(order=order), tmp_path / 'a.npz', num_exemplars=2
    )
    assert given == [
        dict(
            DEFORMATION,
            type='mm_rotssl.RandomDeformation',
            bgr=bgr,
            on_device=False,
        )
    ]


@pytest.mark.usefixtures('undrawn')
def test_arguments_replace_what_the_config_says(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = dict(num_exemplars=4, scales=(0.8,), random_seed=2)
    write_seed_patches(config(wanted))
    path = tmp_path / 'seed_patches.npz'
    seed_patches = SeedPatches.load(path)
    assert seed_patches.patch_size == 24
    expected = dict(
        num_exemplars=4,
        scales=[0.8],
        energy='band_pass',
        max_per_image=1,
        random_seed=2,
        images_looked_at=25,
    )
    assert seed_patches.made_by == expected
    write_seed_patches(
        config(wanted),
        'new/b.npz',
        num_exemplars=3,
        patch_size=20,
        scales=[1, 0.64],
        energy='gradient',
        max_per_image=2,
        random_seed=0,
    )
    other = SeedPatches.load(tmp_path / 'new/b.npz')
    assert other.patch_size == 20
    assert other.made_by == dict(
        num_exemplars=3,
        scales=[1.0, 0.64],
        energy='gradient',
        max_per_image=2,
        random_seed=0,
        images_looked_at=25,
    )
    # the argument has precedence over the file that the config names
    write_seed_patches(config('c.npz'), 'd.npz', num_exemplars=3)
    assert not (tmp_path / 'c.npz').exists()
    assert (tmp_path / 'd.npz').exists()
    # a size that the settings of the seed patches name
    write_seed_patches(config(dict(num_exemplars=2, patch_size=16)), 'd.npz')
    assert SeedPatches.load('d.npz').patch_size == 16
    # no file is named, nor settings
    write_seed_patches(config(''), random_seed=1)
    assert len(SeedPatches.load(path)) == 20
    # the first file is not there any more
    assert SeedPatches.load(path).made_by['random_seed'] == 1


def test_digits_config(tmp_path, monkeypatch, pages):
    monkeypatch.chdir(tmp_path)
    write_seed_patches(
        DIGITS,
        num_exemplars=150,
        cfg_options={'train_dataloader.dataset.dataset.indices': 160},
    )
    seed_patches = SeedPatches.load('seed_patches.npz')
    training_set = Config.fromfile(DIGITS).train_dataloader.dataset
    data = dict(training_set.dataset, indices=160)
    data.pop('type')
    assert equal(
        seed_patches,
        sample_seed_patches(
            Digits(**data),
            **dict(training_set.seed_patches, num_exemplars=150),
        ),
    )
    images = {
        info['img_path']: info['img']
        for info in map(Digits(**data).get_data_info, range(160))
    }
    deformation = dict(training_set.pipeline[0])
    deformation.pop('type')
    deformation.pop('on_device')
    check_pages(
        pages,
        seed_patches,
        tmp_path / 'seed_patches.npz',
        # gray, of which the order of the channels makes nothing else
        True,
        deformation,
        images.__getitem__,
    )
    # no more than 144 of them
    assert [len(row) for row in pages[0][0]] == [18] * 8


@pytest.fixture
def nothing_written(tmp_path, monkeypatch):
    """Work in a folder that has to stay empty."""
    work = tmp_path / 'work'
    work.mkdir()
    monkeypatch.chdir(work)
    yield work
    assert [file.name for file in work.iterdir()] == []


def error_of(images, *args, **kwargs):
    with pytest.raises((ValueError, RuntimeError, OSError)) as error:
        write_seed_patches(images, *args, **kwargs)
    return str(error.value)


@pytest.mark.usefixtures('nothing_written')
def test_errors(folder, config, tmp_path):
    message = error_of(tmp_path / 'nowhere')
    assert f'no folder "{tmp_path}/nowhere' in message
    (tmp_path / 'empty').mkdir()
    assert 'No image was found' in error_of(tmp_path / 'empty')
    # the default number
    message = error_of(folder)
    assert '8000 seed patches were asked for, and there are only 25' in message
    assert 'Ask for fewer' in message
    message = error_of(folder, num_exemplars=3, patch_size=64)
    assert 'only 0' in message
    assert 'num_exemplars=0' in error_of(folder, num_exemplars=0)
    assert '1.5' in error_of(folder, num_exemplars=1, scales=[1.5])
    message = error_of(folder, num_exemplars=1, energy='other')
    assert "energy='other': one of 'band_pass', 'gradient'." in message
    message = error_of(config(kind='mm_rotssl.Digits'))
    assert 'is a mm_rotssl.Digits' in message
    assert 'configs/exemplar_cnn' in message
    for name in ('a.txt', Path('a')):
        message = error_of(folder, name)
        assert message == f'--out {name}: the name must end in .npz'
    message = error_of(folder, cfg_options={'a.b': 1})
    assert '--cfg-options need a config' in message


@pytest.mark.usefixtures('nothing_written')
def test_files_that_can_not_be_written(folder, tmp_path):
    (tmp_path / 'file').write_text('text')
    path = tmp_path / 'file' / 'seeds.npz'
    assert str(tmp_path / 'file') in error_of(folder, path, 3)
    assert (tmp_path / 'file').read_text() == 'text'
    (tmp_path / 'folder.npz').mkdir()
    message = error_of(folder, tmp_path / 'folder.npz', 3)
    assert 'folder.npz' in message
    assert list((tmp_path / 'folder.npz').iterdir()) == []
