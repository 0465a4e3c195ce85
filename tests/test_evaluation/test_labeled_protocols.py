"""Protocols that compare with labels, against naive references."""

import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
)
from sklearn.model_selection import StratifiedKFold
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.evaluation import FINE_TUNING
from mm_rotssl.evaluation.features import Features
from mm_rotssl.evaluation.protocols import (
    KNN,
    Clusters,
    FineTuning,
    LinearProbe,
    OwnPredictions,
)
from mm_rotssl.evaluation.protocols.fine_tuning import _LastStage
from mm_rotssl.registry import MODELS


def make_features(seed=0, classes=3, size=30):
    """Clouds that overlap, of two stages; test labels are not in order."""
    rng = np.random.default_rng(seed)

    def draw(labels, spread):
        centers = np.random.default_rng(9).normal(size=(classes, 4))
        noise = spread * rng.normal(size=(len(labels), 4))
        return torch.tensor(centers[labels] + noise).float()

    labels = np.arange(size) % classes
    test_labels = rng.integers(classes, size=size)
    return Features(
        ['1', '3'],
        [f'class {i}' for i in range(classes)],
        [draw(labels, 0.5), draw(labels, 1.0)],
        torch.tensor(labels),
        [draw(test_labels, 0.5), draw(test_labels, 1.0)],
        torch.tensor(test_labels),
    )


def by_key(measurements):
    return {(one.metric, one.stage): list(one.values) for one in measurements}


def reference_scores(found, labels):
    table = Counter(zip(found, labels, strict=True))
    clusters, classes = sorted(set(found)), sorted(set(labels))
    counts = np.array([[table[a, b] for b in classes] for a in clusters])
    rows, columns = linear_sum_assignment(-counts)
    return {
        'nmi': 100 * normalized_mutual_info_score(labels, found),
        'ami': 100 * adjusted_mutual_info_score(labels, found),
        'ari': 100 * adjusted_rand_score(labels, found),
        'accuracy_one_to_one': 100 * counts[rows, columns].sum() / len(found),
        'accuracy_many_to_one': 100
        * sum(max(row) for row in counts)
        / len(found),
        'clusters_in_use': len(clusters),
    }


@pytest.mark.parametrize('count', [None, 5])
def test_clusters(count):
    feats = make_features()
    subject = SimpleNamespace(
        features=feats, model=nn.Identity(), test=[], seed=3
    )
    measured = list(Clusters(num_clusters=count, draws=2).run(subject))
    for one in measured:
        # figures of images are there where it is images that are counted
        if one.metric.startswith('accuracy'):
            assert one.correct.shape == (30,)
            mean = 100 * one.correct.mean()
            assert mean == pytest.approx(np.mean(one.values))
        else:
            assert one.correct is None
        assert one.chance == (0 if one.metric in ('ami', 'ari') else None)
    found = by_key(measured)
    want = {}
    for stage, to_fit, to_judge in zip(
        feats.stages, feats.reference, feats.test, strict=True
    ):
        scores = [
            reference_scores(
                KMeans(count or 3, n_init=10, random_state=seed)
                .fit(to_fit.numpy())
                .predict(to_judge.numpy())
                .tolist(),
                feats.test_labels.tolist(),
            )
            for seed in (3, 4)
        ]
        for key in scores[0]:
            want[key, stage] = pytest.approx([one[key] for one in scores])
    assert found == want
    assert {key for key, _ in found} == set(Clusters().metrics)


# ------------------------------ kNN, linear ------------------------------


