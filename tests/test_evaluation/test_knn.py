import math
from itertools import chain

import numpy as np
import pytest
import torch
from gloo import run_on_two
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from mm_rotssl.evaluation import KNNAccuracy, knn_classify, search_neighbors
from mm_rotssl.evaluation.functional import knn


def expected_scores(reference, labels, queries, k, temperature):
    """Section 3.4 of the paper with loops, in float64."""
    reference = np.asarray(reference, np.float64)
    queries = np.asarray(queries, np.float64)
    classes = max(labels) + 1
    scores = np.zeros((len(queries), classes))
    for q, query in enumerate(queries):
        similarity = [
            float(query @ x / np.linalg.norm(query) / np.linalg.norm(x))
            for x in reference
        ]
        order = sorted(range(len(reference)), key=lambda i: -similarity[i])[:k]
        for i in order:
            scores[q, labels[i]] += math.exp(
                (similarity[i] - similarity[order[0]]) / temperature
            )
    return scores


@pytest.mark.parametrize('chunk_size', [1, 3, 7, 4096])
@pytest.mark.parametrize('k', [1, 5, 100])
def test_against_loops(k, chunk_size):
    torch.manual_seed(0)
    reference, queries = torch.randn(23, 6), 10 * torch.randn(11, 6)
    labels = torch.randint(0, 4, (23,))
    scores = knn_classify(reference, labels, queries, k, 0.07, chunk_size)
    np.testing.assert_allclose(
        scores,
        expected_scores(reference, labels.tolist(), queries, k, 0.07),
        rtol=1e-4,
        atol=1e-6,
    )


class Rows:
    """What is read of a reference set, and how much of it at a time."""

    def __init__(self, feats):
        self.feats = feats
        self.shape = feats.shape
        self.read = []

    def dim(self):
        return self.feats.dim()

    def __len__(self):
        return len(self.feats)

    def __getitem__(self, part):
        rows = range(*part.indices(len(self)))
        self.read.append(list(rows))
        return self.feats[part]


@pytest.mark.parametrize('threads', [1, 3])
@pytest.mark.parametrize(
    ('k', 'chunk_size'),
    [(1, 1), (4, 16), (9, 5), (100, 4096), (120, 9), (157, 40)],
)
def test_search_of_a_set_that_is_read_once_in_chunks(
    monkeypatch, k, chunk_size, threads
):
    monkeypatch.setattr(knn, 'FIRST_ROWS', 8)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    torch.manual_seed(1)
    # rows of any length, and no two cosines alike
    reference = Rows(torch.randn(157, 5) * torch.rand(157, 1))
    queries = torch.randn(23, 5)
    similarity, positions = search_neighbors(reference, queries, k, chunk_size)
    assert list(chain(*reference.read)) == list(range(157))
    # the first k are needed at once
    assert len(reference.read[0]) <= max(k, 8)
    assert max(map(len, reference.read[1:]), default=0) <= chunk_size
    unit = reference.feats.double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for query, found, where in zip(
        queries.double().numpy(), similarity, positions, strict=True
    ):
        cosine = unit @ query / np.linalg.norm(query)
        assert where.tolist() == np.argsort(-cosine)[:k].tolist()
        np.testing.assert_allclose(found, cosine[where], atol=1e-6)


def test_search_among_equal_rows():
    """Every row is found once, though all are as near."""
    _, positions = search_neighbors(torch.ones(50, 3), torch.ones(2, 3), 50, 7)
    for found in positions.tolist():
        assert sorted(found) == list(range(50))


@pytest.mark.parametrize('part', ['reference', 'queries'])
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_features_of_a_network_that_diverged(part, value):
    sets = dict(reference=torch.rand(30, 3), queries=torch.rand(4, 3))
    sets[part][-1, 1] = value
    with pytest.raises(ValueError, match='before the training diverged'):
        search_neighbors(**sets, k=2, chunk_size=8)


def test_fewer_rows_than_neighbors():
    with pytest.raises(ValueError, match=r'k=4 .* only 3 features'):
        search_neighbors(torch.ones(3, 2), torch.ones(1, 2), 4)


