import numpy as np
import pytest

from mm_rotssl.visualization import plot_comparison, plot_stage_accuracy


def test_stage_accuracy_draws_mean_and_sample_deviation(rendered):
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
    assert np.ptp(rendered(figure)) > 127


def test_means_points_and_baseline():
    panels = {
        'kNN': {
            'plain': [[40.0, 44.0], [50.0, 51.0], [10.0, 20.0]],
            'more': [[43.0, 43.0], [49.0, 53.0], [11.0, 12.0]],
        },
        'linear': {
            'plain': [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            'more': [[2.0, 2.0], [4.0, 4.0], [6.0, 6.0]],
        },
    }
    baselines = {'kNN': [30.0, 31.0, 35.0], 'linear': [0.5, 1.5]}
    figure = plot_comparison(panels, ['a', 'b', 'c'], baselines, 'A title')
    assert figure._suptitle.get_text() == 'A title'
    assert len(figure.axes) == 2
    for axes, (name, variants) in zip(
        figure.axes, panels.items(), strict=True
    ):
        assert axes.get_title('left') == name
        # untrained, then for each variant the single points and the means
        base, *lines = axes.lines
        assert set(base.get_xdata()) == {np.mean(baselines[name])}
        (shade,) = axes.patches
        ends = (shade.get_x(), shade.get_x() + shade.get_width())
        assert ends == (min(baselines[name]), max(baselines[name]))
        assert len(lines) == 2 * (3 + 1)
        for k, (variant, rows) in enumerate(variants.items()):
            *points, means = lines[4 * k : 4 * k + 4]
            assert [line.get_xdata().tolist() for line in points] == rows
            assert means.get_label() == variant
            assert means.get_xdata().tolist() == [np.mean(r) for r in rows]
            heights = means.get_ydata()
            # points lie with their mean, in their row
            for row, line in enumerate(points):
                assert set(line.get_ydata()) == {heights[row]}
                assert round(heights[row]) == row
        # variants differ in color and mark, and do not hide each other
        plain, more = lines[3], lines[7]
        assert plain.get_color() != more.get_color()
        assert plain.get_marker() != more.get_marker()
        assert not set(plain.get_ydata()) & set(more.get_ydata())
    first = figure.axes[0]
    assert [t.get_text() for t in first.get_yticklabels()] == ['a', 'b', 'c']
    # the first row above
    bottom, top = first.get_ylim()
    assert bottom > top
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ['untrained', 'plain', 'more']
