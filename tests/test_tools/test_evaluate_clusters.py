import importlib.util
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from PIL import Image
from rich.console import Console
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
)

from mm_rotssl.apis import build_ordered_dataloader
from mm_rotssl.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/benchmarks/evaluate_clusters.py'
SPEC = importlib.util.spec_from_file_location('evaluate_clusters', TOOL)
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

DIGITS = ROOT / 'configs/_base_/datasets/digits.py'
DATA = """
val_cfg = dict(
    type='mm_rotssl.KNNValLoop',
    reference_dataloader=dict(
        batch_size=50,
        num_workers=0,
        persistent_workers=False,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(
            type='mm_rotssl.Digits', size=16, indices=list(range(5, 125)),
            serialize_data=False,
            pipeline=[dict(type='PackInputs')])))
val_dataloader = dict(
    batch_size=50, drop_last=True,
    dataset=dict(size=16, indices=range(60), serialize_data=False))
"""
BACKBONE = """
        type='mm_rotssl.NIN', base_channels=6, num_stages=3,
        out_indices=(0, 2)"""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        f"""_base_ = {str(DIGITS)!r}
model = dict(
    type='mm_rotssl.SelfClassifier',
    backbone=dict({BACKBONE}),
    neck=dict(
        type='mm_rotssl.SelfClassifierNeck', in_channels=6, hid_channels=8,
        out_channels=8),
    head=dict(
        type='mm_rotssl.SelfClassifierHead', in_channels=8,
        num_classes=(12, 20)))
{DATA}"""
    )
    return path


@pytest.fixture
def rotnet(tmp_path):
    """A config whose network has no classes of its own."""
    path = tmp_path / 'rotnet.py'
    path.write_text(
        f"""_base_ = {str(DIGITS)!r}
model = dict(
    type='mm_rotssl.RotNet',
    backbone=dict({BACKBONE}),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=6))
{DATA}"""
    )
    return path


def build(config):
    cfg = Config.fromfile(config)
    init_default_scope('mmpretrain')
    return cfg, MODELS.build(
        {**cfg.model, 'data_preprocessor': cfg.data_preprocessor}
    )


def save(config, path):
    """Weights that stand for training: other ones than the seed's."""
    torch.manual_seed(123)
    cfg, model = build(config)
    loader = build_ordered_dataloader(cfg.val_cfg.reference_dataloader)
    images = [(batch['inputs'].float() - 78) / 87 for batch in loader]
    with torch.no_grad():
        # running statistics spread the features
        for _ in range(10):
            for image in images:
                model.train().backbone(image)
        if config.stem == 'config':
            # and embeddings around 0 the classes
            layers = model.neck.mlp
            layers[0].weight *= 50
            feats = model.eval().backbone(torch.cat(images))[-1].mean((2, 3))
            layers[0].bias -= layers[0](feats).mean(0)
            layers[3].bias -= layers(feats).mean(0)
            layers[1].running_mean += 0.1 * layers[0](feats).std(0)
    path.parent.mkdir(exist_ok=True)
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture
def checkpoint(config, tmp_path):
    return save(config, tmp_path / 'run' / 'epoch_3.pth')


def main(monkeypatch, *args):
    monkeypatch.setattr(
        sys, 'argv', [str(TOOL), *map(str, args), '--device', 'cpu']
    )
    tool.main()


def run(monkeypatch, checkpoint, config, *args):
    main(monkeypatch, config, checkpoint, *args)
    return json.loads((checkpoint.parent / 'clusters.json').read_text())


def features(model, settings, *limit):
    """Means over the maps of both stages, embeddings, and labels."""
    loader = build_ordered_dataloader(settings, *limit)
    feats, embeds, labels = ([], []), [], []
    for batch in loader:
        images = (batch['inputs'].float() - 78) / 87
        with torch.no_grad():
            for place, maps in zip(feats, model.backbone(images), strict=True):
                place.append(maps.sum((2, 3)) / maps[0, 0].numel())
        embeds.append(feats[-1][-1].double().numpy())
        labels += [int(sample.gt_label) for sample in batch['data_samples']]
    return (
        [torch.cat(stage).numpy() for stage in feats],
        np.concatenate(embeds),
        np.array(labels),
    )


