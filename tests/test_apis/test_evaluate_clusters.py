"""Clusters and classes that a network finds without labels, judged."""

import io
import json
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

from mm_rotssl.apis import (
    build_ordered_dataloader,
    clusters_tables,
    evaluate_clusters,
)
from mm_rotssl.evaluation.protocols.clusters import SHOWN
from mm_rotssl.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp('clusters') / 'config.py'
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


@pytest.fixture(scope='module')
def rotnet(config):
    """A config whose network has no classes of its own."""
    path = config.with_name('rotnet.py')
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


@pytest.fixture(scope='module')
def checkpoint(config):
    return save(config, config.parent / 'run' / 'epoch_3.pth')


@pytest.fixture(scope='module')
def summary(config, checkpoint):
    """As the command does it if nothing is said."""
    return evaluate_clusters(
        config, checkpoint, checkpoint.with_name('clusters.json')
    )


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


def test_numbers(summary, config, checkpoint):
    file = checkpoint.parent / 'clusters.json'
    assert json.loads(file.read_text()) == summary
    assert (summary['reference_images'], summary['test_images']) == (120, 60)
    assert summary['seed'] == 0
    assert summary['checkpoint'] == str(checkpoint)
    cfg, networks = both_networks(config, checkpoint, 0)
    for name, model in networks.items():
        found, labels = k_means(model, cfg, 10, range(3))
        _, feats, _ = features(model, cfg.val_dataloader)
        want = {
            'own classes': [own_classes(model, feats)],
            'k-means, stage 1': found[0],
            'k-means, stage 3': found[1],
        }
        got = summary['results'][name]
        assert list(got) == list(want)
        for way, draws in want.items():
            assert len(got[way]) == len(draws)
            for row, draw in zip(got[way], draws, strict=True):
                assert row == pytest.approx(scores(draw, labels)), (name, way)
    untrained, trained = summary['results'].values()
    assert trained != untrained
    # the classes are no constant that fits any labels
    assert trained['own classes'][0]['clusters_in_use'] > 3


def test_more_clusters_than_classes_may_share_a_class(
    config, checkpoint, tmp_path
):
    summary = evaluate_clusters(
        config, checkpoint, tmp_path / 'more.json', num_clusters=30, draws=1
    )
    rows = summary['results']['trained']['k-means, stage 3']
    assert all(row['accuracy'] > row['accuracy_one_to_one'] for row in rows)
    assert 'ACC, one to one' in shown(summary)[1]


def test_only_k_means_where_the_network_has_no_classes(rotnet, tmp_path):
    checkpoint = save(rotnet, tmp_path / 'rotnet.pth')
    out = tmp_path / 'o' / 'a.json'
    summary = evaluate_clusters(rotnet, checkpoint, out, draws=1)
    assert json.loads(out.read_text()) == summary
    cfg, networks = both_networks(rotnet, checkpoint, 0)
    for name, model in networks.items():
        found, labels = k_means(model, cfg, 10, [0])
        result = summary['results'][name]
        assert list(result) == ['k-means, stage 1', 'k-means, stage 3']
        for got, want in zip(result.values(), found, strict=True):
            assert got == [pytest.approx(scores(want[0], labels))]


def test_part_of_the_reference_set(config, checkpoint, tmp_path):
    summary = evaluate_clusters(
        *(config, checkpoint, tmp_path / 'part.json'),
        max_reference=40,
        num_clusters=14,
        draws=1,
        seed=2,
    )
    assert summary['reference_images'] == 40
    cfg, networks = both_networks(config, checkpoint, 2)
    model = networks['trained']
    part, labels = k_means(model, cfg, 14, [2], 40, 2)
    whole, _ = k_means(model, cfg, 14, [2])
    row = summary['results']['trained']['k-means, stage 3'][0]
    assert row == pytest.approx(scores(part[1][0], labels))
    assert row != pytest.approx(scores(whole[1][0], labels))


def test_superclasses(config, checkpoint, tmp_path):
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
    with pytest.warns(UserWarning, match="belong to no superclass: '9'"):
        summary = evaluate_clusters(
            *(config, checkpoint, tmp_path / 'out.json'),
            draws=2,
            hierarchy=path,
        )
    assert summary['hierarchy'] == str(path)
    heading = [
        line for line in shown(summary) if line.startswith('clusters by')
    ]
    assert len(heading) == 2
    assert 'ACC, superclasses' in heading[0]
    cfg, networks = both_networks(config, checkpoint, 0)
    for name, model in networks.items():
        found, labels = k_means(model, cfg, 10, [0, 1])
        _, feats, _ = features(model, cfg.val_dataloader)
        ways = [[own_classes(model, feats)], *found]
        rows = summary['results'][name].values()
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


