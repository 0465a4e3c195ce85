import io
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.image import imread

from mm_rotssl.visualization import plot_orientation

BLUE, ORANGE = '#0072b2', '#e69f00'
ROTATIONS = (0, 90, 180, 270)


def make(counts, num_rotations=4, seed=0):
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


def read(figure):
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
    for text in axes.texts:
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
    groups = make({'first': 3, 'second': 2}, len(rotations))
    # the ends of the scale, and numbers that are rounded
    groups['first'][0][1][:2] = 0, 1
    groups['second'][1][1][:2] = 0.994, 0.996
    found, _ = read(plot_orientation(groups, rotations))
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
    found, _ = read(plot_orientation(make({'all': 10}), ROTATIONS))
    for entry in found:
        numbers = entry['numbers']
        for one, next_one in pairwise(numbers):
            assert one[1] < next_one[0]


def test_images_are_those_given():
    groups = make({'a': 2, 'b': 1})
    # not stretched to what is darkest and brightest in it
    groups['a'][0][0][:] = (100, 101, 102)
    # which way is up and which way is left
    marked = groups['b'][0][0]
    marked[:] = 0
    marked[0, 0] = 255, 0, 0
    marked[5, 0] = 0, 255, 0
    marked[0, 5] = 0, 0, 255
    figure = plot_orientation(groups, ROTATIONS)
    found, _ = read(figure)
    data = io.BytesIO()
    figure.savefig(data, format='png', dpi=figure.dpi)
    data.seek(0)
    page = np.rint(imread(data)[..., :3] * 255).astype(int)
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
    groups = make(counts)
    found, words = read(plot_orientation(groups, ROTATIONS, 'My title'))
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
    groups = make(counts)
    figure = plot_orientation(groups, (0, 180, 90, 270), 'Of 12 images')
    found, words = read(figure)
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
    groups = make({'nothing': 0, 'two': 2})
    found, words = read(plot_orientation(groups, ROTATIONS))
    assert len(found) == 2
    assert {'nothing', 'two'} <= {word[-1] for word in words}


def test_each_rotation_has_its_probability():
    with pytest.raises(ValueError, match='shorter'):
        plot_orientation(make({'a': 1}, 3), ROTATIONS)
