from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from mm_rotssl.visualization import (
    MetricPanel,
    network_styles,
    plot_metrics,
    summarize_runs,
)

NETWORKS = {'mine': 'untrained', 'untrained': 'untrained'}
ACCURACY = MetricPanel(
    'Accuracy',
    {
        'mine': {'1': [[50.0, 52.0, 54.0]], '3': [[90.0]]},
        'untrained': {'1': [[10.0, 20.0, 60.0]], '3': [[40.0, 40.0]]},
    },
    '%',
    'higher',
    {name: {'1': 25.0, '3': 25.0} for name in NETWORKS},
)
RANK = MetricPanel(
    'Rank',
    {'mine': {'3': [[1.0, 3.0], [4.0, 4.0]], 'embedding': [[7.0]]}},
)


def panel(values, chance=None):
    """Of one network, by stage, a run and a measurement each."""
    return MetricPanel(
        'a metric',
        {'net': {stage: [[value]] for stage, value in values.items()}},
        chance={'net': dict.fromkeys(values, chance)} if chance else {},
    )


def draw_panel(values, chance=None):
    styles = network_styles({'net': None})
    figure = plot_metrics([panel(values, chance)], styles, list(values), 'x')
    return figure.axes[0]


def bars(axes):
    """Name of a network -> its means and the ends of its bars."""
    found = {}
    for container in axes.containers:
        points, _, (lines,) = container.lines
        ends = np.array(lines.get_segments())[:, :, 1]
        found[container.get_label()] = points, ends
    return found


def test_points_are_means_and_bars_reach_a_deviation(rendered):
    figure = plot_metrics(
        [ACCURACY, RANK], network_styles(NETWORKS), list('123'), 'Figures'
    )
    first, second = figure.axes
    assert first.get_title('left') == 'Accuracy (%) ↑'
    assert second.get_title('left') == 'Rank'
    # as many deviations as there are measurements of a single run
    for name, stages in ACCURACY.values.items():
        points, ends = bars(first)[name]
        runs = [found[0] for found in stages.values()]
        assert points.get_ydata() == pytest.approx([np.mean(r) for r in runs])
        spreads = [np.std(r, ddof=1) if len(r) > 1 else 0 for r in runs]
        assert ends[:, 1] - ends[:, 0] == pytest.approx(2 * np.array(spreads))
    # stage 2 has no value
    assert [t.get_text() for t in first.get_xticklabels()] == ['1', '3']
    assert np.round(bars(first)['mine'][0].get_xdata()).tolist() == [0, 1]
    assert first.get_xlabel() == 'stage'
    assert set(bars(second)) == {'mine'}
    assert np.ptp(rendered(figure)) > 127


def test_spread_of_several_runs_is_that_of_their_means():
    assert summarize_runs([[1.0, 3.0], [4.0, 8.0, 6.0]]) == (
        4.0,
        pytest.approx(np.std([2, 6], ddof=1)),
    )
    assert summarize_runs([[5.0]]) == (5.0, 0.0)


def test_stages_of_all_networks_in_order():
    figure = plot_metrics(
        [RANK], network_styles(NETWORKS), ['1', '3', 'embedding'], 'x'
    )
    texts = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert texts == ['3', 'embed-\nding']


def test_the_whole_network_is_no_stage():
    values = {'mine': {None: [[1.0]]}}
    styles = network_styles(NETWORKS)
    (axes,) = plot_metrics([MetricPanel('m', values)], styles, [], 'x').axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ['whole network']
    assert axes.get_xlabel() == ''


@pytest.mark.parametrize(
    ('values', 'chance'),
    [
        ({'1': 98.1, '2': 98.4, '3': 98.2}, None),
        ({'1': 0.002, '2': 0.004}, None),
        ({'1': 20.0, '2': 40.0}, 10.0),
        ({'1': 20.0, '2': 40.0}, 60.0),
        ({'1': -3.0, '2': -1.0}, None),
    ],
)
def test_the_axis_is_fitted(values, chance):
    axes = draw_panel(values, chance)
    shown = [*values.values(), *([chance] if chance else [])]
    low, high = axes.get_ylim()
    assert low < min(shown)
    assert high > max(shown)
    assert high - low < 1.5 * np.ptp(shown)


