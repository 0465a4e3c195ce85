import numpy as np
import pytest

from mm_rotssl.visualization import plot_image_table, plot_transfer


def seed(offset):
    """Logged lines of a seed: training every 5 steps, validation at 10."""
    train = [dict(step=s, loss=4.0 - s / 5 + offset) for s in (5, 10)]
    val = [{'step': 10, 'mIoU': 30.0 + offset, 'aAcc': 1.0}]
    # a metric that is not measured at first
    return train, [{'step': 5}, *val]


def test_lines_are_means_and_shades_the_range():
    runs = {
        'random': [seed(0.0), seed(1.0), seed(5.0)],
        'mine': [seed(2.0), seed(2.0), seed(2.0)],
    }
    figure = plot_transfer(runs, ['mIoU'], 'iteration', 'A title')
    loss, miou = figure.axes
    assert [axes.get_title('left') for axes in (loss, miou)] == [
        'loss (training)',
        'mIoU (%)',
    ]
    assert figure._suptitle.get_text() == 'A title'
    for axes, start, step in ((loss, 3.0, 5), (miou, 30.0, 10)):
        means = [line.get_xydata()[0].tolist() for line in axes.lines]
        assert means == [[step, start + 2.0], [step, start + 2.0]]
        shades = [
            (path.vertices[:, 1].min(), path.vertices[:, 1].max())
            for shade in axes.collections
            for path in shade.get_paths()
        ]
        falls = 1.0 if axes is loss else 0.0
        np.testing.assert_allclose(
            shades,
            [
                (start - falls, start + 5.0),
                (start + 2.0 - falls, start + 2.0),
            ],
        )
        colors = [line.get_color() for line in axes.lines]
        assert len(set(colors)) == 2
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ['random', 'mine']
    # what the steps of validation are
    assert (loss.get_xlabel(), miou.get_xlabel()) == ('iteration', 'iteration')
    figure = plot_transfer(runs, ['mIoU'], 'epoch')
    assert [a.get_xlabel() for a in figure.axes] == ['iteration', 'epoch']


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
            (image,) = axes.get_images()
            assert np.array_equal(image.get_array(), image)
    # as high as the images are
    first, second = (row[0].get_window_extent().height for row in grid)
    assert second == pytest.approx(2 * first, rel=0.1)
