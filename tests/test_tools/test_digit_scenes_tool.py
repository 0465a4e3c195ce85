import functools
import importlib.util
import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mm_rotssl.datasets.synthetic.digit_scenes import (
    generate_scenes,
    write_scenes,
)

pytest.importorskip('pycocotools')

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/dataset_converters/digit_scenes.py'
SPEC = importlib.util.spec_from_file_location('digit_scenes_tool', TOOL)
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


def main(*args):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        tool.main()


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


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


def test_files_and_output(tmp_path, capsys, pages):
    out = tmp_path / 'new' / 'scenes'
    main(out, '--train', 3, '--val', 2, '--size', 64, '--seed', 5)
    other = tmp_path / 'other'
    numbers = write_scenes(other, 3, 2, 64, 5)
    assert files_of(out) == files_of(other)
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert lines == [
        f'train: 3 scenes of {numbers["train"]} digits',
        f'val: 2 scenes of {numbers["val"]} digits',
        str(out / 'coco'),
        str(out / 'VOCdevkit'),
    ]
    assert not pages


def test_defaults_are_those_of_the_function(tmp_path, monkeypatch):
    defaults = [
        inspect.signature(write_scenes).parameters[name].default
        for name in ('train', 'val', 'size', 'seed', 'unlabeled')
    ]
    assert defaults == [200, 100, 96, 0, 0]
    given = []

    @functools.wraps(write_scenes)
    def spy(*args):
        given.append(args)
        return dict(train=0, val=0)

    monkeypatch.setattr(tool, 'write_scenes', spy)
    main(tmp_path / 'scenes')
    assert given == [(tmp_path / 'scenes', *defaults)]


def test_unlabeled(tmp_path, capsys):
    out = tmp_path / 'scenes'
    main(out, '--train', 1, '--val', 1, '--unlabeled', 3)
    write_scenes(tmp_path / 'other', 1, 1, unlabeled=3)
    assert files_of(out) == files_of(tmp_path / 'other')
    assert capsys.readouterr().out.splitlines()[-1] == str(out / 'unlabeled')


@pytest.mark.parametrize('count', [2, 14])
def test_preview(tmp_path, capsys, monkeypatch, pages, count):
    texts = []
    put_text = tool.cv2.putText

    def spy(image, text, place, *args):
        texts.append((text, place))
        return put_text(image, text, place, *args)

    monkeypatch.setattr(tool.cv2, 'putText', spy)
    path = tmp_path / 'pages' / 'preview.png'
    main(
        tmp_path / 'scenes',
        *('--train', count, '--val', 1, '--size', 48, '--seed', 3),
        *('--preview', path),
    )
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    ((rows, title, note, figure),) = pages
    data = io.BytesIO()
    figure.savefig(data, format='png')
    data.seek(0)
    np.testing.assert_array_equal(imread(path), imread(data))
    shown = min(count, 12)
    assert f'{shown} of {count} scenes' in title
    assert '48 pixels, seed 3' in note
    assert [len(row) for row in rows] == ([2, 2] if count == 2 else [6] * 4)
    plain = [image for row in rows[::2] for image in row]
    drawn = [image for row in rows[1::2] for image in row]
    scenes = list(generate_scenes('train', shown, 48, 3))
    colors = {}
    written = iter(dict.fromkeys(texts))
    for scene, image, page in zip(scenes, plain, drawn, strict=True):
        np.testing.assert_array_equal(
            image, np.kron(scene.image, np.ones((4, 4, 1)))
        )
        changed = (page != image).any(2)
        # the boxes with their lines, and the labels
        near = np.zeros_like(changed)
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            y, x = np.nonzero(np.kron(mask, np.ones((4, 4))))
            # a tint that is the image's own gray here and there
            assert changed[y, x].mean() > 0.95
            near[max(0, y.min() - 2) : y.max() + 3, :][
                :, max(0, x.min() - 2) : x.max() + 3
            ] = True
            text, (left, base) = next(written)
            assert text == str(label)
            assert left == x.min()
            assert abs(base - y.min()) < 35
            near[max(0, base - 30) : base + 6, :][
                :, max(0, left - 4) : left + 30
            ] = True
        assert not changed[~near].any()
        # on the last box nothing else was drawn
        corner = page[y.max(), x.max()]
        np.testing.assert_array_equal(corner, page[y.max(), x.min()])
        colors.setdefault(label, set()).add(tuple(corner.tolist()))
    assert next(written, None) is None
    # a class has one color, and its own
    assert {len(found) for found in colors.values()} == {1}
    assert len(set.union(*colors.values())) == len(colors)


def test_as_a_script(tmp_path):
    (tmp_path / 'scenes').mkdir()
    (tmp_path / 'scenes' / 'mine').write_text('text')
    failed = subprocess.run(
        [sys.executable, TOOL, 'scenes'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert 'Traceback' not in failed.stderr
    message = f'\nError: "{tmp_path / "scenes"}" exists and is no empty folder'
    assert message in '\n' + failed.stderr
    assert files_of(tmp_path) == {Path('scenes/mine'): b'text'}


@pytest.mark.parametrize(
    ('args', 'say'),
    [
        (('--train', 0), 'train=0'),
        (('--val', 0), 'val=0'),
        (('--size', 20), 'size=20'),
        (('--seed', -1), 'seed=-1'),
    ],
)
def test_errors(tmp_path, args, say):
    with pytest.raises(SystemExit) as error:
        main(tmp_path / 'scenes', *args, '--preview', tmp_path / 'p.png')
    assert str(error.value).startswith(f'Error: {say} ')
    assert list(tmp_path.iterdir()) == []


def test_name_of_the_preview(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main(tmp_path / 'scenes', '--preview', 'preview.jpg')
    assert error.value.code == 2
    assert '--preview preview.jpg: the name must' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
