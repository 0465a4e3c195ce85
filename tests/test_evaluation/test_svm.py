import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import kstest, loguniform
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.svm import LinearSVC

from mm_rotssl.evaluation import choose_c, percentile_scale, svm_classify
from mm_rotssl.evaluation.functional import check_memory, svm
from mm_rotssl.ops import pool_cells


def largest_in_cells(maps, level):
    """The definition, with loops: cells of ceil(side / level) or the rest."""
    high, wide = (math.ceil(side / level) for side in maps.shape[2:])
    out = []
    for image in maps.tolist():
        row = []
        for channel in image:
            for i in range(level):
                for j in range(level):
                    lines = channel[i * high : (i + 1) * high]
                    cell = [line[j * wide : (j + 1) * wide] for line in lines]
                    row.append(max(v for line in cell for v in line))
        out.append(row)
    return np.array(out)


@pytest.mark.parametrize('levels', [(2,), (1,), (1, 2, 4), (4, 3)])
@pytest.mark.parametrize('size', [(17, 17), (24, 24), (7, 11), (8, 21)])
def test_cells_against_loops(size, levels):
    torch.manual_seed(0)
    # negative ones too: zeros as padding would be seen
    stages = [torch.randn(2, 3, *size), torch.randn(2, 5, *size) - 9]
    for pooled, maps in zip(pool_cells(stages, levels), stages, strict=True):
        # a level counts in proportion to the side of its cells
        want = [
            largest_in_cells(maps, level) * min(levels) / level
            for level in levels
        ]
        np.testing.assert_allclose(pooled, np.concatenate(want, 1), 1e-6)
        assert pooled.dtype == torch.float32


@pytest.mark.parametrize('size', [(5, 7), (2, 3), (4, 2)])
def test_quadrants_of_small_maps(size):
    maps = torch.randn(2, 3, *size)
    want = largest_in_cells(maps, 2)
    np.testing.assert_array_equal(pool_cells(maps)[0], want)


def test_quadrants_do_not_overlap():
    # the middle of 17 is in the first part, of 9
    maps = torch.zeros(1, 1, 17, 17)
    maps[0, 0, 8, 8] = 1
    assert pool_cells(maps)[0].tolist() == [[1, 0, 0, 0]]
    # which adaptive pooling, with cells of 9 + 9, counts four times
    adaptive = torch.nn.functional.adaptive_max_pool2d(maps, 2)
    assert adaptive.flatten().tolist() == [1, 1, 1, 1]


def test_length_for_the_middle_network():
    # 64c5-128c5-256c5-512f
    sides = {64: 47, 128: 24, 256: 12, 512: 5}
    stages = [torch.rand(1, c, side, side) for c, side in sides.items()]
    assert sum(f.size(1) for f in pool_cells(stages)) == 3840
    pyramid = pool_cells(stages[:3], levels=(1, 2, 4))
    assert [f.size(1) for f in pyramid] == [64 * 21, 128 * 21, 256 * 21]


def test_stages_without_a_map_stay_vectors():
    torch.manual_seed(0)
    one, vector, tokens = (
        torch.randn(2, 3, 1, 1),
        torch.randn(2, 4).half(),
        torch.randn(2, 5, 6),
    )
    patches = torch.randn(2, 4, 8, 8)
    stages = [one, vector, tokens, (patches, vector), (vector, patches)]
    want = [
        one[:, :, 0, 0],
        vector.float(),
        sum(tokens[:, i] for i in range(5)) / 5,
        vector.float(),
        torch.cat(
            [pool_cells(patches, (level,))[0] / level for level in (1, 2)], 1
        ),
    ]
    got = pool_cells(stages, levels=(1, 2))
    for pooled, expected in zip(got, want, strict=True):
        assert pooled.dtype == torch.float32
        torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize(
    ('size', 'levels', 'message'),
    [
        # cells of 2 leave 3 of them on a side of 5
        ((5, 5), (1, 2, 4), r'5 × 5.*2 × 2 .* 3 × 3 .*4 × 4.*larger images'),
        ((2, 3), (4,), '2 × 3.*smaller than 4'),
        ((1, 6), (2,), '1 × 6; cells of 1 × 3 .* 1 × 2 parts, not into 2 × 2'),
        ((6, 6), (2, 0), r'\(2, 0\)'),
        ((6, 6), (), r'levels=\(\)'),
        ((6, 6, 6), (2,), r'\(1, 2, 6, 6, 6\)'),
    ],
)
def test_maps_that_can_not_be_cut(size, levels, message):
    with pytest.raises(ValueError, match=message):
        pool_cells(torch.rand(1, 2, *size), levels)