def test_same_seed_same_numbers(summary, config, checkpoint, tmp_path):
    torch.manual_seed(7)
    np.random.seed(7)
    again, other = (
        evaluate_clusters(
            config, checkpoint, tmp_path / 'a.json', seed=seed, draws=2
        )['results']
        for seed in (0, 1)
    )
    first = summary['results']
    for name, ways in again.items():
        for way, rows in ways.items():
            assert rows == first[name][way][:2]
    assert first['untrained'] != other['untrained']
    # the network itself does not depend on it
    trained = first['trained'], other['trained']
    assert trained[0]['own classes'] == trained[1]['own classes']
    # k-means does, and its second run is the first of the next seed
    first, other = (found['k-means, stage 3'] for found in trained)
    assert first[1] == other[0] != first[0]


def shown(summary, width=200):
    console = Console(width=width, file=io.StringIO())
    for table in clusters_tables(summary):
        console.print(table)
    return console.file.getvalue().splitlines()


def test_table(summary):
    results = summary['results']
    lines = shown(summary)
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
    draw = dict.fromkeys(SHOWN, 99.9) | {'clusters_in_use': 1000.0}
    del draw['coarse_accuracy']
    other = {key: value - 61.8 for key, value in draw.items()}
    ways = {'own classes': [draw], 'k-means, stage 5': [draw, other]}
    lines = shown(dict(results=dict(untrained=ways, trained=ways)), width=80)
    rows = [line for line in lines if line.startswith('k-means')]
    assert len(rows) == 2
    cells = [cell.strip() for cell in rows[0].split('  ') if cell]
    assert cells == ['k-means, stage 5', *['69.0 ± 43.7'] * 4, '969']
    # nothing is folded: title, heading, rule and two rows, of each
    assert len([line for line in lines if line.strip()]) == 10


def test_errors_say_what_to_do(config, rotnet, checkpoint, tmp_path):
    out = tmp_path / 'out.json'

    def fails(said, *args, **settings):
        with pytest.raises((ValueError, OSError), match=said):
            evaluate_clusters(*(args or (config, checkpoint)), out, **settings)

    fails(r'no\.pth" does not exist', config, tmp_path / 'no.pth')
    other = save(rotnet, tmp_path / 'rotnet.pth')
    fails(
        f'The checkpoint "{other}" was made by(.|\n)*neck\\.mlp',
        *(config, other),
    )
    fails(
        r'^The 120 images .* no 121 clusters\. .* --num-clusters to 120 or',
        num_clusters=121,
    )
    fails(r'^The 9 images .* raise --max-reference', max_reference=9)
    groups = tmp_path / 'groups.csv'
    fails(f'The hierarchy {groups} does not exist', hierarchy=groups)
    groups.write_text('class,superclass\noak,tree\n')
    fails('none of the 10 classes', hierarchy=groups)
    fails('level=3', hierarchy=groups, level=3)
    for settings in (dict(level=3), dict(level=0), dict(ancestor='n1')):
        fails('--level and --ancestor belong to --hierarchy', **settings)
    # nothing was half written
    assert not out.exists()


@pytest.mark.parametrize('which', ['val_dataloader', 'val_cfg'])
def test_images_without_labels(config, checkpoint, tmp_path, which):
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

    def fails(said, **settings):
        with pytest.raises((ValueError, RuntimeError, OSError), match=said):
            evaluate_clusters(
                path, checkpoint, tmp_path / 'out.json', **settings
            )

    key = {'val_cfg': r'val_cfg\.reference_dataloader'}.get(which, which)
    fails(f'^{key}: an image of its ImageFolder does not .*with_label=True')
    (tmp_path / 'photos' / '1.png').write_bytes(b'')
    fails(f'{tmp_path}/photos/1.png: the file is empty')
    if which == 'val_dataloader':
        fails(
            'no names of classes.*'
            r"metainfo=dict\(classes=\[...\]\) to val_dataloader's",
            hierarchy=tmp_path / 'groups.csv',
        )
    for file in (tmp_path / 'photos').iterdir():
        file.unlink()
    fails('^No image was found')
    assert not (tmp_path / 'out.json').exists()
