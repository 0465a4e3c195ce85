import json

import pytest

from mm_rotssl.visualization import read_scalars


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
