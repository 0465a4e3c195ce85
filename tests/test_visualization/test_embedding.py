import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from mm_rotssl.visualization import plot_embedding


@pytest.mark.parametrize('classes', [['0', '1', '2'], ['cat', 'owl', 'emu']])
def test_embedding_places_every_point_with_its_class(classes, rendered):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 2))
    groups = np.array([0, 2, 1, 0] * 3)
    figure = plot_embedding(
        {'untrained': -points, 'trained': points}, groups, classes
    )
    assert [a.get_title('left') for a in figure.axes] == [
        *('untrained', 'trained')
    ]
    for axes, sign in zip(figure.axes, (-1, 1), strict=True):
        assert len(axes.collections) == 3
        for group, dots in enumerate(axes.collections):
            want = sign * points[groups == group]
            np.testing.assert_allclose(dots.get_offsets(), want)
        colors = {to_hex(dots.get_facecolor()[0]) for dots in axes.collections}
        assert len(colors) == 3
        # nothing is written on the points
        assert not axes.texts
    names = [t.get_text() for le in figure.legends for t in le.get_texts()]
    # one letter stands in place of the point
    assert names == ([] if len(classes[0]) == 1 else classes)
    assert np.ptp(rendered(figure)) > 127


@pytest.mark.parametrize(('number', 'named'), [(12, True), (13, False)])
@pytest.mark.parametrize('panels', [1, 3])
def test_many_classes_are_not_named(number, named, panels):
    points = np.random.default_rng(0).normal(size=(5 * number, 2))
    groups = np.arange(5 * number) % number
    classes = [f'a class of a long name {i}' for i in range(80)]
    figure = plot_embedding(
        {f'network {i}': points for i in range(panels)}, groups, classes
    )
    assert len(figure.axes) == panels
    assert not any(axes.texts for axes in figure.axes)
    assert bool(figure.legends) == named
    if named:
        (legend,) = figure.legends
        found = [text.get_text() for text in legend.get_texts()]
        assert found == classes[:12]
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        box = legend.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        for axes in figure.axes:
            assert not box.overlaps(axes.get_tightbbox(renderer))


def test_only_classes_that_occur_count():
    groups = np.array([3, 70, 3, 70])
    classes = [f'class {i}' for i in range(80)]
    figure = plot_embedding({'a': np.eye(4)[:, :2]}, groups, classes)
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ['class 3', 'class 70']
