import argparse
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from rich.console import Console
from sklearn.neighbors import KNeighborsClassifier

from mm_rotssl.apis import build_ordered_dataloader, extract_features
from mm_rotssl.registry import DATASETS, MODELS
from mm_rotssl.utils import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/benchmarks/evaluate_features.py'
SPEC = importlib.util.spec_from_file_location('evaluate_features', TOOL)
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

BASE = ROOT / 'configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py'


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(tmp_path):
    """The digits config, small."""
    path = tmp_path / 'config.py'
    path.write_text(
        f"""_base_ = {str(BASE)!r}
model = dict(
    backbone=dict(base_channels=6, num_stages=3, out_indices=(0, 2)),
    head=dict(in_channels=6))
val_cfg = dict(reference_dataloader=dict(
    batch_size=50,
    dataset=dict(size=16, indices=list(range(5, 155))),
    sampler=dict(shuffle=True)))
val_dataloader = dict(
    batch_size=50, drop_last=True, dataset=dict(size=16, indices=60))
"""
    )
    return path


@pytest.fixture
def checkpoint(config, tmp_path):
    """Weights that stand for training: other ones than the seed's."""
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(config)
    torch.manual_seed(123)
    model = MODELS.build(cfg.model)
    # running statistics spread the features, so that the neighbors don't
    # hang on the last digit
    loader = Runner.build_dataloader(cfg.val_cfg.reference_dataloader)
    for _ in range(20):
        for batch in loader:
            model.train()(model.data_preprocessor(batch)['inputs'])
    path = tmp_path / 'run' / 'epoch_3.pth'
    path.parent.mkdir()
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


def main(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
    tool.main()


def small(config, checkpoint):
    return (
        *(config, checkpoint, '--draws', 2, '--shots', 1, 3, 'all'),
        *('--finetune-shots', 2, '--device', 'cpu'),
    )


def write_log(checkpoint, time='20260101_000000'):
    path = checkpoint.parent / time / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(
        '{"lr": 0.1, "loss": 1.0, "epoch": 1, "iter": 10, "step": 10}\n'
        '{"knn/stage1": 50.0, "knn/stage2": 60.0, "step": 1}\n'
    )


def test_report(monkeypatch, capsys, config, checkpoint):
    write_log(checkpoint)
    main(monkeypatch, *small(config, checkpoint))
    out = capsys.readouterr().out
    folder = checkpoint.parent / 'features'
    results = json.loads((folder / 'results.json').read_text())

    # all of it is there, and nothing else
    images = {
        'training_curves.png',
        'accuracy_by_stage.png',
        'nearest_neighbors.png',
        'tsne.png',
    }
    assert {path.name for path in folder.iterdir()} == {
        *images,
        'results.json',
    }
    assert set(results['images']) == images
    for name in images:
        assert str(folder / name) in out
        assert (folder / name).stat().st_size > 5000
    assert str(checkpoint) in out
    assert results['checkpoint'] == str(checkpoint)
    assert results['seed'] == 0
    assert results['command'].endswith('--device cpu')
    assert results['versions']['torch'] == torch.__version__
    assert (results['reference_images'], results['test_images']) == (150, 60)
    # the stages that the backbone gives, not their positions
    assert results['stages'] == ['1', '3']

    table = [line for line in out.splitlines() if '±' in line]

    for network in ('untrained', 'trained'):
        numbers = results['results'][network]
        assert 0 <= numbers['rotation_accuracy'] <= 100
        assert len(numbers['fine_tuned']) == 2
        for stage in numbers['stages']:
            assert {k: len(v) for k, v in stage['linear'].items()} == {
                '1': 2,
                '3': 2,
                'all': 1,
            }
            values = np.array(stage['linear']['3'])
            shown = f'{values.mean():.1f} ± {values.std(ddof=1):4.1f}'
            assert any(shown in line for line in table), shown
            everything = f'{stage["linear"]["all"][0]:.1f}'
            assert any(line.split()[-1] == everything for line in table)
    # both networks were measured, and they differ
    untrained, trained = results['results'].values()
    assert untrained['stages'] != trained['stages']

    # kNN against scikit-learn, on the features of the checkpoint
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

    bank, bank_labels = features(cfg.val_cfg.reference_dataloader)
    test, test_labels = features(cfg.val_dataloader)
    for i in range(2):
        # 1 - cosine = distance ** 2 / 2
        oracle = KNeighborsClassifier(
            20, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07)
        ).fit(bank[i], bank_labels)
        want = 100 * oracle.score(test[i], test_labels)
        assert trained['stages'][i]['knn'] == pytest.approx(want)