def test_knn():
    feats = make_features(size=40)
    said = []
    subject = SimpleNamespace(features=feats, report=said.append)
    found = list(KNN(k=(3, 9, 41)).run(subject))
    # a k above the number of images is left out
    assert said == [
        'kNN: k = 41 left out, there are only 40 images to learn from'
    ]
    assert [(one.stage, one.metric) for one in found] == [
        *(('1', 'k=3'), ('1', 'k=9'), ('3', 'k=3'), ('3', 'k=9'))
    ]
    labels = feats.reference_labels.numpy()
    for one in found:
        place = feats.stages.index(one.stage)
        reference, queries = (
            part[place].double().numpy()
            for part in (feats.reference, feats.test)
        )
        reference /= np.linalg.norm(reference, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        right = []
        for query, label in zip(queries, feats.test_labels, strict=True):
            cosine = reference @ query
            nearest = np.argsort(-cosine)[: int(one.metric[2:])]
            votes = np.zeros(3)
            for i in nearest:
                votes[labels[i]] += np.exp(cosine[i] / 0.07)
            right.append(votes.argmax() == int(label))
        assert one.correct.tolist() == right
        assert one.values == [pytest.approx(100 * np.mean(right))]
        assert one.chance == pytest.approx(100 / 3)
    with pytest.raises(
        ValueError, match=r'k=41 needs .*got 40.*knn\.k=\[40\]'
    ):
        list(KNN(k=(41, 50)).run(subject))


def predicted(rows, labels, queries, c):
    mean, std = rows.mean(0), rows.std(0)
    model = LogisticRegression(C=c, max_iter=1000)
    model.fit((rows - mean) / std, labels)
    return model.predict((queries - mean) / std)


def test_linear():
    feats = make_features(size=60)
    protocol = LinearProbe(
        shots=(1, 4, '50%', 'all'), draws=2, c_grid=(0.01, 1)
    )
    found = list(
        protocol.run(
            SimpleNamespace(
                features=feats, model=nn.Linear(1, 1), seed=4, report=None
            )
        )
    )
    assert list(protocol.metrics) == ['1', '4', '50%', 'all']
    assert [one.metric for one in found] == 2 * list(protocol.metrics)
    labels, asked = feats.reference_labels.numpy(), feats.test_labels.numpy()
    for one in found:
        place = feats.stages.index(one.stage)
        rows, queries = (
            part[place].double().numpy()
            for part in (feats.reference, feats.test)
        )
        shots = int(one.metric) if one.metric.isdecimal() else one.metric
        right = []
        for chosen in feats.draw(shots, 2, 4):
            some, known = rows[chosen], labels[chosen]
            count = min(Counter(known.tolist()).values())
            best = 1.0
            if count > 1:
                folds = StratifiedKFold(
                    min(5, count), shuffle=True, random_state=4
                )
                hits = {
                    c: sum(
                        (
                            predicted(some[kept], known[kept], some[out], c)
                            == known[out]
                        ).sum()
                        for kept, out in folds.split(known, known)
                    )
                    for c in (0.01, 1)
                }
                best = max(hits, key=hits.get)
            right.append(predicted(some, known, queries, best) == asked)
        assert one.values == pytest.approx(100 * np.mean(right, 1))
        np.testing.assert_allclose(one.correct, np.mean(right, 0))
    # two draws of some labels, one of all
    assert [len(one.values) for one in found] == 2 * [2, 2, 2, 1]


def test_linear_needs_enough_labels():
    feats = make_features(size=10)
    with pytest.raises(ValueError, match=r'5 labels.*"class 0" has only 4'):
        list(
            LinearProbe(shots=(5,)).run(
                SimpleNamespace(features=feats, seed=0)
            )
        )


def test_k_means_without_a_copy_of_the_features(monkeypatch):
    """Of clouds that are far apart it finds the same clusters."""
    monkeypatch.setattr('mm_rotssl.evaluation.protocols.clusters.KMeans', None)
    monkeypatch.setattr(
        'mm_rotssl.evaluation.protocols.clusters.MOST_BYTES', 300
    )
    feats = make_features()
    feats.reference, feats.test = (
        [10 * labels[:, None] + rows for rows in part]
        for part, labels in (
            (feats.reference, feats.reference_labels),
            (feats.test, feats.test_labels),
        )
    )
    subject = SimpleNamespace(
        features=feats, model=nn.Identity(), test=[], seed=3
    )
    for one in Clusters(draws=2).run(subject):
        want = 3 if one.metric == 'clusters_in_use' else 100
        assert list(one.values) == pytest.approx([want] * 2)


class OwnClasses(nn.Module):
    """Predicts the class from the first pixel."""

    def predict(self):
        raise NotImplementedError

    def val_step(self, batch):
        return [
            DataSample().set_pred_label(int(image[0, 0, 0]) % 2)
            for image in batch['inputs']
        ]


def test_clusters_of_the_network_itself():
    feats = make_features()
    pixels = torch.arange(30).view(30, 1, 1, 1)
    subject = SimpleNamespace(
        features=feats,
        model=OwnClasses(),
        test=[dict(inputs=pixels[:20]), dict(inputs=pixels[20:])],
        seed=0,
    )
    found = by_key(Clusters(draws=1).run(subject))
    want = reference_scores(
        [i % 2 for i in range(30)], feats.test_labels.tolist()
    )
    for key, value in want.items():
        assert found[key, None] == [pytest.approx(value)]


def test_superclasses_of_a_file(tmp_path):
    """Of even and odd images the network knows no more than that."""
    feats = make_features()
    names = feats.classes
    assert len(names) == 3
    file = tmp_path / 'h.csv'
    lines = [f'{names[0]},x', f'{names[1]},x', f'{names[2]},y']
    file.write_text('\n'.join(['class,superclass', *lines]))
    pixels = torch.arange(30).view(30, 1, 1, 1)
    subject = SimpleNamespace(
        features=feats, model=OwnClasses(), test=[dict(inputs=pixels)], seed=0
    )
    protocol = Clusters(draws=1, hierarchy=str(file))
    found = by_key(protocol.run(subject))
    assert set(protocol.metrics) == {metric for metric, _ in found}
    assert 'coarse_accuracy' not in Clusters().metrics
    own, targets = np.arange(30) % 2, feats.test_labels.numpy()
    table = np.zeros((2, 3))
    np.add.at(table, (own, targets), 1)
    stands_for = max(
        itertools.permutations(range(3), 2),
        key=lambda pair: table[0, pair[0]] + table[1, pair[1]],
    )
    coarse = np.array([0, 0, 1])
    want = coarse[np.array(stands_for)[own]] == coarse[targets]
    assert found['coarse_accuracy', None] == [pytest.approx(100 * want.mean())]
    # with a row for each stage, too
    assert ('coarse_accuracy', feats.stages[0]) in found
    file.write_text('class,superclass\n')
    with pytest.raises(ValueError, match=r'h\.csv'):
        list(protocol.run(subject))


# ------------------------------ fine-tuning ------------------------------


class Images(torch.utils.data.Dataset):
    """Brightness tells the class, on top of noise."""

    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 2
        noise = torch.rand(count, 3, 8, 8, generator=generator) * 60
        self.images = (noise + 80 * self.labels[:, None, None, None]).byte()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        sample = DataSample().set_gt_label(int(self.labels[index]))
        return dict(inputs=self.images[index], data_samples=sample)


@pytest.fixture
def subject(monkeypatch):
    init_default_scope('mmpretrain')
    monkeypatch.setitem(FINE_TUNING, 'epochs', 60)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mm_rotssl.RotNet',
            backbone=dict(
                type='mm_rotssl.NIN',
                base_channels=6,
                num_stages=3,
                out_indices=(0, 2),
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=6),
            data_preprocessor=dict(mean=[70.0] * 3, std=[40.0] * 3),
        )
    ).eval()

    def load(count, seed):
        return DataLoader(
            Images(count, seed),
            batch_size=7,
            collate_fn=lambda samples: dict(
                inputs=torch.stack([one['inputs'] for one in samples]),
                data_samples=[one['data_samples'] for one in samples],
            ),
        )

    reference, test = load(24, 1), load(20, 2)
    # labels of the test images in the numbers of the reference set
    return SimpleNamespace(
        model=model,
        reference=reference,
        test=test,
        images=test,
        seed=5,
        report=None,
        features=Features(
            ['1', '3'],
            ['dark', 'bright'],
            [],
            reference.dataset.labels,
            [],
            test.dataset.labels,
        ),
    )


