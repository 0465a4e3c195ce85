"""What the commands that measure hand on, and what they print."""

import inspect
import sys
from pathlib import Path

import pytest
import torch
from made_up_report import made_up_report as make_report

import mm_rotssl.apis
from mm_rotssl.apis import Entry, Run
from mm_rotssl.cli import main

SCORES = dict(
    dict.fromkeys(('nmi', 'ami', 'ari'), 12.3),
    accuracy=45.6,
    accuracy_one_to_one=45.6,
    clusters_in_use=7.0,
)
CLUSTERS = {'own classes': [SCORES]}
SVM = dict(accuracy=[60.0], held_out_accuracy=70.0, c=0.5, features=[3, 4])
# command -> function of the apis, and a summary as it returns it
COMMANDS = {
    'evaluate-clusters': (
        'evaluate_clusters',
        dict(results=dict(untrained=CLUSTERS, trained=CLUSTERS)),
    ),
    'evaluate-svm': (
        'evaluate_svm',
        dict(
            results=dict(untrained=SVM, trained=SVM),
            protocol='few',
            training_images=9,
        ),
    ),
    'compare-transfer': (
        'compare_transfer',
        dict(final={'a': [{'mIoU': 33.3}]}, figures=['curves.png']),
    ),
}


SIGNATURES = {
    name: inspect.signature(getattr(mm_rotssl.apis, function))
    for name, (function, _) in COMMANDS.items()
}


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command whose function only notes what it gets."""

    def run(name, *words):
        function, summary = COMMANDS[name]
        found = {}

        def note(*args, **settings):
            bound = SIGNATURES[name].bind(*args, **settings)
            bound.apply_defaults()
            found.update(bound.arguments)
            found['report']('being measured')
            return summary

        monkeypatch.setattr(mm_rotssl.apis, function, note)
        monkeypatch.setattr(sys, 'argv', ['mm-rotssl', name, *words])
        main()
        lines = [line.rstrip() for line in capsys.readouterr().out.split('\n')]
        # progress in plain lines, nothing of a live display
        assert lines[0] == 'being measured'
        assert '\x1b' not in ''.join(lines)
        del found['report']
        return found, lines

    return run


@pytest.fixture
def evaluate(monkeypatch, capsys):
    """Run the command whose function only notes what it gets."""

    def run(*words):
        found = {}

        def note(entries, out, **settings):
            found.update(entries=entries, out=out, **settings)
            found.pop('report')('being measured')
            return make_report()

        monkeypatch.setattr(mm_rotssl.apis, 'evaluate', note)
        monkeypatch.setattr(sys, 'argv', ['mm-rotssl', 'evaluate', *words])
        main()
        lines = [line.rstrip() for line in capsys.readouterr().out.split('\n')]
        assert lines[0] == 'being measured'
        return found, lines

    return run


def test_evaluate(evaluate, tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    torch.save({}, run / 'epoch_1.pth')
    (run / 'c.py').write_text('')
    (run / 'last_checkpoint').write_text(str(run / 'epoch_1.pth'))
    one = Run(str(run / 'c.py'), str(run / 'epoch_1.pth'))
    found, lines = evaluate(str(run), '--device', 'cpu')
    assert found == dict(
        entries=[Entry('run', (one,))],
        out=run / 'report',
        images=None,
        labeled=None,
        protocols=None,
        options={},
        max_images=5000,
        max_reference=None,
        cache=None,
        seed=0,
        device='cpu',
        cfg_options={},
    )
    report = make_report()
    assert all(remark in lines for remark in report['remarks'])
    assert f'report.html  {run / "report/report.html"}' in lines
    # the tables have the figures: tests/test_evaluation/test_report_sections
    assert any('±' in line for line in lines)

    checkpoint = str(run / 'epoch_1.pth')
    found, _ = evaluate(
        *('a.py', checkpoint, '--images', 'a b', '--labelled', 't', 'v'),
        *('--protocols', 'knn', 'linear', '--out', 'o', '--cache', 'c'),
        *('--protocol-options', 'knn.k=[5]', 'linear.shots=[1,all]'),
        *('--compare', f'x={run}', 'timm:resnet18', '--max-images', '7'),
        *('--max-reference', '9', '--device', 'meta', '--seed', '4'),
        *('--cfg-options', 'a.b=1', 'c=[2,3]'),
    )
    assert found == dict(
        entries=[
            Entry('epoch_1', (Run('a.py', checkpoint),)),
            Entry('x', (one,)),
            Entry('timm:resnet18', (Run('timm:resnet18'),)),
        ],
        out=Path('o'),
        images='a b',
        labeled=['t', 'v'],
        protocols=['knn', 'linear'],
        options=dict(knn=dict(k=[5]), linear=dict(shots=[1, 'all'])),
        max_images=7,
        max_reference=9,
        cache='c',
        seed=4,
        device='meta',
        cfg_options={'a.b': 1, 'c': [2, 3]},
    )


def test_evaluate_clusters(command):
    found, lines = command(
        *('evaluate-clusters', 'c.py', 'run/e.pth', '--device', 'cpu'),
        *('--num-clusters', '7', '--draws', '2', '--hierarchy', 'h.csv'),
        *('--level', '3', '--ancestor', 'n1', '--seed', '4'),
        *('--max-reference', '9', '--cfg-options', 'a.b=1'),
    )
    assert found == dict(
        config='c.py',
        checkpoint='run/e.pth',
        out=Path('run/clusters.json'),
        num_clusters=7,
        draws=2,
        hierarchy=Path('h.csv'),
        level=3,
        ancestor='n1',
        seed=4,
        max_reference=9,
        device='cpu',
        cfg_options={'a.b': 1},
    )
    assert any('45.6' in line.split() for line in lines)
    assert 'untrained: clusters and classes (%)' in lines
    assert lines[-3:] == [
        *('checkpoint run/e.pth', 'numbers    run/clusters.json', '')
    ]


def test_evaluate_svm(command):
    found, lines = command(
        *('evaluate-svm', 'c.py', 'run/e.pth', '--protocol', 'few'),
        *('--data', 'd.py', '--labels', '2', '--draws', '3', '--trials', '4'),
        *('--input-size', '5', '--seed', '6', '--device', 'cpu'),
        *('--cfg-options', 'a.b=1'),
    )
    assert found == dict(
        config='c.py',
        checkpoint='run/e.pth',
        protocol='few',
        out=Path('run/svm_few.json'),
        data='d.py',
        labels=2,
        draws=3,
        trials=4,
        input_size=5,
        seed=6,
        device='cpu',
        cfg_options={'a.b': 1},
    )
    assert any(
        line.split() == ['trained', '60.0', '70.0', '0.5', '7']
        for line in lines
    )
    assert 'numbers    run/svm_few.json' in lines


def test_compare_transfer(command):
    found, lines = command(
        *('compare-transfer', 'c.py', '--init', 'random', 'a=b/{seed}.pth'),
        *('net=torchvision://resnet50', '--out', 'o', '--seeds', '3', '5'),
        *('--jobs', '2', '--images', '9', '--cfg-options', 'a.b=1'),
        *('--crop-size', '128'),
    )
    assert found == dict(
        config='c.py',
        inits={
            'random': None,
            'a': 'b/{seed}.pth',
            'net': 'torchvision://resnet50',
        },
        out=Path('o'),
        seeds=[3, 5],
        jobs=2,
        images=9,
        cfg_options={'a.b': 1},
        crop_size=128,
    )
    assert any(line.split() == ['mIoU', '33.3'] for line in lines)
    assert lines[-3:] == ['o/results.json', 'o/curves.png', '']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['mine'], r'Error: --init mine: NAME=FILE, or "random"'),
        (['random=x'], r'Error: --init random=x: NAME=FILE, or "random"'),
        (['=x'], r'Error: --init =x: NAME=FILE'),
        (['a=url://1', 'a=url://2'], r'Error: --init: .* two named "a"'),
    ],
)
def test_initializations_that_are_none(monkeypatch, words, message):
    monkeypatch.setattr(
        sys,
        'argv',
        ['mm-rotssl', 'compare-transfer', 'c', '--out', 'o', '--init', *words],
    )
    with pytest.raises(SystemExit, match=message):
        main()


@pytest.mark.parametrize(
    ('command', 'options'),
    [
        ('evaluate', ('--max-images', '--max-reference')),
        (
            'evaluate-clusters',
            ('--draws', '--num-clusters', '--max-reference'),
        ),
        (
            'evaluate-svm',
            ('--labels', '--draws', '--trials', '--input-size'),
        ),
        ('compare-transfer', ('--jobs', '--images')),
    ],
)
def test_numbers_that_make_no_sense(monkeypatch, capsys, command, options):
    for option in options:
        for value in ('0', '-1', 'many'):
            argv = ['mm-rotssl', command, 'c.py', f'{option}={value}']
            monkeypatch.setattr(sys, 'argv', argv)
            with pytest.raises(SystemExit):
                main()
            error = capsys.readouterr().err
            assert f'{option}: {value} must be a positive number' in error


@pytest.mark.parametrize(
    'words',
    [
        ('evaluate', 'c.py@e.pth'),
        ('evaluate-clusters', 'c.py', 'e.pth'),
        ('evaluate-svm', 'c.py', 'e.pth', '--protocol', 'few'),
        ('compare-transfer', 'c.py', '--init', 'random', '--out', 'o'),
    ],
)
def test_wrong_input_ends_with_a_line(monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['mm-rotssl', *words])
    with pytest.raises(SystemExit, match=r'c\.py"? does not exist'):
        main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'name',
    [
        *('evaluate', 'evaluate_clusters', 'evaluate_svm'),
        'compare_transfer',
    ],
)
def test_scripts_run_the_commands(monkeypatch, capsys, name):
    path = Path(__file__).parents[2] / f'tools/evaluation/{name}.py'
    monkeypatch.setattr(sys, 'argv', [str(path), '--help'])
    with pytest.raises(SystemExit) as caught:
        exec(compile(path.read_text(), path, 'exec'), {'__name__': '__main__'})
    assert caught.value.code == 0
    usage = f'mm-rotssl {name.replace("_", "-")} '
    assert capsys.readouterr().out.startswith(f'usage: {usage}')