def test_chance_is_a_line_at_its_height():
    axes = draw_panel({'1': 20.0, '2': 40.0}, 12.5)
    (line,) = (li for li in axes.lines if li.get_label() == 'chance')
    assert set(line.get_ydata()) == {12.5}
    assert line.get_linestyle() == ':'
    texts = axes.figure.legends[0].get_texts()
    assert [text.get_text() for text in texts] == ['net', 'chance']
    assert not axes.texts


@pytest.mark.parametrize(('chance', 'arrow'), [(10.0, '↓'), (99.0, '↑')])
def test_far_chance_is_a_remark(chance, arrow):
    values = {'1': 80.0, '2': 81.0}
    # side by side, where they are small
    panels = 2 * [panel(values, chance)]
    styles = network_styles({'net': None})
    axes = plot_metrics(panels, styles, list(values), 'x').axes[0]
    axes.figure.draw_without_rendering()
    assert [text.get_text() for text in axes.texts] == [
        f'chance: {chance:g} {arrow}'
    ]
    assert not any(line.get_label() == 'chance' for line in axes.lines)
    low, high = axes.get_ylim()
    assert not low < chance < high
    # in the room below or above what is drawn
    box = axes.texts[0].get_window_extent(
        FigureCanvasAgg(axes.figure).get_renderer()
    )
    # not even on half a mark
    box = box.padded(5)
    _, (bottom, top) = axes.transData.inverted().transform(box).T
    assert top < 80 if chance < 80 else bottom > 81


def test_chance_of_each_network():
    """Where it differs, it is drawn in the network's color."""
    chances = {'mine': {'90': 0.5, '180': 0.7}, 'untrained': {'90': 0.9}}
    values = {name: {'90': [[0.6]], '180': [[0.8]]} for name in NETWORKS}
    styles = network_styles(NETWORKS)
    figure = plot_metrics(
        [MetricPanel('Cosine', values, chance=chances)],
        styles,
        ['90', '180'],
        'x',
        'angle',
    )
    (axes,) = figure.axes
    lines = [line for line in axes.lines if line.get_label() == 'chance']
    for line, (name, found) in zip(lines, chances.items(), strict=True):
        assert line.get_ydata().tolist() == list(found.values())
        assert line.get_color() == styles[name]['color']
    low, high = axes.get_ylim()
    assert low < 0.5
    assert high > 0.9
    assert axes.get_xlabel() == 'angle'


def many(count, stages):
    networks = {
        f'a network of a long name, number {i}': f'untrained {i % 2}'
        for i in range(count - 1)
    }
    networks['untrained 0'] = 'untrained 0'
    rng = np.random.default_rng(0)
    panels = [
        MetricPanel(
            f'A metric with a title that needs two lines, number {i}',
            {
                name: {stage: [rng.random(3).tolist()] for stage in stages}
                for name in networks
            },
        )
        for i in range(3)
    ]
    return panels, network_styles(networks)


@pytest.mark.parametrize(
    ('count', 'stages'),
    [
        (1, ['1']),
        (2, ['1', '2', '3', '4']),
        (8, ['stem', *(f'layer{i}' for i in range(4)), 'embedding']),
    ],
)
def test_nothing_overlaps(count, stages):
    panels, styles = many(count, stages)
    figure = plot_metrics(panels, styles, stages, 'A title')
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    assert len(figure.axes) == 3
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [figure.legends[0].get_window_extent(renderer)]
    boxes += [figure._suptitle.get_window_extent(renderer)]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        for other in boxes[:i]:
            assert not box.padded(-1).overlaps(other)
    for axes in figure.axes:
        labels = [
            t.get_window_extent(renderer) for t in axes.get_xticklabels()
        ]
        for one, other in pairwise(labels):
            assert not one.overlaps(other)


def test_networks_are_told_apart():
    networks = {f'net {i}': f'untrained {i % 2}' for i in range(6)}
    networks |= {f'untrained {i}': f'untrained {i}' for i in range(2)}
    styles = network_styles(networks)
    assert list(styles) == list(networks)
    looks = [
        (to_hex(s['color']), s['marker'], s.get('markerfacecolor'))
        for s in styles.values()
    ]
    assert len(set(looks)) == 8
    for i in range(2):
        style = styles[f'untrained {i}']
        assert style['linestyle'] == '--'
        assert style['markerfacecolor'] == 'white'
        # as that of the first trained one
        assert style['marker'] == styles[f'net {i}']['marker']