def test_fine_tuning(subject):
    before = {k: v.clone() for k, v in subject.model.state_dict().items()}
    protocol = FineTuning(shots=(1, '50%', 'all'), draws=3)
    found = {one.metric: one for one in protocol.run(subject)}
    assert list(found) == list(protocol.metrics) == ['1', '50%', 'all']
    titles = [metric.title for metric in protocol.metrics.values()]
    assert titles == ['1 label a class', '50% labels', 'all labels']
    for shots, one in found.items():
        assert len(one.values) == (1 if shots == 'all' else 3)
        assert one.correct.shape == (20,)
        assert 100 * one.correct.mean() == pytest.approx(np.mean(one.values))
        assert one.chance == 50
        assert one.stage is None
    # the classes are easy to tell, if the labels that are given are right
    assert found['all'].values[0] > 80
    # the network itself is as it was
    for name, value in subject.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_fine_tuning_of_an_image_classifier(subject):
    torch.manual_seed(0)
    subject.model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='mm_rotssl.NIN',
                base_channels=6,
                num_stages=3,
                out_indices=(0, 2),
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=9, in_channels=6),
            data_preprocessor=dict(mean=[70.0] * 3, std=[40.0] * 3),
        )
    ).eval()
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(
        _LastStage(subject.model)(images),
        subject.model.backbone(images)[-1].mean((2, 3)),
    )
    (found,) = FineTuning(shots=('all',)).run(subject)
    assert found.values[0] > 80