def own_classes(model, feats):
    """Linear, batch normalization, LeakyReLU, linear; cosine * length."""
    weights = {k: v.double().numpy() for k, v in model.state_dict().items()}
    hidden = feats @ weights['neck.mlp.0.weight'].T
    hidden += weights['neck.mlp.0.bias']
    hidden -= weights['neck.mlp.1.running_mean']
    hidden /= np.sqrt(weights['neck.mlp.1.running_var'] + 1e-5)
    hidden = hidden * weights['neck.mlp.1.weight']
    hidden += weights['neck.mlp.1.bias']
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    embeds = hidden @ weights['neck.mlp.3.weight'].T
    embeds += weights['neck.mlp.3.bias']
    name = 'head.classifiers.0.parametrizations.weight.original'
    lengths, directions = weights[f'{name}0'], weights[f'{name}1']
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # the length of an embedding does not decide
    return (embeds @ (lengths * directions).T).argmax(1)


def matched(found, labels):
    """Class of each cluster by SciPy, and which clusters are left over."""
    clusters, classes = np.unique(found), np.unique(labels)
    hits = [
        [np.sum((found == k) & (labels == c)) for c in classes]
        for k in clusters
    ]
    rows, columns = linear_sum_assignment(-np.array(hits))
    match = {clusters[r]: classes[c] for r, c in zip(rows, columns)}  # noqa: B905
    left_over = set(clusters) - set(match)
    for cluster in left_over:
        counts = Counter(sorted(labels[found == cluster]))
        match[cluster] = counts.most_common(1)[0][0]
    return match, left_over


def scores(found, labels):
    match, left_over = matched(found, labels)
    pairs = list(zip(found, labels, strict=True))
    right = [(k, c) for k, c in pairs if match[k] == c]
    fair = [k for k, _ in right if k not in left_over]
    return {
        'nmi': 100 * normalized_mutual_info_score(labels, found),
        'ami': 100 * adjusted_mutual_info_score(labels, found),
        'ari': 100 * adjusted_rand_score(labels, found),
        'accuracy': 100 * len(right) / len(pairs),
        'accuracy_one_to_one': 100 * len(fair) / len(pairs),
        'clusters_in_use': len(set(found)),
        'classes': len(set(labels)),
        'largest_cluster': 100 * max(Counter(found).values()) / len(found),
    }


def k_means(model, cfg, clusters, seeds, *limit):
    """Clusters of the test images: [stage][run]."""
    bank, _, _ = features(model, cfg.val_cfg.reference_dataloader, *limit)
    test, _, labels = features(model, cfg.val_dataloader)
    return [
        [
            KMeans(clusters, n_init=10, random_state=seed)
            .fit(fit)
            .predict(asked)
            for seed in seeds
        ]
        for fit, asked in zip(bank, test, strict=True)
    ], labels


def both_networks(config, checkpoint, seed):
    cfg, trained = build(config)
    trained.load_state_dict(
        torch.load(checkpoint, weights_only=True)['state_dict']
    )
    set_random_seed(seed)
    _, untrained = build(config)
    untrained.init_weights()
    return cfg, {'untrained': untrained.eval(), 'trained': trained.eval()}


@pytest.mark.parametrize(
    ('args', 'seed', 'clusters', 'runs'),
    [
        ((), 0, 10, 3),
        (('--seed', 4, '--draws', 2, '--num-clusters', 14), 4, 14, 2),
    ],
)
def test_numbers(monkeypatch, config, checkpoint, args, seed, clusters, runs):
    results = run(monkeypatch, checkpoint, config, *args)
    assert (results['reference_images'], results['test_images']) == (120, 60)
    assert results['seed'] == seed
    assert results['checkpoint'] == str(checkpoint)
    assert results['command'].endswith('--device cpu')
    assert results['versions']['torch'] == torch.__version__
    cfg, networks = both_networks(config, checkpoint, seed)
    assert list(results['results']) == list(networks)
    for name, model in networks.items():
        found, labels = k_means(model, cfg, clusters, range(seed, seed + runs))
        _, feats, _ = features(model, cfg.val_dataloader)
        want = {
            'own classes': [own_classes(model, feats)],
            'k-means, stage 1': found[0],
            'k-means, stage 3': found[1],
        }
        got = results['results'][name]
        assert list(got) == list(want)
        for way, draws in want.items():
            assert len(got[way]) == len(draws)
            for row, draw in zip(got[way], draws, strict=True):
                assert row == pytest.approx(scores(draw, labels)), (name, way)
    untrained, trained = results['results'].values()
    assert trained != untrained
    # the classes are no constant that fits any labels
    assert trained['own classes'][0]['clusters_in_use'] > 3


