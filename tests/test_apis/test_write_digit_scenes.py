import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from mm_rotssl.apis import digit_scenes as api
from mm_rotssl.apis import write_digit_scenes
from mm_rotssl.datasets.synthetic.digit_scenes import (
    generate_scenes,
    write_scenes,
)

pytest.importorskip('pycocotools')


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_files(tmp_path):
    given = dict(train=3, val=2, size=64, seed=5, unlabeled=3)
    digits = write_digit_scenes(tmp_path / 'new' / 'scenes', **given)
    assert digits == write_scenes(tmp_path / 'other', **given)
    assert files_of(tmp_path / 'new/scenes') == files_of(tmp_path / 'other')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['scenes']


@pytest.mark.parametrize('count', [2, 14])
def test_preview(tmp_path, monkeypatch, count):
    texts, pages = [], []
    put_text = api.cv2.putText

    def spy_text(image, text, place, *args):
        texts.append((text, place))
        return put_text(image, text, place, *args)

    def note(*args):
        pages.append(args)
        return Figure((1, 1), facecolor='red')

    monkeypatch.setattr(api.cv2, 'putText', spy_text)
    monkeypatch.setattr(api, 'plot_patches', note)
    path = tmp_path / 'pages' / 'preview.png'
    write_digit_scenes(
        tmp_path / 'scenes', count, 1, size=48, seed=3, preview=path
    )
    ((rows, title, note),) = pages
    assert imread(path)[5, 5].tolist() == [1, 0, 0, 1]
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


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(train=0), 'train=0 '),
        (dict(val=0), 'val=0 '),
        (dict(size=20), 'size=20 '),
        (dict(seed=-1), 'seed=-1 '),
        (dict(unlabeled=-1), 'unlabeled=-1 '),
        (dict(preview='p.jpg'), '--preview p.jpg: the name must end in .png'),
    ],
)
def test_errors_before_anything_is_written(
    tmp_path, monkeypatch, given, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f'^{re.escape(message)}'):
        write_digit_scenes('scenes', **{'preview': 'p.png', **given})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / 'scenes').mkdir()
    (tmp_path / 'scenes' / 'mine').write_text('text')
    message = f'"{tmp_path / "scenes"}" exists and is no empty folder'
    with pytest.raises(FileExistsError, match=re.escape(message)):
        write_digit_scenes(tmp_path / 'scenes', preview=tmp_path / 'p.png')
    assert [path.name for path in tmp_path.rglob('*')] == ['scenes', 'mine']
