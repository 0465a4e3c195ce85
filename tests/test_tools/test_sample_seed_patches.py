import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from mm_rotssl.datasets import Digits, SeedPatches, sample_seed_patches
from mm_rotssl.datasets.exemplar.seed_patches import cut_window
from mm_rotssl.datasets.transforms import RandomDeformation

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/sample_seed_patches.py'
SPEC = importlib.util.spec_from_file_location('sample_seed_patches', TOOL)
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

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


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def image(number):
    """With red on the left, blue on the right, in BGR order."""
    rng = np.random.default_rng(number)
    img = rng.integers(0, 100, (64, 60 + number, 3), np.uint8)
    img[:, :30, 2] += 150
    img[:, 30:, 0] += 150
    return img


@pytest.fixture
def folder(tmp_path):
    for i in range(25):
        path = tmp_path / 'images' / f'{i % 3}' / f'ü {i:02d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.png', image(i))[1].tobytes())
    return tmp_path / 'images'


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


def main(*args):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        tool.main()


@pytest.fixture
def pages(monkeypatch):
    """What is drawn: rows, title, note and the page."""
    found = []
    plot = tool.plot_patches

    def spy(rows, title, note):
        figure = plot(rows, title, note)
        found.append((rows, title, note, figure))
        return figure

    monkeypatch.setattr(tool, 'plot_patches', spy)
    return found


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
    for (rows, _, _, figure), expected, name in zip(
        pages, (sheet, deformed), ('sheet', 'deformations'), strict=True
    ):
        assert [len(row) for row in rows] == [len(row) for row in expected]
        for row, wanted in zip(rows, expected, strict=True):
            np.testing.assert_array_equal(np.stack(row), np.stack(wanted))
        data = io.BytesIO()
        figure.savefig(data, format='png')
        data.seek(0)
        file = path.with_name(f'{path.stem}_{name}.png')
        page = imread(file)
        np.testing.assert_array_equal(page, imread(data))
        # something is on it
        assert len(np.unique(page)) > 99
    assert f'{len(plain)} of {len(seed_patches)} seed patches' in pages[0][1]


def equal(one, other):
    for name in ('sizes', 'images', 'centers', 'scales'):
        np.testing.assert_array_equal(
            getattr(one, name), getattr(other, name), name
        )
    return one.keys == other.keys and one.made_by == other.made_by