def test_more_clusters_than_classes_may_share_a_class(
    monkeypatch, config, checkpoint, capsys
):
    results = run(monkeypatch, checkpoint, config, '--num-clusters', 30)
    rows = results['results']['trained']['k-means, stage 3']
    assert all(row['accuracy'] > row['accuracy_one_to_one'] for row in rows)
    assert 'ACC, one to one' in capsys.readouterr().out


def test_only_k_means_where_the_network_has_no_classes(
    monkeypatch, rotnet, tmp_path
):
    checkpoint = save(rotnet, tmp_path / 'rotnet.pth')
    main(
        monkeypatch,
        *(
            rotnet,
            checkpoint,
            '--draws',
            1,
            '--out',
            tmp_path / 'o' / 'a.json',
        ),
    )
    assert not (tmp_path / 'clusters.json').exists()
    results = json.loads((tmp_path / 'o' / 'a.json').read_text())['results']
    cfg, networks = both_networks(rotnet, checkpoint, 0)
    for name, model in networks.items():
        found, labels = k_means(model, cfg, 10, [0])
        assert list(results[name]) == ['k-means, stage 1', 'k-means, stage 3']
        for got, want in zip(results[name].values(), found, strict=True):
            assert got == [pytest.approx(scores(want[0], labels))]


def test_part_of_the_bank(monkeypatch, config, checkpoint):
    results = run(
        monkeypatch,
        *(
            checkpoint,
            config,
            '--max-reference',
            40,
            '--draws',
            1,
            '--seed',
            2,
        ),
    )
    assert results['reference_images'] == 40
    cfg, networks = both_networks(config, checkpoint, 2)
    model = networks['trained']
    part, labels = k_means(model, cfg, 10, [2], 40, 2)
    whole, _ = k_means(model, cfg, 10, [2])
    row = results['results']['trained']['k-means, stage 3'][0]
    assert row == pytest.approx(scores(part[1][0], labels))
    assert row != pytest.approx(scores(whole[1][0], labels))


def test_superclasses(monkeypatch, config, checkpoint, tmp_path, capsys):
    groups = {
        **dict.fromkeys('068', 'round'),
        **dict.fromkeys('147', 'straight'),
        **dict.fromkeys('235', 'both'),
    }
    path = tmp_path / 'groups.csv'
    path.write_text(
        'class,superclass\n'
        + ''.join(f'{name},{group}\n' for name, group in groups.items())
    )
    args = (checkpoint, config, '--draws', 2, '--hierarchy', path)
    with pytest.warns(UserWarning, match="belong to no superclass: '9'"):
        results = run(monkeypatch, *args)
    assert results['hierarchy'] == str(path)
    heading = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('clusters by')
    ]
    assert len(heading) == 2
    assert 'ACC, superclasses' in heading[0]
    cfg, networks = both_networks(config, checkpoint, 0)
    for name, model in networks.items():
        found, labels = k_means(model, cfg, 10, [0, 1])
        _, feats, _ = features(model, cfg.val_dataloader)
        ways = [[own_classes(model, feats)], *found]
        rows = results['results'][name].values()
        for row, way in zip(rows, ways, strict=True):
            for got, draw in zip(row, way, strict=True):
                known = labels != 9
                match, _ = matched(draw[known], labels[known])
                right = 0
                for cluster, label in zip(
                    draw[known], labels[known], strict=True
                ):
                    group = groups[str(match[cluster])]
                    right += group == groups[str(label)]
                assert got['coarse_accuracy'] == pytest.approx(
                    100 * right / known.sum()
                )
                assert got['images'] == known.sum() < 60
                # the rest is of all images
                assert got['accuracy'] == pytest.approx(
                    scores(draw, labels)['accuracy']
                )


