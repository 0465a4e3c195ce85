import numpy as np

from mm_rotssl.visualization import plot_comparison


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