def test_folder(folder, tmp_path, pages, capsys):
    path = tmp_path / 'new' / 'seeds.npz'
    main(
        folder,
        *('--out', path, '--num-exemplars', 21, '--patch-size', 16),
        *('--scales', 1, 0.64, '--energy', 'gradient'),
        *('--max-per-image', 2, '--seed', 5),
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
    assert equal(
        seed_patches,
        sample_seed_patches(
            tool.DATASETS.build(tool.folder_settings(str(folder))),
            21,
            16,
            (1.0, 0.64),
            'gradient',
            2,
            5,
        ),
    )
    # images are read as BGR
    check_pages(pages, seed_patches, path, True, dict(patch_size=16))
    assert '16 pixels at scales 0.64, 1' in pages[0][2]
    names = ['seeds.npz', 'seeds_deformations.png', 'seeds_sheet.png']
    assert sorted(file.name for file in path.parent.iterdir()) == names
    lines = capsys.readouterr().out.splitlines()[-4:]
    large = (seed_patches.scales == 1).sum()
    assert lines == [
        f'21 seed patches from {len(seed_patches.keys)} of 25 images, by '
        f'scale 1: {large}, 0.64: {21 - large}',
        str(path),
        str(path.with_name('seeds_sheet.png')),
        str(path.with_name('seeds_deformations.png')),
    ]


def test_the_same_again_and_another_seed(folder, tmp_path):
    for name, more in (('a', ()), ('b', ()), ('c', ('--seed', 1))):
        path = tmp_path / f'{name}.npz'
        main(folder, '--out', path, '--num-exemplars', 5, *more)
    loaded = {n: SeedPatches.load(tmp_path / f'{n}.npz') for n in 'abc'}
    assert equal(loaded['a'], loaded['b'])
    assert not np.array_equal(loaded['a'].centers, loaded['c'].centers)
    for kind in ('sheet', 'deformations'):
        content = {
            n: (tmp_path / f'{n}_{kind}.png').read_bytes() for n in 'abc'
        }
        assert content['a'] == content['b']
        assert content['a'] != content['c']
    # settings of the authors' code, but for the number
    assert loaded['a'].patch_size == 32
    assert loaded['a'].made_by == dict(
        num_exemplars=5,
        scales=[1.0, 0.8, 0.64, 0.512],
        energy='band_pass',
        max_per_image=1,
        random_seed=0,
        images_looked_at=25,
    )


@pytest.mark.parametrize(
    ('order', 'bgr'),
    [
        ('to_rgb=True', True),
        ('bgr_to_rgb=True', True),
        ('to_rgb=False', False),
        ('', False),
    ],
)
def test_config(config, tmp_path, monkeypatch, pages, order, bgr):
    monkeypatch.chdir(tmp_path)
    main(config('work/its own.npz', order=order))
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
    # what the network is to be shown as RGB is BGR
    check_pages(pages, seed_patches, path, bgr, DEFORMATION)


def test_options_replace_what_the_config_says(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = dict(num_exemplars=4, scales=(0.8,), random_seed=2)
    main(config(wanted))
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
    main(
        config(wanted),
        *('--num-exemplars', 3, '--patch-size', 20, '--seed', 0),
        *('--scales', 1, 0.64, '--energy', 'gradient'),
        *('--max-per-image', 2, '--out', 'new/b.npz'),
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
    # --out has precedence over the file that the config names
    main(config('c.npz'), '--num-exemplars', 3, '--out', 'd.npz')
    assert not (tmp_path / 'c.npz').exists()
    assert (tmp_path / 'd.npz').exists()
    # a size that the settings of the seed patches name
    main(config(dict(num_exemplars=2, patch_size=16)), '--out', 'd.npz')
    assert SeedPatches.load('d.npz').patch_size == 16
    # no file is named, nor settings
    main(config(''), '--seed', 1)
    assert len(SeedPatches.load(path)) == 20
    # the first file is not there any more
    assert SeedPatches.load(path).made_by['random_seed'] == 1


def test_digits_config(tmp_path, monkeypatch, pages):
    monkeypatch.chdir(tmp_path)
    main(
        DIGITS,
        *('--num-exemplars', 150),
        *('--cfg-options', 'train_dataloader.dataset.dataset.indices=160'),
    )
    seed_patches = SeedPatches.load('seed_patches.npz')
    training_set = tool.Config.fromfile(DIGITS).train_dataloader.dataset
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


def test_as_a_script(folder, tmp_path):
    before = sorted(tmp_path.iterdir())
    failed = subprocess.run(
        [sys.executable, TOOL, folder, '--num-exemplars', '30'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert 'Traceback' not in failed.stderr
    assert (
        '\nError: 30 seed patches were asked for, and there are only 25: '
        in '\n' + failed.stderr
    )
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def nothing_written(tmp_path, monkeypatch):
    """Work in a folder that has to stay empty."""
    work = tmp_path / 'work'
    work.mkdir()
    monkeypatch.chdir(work)
    yield work
    assert [file.name for file in work.iterdir()] == []


def error_of(*args):
    with pytest.raises(SystemExit) as error:
        main(*args)
    message = str(error.value)
    assert message.startswith('Error: ')
    return message


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
    message = error_of(folder, '--num-exemplars', 3, '--patch-size', 64)
    assert 'only 0' in message
    assert 'num_exemplars=0' in error_of(folder, '--num-exemplars', 0)
    assert '1.5' in error_of(folder, '--num-exemplars', 1, '--scales', 1.5)
    message = error_of(config(kind='mm_rotssl.Digits'))
    assert 'is a mm_rotssl.Digits' in message
    assert 'configs/exemplar_cnn' in message


@pytest.mark.usefixtures('nothing_written')
def test_files_that_can_not_be_written(folder, tmp_path):
    (tmp_path / 'file').write_text('text')
    path = tmp_path / 'file' / 'seeds.npz'
    message = error_of(folder, '--num-exemplars', 3, '--out', path)
    assert str(tmp_path / 'file') in message
    assert (tmp_path / 'file').read_text() == 'text'
    (tmp_path / 'folder.npz').mkdir()
    message = error_of(
        folder, '--num-exemplars', 3, '--out', tmp_path / 'folder.npz'
    )
    assert 'folder.npz' in message
    assert list((tmp_path / 'folder.npz').iterdir()) == []


@pytest.mark.parametrize(
    ('args', 'say'),
    [
        (('--out', 'a.txt'), r'--out a.txt: .* \.npz'),
        (('--out', 'a'), r'--out a: .* \.npz'),
        (('--cfg-options', 'a.b=1'), '--cfg-options need a config'),
        (('--energy', 'other'), "'band_pass', 'gradient'"),
        (('--scales',), '--scales'),
    ],
)
@pytest.mark.usefixtures('nothing_written')
def test_arguments_that_make_no_sense(folder, capsys, args, say):
    with pytest.raises(SystemExit) as error:
        main(folder, *args)
    assert error.value.code == 2
    said = capsys.readouterr().err.replace('band_pass, g', "'band_pass', 'g")
    assert re.search(say, said.replace('gradient)', "gradient')"))
