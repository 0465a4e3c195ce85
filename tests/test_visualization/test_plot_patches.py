import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from mm_rotssl.visualization import plot_patches


def make(lengths, size, seed=0):
    rng = np.random.default_rng(seed)
    # none is white, as the paper is
    return [
        [rng.integers(0, 250, (size, size, 3), np.uint8) for _ in range(n)]
        for n in lengths
    ]


def rendered(figure):
    data = io.BytesIO()
    figure.savefig(data, format='png', dpi=figure.dpi)
    data.seek(0)
    return np.rint(imread(data)[..., :3] * 255).astype(int)


@pytest.mark.parametrize(
    ('lengths', 'size'),
    [([1], 5), ([3, 3], 8), ([4, 2, 4, 1], 17), ([1, 5], 32), ([2, 0, 3], 9)],
)
def test_page_holds_the_patches_in_their_rows(lengths, size):
    rows = make(lengths, size)
    figure = plot_patches(rows, 'title', 'note')
    (axes,) = figure.axes
    (image,) = axes.images
    page = np.asarray(image.get_array())
    assert page.dtype == np.uint8
    columns = max(lengths)
    gap = (page.shape[1] - columns * size) // max(columns - 1, 1)
    if columns == 1:
        gap = (page.shape[0] - len(rows) * size) // max(len(rows) - 1, 1)
    if columns > 1 or len(rows) > 1:
        assert 1 <= gap <= max(1, size // 4)
    assert page.shape == (
        len(rows) * (size + gap) - gap,
        columns * (size + gap) - gap,
        3,
    )
    expected = np.full_like(page, 255)
    for i, row in enumerate(rows):
        for j, patch in enumerate(row):
            for y in range(size):
                for x in range(size):
                    expected[i * (size + gap) + y, j * (size + gap) + x] = (
                        patch[y, x]
                    )
    np.testing.assert_array_equal(page, expected)


def test_colors_and_directions_on_paper():
    size = 6
    rows = make([3, 2], size)
    # not stretched to what is darkest and brightest in it
    rows[0][1][:] = 100, 101, 102
    marked = rows[1][0]
    marked[:] = 0
    marked[0, 0] = 249, 0, 0
    marked[5, 0] = 0, 249, 0
    marked[0, 5] = 0, 0, 249
    figure = plot_patches(rows, 'title', 'note')
    shown = rendered(figure)
    (axes,) = figure.axes
    (image,) = axes.images
    columns = image.get_array().shape[1]
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    box = axes.images[0].get_window_extent(renderer)
    # pixels of the patches are squares
    pixel = (box.x1 - box.x0) / columns
    assert (box.y1 - box.y0) / len(image.get_array()) == pytest.approx(pixel)
    gap = (columns - 3 * size) // 2
    for i, row in enumerate(rows):
        for j, patch in enumerate(row):
            for y in range(size):
                for x in range(size):
                    across = box.x0 + pixel * (j * (size + gap) + x + 0.5)
                    down = len(shown) - box.y1
                    down += pixel * (i * (size + gap) + y + 0.5)
                    color = shown[int(down), int(across)].tolist()
                    assert color == patch[y, x].tolist()
    # where the second row has no third patch there is paper
    across = box.x0 + pixel * (2 * (size + gap) + 3)
    down = len(shown) - box.y1 + pixel * (size + gap + 3)
    assert shown[int(down), int(across)].tolist() == [255] * 3


@pytest.mark.parametrize('lengths', [[1], [18] * 8, [18], [2] * 10])
def test_words_stand_above_the_patches(lengths):
    figure = plot_patches(
        make(lengths, 32), '144 of 8000 seeds', '32 pixels at scale 1'
    )
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    (axes,) = figure.axes
    box = axes.images[0].get_window_extent(renderer)
    page = figure.bbox
    assert [text.get_text() for text in figure.texts] == [
        '144 of 8000 seeds',
        '32 pixels at scale 1',
    ]
    title, note = (text.get_window_extent(renderer) for text in figure.texts)
    assert page.height >= title.y1
    assert title.y0 >= note.y1
    assert note.y0 >= box.y1
    assert box.y0 >= 0
    assert min(title.x0, note.x0, box.x0) >= 0
    assert max(title.x1, note.x1, box.x1) <= page.width
    # which are as large as they may be
    assert box.width > 0.95 * page.width
    assert note.y0 - box.y1 < 40
    assert box.y0 < 40
