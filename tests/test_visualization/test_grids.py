from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from mm_rotssl.visualization import (
    contact_sheet,
    plot_attention,
    plot_image_groups,
    plot_image_table,
    plot_neighbors,
    plot_orientation,
    plot_pairs,
    plot_patches,
)

BLUE, ORANGE, VERMILION = '#0072b2', '#e69f00', '#d55e00'
ROTATIONS = (0, 90, 180, 270)


def test_table_of_images():
    rng = np.random.default_rng(0)
    columns = {
        name: [
            rng.integers(0, 256, (*shape, 3), np.uint8)
            for shape in ((4, 8), (8, 8))
        ]
        for name in ('true', 'random', 'mine')
    }
    figure = plot_image_table(columns, 'Found')
    figure.draw_without_rendering()
    assert len(figure.axes) == 6
    grid = np.array(figure.axes).reshape(2, 3)
    for column, (name, images) in zip(grid.T, columns.items(), strict=True):
        assert column[0].get_title('left') == name
        for axes, image in zip(column, images, strict=True):
            (shown,) = axes.get_images()
            assert np.array_equal(shown.get_array(), image)
    # as high as the images are
    first, second = (row[0].get_window_extent().height for row in grid)
    assert second == pytest.approx(2 * first, rel=0.1)


def test_neighbors_are_framed_by_right_and_wrong():
    rng = np.random.default_rng(0)

    def image():
        return rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)

    queries = [(image(), 'seven'), (image(), 'owl'), (image(), 'cat')]
    right = {
        'trained': [[True, False], [True, True], [False, False]],
        'untrained': [[False, False], [False, True], [True, False]],
    }
    neighbors = {
        name: [[(image(), hit) for hit in row] for row in rows]
        for name, rows in right.items()
    }
    figure = plot_neighbors(queries, neighbors)
    (axes,) = figure.axes
    frames = {
        (round(f.get_x(), 3), round(f.get_y(), 3)): to_hex(f.get_facecolor())
        for f in axes.patches
    }
    images = [image.get_array() for image in axes.images]
    for i, (shown, _) in enumerate(queries):
        assert any(np.array_equal(shown, image) for image in images), i
    for name, rows in neighbors.items():
        for row in rows:
            for shown, hit in row:
                (image,) = (
                    m
                    for m in axes.images
                    if np.array_equal(m.get_array(), shown)
                )
                left, _, _, top = image.get_extent()
                inside = [
                    color
                    for (x, y), color in frames.items()
                    if 0 <= left - x < 0.1 and 0 <= top - y < 0.1
                ]
                assert inside == [BLUE if hit else VERMILION], name
    # a cross for each wrong one, so that color is not all
    assert len(axes.lines) == 7
    assert {'seven', 'owl', 'cat', 'trained', 'untrained'} <= {
        text.get_text() for text in axes.texts
    }
    # nothing is cut off at the borders of the page
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in [*figure.texts, *axes.texts]:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width, text.get_text()