def test_same_seed_same_numbers(monkeypatch, capsys, config, checkpoint):
    monkeypatch.setattr(tool, 'draw_figures', lambda *_: [])
    found = []
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        torch.manual_seed(len(found))
        main(
            monkeypatch,
            *(*small(config, checkpoint), '--seed', seed),
            *('--out', checkpoint.parent / name, '--max-reference', 120),
        )
        file = checkpoint.parent / name / 'results.json'
        results = json.loads(file.read_text())
        assert results['reference_images'] == 120
        found.append(results['results'])
    assert found[0] == found[1]
    assert found[0] != found[2]
    # and it says why there are no training curves
    assert 'No training curves' in capsys.readouterr().out


def test_equal_networks_get_equal_numbers(monkeypatch, config, tmp_path):
    """Draws and fine-tuning are paired."""
    monkeypatch.setattr(tool, 'draw_figures', lambda *_: [])
    init_default_scope('mmpretrain')
    set_random_seed(0)
    path = tmp_path / 'same.pth'
    cfg = Config.fromfile(config)
    torch.save(MODELS.build(cfg.model).state_dict(), path)
    main(monkeypatch, *small(config, path))
    results = json.loads((tmp_path / 'features/results.json').read_text())
    assert results['results']['trained'] == results['results']['untrained']
    assert results['remark'] is None


