"""What is measured of a checkpoint: rotation, kNN, probes, fine-tuning."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from PIL import Image
from rich.console import Console
from sklearn.neighbors import KNeighborsClassifier

from mm_rotssl.apis import evaluate, evaluation, evaluation_tables
from mm_rotssl.evaluation import FINE_TUNING
from mm_rotssl.registry import DATASETS, MODELS
from mm_rotssl.utils import read_checkpoint

pytest_plugins = ['stand_ins']
ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / 'configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py'
CONFIG = f"""_base_ = {str(BASE)!r}
model = dict(
    backbone=dict(base_channels=6, num_stages=3, out_indices=(0, 2)),
    head=dict(in_channels=6))
val_cfg = dict(reference_dataloader=dict(
    batch_size=50,
    dataset=dict(
        size=16, indices=list(range(5, 155)), serialize_data=False),
    sampler=dict(shuffle=True)))
val_dataloader = dict(
    batch_size=50, drop_last=True,
    dataset=dict(size=16, indices=60, serialize_data=False))
"""
SMALL = dict(draws=2, shots=(1, 3, 'all'), finetune_shots=2)
FIGURES = [
    'training_curves.png',
    'accuracy_by_stage.png',
    'nearest_neighbors.png',
    'tsne.png',
]


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module', autouse=True)
def short_fine_tuning():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FINE_TUNING, 'epochs', 3)
        yield


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """The digits config, small."""
    path = tmp_path_factory.mktemp('evaluate') / 'config.py'
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope='module')
def checkpoint(config):
    """Weights that stand for training: other ones than the seed's."""
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(config)
    torch.manual_seed(123)
    model = MODELS.build(cfg.model)
    # running statistics spread the features, so that the neighbors don't
    # hang on the last digit
    # it is shuffled
    loader = Runner.build_dataloader(cfg.val_cfg.reference_dataloader, seed=0)
    for _ in range(20):
        for batch in loader:
            model.train()(model.data_preprocessor(batch)['inputs'])
    path = config.parent / 'run' / 'epoch_3.pth'
    log = path.parent / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(
        '{"lr": 0.1, "loss": 1.0, "epoch": 1, "iter": 10, "step": 10}\n'
        '{"knn/stage1": 50.0, "knn/stage2": 60.0, "step": 1}\n'
    )
    # as the engine saves it, with what a plain safe reader refuses
    buffer = HistoryBuffer()
    buffer.update(1.5)
    torch.save(
        dict(
            state_dict=model.state_dict(),
            meta=dict(epoch=3, seed=np.float64(2.5)),
            message_hub=dict(log_scalars={'train/loss': buffer}),
        ),
        path,
    )
    return path


@pytest.fixture(scope='module')
def summary(config, checkpoint):
    """All of it, once."""
    return evaluate(
        config, checkpoint, checkpoint.parent / 'features', **SMALL
    )


@pytest.fixture
def no_figures(monkeypatch):
    """They take most of the time."""
    monkeypatch.setattr(evaluation, '_draw_figures', lambda *_: [])


def test_summary_and_files(summary, checkpoint):
    folder = checkpoint.parent / 'features'
    # all of it is there, and nothing else
    assert {path.name for path in folder.iterdir()} == {
        *FIGURES,
        'results.json',
        '.mm_rotssl_output',
    }
    assert json.loads((folder / 'results.json').read_text()) == summary
    assert summary['figures'] == FIGURES
    for name in FIGURES:
        assert (folder / name).stat().st_size > 5000
    assert summary['checkpoint'] == str(checkpoint)
    assert summary['seed'] == 0
    assert (summary['reference_images'], summary['test_images']) == (150, 60)
    assert summary['classes'] == list('0123456789')
    # the stages that the backbone gives, not their positions
    assert summary['stages'] == ['1', '3']
    for network in ('untrained', 'trained'):
        numbers = summary['results'][network]
        assert 0 <= numbers['rotation_accuracy'] <= 100
        assert len(numbers['fine_tuned']) == 2
        for stage in numbers['stages']:
            assert {k: len(v) for k, v in stage['linear'].items()} == {
                '1': 2,
                '3': 2,
                'all': 1,
            }
    # both networks were measured, and they differ
    untrained, trained = summary['results'].values()
    assert untrained['stages'] != trained['stages']