def percentile(values):
    """99.99 % of the way through the sorted values."""
    values = sorted(float(v) for v in values)
    place = 0.9999 * (len(values) - 1)
    below = math.floor(place)
    above = values[min(below + 1, len(values) - 1)]
    return values[below] + (place - below) * (above - values[below])


def test_scale_is_the_percentile_of_the_training_features():
    rng = np.random.default_rng(0)
    shapes = [(400, 60), (400, 3), (400, 8)]
    train = [rng.exponential(10.0, shape) for shape in shapes]
    # outliers that a maximum would follow; more negative ones than positive
    train[0][7, :2] = 1e5
    train[1][:, 1:] *= -20
    test = [100 * rng.normal(size=(5, shape[1])) for shape in shapes]
    feats = [[torch.tensor(f).float() for f in fs] for fs in (train, test)]
    divisors = [percentile(np.abs(f).ravel()) for f in train]
    assert divisors[0] < 1000
    assert divisors[1] > 2 * percentile(train[1].ravel())

    scaled = percentile_scale(feats[0], feats[1], feats[1])
    assert len(scaled) == 3
    for got, plain in zip(scaled, (train, test, test), strict=True):
        want = [f / d for f, d in zip(plain, divisors, strict=True)]
        np.testing.assert_allclose(got, np.concatenate(want, 1), rtol=1e-5)
        assert got.dtype == torch.float32


def test_dead_layer_stays_as_it_is():
    live, dead = torch.rand(200, 2), torch.zeros(200, 200)
    dead[3, 5] = 7  # 1 of 40,000: beyond the percentile
    queries = torch.rand(4, 2), torch.rand(4, 200)
    train, test = percentile_scale((live, dead), queries)
    assert torch.equal(train[:, 2:], dead)
    assert torch.equal(test[:, 2:], queries[1])
    assert not torch.equal(test[:, :2], queries[0])


def test_other_sets_have_the_same_stages():
    with pytest.raises(ValueError, match='have 2 stages, others have 1'):
        percentile_scale([torch.ones(2, 1)] * 2, [torch.ones(2, 1)])


DEFAULT_TOLERANCE = svm.TOLERANCE


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Let the solver go on until it agrees with a reference."""
    monkeypatch.setattr(svm, 'TOLERANCE', 1e-4)


def test_the_solver_ends_at_its_own_tolerance(monkeypatch):
    monkeypatch.setattr(svm, 'TOLERANCE', DEFAULT_TOLERANCE)
    feats, labels = problem(3, 300, offset=0.0)
    queries, _ = problem(3, 20_000, spread=3.0, offset=0.0)
    found = {}
    for tol in (0.1, 1e-4):
        oracle = LinearSVC(dual=True, C=1.0, tol=tol, random_state=0)
        oracle.fit(feats.numpy(), labels.numpy())
        found[tol] = oracle.predict(queries.numpy())
    got = svm_classify(feats, labels, queries, 1.0).numpy()
    assert (got == found[0.1]).all()
    assert (got != found[1e-4]).any()


def problem(classes, size, seed=0, spread=1.5, offset=3.0):
    """Overlapping classes far from the origin; labels 7, 5, 3, ..."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, 4)) + offset
    which = np.arange(size) % classes
    feats = means[which] + spread * rng.normal(size=(size, 4))
    return torch.tensor(feats), torch.tensor(7 - 2 * which)