def test_as_a_command(config, checkpoint):
    done = subprocess.run(
        [
            *(sys.executable, TOOL, config, checkpoint, '--draws', '1'),
            *('--shots', '1', '--finetune-shots', '0'),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'COLUMNS': '40'},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f'checkpoint {checkpoint}' in lines
    # one draw has no spread, and what was left out is not shown
    assert '±' not in done.stdout
    assert 'fine-tuned' not in done.stdout
    # progress in plain lines, nothing of a live display
    assert 'features of 150 labeled and 60 test images' in lines
    assert '\x1b' not in done.stdout


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
    args = argparse.Namespace(shots=[1, 5, 10, 'all'], finetune_shots=10)
    console = Console(width=80, file=io.StringIO())
    for table in tool.tables(results, list('12345'), args):
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


def results_with_knn(untrained, trained):
    return {
        name: {'stages': [{'knn': value} for value in values]}
        for name, values in (('untrained', untrained), ('trained', trained))
    }


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
    remark = tool.remark(results_with_knn(untrained, trained), stages)
    if said:
        assert 'the method, not a defect' in remark
        assert 'Stage 3 has lost kNN accuracy (70.0 to 60.0 %)' in remark
        assert 'stage 2 gained (60.0 to 80.0 %)' in remark
    else:
        assert remark is None


def fails(monkeypatch, *args):
    with pytest.raises(SystemExit) as caught:
        main(monkeypatch, *args)
    return str(caught.value)


def test_errors_say_what_to_do(monkeypatch, config, checkpoint, tmp_path):
    assert '"nowhere.pth" does not exist' in fails(
        monkeypatch, config, 'nowhere.pth'
    )
    assert '"nowhere.py" does not exist' in fails(
        monkeypatch, 'nowhere.py', checkpoint
    )
    message = fails(
        monkeypatch,
        *(
            config,
            checkpoint,
            '--cfg-options',
            'val_cfg.reference_dataloader=None',
        ),
    )
    assert 'add val_cfg=dict(' in message
    assert 'reference_dataloader=' in message
    assert 'add val_dataloader=dict(' in fails(
        monkeypatch,
        *(config, checkpoint, '--cfg-options', 'val_dataloader=None'),
    )
    message = fails(
        monkeypatch,
        *(config, checkpoint),
        *('--cfg-options', 'model.backbone.num_stages=4'),
    )
    assert 'another architecture' in message
    assert 'backbone.stage4' in message
    message = fails(
        monkeypatch,
        *(config, checkpoint, '--shots', '100', '--finetune-shots', '1'),
    )
    assert '100 labels a class' in message
    assert 'class "0" has only ' in message
    # nothing was half written
    assert not (tmp_path / 'run' / 'features' / 'results.json').exists()


def test_images_without_labels(monkeypatch, config, checkpoint, tmp_path):
    from PIL import Image

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
    message = fails(monkeypatch, path, checkpoint)
    assert message.startswith('Error: val_dataloader: Image 0 of ImageFolder')
    assert 'with_label=True' in message


def test_features_equal_the_pooled_maps_in_order(config):
    cfg = Config.fromfile(config)
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model).train()
    loader = Runner.build_dataloader(cfg.val_dataloader | {'drop_last': False})
    feats, labels = extract_features(model, loader)
    assert not model.training
    assert [tuple(f.shape) for f in feats] == [(60, 3), (60, 6)]
    data = loader.dataset
    assert labels.tolist() == [
        int(item['data_samples'].gt_label) for item in data
    ]
    images = torch.stack([item['inputs'] for item in data])
    with torch.no_grad():
        maps = model.backbone((images.float() - 78) / 87)
    for got, want in zip(feats, maps, strict=True):
        torch.testing.assert_close(got, want.mean((2, 3)))
        assert not got.requires_grad


class Evil:
    def __reduce__(self):
        return os.system, ('touch evil',)


def test_checkpoints_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, extra=Evil()), 'evil.pth')
    with pytest.raises(ValueError, match='system, and reading that could'):
        read_checkpoint('evil.pth')
    assert not Path('evil').exists()

    # `getattr` is admitted by name and must stay without effect
    class Getattr:
        def __reduce__(self):
            return getattr, (OrderedDict, 'fromkeys')

    torch.save(dict(state_dict={}, extra=Getattr()), 'getattr.pth')
    assert not callable(read_checkpoint('getattr.pth')['extra'])

    Path('half.pth').write_bytes(Path('evil.pth').read_bytes()[:200])
    Path('empty.pth').touch()
    Path('text.pth').write_text('weights')
    for name in ('half.pth', 'empty.pth', 'text.pth'):
        with pytest.raises(ValueError, match=f'{name}" is damaged'):
            read_checkpoint(name)
    torch.save([1], 'list.pth')
    with pytest.raises(ValueError, match='holds a list'):
        read_checkpoint('list.pth')


def test_limited_bank_is_a_random_part_in_the_order_of_the_data(config):
    settings = Config.fromfile(config).val_cfg.reference_dataloader
    assert settings.sampler.shuffle
    init_default_scope('mmpretrain')
    whole = DATASETS.build(settings.dataset)
    parts = []
    for seed in (0, 0, 1):
        loader = build_ordered_dataloader(settings, 40, seed)
        rows = torch.cat([batch['inputs'] for batch in loader])
        assert len(rows) == 40
        for i, row in enumerate(rows):
            assert torch.equal(row, loader.dataset[i]['inputs'])
        parts.append(loader.dataset.indices)
        assert parts[-1] == sorted(set(parts[-1]))
        assert torch.equal(rows[3], whole[parts[-1][3]]['inputs'])
    assert parts[0] == parts[1] != parts[2]
    # more than the first ones of a dataset that is sorted by class
    assert max(parts[0]) > 100