def test_tables_show_the_summary(summary):
    console = Console(width=200, file=io.StringIO())
    for table in evaluation_tables(summary):
        console.print(table)
    lines = console.file.getvalue().splitlines()
    for numbers in summary['results'].values():
        for stage in numbers['stages']:
            values = np.array(stage['linear']['3'])
            shown = f'{values.mean():.1f} ± {values.std(ddof=1):4.1f}'
            everything = f'{stage["linear"]["all"][0]:.1f}'
            assert any(
                shown in line and line.split()[-1] == everything
                for line in lines
            )
        rotation = f'{numbers["rotation_accuracy"]:.1f}'
        (row,) = (line for line in lines if line.startswith('rotation'))
        assert rotation in row.split()
        tuned = np.array(numbers['fine_tuned'])
        (row,) = (line for line in lines if 'fine-tuned with 2 labels' in line)
        assert f'{tuned.mean():.1f} ± {tuned.std(ddof=1):4.1f}' in row


@pytest.mark.usefixtures('no_figures')
def test_classes_are_matched_by_name(
    summary, config, checkpoint, tmp_path, reversed_digits
):
    found = evaluate(
        config, checkpoint, tmp_path, cfg_options=reversed_digits, **SMALL
    )
    assert found['results'] == summary['results']
    with pytest.raises(ValueError, match=r'classes that .* not have.*: ten\.'):
        evaluate(
            config,
            checkpoint,
            tmp_path,
            cfg_options={
                'val_dataloader.dataset.metainfo': dict(
                    classes=['ten', *map(str, range(1, 10))]
                )
            },
            **SMALL,
        )


def test_knn_equals_that_of_scikit_learn(summary, config, checkpoint):
    """On the features of the checkpoint."""
    cfg = Config.fromfile(config)
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(read_checkpoint(checkpoint)['state_dict'])

    def features(settings):
        data = DATASETS.build(settings['dataset'])
        images = torch.stack([item['inputs'] for item in data])
        labels = [int(item['data_samples'].gt_label) for item in data]
        images = (images.double() - 78) / 87
        with torch.no_grad():
            maps = model.double().backbone(images)
        vectors = [m.mean((2, 3)).numpy() for m in maps]
        return [
            v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors
        ], labels

    reference, reference_labels = features(cfg.val_cfg.reference_dataloader)
    test, test_labels = features(cfg.val_dataloader)
    for i, stage in enumerate(summary['results']['trained']['stages']):
        # 1 - cosine = distance ** 2 / 2
        oracle = KNeighborsClassifier(
            20, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07)
        ).fit(reference[i], reference_labels)
        want = 100 * oracle.score(test[i], test_labels)
        assert stage['knn'] == pytest.approx(want)


@pytest.mark.usefixtures('no_figures')
def test_same_seed_same_numbers(summary, config, checkpoint, tmp_path):
    torch.manual_seed(5)
    again, other = (
        evaluate(config, checkpoint, tmp_path / f'{seed}', seed=seed, **SMALL)
        for seed in (0, 1)
    )
    assert again['results'] == summary['results']
    assert other['seed'] == 1
    for name in ('untrained', 'trained'):
        # the draws are others, too
        stages = [s['results'][name]['stages'] for s in (summary, other)]
        assert stages[0][0]['linear']['1'] != stages[1][0]['linear']['1']


@pytest.mark.usefixtures('no_figures')
def test_what_is_left_out_is_not_shown(config, checkpoint, tmp_path):
    said = []
    summary = evaluate(
        config,
        checkpoint,
        tmp_path,
        draws=1,
        shots=[1],
        finetune_shots=0,
        max_reference=120,
        cfg_options={'val_dataloader.dataset.indices': 50},
        report=said.append,
    )
    assert (summary['reference_images'], summary['test_images']) == (120, 50)
    assert summary['cfg_options'] == {'val_dataloader.dataset.indices': 50}
    assert 'features of 120 labeled and 50 test images' in said
    assert summary['results']['trained']['fine_tuned'] == []
    console = Console(width=200, file=io.StringIO())
    for table in evaluation_tables(summary):
        console.print(table)
    shown = console.file.getvalue()
    # one draw has no spread
    assert '±' not in shown
    assert 'fine-tuned' not in shown


