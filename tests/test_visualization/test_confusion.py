import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mm_rotssl.visualization import plot_confusion


def make(number):
    rng = np.random.default_rng(number)
    return rng.integers(0, 5, (number, number)) + 20 * np.eye(
        number, dtype=int
    )


@pytest.mark.parametrize('number', [2, 10, 20, 21, 100])
def test_shares_of_each_row(number, rendered):
    counts = make(number)
    # a class without test images
    counts[1] = 0
    classes = [f'a class {i}' for i in range(number)]
    figure = plot_confusion(counts, classes, 'A title')
    shares = np.zeros(counts.shape)
    for i, row in enumerate(counts):
        if row.sum():
            shares[i] = 100 * row / row.sum()
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), shares)
    written = {
        (round(t.get_position()[1]), round(t.get_position()[0])): t.get_text()
        for t in axes.texts
    }
    if number <= 12:
        assert written == {
            (i, j): f'{shares[i, j]:.0f}'
            for i, j in zip(*counts.nonzero(), strict=True)
        }
    else:
        assert written == {}
    named = [text.get_text() for text in axes.get_yticklabels()]
    assert (named == classes) == (number <= 20)
    assert np.ptp(rendered(figure)) > 127
    # names do not touch each other
    renderer = FigureCanvasAgg(figure).get_renderer()
    for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
        boxes = [label.get_window_extent(renderer) for label in labels]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])


def test_of_many_classes_the_most_frequent_confusions_are_listed():
    counts = 100 * np.eye(50, dtype=int)
    counts[3, 7], counts[3, 3] = 40, 60
    counts[20, 4], counts[20, 20] = 10, 90
    figure = plot_confusion(counts, [f'c{i}' for i in range(50)])
    (axes,) = (a for a in figure.axes if 'confusions' in a.get_title('left'))
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ['c3 as c7', 'c20 as c4']
    assert [bar.get_width() for bar in axes.patches] == [40, 10]
    # the first one above
    bottom, top = axes.get_ylim()
    assert bottom > top


def test_nothing_is_listed_where_all_is_right():
    figure = plot_confusion(np.eye(30, dtype=int), [str(i) for i in range(30)])
    assert not any('confusions' in a.get_title('left') for a in figure.axes)
