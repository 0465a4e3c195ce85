import io
import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.image import imread

from mm_rotssl.visualization import (
    plot_embedding,
    plot_neighbors,
    plot_stage_accuracy,
    plot_training_curves,
    read_scalars,
)

BLUE, VERMILLION = '#0072b2', '#d55e00'


def rendered(figure):
    data = io.BytesIO()
    figure.savefig(data, format='png')
    data.seek(0)
    return imread(data)


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    if figure._suptitle:
        found.append(figure._suptitle.get_text())
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found.append(axes.get_title('left'))
    return found


def log(path, lines):
    path.write_text('\n'.join(json.dumps(line) for line in lines))
    return path


def train_line(step, loss):
    epoch = (step - 1) // 10 + 1
    return dict(lr=0.1, loss=loss, epoch=epoch, iter=step, step=step)


def test_scalars_of_a_resumed_run_replace_the_later_part(tmp_path):
    first = log(
        tmp_path / 'a.json',
        [
            dict(train_line(5, 1.0)),
            dict(train_line(10, 0.9)),
            {'knn/best': 50.0, 'step': 1},
            dict(train_line(15, 0.8)),
            dict(train_line(20, 0.7)),
            {'knn/best': 60.0, 'step': 2},
        ],
    )
    resumed = log(
        tmp_path / 'b.json',
        [
            dict(train_line(15, 0.5)),
            dict(train_line(20, 0.4)),
            {'knn/best': 70.0, 'step': 2},
            dict(train_line(25, 0.3)),
        ],
    )
    train, val = read_scalars([first, resumed])
    assert [(x['step'], x['loss']) for x in train] == [
        (5, 1.0),
        (10, 0.9),
        (15, 0.5),
        (20, 0.4),
        (25, 0.3),
    ]
    assert [(x['step'], x['knn/best']) for x in val] == [(1, 50), (2, 70)]


def test_scalars_of_a_run_from_scratch_replace_an_older_longer_one(tmp_path):
    old = log(tmp_path / 'a.json', [train_line(i, 1.0) for i in (5, 10, 15)])
    new = log(tmp_path / 'b.json', [train_line(5, 2.0)])
    stopped_at_once = log(tmp_path / 'c.json', [])
    train, val = read_scalars([old, new, stopped_at_once])
    assert [(x['step'], x['loss']) for x in train] == [(5, 2.0)]
    assert val == []


def test_damaged_scalars_are_named(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text('{"step": 1, "iter": 1}\n{"ste')
    with pytest.raises(ValueError, match=r'scalars.json:2 .*\{"ste'):
        read_scalars([path])


def test_training_curves_show_the_mean_of_each_epoch():
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
    assert 'A run' in texts(figure)
    assert np.ptp(rendered(figure)) > 0.5


def test_training_curves_of_another_algorithm():
    train = [dict(step=i, iter=i, loss=1 / i) for i in (1, 2, 3)]
    (axes,) = plot_training_curves(train, []).axes
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert axes.get_xlabel() == 'iteration'
    with pytest.raises(ValueError, match='neither a loss nor'):
        plot_training_curves([], [])


def test_block_accuracy_draws_mean_and_sample_deviation():
    panels = {
        'linear, 1 label': {
            'untrained': [[10.0, 20.0, 60.0], [40.0, 40.0, 40.0]],
            'trained': [[50.0, 52.0, 54.0], [1.0, 2.0, 3.0]],
        },
        'kNN': {'untrained': [[30.0], [31.0]], 'trained': [[70.0], [60.0]]},
    }
    figure = plot_stage_accuracy(panels, ['1', '3'], 10)
    assert [a.get_title('left') for a in figure.axes] == list(panels)
    for axes, networks in zip(figure.axes, panels.values(), strict=True):
        bars = {c.get_label(): c for c in axes.containers}
        assert set(bars) == set(networks)
        for name, results in networks.items():
            points, _, (lines,) = bars[name].lines
            assert points.get_ydata() == pytest.approx(
                np.mean(results, axis=1)
            )
            spread = (
                np.std(results, axis=1, ddof=1)
                if len(results[0]) > 1
                else [0, 0]
            )
            ends = np.array(lines.get_segments())[:, :, 1]
            assert ends[:, 1] - ends[:, 0] == pytest.approx(
                2 * np.asarray(spread)
            )
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ['untrained', 'trained']
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == [
        '1',
        '3',
    ]
    assert np.ptp(rendered(figure)) > 0.5


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
                assert inside == [BLUE if hit else VERMILLION], name
    # a cross for each wrong one, so that color is not all
    assert len(axes.lines) == 7
    assert {'seven', 'owl', 'cat', 'trained', 'untrained'} <= set(
        texts(figure)
    )
    # nothing is cut off at the borders of the image
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in [*figure.texts, *axes.texts]:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width, text.get_text()


@pytest.mark.parametrize('classes', [['0', '1', '2'], ['cat', 'owl', 'emu']])
def test_embedding_places_every_point_with_its_class(classes):
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
    assert np.ptp(rendered(figure)) > 0.5