def test_same_seed_same_numbers(monkeypatch, config, checkpoint):
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        np.random.seed(len(found))
        args = (checkpoint, config, '--draws', 2, '--seed', seed)
        found.append(run(monkeypatch, *args)['results'])
    assert found[0] == found[1]
    assert found[0]['untrained'] != found[2]['untrained']
    # the network itself does not depend on it, k-means does
    for way, same in (('own classes', True), ('k-means, stage 3', False)):
        rows = [results['trained'][way] for results in found]
        assert (rows[0] == rows[2]) == same
    # and its second run is the first of the next seed
    rows = [results['trained']['k-means, stage 3'] for results in found]
    assert rows[0][1] == rows[2][0] != rows[0][0]


def test_table(monkeypatch, config, checkpoint, capsys):
    results = run(monkeypatch, checkpoint, config)['results']
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        f'checkpoint {checkpoint}',
        f'numbers    {checkpoint.parent / "clusters.json"}',
    ]
    titles = [i for i, line in enumerate(lines) if 'clusters and' in line]
    assert [lines[i].split(':')[0] for i in titles] == list(results)
    for start, (_, ways) in zip(titles, results.items(), strict=True):
        assert lines[start + 1].split() == (
            ['clusters', 'by', 'NMI', 'AMI', 'ARI', 'ACC']
            # with 10 clusters the same as the accuracy, with 12 not always
            + (['ACC,', 'one', 'to', 'one'] if shows_both(results) else [])
            + ['clusters']
        )
        for way, draws in ways.items():
            row = next(x for x in lines[start:] if x.startswith(way))
            for key in ('nmi', 'ami', 'ari', 'accuracy'):
                values = np.array([draw[key] for draw in draws])
                cell = f'{values.mean():.1f}'
                if len(values) > 1:
                    cell += f' ± {values.std(ddof=1):4.1f}'
                assert cell in row
            mean = np.mean([draw['clusters_in_use'] for draw in draws])
            assert row.split()[-1] == f'{mean:.0f}'
            assert ('±' in row) == (way != 'own classes')


def shows_both(results):
    return any(
        draw['accuracy'] != draw['accuracy_one_to_one']
        for ways in results.values()
        for draws in ways.values()
        for draw in draws
    )


def test_table_fits_into_80_columns():
    draw = dict.fromkeys(tool.SHOWN, 99.9) | {'clusters_in_use': 1000.0}
    del draw['coarse_accuracy']
    other = {key: value - 61.8 for key, value in draw.items()}
    ways = {'own classes': [draw], 'k-means, stage 5': [draw, other]}
    console = Console(width=80, file=io.StringIO())
    for table in tool.tables({'untrained': ways, 'trained': ways}):
        console.print(table)
    lines = console.file.getvalue().splitlines()
    rows = [line for line in lines if line.startswith('k-means')]
    assert len(rows) == 2
    cells = [cell.strip() for cell in rows[0].split('  ') if cell]
    assert cells == ['k-means, stage 5', *['69.0 ± 43.7'] * 4, '969']
    # nothing is folded: title, heading, rule and two rows, of each
    assert len([line for line in lines if line.strip()]) == 10


def fails(monkeypatch, *args):
    with pytest.raises(SystemExit) as caught:
        main(monkeypatch, *args)
    return str(caught.value)


def test_errors_say_what_to_do(
    monkeypatch, config, rotnet, checkpoint, tmp_path
):
    message = fails(monkeypatch, config, tmp_path / 'no.pth')
    assert message.startswith('Error: The checkpoint ')
    assert 'no.pth" does not exist' in message

    other = save(rotnet, tmp_path / 'run' / 'rotnet.pth')
    message = fails(monkeypatch, config, other)
    assert message.startswith(f'Error: The checkpoint "{other}" was made by')
    assert 'neck.mlp.0.weight' in message

    for setting, hint in (
        ('val_cfg', 'add val_cfg=dict('),
        ('val_dataloader', 'add val_dataloader=dict('),
    ):
        cfg = Config.fromfile(config)
        cfg.pop(setting)
        cfg.dump(tmp_path / 'bare.py')
        message = fails(monkeypatch, tmp_path / 'bare.py', checkpoint)
        assert hint in message

    message = fails(
        monkeypatch, *(config, checkpoint, '--num-clusters', '121')
    )
    assert message.startswith('Error: The 120 images')
    assert 'no 121 clusters' in message
    assert '--num-clusters to 120 or less' in message
    message = fails(monkeypatch, *(config, checkpoint, '--max-reference', '9'))
    assert 'The 9 images' in message
    assert 'raise --max-reference' in message

    groups = tmp_path / 'groups.csv'
    message = fails(monkeypatch, config, checkpoint, '--hierarchy', groups)
    assert f'The hierarchy {groups} does not exist' in message
    groups.write_text('class,superclass\noak,tree\n')
    message = fails(monkeypatch, config, checkpoint, '--hierarchy', groups)
    assert 'none of the 10 classes' in message
    message = fails(
        monkeypatch,
        *(config, checkpoint, '--hierarchy', groups, '--level', 3),
    )
    assert 'level=3' in message
    # nothing was half written
    assert {path.name for path in checkpoint.parent.iterdir()} == {
        checkpoint.name,
        other.name,
    }


