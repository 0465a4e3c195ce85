import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from mm_rotssl.visualization import (
    SERIES,
    plot_training_curves,
    plot_transfer,
)


def test_training_curves_show_the_mean_of_each_epoch(rendered):
    train = [
        dict(step=5, iter=5, epoch=1, loss=2.0, rotation_accuracy=20.0),
        dict(step=10, iter=10, epoch=1, loss=1.0, rotation_accuracy=40.0),
        dict(step=15, iter=15, epoch=2, loss=0.5, rotation_accuracy=60.0),
    ]
    val = [
        {'step': 1, 'rotation/accuracy': 25.0, 'knn/stage1': 10.0},
        {'step': 2, 'rotation/accuracy': 35.0, 'knn/stage10': 20.0},
    ]
    figure = plot_training_curves(train, val, ['2', '11'], 'A run')
    loss, rotation, knn = figure.axes
    assert loss.lines[0].get_xydata().tolist() == [[1, 1.5], [2, 0.5]]
    assert rotation.lines[0].get_ydata().tolist() == [30, 60]
    assert rotation.lines[1].get_ydata().tolist() == [25, 35]
    assert [line.get_label() for line in knn.lines] == ['stage 2', 'stage 11']
    assert knn.lines[1].get_xydata().tolist() == [[2, 20]]
    assert {axes.get_xlabel() for axes in figure.axes} == {'epoch'}
    assert figure._suptitle.get_text() == 'A run'
    assert np.ptp(rendered(figure)) > 127


def test_legends_are_below_their_own_panels():
    train = [
        dict(step=i, epoch=i, loss=1.0 / i, rotation_accuracy=10.0 * i)
        for i in (1, 2, 3)
    ]
    val = [
        {'step': i, 'rotation/accuracy': 9.0}
        | {f'knn/stage{j}': 10.0 * j for j in range(1, 7)}
        for i in (1, 2, 3)
    ]
    figure = plot_training_curves(train, val)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    legends = [
        legend
        for line in figure.subfigs
        for part in line.subfigs
        for legend in part.legends
    ]
    names = [[t.get_text() for t in one.get_texts()] for one in legends]
    assert names == [
        ['training'],
        ['training', 'validation'],
        [f'stage {j}' for j in range(1, 7)],
    ]
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [legend.get_window_extent(renderer) for legend in legends]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert not any(box.padded(-1).overlaps(other) for other in boxes[:i])
    for legend, axes in zip(legends, figure.axes, strict=True):
        below = legend.get_window_extent(renderer)
        above = axes.get_window_extent(renderer)
        assert below.y1 < above.y0
        assert above.x0 - 60 < (below.x0 + below.x1) / 2 < above.x1


def test_a_loss_may_be_negative():
    """A cosine similarity is."""
    train = [dict(step=i, loss=-0.1 * i) for i in (1, 2, 3)]
    (axes,) = plot_training_curves(train, []).axes
    low, high = axes.get_ylim()
    assert low < -0.3
    assert -0.1 < high < 0


def test_training_curves_of_another_algorithm():
    train = [dict(step=i, iter=i, loss=1 / i) for i in (1, 2, 3)]
    (axes,) = plot_training_curves(train, []).axes
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert axes.get_xlabel() == 'iteration'
    with pytest.raises(ValueError, match='neither a loss nor'):
        plot_training_curves([], [])


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


def test_curves_that_coincide_are_both_seen(rendered):
    """The first are broader, so their colors show beside the last one's."""
    one = [seed(0.0)]
    names = ('a', 'b', 'c', 'd')
    figure = plot_transfer(dict.fromkeys(names, one), ['mIoU'], 'epoch')
    for axes in figure.axes:
        widths = [line.get_linewidth() for line in axes.lines]
        assert widths == sorted(set(widths), reverse=True)
        # whole numbers, however few
        ticks = axes.get_xticks()
        assert (ticks == np.round(ticks)).all()
    image = rendered(figure).reshape(-1, 3).astype(int)
    for style in SERIES:
        color = 255 * np.array(to_rgb(style['color']))
        near = np.abs(image[:, :3] - color).max(axis=1) < 12
        # more than in the legend
        assert near.sum() > 150, style


def test_a_run_without_values():
    """Its detector has found nothing."""
    nothing = ([dict(step=5, loss=1.0)], [{'step': 10}])
    runs = dict(a=[nothing], b=[seed(0.0), nothing])
    _, miou = plot_transfer(runs, ['mIoU'], 'epoch').axes
    assert [line.get_xydata().tolist() for line in miou.lines] == [
        [],
        [[10, 30.0]],
    ]