def decision_values(feats, labels, queries, c, bias):
    """The primal problem of one class against the rest, in float64."""

    def extended(x):
        return np.concatenate([x, np.full((len(x), 1), bias)], 1)

    x, values = extended(feats.numpy()), []
    for label in labels.unique().numpy():
        y = np.where(labels.numpy() == label, 1.0, -1.0)

        def objective(w, y=y):
            slack = np.maximum(0, 1 - y * (x @ w))
            loss = w @ w / 2 + c * (slack**2).sum()
            return loss, w - 2 * c * (slack * y) @ x

        found = minimize(
            objective,
            np.zeros(x.shape[1]),
            jac=True,
            method='L-BFGS-B',
            options=dict(ftol=1e-15, gtol=1e-8, maxiter=10_000),
        )
        assert np.abs(found.jac).max() < 1e-4
        values.append(extended(queries.numpy()) @ found.x)
    return np.stack(values, 1)


@pytest.mark.parametrize('bias', [1.0, 5.0])
@pytest.mark.parametrize('c', [1e-3, 0.3])
@pytest.mark.parametrize('classes', [2, 4])
def test_svm_minimizes_the_squared_hinge(classes, c, bias):
    feats, labels = problem(classes, 60)
    queries, _ = problem(classes, 20_000, spread=2.0)
    got = svm_classify(feats, labels, queries, c, bias).numpy()
    values = decision_values(feats, labels, queries, c, bias)
    want = labels.unique().numpy()[values.argmax(1)]
    # values within 1e-3 of the reference change no class but where the two
    # best are as close; so many queries that a larger error would be seen
    runner_up, best = np.sort(values, 1)[:, -2:].T
    clear = best - runner_up > 2e-3
    assert (got == want)[clear].all()
    assert clear.mean() > 0.98
    assert len(set(want)) > 1

    oracle = LinearSVC(
        C=c,
        loss='squared_hinge',
        dual=True,
        intercept_scaling=bias,
        max_iter=100_000,
        random_state=0,
    )
    oracle.fit(feats.numpy(), labels.numpy())
    assert (got == oracle.predict(queries.numpy())).all()


def test_intercept_is_penalised_the_less_the_larger_the_bias():
    # ten of class 5 against thirty of class 7: where weights are small, the
    # intercept alone can say how much more frequent 7 is
    feats, labels = problem(2, 60, offset=0.0)
    chosen = (labels == 7) | (torch.arange(60) < 20)
    queries, _ = problem(2, 1000, offset=0.0)
    small, large = (
        svm_classify(feats[chosen], labels[chosen], queries, 1e-3, bias)
        for bias in (1.0, 5.0)
    )
    assert (large == 7).sum() > (small == 7).sum() + 300


def test_half_precision_features_and_labels_as_they_were():
    feats, labels = problem(3, 60)
    feats = feats.bfloat16()
    got = svm_classify(feats, labels, feats, 0.1)
    assert got.dtype == torch.int64
    assert torch.equal(got, svm_classify(feats.double(), labels, feats, 0.1))
    assert set(got.tolist()) == {3, 5, 7}


def predictions(svm_args, feats, labels, queries):
    """scikit-learn's own, and whether it says that it did not converge."""
    oracle = LinearSVC(loss='squared_hinge', dual=True, **svm_args)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        oracle.fit(feats.numpy(), labels.numpy())
    return oracle.predict(queries.numpy()), bool(caught)


def draws(low, high, trials, seed):
    """The definition: equal chances for equal ratios."""
    return low * (high / low) ** np.random.default_rng(seed).random(trials)


def test_stopped_solver_is_reported(monkeypatch):
    feats, labels = problem(2, 40, offset=20.0)
    queries, _ = problem(2, 2000, offset=20.0)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        converged = svm_classify(feats, labels, queries, 1e-3)

    monkeypatch.setattr(svm, 'MAX_ITER', 3)
    answers = []
    for seed in (0, 1):
        args = dict(C=1e-3, max_iter=3, random_state=seed)
        want, stopped = predictions(args, feats, labels, queries)
        assert stopped
        with pytest.warns(ConvergenceWarning, match=r'C=0\.001 .*3 iter'):
            got = svm_classify(feats, labels, queries, 1e-3, seed=seed)
        assert (got.numpy() == want).all()
        answers.append(got)
    # the seed reaches the solver, which only a stopped one can show
    assert not torch.equal(*answers)
    assert not torch.equal(answers[0], converged)