def test_weights_matter_and_do_not_overflow():
    reference = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.0]])
    # two votes against one: the near one wins only if it weighs more
    assert knn_classify(reference, labels, query, 3, 0.07).argmax() == 0
    assert knn_classify(reference, labels, query, 3, 100.0).argmax() == 1
    tiny = knn_classify(reference.half(), labels, query.half(), 3, 1e-4)
    assert tiny.isfinite().all()
    assert tiny.argmax() == 0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(k=0), 'k=0'),
        (dict(temperature=0.0), 'temperature=0.0'),
        (
            dict(reference=torch.zeros(0, 2), labels=torch.zeros(0)),
            'at least one',
        ),
        (dict(labels=torch.zeros(2)), '3 features and 2 labels'),
        (dict(queries=torch.zeros(1, 5)), r'\(1, 5\)'),
    ],
)
def test_bad_input(change, message):
    arguments = dict(
        reference=torch.ones(3, 2),
        labels=torch.zeros(3, dtype=torch.long),
        queries=torch.ones(1, 2),
    )
    with pytest.raises(ValueError, match=message):
        knn_classify(**{**arguments, **change})


def samples(feats, labels):
    out = []
    for i, label in enumerate(labels):
        sample = DataSample()
        if label is not None:
            sample.set_gt_label(int(label))
        sample.set_field(tuple(stage[i] for stage in feats), 'feats')
        out.append(sample)
    return out


def make_sets():
    generator = torch.Generator().manual_seed(0)
    # two stages; odd sizes, so that the last batch is padded
    reference = [torch.randn(31, c, generator=generator) for c in (4, 6)]
    queries = [torch.randn(17, c, generator=generator) for c in (4, 6)]
    reference_labels = torch.randint(0, 3, (31,), generator=generator)
    labels = torch.randint(0, 3, (17,), generator=generator)
    return reference, reference_labels, queries, labels


def run_metric(rank, world_size):
    """What a loop with a padding DefaultSampler does, in batches of 4."""
    reference, reference_labels, queries, labels = make_sets()
    metric = KNNAccuracy(k=5)
    evaluator = Evaluator([metric])

    def batches(feats, truth):
        size = len(truth)
        per_rank = math.ceil(size / world_size)
        padded = [i % size for i in range(per_rank * world_size)]
        mine = padded[rank::world_size]
        for start in range(0, len(mine), 4):
            index = mine[start : start + 4]
            yield samples([f[index] for f in feats], truth[index])

    for batch in batches(reference, reference_labels):
        metric.process_reference([s.to_dict() for s in batch], 31)
    for batch in batches(queries, labels):
        evaluator.process(batch)
    return evaluator.evaluate(17)


def test_metric_on_one_and_two_processes():
    reference, reference_labels, queries, labels = make_sets()
    expected = {}
    for stage in range(2):
        scores = expected_scores(
            reference[stage],
            reference_labels.tolist(),
            queries[stage],
            5,
            0.07,
        )
        hits = scores.argmax(1) == labels.numpy()
        expected[f'knn/stage{stage + 1}'] = 100 * hits.mean()
    expected['knn/best'] = max(expected.values())
    assert run_metric(0, 1) == pytest.approx(expected)
    for out in run_on_two(run_metric, 2):
        assert out == pytest.approx(expected)


def test_metric_can_be_used_again():
    metric = KNNAccuracy(k=1)
    for label in (0, 1):
        dicts = [
            s.to_dict() for s in samples([torch.ones(2, 3)], [label, label])
        ]
        metric.process_reference(dicts, 2)
        metric.process(None, dicts)
        assert metric.evaluate(2)['knn/stage1'] == 100
    assert metric.reference == []
    assert metric.results == []


def test_metric_without_bank_or_labels():
    metric = KNNAccuracy()
    metric.process(
        None, [s.to_dict() for s in samples([torch.ones(1, 3)], [0])]
    )
    with pytest.raises(RuntimeError, match='reference_dataloader'):
        metric.evaluate(1)
    with pytest.raises(KeyError, match='needs labels'):
        metric.process(
            None, [s.to_dict() for s in samples([torch.ones(1, 3)], [None])]
        )


def test_rows_do_not_keep_their_batch():
    # as a view, each row would be sent with the storage of all 64
    metric = KNNAccuracy()
    dicts = [s.to_dict() for s in samples([torch.ones(64, 3)], [0] * 64)]
    metric.process(None, dicts)
    metric.process_reference(dicts, 64)
    for (feats, _), *_ in (metric.results, metric.reference):
        assert feats[0].untyped_storage().nbytes() == 3 * 4