@pytest.mark.usefixtures('no_figures')
def test_equal_networks_get_equal_numbers(config, tmp_path):
    """Draws and fine-tuning are paired."""
    init_default_scope('mmpretrain')
    set_random_seed(0)
    path = tmp_path / 'same.pth'
    cfg = Config.fromfile(config)
    torch.save(MODELS.build(cfg.model).state_dict(), path)
    summary = evaluate(config, path, tmp_path, **SMALL)
    results = summary['results']
    assert results['trained'] == results['untrained']
    assert summary['remark'] is None


def test_tables_fit_into_80_columns():
    stages = {
        'knn': 99.9,
        'linear': {
            **{n: [20.2, 45.7] for n in ('1', '5', '10')},
            'all': [99.9],
        },
    }
    results = {
        name: dict(
            rotation_accuracy=99.9, stages=[stages] * 5, fine_tuned=[9.1, 54.2]
        )
        for name in ('untrained', 'trained')
    }
    summary = dict(
        results=results, stages=list('12345'), fine_tuning=dict(labels=10)
    )
    console = Console(width=80, file=io.StringIO())
    for table in evaluation_tables(summary):
        console.print(table)
    lines = console.file.getvalue().splitlines()
    # one line a network and stage, nothing folded or cut
    rows = [line.rstrip() for line in lines if 'trained' in line]
    assert len(rows) == 11
    cells = rows[0].split('  ')
    assert [c.strip() for c in cells if c] == [
        *('1', 'untrained', '99.9'),
        *('33.0 ± 18.0',) * 3,
        '99.9',
    ]
    assert any('31.7 ± 31.9' in line for line in lines)


@pytest.mark.parametrize(
    ('untrained', 'trained', 'said'),
    [
        ([50, 60, 70], [55, 80, 60], True),
        ([50, 60, 70], [55, 80, 75], False),
        ([50, 60, 70], [45, 60, 60], False),
        ([70], [60], False),
    ],
)
def test_remark_only_where_the_numbers_call_for_it(untrained, trained, said):
    stages = [str(i + 1) for i in range(len(untrained))]
    remark = evaluation._remark(
        {
            name: {'stages': [{'knn': value} for value in values]}
            for name, values in (
                ('untrained', untrained),
                ('trained', trained),
            )
        },
        stages,
    )
    if said:
        assert 'the method, not a defect' in remark
        assert 'Stage 3 has lost kNN accuracy (70.0 to 60.0 %)' in remark
        assert 'stage 2 gained (60.0 to 80.0 %)' in remark
    else:
        assert remark is None


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (
            {'val_cfg.reference_dataloader': None},
            r'add val_cfg=dict\(.* reference_dataloader=',
        ),
        ({'val_dataloader': None}, r'add val_dataloader=dict\('),
        (
            {'model.backbone.num_stages': 4},
            r'another architecture(.|\n)*backbone\.stage4',
        ),
    ],
)
def test_configs_that_do_not_suit(config, checkpoint, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        evaluate(config, checkpoint, tmp_path / 'out', cfg_options=options)
    # nothing was half written
    assert not (tmp_path / 'out').exists()


def test_too_few_labels(config, checkpoint, tmp_path):
    """It is noticed before anything is measured, for fine-tuning too."""
    said = []
    for asked in (
        dict(shots=[100], finetune_shots=1),
        dict(shots=[1], finetune_shots=100),
    ):
        with pytest.raises(
            ValueError, match=r'100 labels a class .* class "0" has only '
        ):
            evaluate(
                *(config, checkpoint, tmp_path / 'out'),
                **asked,
                report=said.append,
            )
    assert not any('kNN' in message for message in said)


def test_images_without_labels(config, checkpoint, tmp_path):
    (tmp_path / 'photos').mkdir()
    for i in range(3):
        Image.new('RGB', (16, 16), (40 * i, 0, 0)).save(
            tmp_path / 'photos' / f'{i}.png'
        )
    path = tmp_path / 'unlabeled.py'
    path.write_text(
        f"""_base_ = {str(config)!r}
val_dataloader = dict(dataset=dict(
    _delete_=True,
    type='mm_rotssl.ImageFolder',
    data_root={str(tmp_path / 'photos')!r},
    pipeline=[
        dict(type='mm_rotssl.LoadIntactImage'),
        dict(type='PackInputs')]))
"""
    )
    with pytest.raises(ValueError, match='with_label=True') as caught:
        evaluate(path, checkpoint, tmp_path / 'out')
    message = str(caught.value)
    assert message.startswith('val_dataloader: an image of its ImageFolder')