def test_other_warnings_of_the_solver_pass():
    feats, labels = problem(2, 10)
    with pytest.warns(DataConversionWarning):
        svm_classify(feats, labels[:, None], feats, 1e-3)


def test_trials_that_were_stopped_are_counted_once(monkeypatch):
    feats, labels = problem(2, 40)
    held_out, truth = problem(2, 50)
    monkeypatch.setattr(svm, 'MAX_ITER', 40)
    stopped = []
    for c in draws(1e-5, 10, 8, seed=0):
        args = dict(C=c, max_iter=40, random_state=0)
        if predictions(args, feats, labels, held_out)[1]:
            stopped.append(c)
    assert 1 < len(stopped) < 8
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        choose_c(feats, labels, held_out, truth, (1e-5, 10), 8)
    (warning,) = caught
    assert warning.category is ConvergenceWarning
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith(f'{len(stopped)} of 8 SVMs')
    assert f'from {min(stopped):g} to {max(stopped):g}' in text

    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        choose_c(feats, labels, held_out, truth, (1e-5, 1e-3), 8)


@pytest.mark.parametrize('bias', [1.0, 5.0])
def test_c_is_the_best_on_the_held_out_images(bias):
    feats, labels = problem(3, 40)
    # the test images want another C than the held-out ones
    held_out, truth = problem(3, 200, offset=1.5)
    queries, query_truth = problem(3, 200, offset=4.0)
    found = {}
    for c in draws(1e-4, 1, 20, seed=3):
        args = dict(C=c, intercept_scaling=bias, random_state=3)
        args['max_iter'] = 10_000
        found[c] = [
            np.mean(predictions(args, feats, labels, x)[0] == y.numpy())
            for x, y in ((held_out, truth), (queries, query_truth))
        ]
    # smallest C of the best
    want = min(found, key=lambda c: (-found[c][0], c))
    on_test = min(found, key=lambda c: (-found[c][1], c))
    assert found[want][0] > found[on_test][0] + 0.03
    assert found[want][1] < found[on_test][1]

    c, accuracy = choose_c(
        feats, labels, held_out, truth, (1e-4, 1), 20, bias, seed=3
    )
    assert c == pytest.approx(want, rel=1e-9)
    assert accuracy == pytest.approx(found[want][0])


def test_smallest_of_equally_good_ones():
    feats, labels = problem(2, 30, spread=0.0)
    for seed in range(5):
        tried = draws(0.01, 10, 6, seed)
        c, accuracy = choose_c(
            feats, labels, feats, labels, (0.01, 10), 6, seed=seed
        )
        assert accuracy == 1
        assert c == pytest.approx(tried.min(), rel=1e-9)


def test_draws_are_uniform_in_the_logarithm(monkeypatch):
    tried = []

    class Recorded(LinearSVC):
        def fit(self, feats, labels):
            tried.append(self.C)
            return super().fit(feats, labels)

    monkeypatch.setattr(svm, 'LinearSVC', Recorded)
    feats, labels = problem(2, 10)
    c, _ = choose_c(feats, labels, feats, labels, (2e-4, 2e-1), 500, seed=1)
    assert c in tried
    np.testing.assert_allclose(tried, draws(2e-4, 2e-1, 500, 1), rtol=1e-9)
    assert kstest(tried, loguniform(2e-4, 2e-1).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ('c_range', 'trials', 'message'),
    [
        ((0.0, 1.0), 5, r'c_range=\(0\.0, 1\.0\)'),
        ((1.0, 0.1), 5, 'the smaller one first'),
        ((0.1, 1.0), 0, 'trials=0'),
    ],
)
def test_range_without_draws(c_range, trials, message):
    feats, labels = problem(2, 10)
    with pytest.raises(ValueError, match=message):
        choose_c(feats, labels, feats, labels, c_range, trials)


def test_more_than_the_memory(monkeypatch):
    """Of a machine with 1,000 pages of 24 bytes."""
    sizes = dict(SC_PAGE_SIZE=24, SC_PHYS_PAGES=1000)
    monkeypatch.setattr('os.sysconf', sizes.get)
    check_memory(100, 10)
    with pytest.raises(
        ValueError, match=r'101 images of 10 .*reference 100\.'
    ):
        check_memory(101, 10)