def test_other_labels_of_the_test_images_are_judged_wrong(subject):
    right = next(FineTuning(shots=('all',)).run(subject))
    subject.features.test_labels = 1 - subject.features.test_labels
    wrong = next(FineTuning(shots=('all',)).run(subject))
    assert wrong.values[0] == pytest.approx(100 - right.values[0])
    np.testing.assert_array_equal(wrong.correct, 1 - right.correct)


def test_too_few_labels_are_noticed_before_training(subject, monkeypatch):
    monkeypatch.setattr(
        'mm_rotssl.evaluation.protocols.fine_tuning.fine_tune', None
    )
    with pytest.raises(ValueError, match=r'13 labels.*"dark" has only 12'):
        list(FineTuning(shots=(13, 20)).run(subject))
    for shots in ('few', '0%', 0, '101%', -1):
        with pytest.raises(ValueError, match="a share such as '1%'"):
            list(FineTuning(shots=(shots,)).run(subject))


def test_what_the_smallest_class_does_not_have_is_left_out():
    labels = torch.tensor([3] * 40 + [1] * 4)
    feats = Features(['1'], list('abcd'), [], labels, [], labels)
    assert feats.chance == 50
    found = feats.draw_possible((1, 4, 5, '10', '3', '50%', 'all'), 2, 7)
    assert list(found) == [1, 4, '3', '50%', 'all']
    for shots, draws in found.items():
        for got, want in zip(draws, feats.draw(shots, 2, 7), strict=True):
            assert torch.equal(got, want)
    with pytest.raises(ValueError, match='5 labels a class were asked for'):
        feats.draw_possible((5, 6), 1, 0)
    with pytest.raises(ValueError, match="shots='x'"):
        feats.draw_possible((1, 'x'), 1, 0)


@pytest.mark.parametrize('share', ['10%', '25%', '100%'])
def test_shares_of_each_class(share):
    labels = torch.tensor([0] * 40 + [1] * 8 + [2] * 2)
    feats = Features(['1'], list('abc'), [], labels, [], labels)
    draws = feats.draw(share, 2, 0)
    part = float(share[:-1]) / 100
    want = [max(1, round(part * count)) for count in (40, 8, 2)]
    for chosen in draws:
        assert labels[chosen].bincount().tolist() == want
        assert len(set(chosen.tolist())) == len(chosen)
    if share != '100%':
        assert draws[0].tolist() != draws[1].tolist()
        # a larger draw holds it
        larger = feats.draw('50%', 1, 0)[0]
        assert set(draws[0].tolist()) <= set(larger.tolist())


# --------------------------- own predictions -----------------------------


def test_own_predictions(subject):
    model = subject.model
    images = (subject.images.dataset.images.float() - 70) / 40
    with torch.no_grad():
        logits = torch.stack(
            [
                model.head(model.neck(model.backbone(turned)))
                for turned in (
                    torch.rot90(images, i, (2, 3)) for i in range(4)
                )
            ]
        )
        # so that it does not always say the same
        *_, bias = model.head.parameters()
        mean = logits.mean((0, 1))
        bias -= mean
    right = (logits - mean).argmax(2) == torch.arange(4)[:, None]
    (found,) = OwnPredictions().run(subject)
    assert list(found.values) == [pytest.approx(100 * right.float().mean())]
    assert found.stage is None
    assert found.chance == 25
    # of each image the share of its rotations
    shares = right.float().mean(0).tolist()
    assert len(set(shares)) > 1
    assert found.correct.tolist() == shares
    # others predict none
    subject.model = nn.Identity()
    assert list(OwnPredictions().run(subject)) == []
