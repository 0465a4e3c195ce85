import numpy as np
import pytest
from matplotlib.colors import to_hex

from mm_rotssl.visualization import plot_embedding


@pytest.mark.parametrize('classes', [['0', '1', '2'], ['cat', 'owl', 'emu']])
def test_embedding_places_every_point_with_its_class(classes, rendered):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 2))
    labels = np.array([0, 2, 1, 0] * 3)
    figure = plot_embedding(
        {'untrained': -points, 'trained': points}, labels, classes
    )
    for axes, sign in zip(figure.axes, (-1, 1), strict=True):
        assert len(axes.collections) == 3
        for label, dots in enumerate(axes.collections):
            want = sign * points[labels == label]
            np.testing.assert_allclose(dots.get_offsets(), want)
        colors = {to_hex(dots.get_facecolor()[0]) for dots in axes.collections}
        assert len(colors) == 3
        names = {text.get_text() for text in axes.texts}
        assert names == (set() if len(classes[0]) == 1 else set(classes))
    assert np.ptp(rendered(figure)) > 127
