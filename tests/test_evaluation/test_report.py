import io
import json
import sys

import numpy as np
import pytest
import torch
from rich.console import Console

from mm_rotssl.evaluation.report import (
    format_figure,
    format_spread,
    make_table,
    write_summary,
)
from mm_rotssl.version import __version__


def test_spread_is_that_of_a_sample():
    values = [10.0, 11.0, 15.0]
    assert format_spread(values) == f'12.0 ±  {np.std(values, ddof=1):.1f}'
    assert format_spread(values[:1]) == '10.0'


@pytest.mark.parametrize(
    ('value', 'spread', 'unit', 'text'),
    [
        (99.96, None, '%', '100.0'),
        (-0.04, None, '%', '0.0'),
        (12.0, 13.26, '%', '12.0 ± 13.3'),
        (0.12345, None, '', '0.123'),
        (-2.7183, 0.0314, '', '-2.72 ± 0.03'),
        # three digits of the larger of the two
        (0.0004, 0.05, '', '0.0004 ± 0.0500'),
        (9.996, None, '', '10.0'),
        (99.96, None, '', '100'),
        # no digit of an integer is left out
        (123456.7, 89.2, '', '123457 ± 89'),
        (0.001234, None, '', '0.00123'),
        (0.00001234, 0.000001, '', '1.23e-05 ± 1.00e-06'),
        (0.0, None, '', '0.00'),
        (-0.0, 0.0, '', '0.00 ± 0.00'),
        (512, None, '', '512'),
    ],
)
def test_figures_have_the_digits_that_tell_something(
    value, spread, unit, text
):
    assert format_figure(value, spread, unit) == text


def test_numbers_are_aligned_on_the_right():
    table = make_table('title', ['name'], ['number'])
    for row in (('a', '1.0'), ('long name', '100.0')):
        table.add_row(*row)
    console = Console(width=40, file=io.StringIO())
    console.print(table)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[0] == 'title'
    assert len({len(line) for line in lines[1:]}) == 1
    # two spaces between columns
    assert lines[-1] == 'long name   100.0'


def test_summary_says_how_results_came_about(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['tool.py', '--out', 'a folder'])
    path = tmp_path / 'folder' / 'results.json'
    found = write_summary(path, seed=3, levels=(1, 2))
    assert found == json.loads(path.read_text())
    assert (found['seed'], found['levels']) == (3, [1, 2])
    assert found['command'] == "python tool.py --out 'a folder'"
    assert found['versions']['torch'] == torch.__version__
    assert found['versions']['mm_rotssl'] == __version__
    with pytest.raises(TypeError):
        write_summary(path, command='made up')