@pytest.mark.parametrize('which', ['val_dataloader', 'val_cfg'])
def test_images_without_labels(
    monkeypatch, config, checkpoint, tmp_path, which
):
    (tmp_path / 'photos').mkdir()
    for i in range(3):
        Image.new('RGB', (16, 16), (40 * i, 0, 0)).save(
            tmp_path / 'photos' / f'{i}.png'
        )
    loader = f"""dict(dataset=dict(
    _delete_=True, type='mm_rotssl.ImageFolder', test_mode=True,
    data_root={str(tmp_path / 'photos')!r},
    pipeline=[
        dict(type='mm_rotssl.LoadIntactImage'),
        dict(type='PackInputs')]))
"""
    if which == 'val_cfg':
        loader = f'dict(reference_dataloader={loader})'
    path = tmp_path / 'unlabeled.py'
    path.write_text(f'_base_ = {str(config)!r}\n{which} = {loader}')
    message = fails(monkeypatch, path, checkpoint)
    key = {'val_cfg': 'val_cfg.reference_dataloader'}.get(which, which)
    assert message.startswith(f'Error: {key}: Image 0 of ImageFolder has no')
    assert 'with_label=True' in message

    (tmp_path / 'photos' / '1.png').write_bytes(b'')
    message = fails(monkeypatch, path, checkpoint)
    assert f'{tmp_path}/photos/1.png: the file is empty' in message
    if which == 'val_dataloader':
        message = fails(
            monkeypatch,
            *(path, checkpoint, '--hierarchy', tmp_path / 'groups.csv'),
        )
        assert 'no names of classes' in message
        assert "metainfo=dict(classes=[...]) to val_dataloader's" in message
    for file in (tmp_path / 'photos').iterdir():
        file.unlink()
    message = fails(monkeypatch, path, checkpoint)
    assert 'Error: No image was found' in message
    assert not (checkpoint.parent / 'clusters.json').exists()


@pytest.mark.parametrize(
    ('args', 'said'),
    [
        (('--draws', '0'), '--draws 0 must be positive'),
        (('--num-clusters', '0'), '--num-clusters 0 must be positive'),
        (('--max-reference', '-1'), '--max-reference -1 must be positive'),
        (('--level', '3'), '--level and --ancestor belong to --hierarchy'),
        (('--level', '0'), '--level and --ancestor belong to --hierarchy'),
        (('--ancestor', 'n1'), '--level and --ancestor belong to --hierarchy'),
    ],
)
def test_options_that_make_no_sense(monkeypatch, capsys, args, said):
    with pytest.raises(SystemExit):
        main(monkeypatch, 'config.py', 'checkpoint.pth', *args)
    assert said in capsys.readouterr().err


def test_as_a_command(config, checkpoint):
    done = subprocess.run(
        [
            *(sys.executable, TOOL, config, checkpoint, '--draws', '1'),
            *('--cfg-options', 'val_dataloader.dataset.indices=30'),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'COLUMNS': '40',
            'CUDA_VISIBLE_DEVICES': '',
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert f'checkpoint {checkpoint}' in lines
    # one run has no spread; nothing of a live display or of a log
    assert '±' not in done.stdout
    assert '\x1b' not in done.stdout
    assert 'untrained: clusters and classes (%)' in lines
    results = json.loads((checkpoint.parent / 'clusters.json').read_text())
    assert results['test_images'] == 30
    assert results['cfg_options'] == {'val_dataloader.dataset.indices': 30}