def random_image(rng, height=8, width=8):
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def texts_fit(figure):
    """No text is beyond the page, or on another one."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    (axes,) = figure.axes
    shown = [text for text in [*figure.texts, *axes.texts] if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in shown]
    for i, found in enumerate(boxes):
        assert found.x0 >= 0
        assert found.y0 >= 0
        assert found.x1 <= figure.bbox.width
        assert found.y1 <= figure.bbox.height
        assert not any(found.overlaps(other) for other in boxes[:i])
    return [text.get_text() for text in shown]


@pytest.mark.parametrize('networks', [1, 8])
def test_neighbors_without_labels(networks):
    rng = np.random.default_rng(0)
    queries = [(random_image(rng, 6, 9), '') for _ in range(3)]
    names = [f'network of a long name {i}' for i in range(networks)]
    neighbors = {
        name: [[(random_image(rng), None) for _ in range(5)]] * 3
        for name in names
    }
    figure = plot_neighbors(queries, neighbors)
    (axes,) = figure.axes
    assert len(axes.images) == 3 * (1 + 5 * networks)
    # nothing is right or wrong
    assert not axes.patches
    assert not axes.lines
    texts = texts_fit(figure)
    assert not any('class' in text for text in texts)
    found = [' '.join(text.split()) for text in texts]
    assert all(found.count(name) == 3 for name in names)
    # the query keeps its proportions
    left, right, bottom, top = axes.images[0].get_extent()
    assert (right - left) / abs(top - bottom) == pytest.approx(9 / 6)


def test_contact_sheet():
    colors = np.arange(1, 6) * 40
    images = [
        np.full((*shape, 3), color, np.uint8)
        for shape, color in zip(
            [(4, 4), (8, 4), (400, 200), (2, 4), (96, 96)], colors, strict=True
        )
    ]
    sheet = contact_sheet(images, 3)
    assert sheet.shape == (200, 300, 3)
    for i, (image, color) in enumerate(zip(images, colors, strict=True)):
        cell = sheet[i // 3 * 100 :, i % 3 * 100 :][:96, :96, 0]
        rows, columns = np.nonzero(cell == color)
        height, width = image.shape[:2]
        longer = max(height, width)
        assert np.ptp(rows) + 1 == 96 * height // longer
        assert np.ptp(columns) + 1 == 96 * width // longer
        # in the middle
        assert rows.min() + rows.max() == columns.min() + columns.max() == 95
    assert (sheet[:, 96:100] == 255).all()
    assert contact_sheet(images[:2], 3).shape == (100, 200, 3)
    # small images keep their pixels
    pattern = random_image(np.random.default_rng(0), 4, 4)
    sheet = contact_sheet([pattern], 1)
    assert np.array_equal(sheet[12:96:24, 12:96:24], pattern)


@pytest.mark.parametrize('columns', [1, 2])
def test_groups_of_images_are_below_their_captions(columns):
    rng = np.random.default_rng(0)
    long = 'a caption that is so long that it has to be broken into lines'
    groups = {
        name: [random_image(rng) for _ in range(count)]
        for name, count in (
            ('one', 1),
            (f'{long}, twice: {long}', 5),
            ('x', 4),
        )
    }
    figure = plot_image_groups(groups, 'A title', 'A note', 4, columns)
    texts = [' '.join(text.split()) for text in texts_fit(figure)]
    assert texts == ['A title', 'A note', *groups]
    (axes,) = figure.axes
    boxes = []
    for text, image, images in zip(
        axes.texts, axes.images, groups.values(), strict=True
    ):
        assert np.array_equal(image.get_array(), contact_sheet(images, 4))
        left, right, bottom, top = image.get_extent()
        x, y = text.get_position()
        assert x == pytest.approx(left)
        assert 0 < top - y < 0.1
        # pixels are square
        shape = image.get_array().shape
        assert (right - left) / (bottom - top) == pytest.approx(
            shape[1] / shape[0]
        )
        boxes.append((left, right, top, bottom))
    for i, (left, right, top, bottom) in enumerate(boxes):
        for other in boxes[:i]:
            assert (
                left >= other[1]
                or right <= other[0]
                or top >= other[3]
                or bottom <= other[2]
            )


def test_pairs_with_their_texts():
    rng = np.random.default_rng(0)
    pairs = [
        (
            random_image(rng),
            random_image(rng, 4, 9),
            [f'test: {"long/" * 30}{i}.jpg', f'{i}.png'],
        )
        for i in range(3)
    ]
    figure = plot_pairs(pairs, 'A title', 'A note')
    texts = texts_fit(figure)
    (axes,) = figure.axes
    shown = [image.get_array() for image in axes.images]
    for i, (first, second, lines) in enumerate(pairs):
        assert np.array_equal(shown[2 * i], first)
        assert np.array_equal(shown[2 * i + 1], second)
        assert ''.join(texts[2 + i].split()) == ''.join(lines).replace(' ', '')


def test_attention_lies_on_the_image_it_is_of():
    rng = np.random.default_rng(0)
    angles = ('0°', '90°')
    images = [
        {angle: random_image(rng, 6, 9) for angle in angles} for _ in range(3)
    ]
    maps = {
        name: [{angle: rng.random((3, 4)) * scale for angle in angles}] * 3
        for name, scale in (('trained', 1e-30), ('untrained', 0))
    }
    figure = plot_attention(images, maps, 'A title', 'A note')
    texts = texts_fit(figure)
    assert texts.count('trained') == texts.count('untrained') == 2
    assert texts.count('90°') == 3
    (axes,) = figure.axes
    # for each version the image, and for each network it in gray and the map
    found = list(axes.images)
    assert len(found) == 3 * 2 * (1 + 2 * 2)
    for i in range(3):
        for j, angle in enumerate(angles):
            start = 5 * (2 * i + j)
            image, *others = found[start : start + 5]
            assert np.array_equal(image.get_array(), images[i][angle])
            for (gray, shown), (name, energy) in zip(
                (others[:2], others[2:]), maps.items(), strict=True
            ):
                assert np.ptp(gray.get_array(), axis=2).max() == 0
                assert shown.get_extent() == gray.get_extent()
                assert np.array_equal(shown.get_array(), energy[i][angle])
                # the maximum is at the end of the colors
                low, high = shown.get_clim()
                assert low == 0
                want = energy[i][angle].max() if name == 'trained' else 1
                assert high == want


def make_groups(counts, num_rotations=4, seed=0):
    """Groups of images that differ, with probabilities that differ."""
    rng = np.random.default_rng(seed)
    return {
        name: [
            (
                rng.integers(0, 256, (6, 6, 3), dtype=np.uint8),
                rng.random(num_rotations),
            )
            for _ in range(count)
        ]
        for name, count in counts.items()
    }


def box(artist, renderer):
    """Left, right, bottom, top on the page, in pixels, y upwards."""
    found = artist.get_window_extent(renderer)
    return found.x0, found.x1, *sorted((found.y0, found.y1))


def read_page(figure):
    """For each image on the page: its pixels, place, bars and numbers."""
    (axes,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = [
        dict(
            pixels=np.asarray(image.get_array()),
            box=box(image, renderer),
            bars=[],
            numbers=[],
        )
        for image in axes.images
    ]

    def owner(left, right, top):
        """The nearest image above."""
        middle = (left + right) / 2
        above = [
            entry
            for entry in found
            if entry['box'][0] < middle < entry['box'][1]
            and entry['box'][2] >= top - 1
        ]
        return min(above, key=lambda entry: entry['box'][2])

    for patch in axes.patches:
        left, right, bottom, top = box(patch, renderer)
        owner(left, right, top)['bars'].append(
            dict(
                left=left,
                right=right,
                bottom=bottom,
                height=top - bottom,
                color=to_hex(patch.get_facecolor()),
            )
        )
    words = []
    for text in [*figure.texts, *axes.texts]:
        left, right, bottom, top = box(text, renderer)
        entry = (left, right, bottom, top, text.get_text())
        try:
            float(text.get_text())
        except ValueError:
            words.append(entry)
        else:
            owner(left, right, top)['numbers'].append(entry)
    for entry in found:
        entry['bars'].sort(key=lambda bar: bar['left'])
        entry['numbers'].sort()
    return found, words


def entry_of(found, image):
    (entry,) = (
        entry for entry in found if np.array_equal(entry['pixels'], image)
    )
    return entry


@pytest.mark.parametrize(
    ('rotations', 'upright'),
    [(ROTATIONS, 0), ((180, 0), 1), (tuple(range(0, 360, 45)), 0)],
)
def test_bars_and_numbers_are_the_probabilities(rotations, upright):
    groups = make_groups({'first': 3, 'second': 2}, len(rotations))
    # the ends of the scale, and numbers that are rounded
    groups['first'][0][1][:2] = 0, 1
    groups['second'][1][1][:2] = 0.994, 0.996
    found, _ = read_page(plot_orientation(groups, rotations))
    # the height of 1, in pixels
    full = max(
        bar['height'] for bar in entry_of(found, groups['first'][0][0])['bars']
    )
    assert full > 15
    assert len(found) == 5
    for images in groups.values():
        for image, probabilities in images:
            entry = entry_of(found, image)
            left, right, under, _ = entry['box']
            bars, numbers = entry['bars'], entry['numbers']
            assert len(bars) == len(numbers) == len(rotations)
            heights = [bar['height'] for bar in bars]
            np.testing.assert_allclose(
                heights, full * np.asarray(probabilities), atol=1e-3
            )
            assert [bar['color'] for bar in bars] == [
                BLUE if place == upright else ORANGE
                for place in range(len(rotations))
            ]
            assert [number[-1] for number in numbers] == [
                f'{p:.2f}' for p in probabilities
            ]
            for bar, number in zip(bars, numbers, strict=True):
                # under the image, on one line, the number below its bar
                assert left <= bar['left'] < bar['right'] <= right
                assert bar['bottom'] == pytest.approx(bars[0]['bottom'])
                assert bar['bottom'] + bar['height'] < under
                assert number[3] <= bar['bottom']
                assert (number[0] + number[1]) / 2 == pytest.approx(
                    (bar['left'] + bar['right']) / 2, abs=1
                )
            for one, next_one in pairwise(bars):
                assert one['right'] < next_one['left']


def test_numbers_do_not_touch():
    found, _ = read_page(plot_orientation(make_groups({'all': 10}), ROTATIONS))
    for entry in found:
        numbers = entry['numbers']
        for one, next_one in pairwise(numbers):
            assert one[1] < next_one[0]


def test_images_are_those_given(rendered):
    groups = make_groups({'a': 2, 'b': 1})
    # not stretched to what is darkest and brightest in it
    groups['a'][0][0][:] = (100, 101, 102)
    # which way is up and which way is left
    marked = groups['b'][0][0]
    marked[:] = 0
    marked[0, 0] = 255, 0, 0
    marked[5, 0] = 0, 255, 0
    marked[0, 5] = 0, 0, 255
    figure = plot_orientation(groups, ROTATIONS)
    found, _ = read_page(figure)
    page = rendered(figure)
    for images in groups.values():
        for image, _ in images:
            left, right, bottom, top = entry_of(found, image)['box']
            assert right - left == pytest.approx(top - bottom)
            for row in range(6):
                for column in range(6):
                    x = left + (column + 0.5) / 6 * (right - left)
                    y = top - (row + 0.5) / 6 * (top - bottom)
                    shown = page[int(len(page) - y), int(x)]
                    assert shown.tolist() == image[row, column].tolist()


@pytest.mark.parametrize(
    'counts',
    [{'a': 1}, {'a': 8, 'b': 9}, {'a': 17, 'b': 3, 'c': 24}, {'b': 9, 'a': 1}],
)
def test_rows_of_eight(counts):
    groups = make_groups(counts)
    found, words = read_page(plot_orientation(groups, ROTATIONS, 'My title'))
    assert len(found) == sum(counts.values())
    columns = {}
    # the lowest of what came before, from the top of the page
    last = min(word[2] for word in words if word[-1] not in counts)
    for name, images in groups.items():
        (headline,) = (word for word in words if word[-1] == name)
        assert headline[3] <= last
        last = headline[2]
        for start in range(0, len(images), 8):
            row = [entry_of(found, p) for p, _ in images[start : start + 8]]
            for place, entry in enumerate(row):
                left, right, _, top = entry['box']
                # side by side, and below what came before
                assert top == pytest.approx(row[0]['box'][3])
                assert top < last
                known = columns.setdefault(place, (left, right))
                assert (left, right) == pytest.approx(known)
            last = min(
                number[2] for entry in row for number in entry['numbers']
            )
    for place in range(1, len(columns)):
        assert columns[place - 1][1] < columns[place][0]


@pytest.mark.parametrize('counts', [{'a': 1}, {'a': 9, 'b' * 60: 24}])
def test_words_and_page(counts):
    groups = make_groups(counts)
    figure = plot_orientation(groups, (0, 180, 90, 270), 'Of 12 images')
    found, words = read_page(figure)
    text = ' '.join(word[-1] for word in words)
    assert 'Of 12 images' in text
    # the bars are explained, in their order
    assert '0, 180, 90, 270 degrees' in text
    assert set(counts) <= {word[-1] for word in words}
    # nothing is cut off at the borders
    width, height = figure.bbox.width, figure.bbox.height
    places = [entry['box'] for entry in found] + [w[:4] for w in words]
    places += [n[:4] for entry in found for n in entry['numbers']]
    for left, right, bottom, top in places:
        assert left >= 0
        assert right <= width
        assert bottom >= 0
        assert top <= height
    # nor is most of the page empty
    assert min(place[2] for place in places) < 0.3 * figure.dpi


def test_an_empty_group_has_its_headline():
    groups = make_groups({'nothing': 0, 'two': 2})
    found, words = read_page(plot_orientation(groups, ROTATIONS))
    assert len(found) == 2
    assert {'nothing', 'two'} <= {word[-1] for word in words}


def test_each_rotation_has_its_probability():
    with pytest.raises(ValueError, match='shorter'):
        plot_orientation(make_groups({'a': 1}, 3), ROTATIONS)


def make_rows(lengths, size, seed=0):
    rng = np.random.default_rng(seed)
    # none is white, as the paper is
    return [
        [rng.integers(0, 250, (size, size, 3), np.uint8) for _ in range(n)]
        for n in lengths
    ]


@pytest.mark.parametrize(
    ('lengths', 'size'),
    [([1], 5), ([3, 3], 8), ([4, 2, 4, 1], 17), ([1, 5], 32), ([2, 0, 3], 9)],
)
def test_page_holds_the_patches_in_their_rows(lengths, size):
    rows = make_rows(lengths, size)
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


def test_colors_and_directions_on_paper(rendered):
    size = 6
    rows = make_rows([3, 2], size)
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
        make_rows(lengths, 32), '144 of 8000 seeds', '32 pixels at scale 1'
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
