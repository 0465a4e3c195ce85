"""What is drawn against its definition, and what a patch may show."""

import itertools
import math

import numpy as np
import pytest
import torch
from mmpretrain.datasets.transforms import PackInputs
from scipy import stats

from mm_rotssl.datasets.transforms import RandomDeformation, deformation
from mm_rotssl.models.utils import DeformationDataPreprocessor
from mm_rotssl.ops import deform_patches
from mm_rotssl.ops.deformation import COLOR_COMPONENTS
from mm_rotssl.registry import TRANSFORMS

ROOT = math.sqrt(2)
# as the paper's text and the authors' code have them
RANGES = dict(
    paper=dict(
        translation=0.2,
        scale=(0.7, 1.4),
        rotation=20,
        pca_contrast=(0.5, 2),
        power=(0.25, 4),
        multiply=(0.7, 1.4),
        add=0.1,
        hue=0.1,
    ),
    released=dict(
        translation=0.25,
        scale=(1 / ROOT, ROOT),
        rotation=20,
        pca_contrast=(0.5, 1, 1),
        power=(0.25, 4),
        multiply=(1 / ROOT, ROOT),
        add=0.1,
        hue=0.1,
    ),
)
OFF = dict(
    translation=0,
    scale=(1, 1),
    rotation=0,
    pca_contrast=(1, 1),
    power=(1, 1),
    multiply=(1, 1),
    add=0,
    hue=0,
)
# once in ten thousand by chance; all draws are seeded
LEVEL = 1e-4
# of values up to 255: a place is known to some 1e-6 pixels
ROUNDING = 0.002


def image(height=90, width=None, seed=0):
    width = height if width is None else width
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def left_where_it_is(patch_size, height, width):
    return np.float32([patch_size, 0, width / 2, 0, patch_size, height / 2])


def draw(transform, count, img=None, seed=0, **keys):
    """Rows of numbers, (count, 6) or (count, 16)."""
    assert transform.on_device
    np.random.seed(seed)
    img = image(400) if img is None else img
    return np.stack(
        [transform(dict(img=img, **keys))['deformation'] for _ in range(count)]
    )


def decode(numbers, patch_size, height=400, width=None):
    """What was drawn, by name, from the numbers of deform_patches."""
    width = height if width is None else width
    a, b, x, c, d, y = numbers[:, :6].astype(np.float64).T
    # a turn and a magnification, no mirror and no shear
    np.testing.assert_allclose(a, d)
    np.testing.assert_allclose(b, -c)
    side = np.hypot(a, b)
    found = dict(
        scale=patch_size / side,
        angle=np.degrees(np.arctan2(b, a)),
        right=(x - width / 2) / side,
        down=(y - height / 2) / side,
    )
    if numbers.shape[1] > 6:
        names = [f'contrast {i}' for i in range(3)]
        for part in ('value', 'saturation'):
            names += [f'{part} {x}' for x in ('power', 'factor', 'summand')]
        rest = numbers[:, 6:].astype(np.float64).T
        found.update(zip([*names, 'hue'], rest, strict=True))
    return found


def uniform(low, high):
    return stats.uniform(low, high - low)


def expected(ranges):
    """How each is distributed; None, for a part that is off, is constant."""

    def symmetric(limit):
        return uniform(-limit, limit) if limit else None

    def log_uniform(low, high):
        return stats.loguniform(low, high) if low < high else None

    low, high = ranges['scale']
    laws = dict(
        scale=uniform(low, high) if low < high else None,
        angle=symmetric(ranges['rotation']),
        right=symmetric(ranges['translation']),
        down=symmetric(ranges['translation']),
    )
    contrast = ranges['pca_contrast']
    for i in range(3):
        if len(contrast) == 2:
            law = log_uniform(*contrast)
        else:
            # 2 ** N(0, s) is exp(N(0, s ln 2))
            law = stats.lognorm(contrast[i] * math.log(2))
        laws[f'contrast {i}'] = law
    for part in ('value', 'saturation'):
        laws[f'{part} power'] = log_uniform(*ranges['power'])
        laws[f'{part} factor'] = log_uniform(*ranges['multiply'])
        laws[f'{part} summand'] = symmetric(ranges['add'])
    laws['hue'] = symmetric(ranges['hue'])
    return laws


def check_laws(found, ranges):
    laws = expected(ranges)
    assert found.keys() == laws.keys()
    for name, law in laws.items():
        if law is None:
            one = 1 if name.split()[-1] in ('scale', 'power', 'factor') else 0
            one = 1 if name.startswith('contrast') else one
            np.testing.assert_allclose(found[name], one, atol=1e-6)
            continue
        assert stats.kstest(found[name], law.cdf).pvalue > LEVEL, name
        if np.isfinite(law.support()).all():
            low, high = law.support()
            slack = 1e-5 * (high - low)
            assert found[name].min() >= low - slack, name
            assert found[name].max() <= high + slack, name


# --- what is drawn ----------------------------------------------------------


@pytest.mark.parametrize('patch_size', [32, 9])
@pytest.mark.parametrize('preset', RANGES)
def test_laws(preset, patch_size):
    transform = RandomDeformation(preset, patch_size, on_device=True)
    found = decode(draw(transform, 4000), patch_size)
    check_laws(found, RANGES[preset])


def test_laws_in_a_image_that_is_not_square():
    transform = RandomDeformation(on_device=True)
    img = image(150, 230)
    found = decode(draw(transform, 3000, img), 32, 150, 230)
    check_laws(found, RANGES['released'])


def test_log_uniform_is_not_uniform():
    for preset, ranges in RANGES.items():
        transform = RandomDeformation(preset, on_device=True)
        found = decode(draw(transform, 4000), 32)
        for name, setting in (('power', 'power'), ('factor', 'multiply')):
            law = uniform(*ranges[setting])
            for part in ('value', 'saturation'):
                numbers = found[f'{part} {name}']
                assert stats.kstest(numbers, law.cdf).pvalue < 1e-9
        # the magnification is uniform, and so not log-uniform
        law = stats.loguniform(*ranges['scale'])
        assert stats.kstest(found['scale'], law.cdf).pvalue < 1e-9


def test_contrast_of_the_presets():
    found = {
        preset: decode(
            draw(RandomDeformation(preset, on_device=True), 4000), 1
        )
        for preset in RANGES
    }
    for i in range(3):
        released = np.log2(found['released'][f'contrast {i}'])
        paper = np.log2(found['paper'][f'contrast {i}'])
        # one octave either way, and a bell with long tails
        assert np.abs(paper).max() <= 1 + 1e-6
        # the strongest component, which is gray, comes first
        assert np.abs(released).max() > (1.5 if i == 0 else 3)
        assert released.std() == pytest.approx(0.5 if i == 0 else 1, rel=0.05)
    assert np.ptp(COLOR_COMPONENTS[0]) < 0.05


@pytest.mark.parametrize('preset', RANGES)
def test_all_are_independent(preset):
    transform = RandomDeformation(preset, on_device=True)
    found = decode(draw(transform, 4000), 32)
    for one, other in itertools.combinations(found, 2):
        result = stats.spearmanr(found[one], found[other])
        # of 91 pairs and two presets
        assert result.pvalue > 1e-5, (one, other)
        # a rank correlation of 0 does not tell |x| from x
        spread = np.abs(found[one] - np.median(found[one]))
        result = stats.spearmanr(spread, found[other])
        assert result.pvalue > 1e-5, (one, other)


# each setting, with either preset in turn
@pytest.mark.parametrize(
    ('given', 'preset'),
    list(
        zip(
            [
                dict(translation=0.4),
                dict(scale=(0.9, 2)),
                dict(rotation=75),
                dict(pca_contrast=(0.2, 0.9)),
                dict(pca_contrast=(0.3, 2, 1)),
                dict(power=(0.5, 1.5)),
                dict(multiply=(1, 3)),
                dict(add=0.5),
                dict(hue=0.5),
                *[{name: value} for name, value in OFF.items()],
                dict(scale=[0.5, 0.6], power=[2, 3], add=0.02),
            ],
            itertools.cycle(RANGES),
        )
    ),
    ids=str,
)
def test_a_setting_replaces_that_of_the_preset(preset, given):
    transform = RandomDeformation(preset, on_device=True, **given)
    found = decode(draw(transform, 700), 32)
    check_laws(found, {**RANGES[preset], **given})


def test_default_preset():
    np.testing.assert_array_equal(
        draw(RandomDeformation(on_device=True), 5),
        draw(RandomDeformation('released', on_device=True), 5),
    )


# --- drawn anew where it would leave the image ----------------------------


def reach(found, patch_size):
    """How far a rotated square reaches from the middle: left, ..., bottom."""
    half = patch_size / found['scale'] / 2
    turn = np.radians(found['angle'])
    # the farthest of its four corners
    corners = np.stack(
        [
            half * (np.cos(turn) * x - np.sin(turn) * y)
            for x, y in itertools.product((-1, 1), repeat=2)
        ]
    ).max(0)
    right, down = (2 * half * found[x] for x in ('right', 'down'))
    return corners - right, corners - down, corners + right, corners + down


def fits(found, patch_size, height, width, valid):
    """The square with half a pixel around it is in the valid part."""
    room = (
        width / 2 - valid[0],
        height / 2 - valid[1],
        valid[2] - width / 2,
        valid[3] - height / 2,
    )
    far = reach(found, patch_size)
    return np.all(
        [x + 0.5 <= limit for x, limit in zip(far, room, strict=True)], axis=0
    )


def propose(ranges, count, seed):
    """Geometry of a preset, whether it fits or not."""
    rng = np.random.default_rng(seed)
    laws = expected(ranges)
    return {
        name: laws[name].rvs(count, random_state=rng)
        for name in ('scale', 'angle', 'right', 'down')
    }


@pytest.mark.parametrize(
    ('height', 'width', 'valid'),
    [
        (60, 60, None),
        (50, 90, None),
        (82, 82, (3, 0, 66, 78)),
        (82, 82, (20, 18, 66, 62)),
        (83, 61, (5, 20, 58, 80)),
    ],
)
@pytest.mark.parametrize('preset', RANGES)
def test_drawn_anew(monkeypatch, preset, height, width, valid):
    monkeypatch.setattr(deformation, 'MAX_ATTEMPTS', 10000)
    keys = {} if valid is None else dict(valid=valid)
    valid = (0, 0, width, height) if valid is None else valid
    transform = RandomDeformation(preset, recolor=False, on_device=True)
    numbers = draw(transform, 2000, image(height, width), **keys)
    found = decode(numbers, 32, height, width)
    proposed = propose(RANGES[preset], 200_000, 1)
    good = fits(proposed, 32, height, width, valid)
    assert 0.001 < good.mean() < 0.97
    for name, values in found.items():
        want = proposed[name][good]
        assert stats.ks_2samp(values, want).pvalue > LEVEL, name
    # To leave it at the first draw would be seen.
    assert stats.ks_2samp(found['scale'], proposed['scale']).pvalue < LEVEL
    # how far it reaches depends on all of them
    for got, want in zip(reach(found, 32), reach(proposed, 32), strict=True):
        assert stats.ks_2samp(got, want[good]).pvalue > LEVEL


@pytest.mark.parametrize('attempts', [1, 2, 5])
def test_number_of_attempts(monkeypatch, attempts):
    monkeypatch.setattr(deformation, 'MAX_ATTEMPTS', attempts)
    valid = (22, 18, 60, 66)
    transform = RandomDeformation(on_device=True, recolor=False)
    numbers = draw(transform, 3000, image(82), valid=valid)
    left = np.all(numbers == left_where_it_is(32, 82, 82), axis=1)
    good = fits(propose(RANGES['released'], 200_000, 1), 32, 82, 82, valid)
    share = (1 - good.mean()) ** attempts
    assert 0.05 < share < 0.95
    result = stats.binomtest(int(left.sum()), 3000, share)
    assert result.pvalue > LEVEL


# --- nothing of the outside is seen -----------------------------------------


def paint(window, valid, values):
    left, top, right, bottom = valid
    painted = np.broadcast_to(values, window.shape).copy()
    painted[top:bottom, left:right] = window[top:bottom, left:right]
    return painted


def cut(img, numbers, size):
    """The patches of one image (H, W, 3), as (N, 3, size, size)."""
    planes = torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1)))
    return deform_patches(
        planes.expand(len(numbers), -1, -1, -1),
        torch.from_numpy(numbers),
        size,
    ).numpy()


@pytest.mark.parametrize(
    ('valid', 'preset'),
    list(
        zip(
            [
                (0, 0, 82, 82),
                (25, 25, 57, 57),
                (24, 24, 58, 58),
                (22, 20, 60, 66),
                (0, 25, 60, 82),
                (20, 0, 82, 59),
                (13, 11, 71, 66),
            ],
            itertools.cycle(RANGES),
        )
    ),
)
def test_painted_outside_is_not_seen(preset, valid):
    transform = RandomDeformation(preset, recolor=False, on_device=True)
    rng = np.random.default_rng(0)
    window = rng.integers(100, 256, (82, 82, 3), np.uint8)
    numbers = draw(transform, 500, window, valid=valid)
    board = 255 * (np.indices((82, 82)).sum(0) % 2)[..., None]
    black = paint(window, valid, np.uint8(0))
    extreme = paint(window, valid, board.astype(np.uint8))
    first, second = cut(black, numbers, 32), cut(extreme, numbers, 32)
    assert first.min() >= 100 - ROUNDING
    moved = np.any(numbers != left_where_it_is(32, 82, 82), axis=1)
    assert moved.mean() > 0.5
    assert fits(decode(numbers[moved], 32, 82), 32, 82, 82, valid).all()
    np.testing.assert_array_equal(first[moved], second[moved])
    # The rest lie on the pixels themselves, but for the rounding of numbers.
    np.testing.assert_allclose(first, second, atol=ROUNDING)
    # Not even a weight of zero, which would spread what is no number; the
    # preprocessor may scale the patches.
    nothing = paint(window.astype(np.float32), valid, np.nan)
    for size in (32, 15, 50):
        assert not np.isnan(cut(nothing, numbers[moved], size)).any()


def test_painting_can_be_seen():
    # So the test above can fail: with all of the window as the valid part.
    transform = RandomDeformation(recolor=False, on_device=True)
    window = image(82) // 2 + 127
    numbers = draw(transform, 400, window)
    valid = (20, 14, 66, 68)
    black = paint(window, valid, np.uint8(0))
    seen = cut(black, numbers, 32).min((1, 2, 3)) < 100
    inside = fits(decode(numbers, 32, 82), 32, 82, 82, valid)
    assert not np.any(seen & inside)
    # the pixels' middles do not reach quite as far
    assert np.mean(seen | inside) > 0.8
    assert seen.mean() > 0.3


@pytest.mark.parametrize('patch_size', [5, 12, 33])
@pytest.mark.parametrize('on_device', [False, True])
def test_patch_is_left_where_it_is_in_the_end(patch_size, on_device):
    transform = RandomDeformation(
        patch_size=patch_size,
        scale=(0.7, 1),
        recolor=False,
        on_device=on_device,
    )
    for margin, shift in ((0, 0), (3, 0), (10, 0), (10, 4)):
        size = patch_size + 2 * margin
        end = margin + patch_size
        valid = margin, margin, end, end
        # not square, the patch in the middle still
        img = image(size, size + 2 * shift)
        valid = valid[0] + shift, valid[1], valid[2] + shift, valid[3]
        want = img[valid[1] : valid[3], valid[0] : valid[2]].copy()
        for sentinel in (0, 255):
            painted = paint(img, valid, np.uint8(sentinel))
            results = transform(dict(img=painted, valid=valid))
            if not on_device:
                np.testing.assert_array_equal(results['img'], want)
                continue
            got = cut(painted, results['deformation'][None], patch_size)[0]
            np.testing.assert_allclose(
                got, want.transpose(2, 0, 1), atol=ROUNDING
            )


def test_patch_that_is_left_is_enlarged_without_a_border():
    # the preprocessor may enlarge it; a white image stays white
    white = np.full((32, 32, 3), 255, np.uint8)
    transform = RandomDeformation(
        scale=(0.7, 1), recolor=False, on_device=True
    )
    numbers = transform(dict(img=white))['deformation'][None]
    for size in (33, 64):
        np.testing.assert_allclose(cut(white, numbers, size), 255, atol=0.01)


# --- the window -------------------------------------------------------------

NO_COLOR = dict(recolor=False, on_device=True)
WINDOWS = [
    {},
    dict(preset='paper'),
    dict(patch_size=8),
    dict(patch_size=33, preset='paper'),
    dict(rotation=90),
    dict(rotation=45),
    dict(translation=0),
    dict(translation=0.1, rotation=10, scale=(0.8, 1.2)),
]
# those that need the half pixel that bilinear sampling reads on either side
NARROW = [
    dict(patch_size=9),
    dict(patch_size=64),
    dict(rotation=0),
    dict(scale=(1, 1)),
    dict(scale=(0.5, 2), rotation=30),
    dict(rotation=0, translation=0.25, scale=(1, 1)),
    dict(rotation=0, translation=0, scale=(0.8, 0.8)),
    dict(rotation=0, translation=0.6, scale=(0.55, 3)),
]


def extremes(monkeypatch, transform, size):
    """The geometry for all combinations of low, middle and high draws."""
    rows = []
    # of four draws, whichever is which
    shares = (0, 0.25, 0.5, 0.75, np.nextafter(1, 0))
    img = np.zeros((size, size, 3), np.uint8)
    for row in itertools.product(shares, repeat=4):
        monkeypatch.setattr(np.random, 'random', lambda _, r=row: np.array(r))
        rows.append(transform(dict(img=img))['deformation'])
    monkeypatch.undo()
    return np.stack(rows)


@pytest.mark.parametrize(
    'kwargs',
    [*WINDOWS, *NARROW],
    ids=str,
)
def test_window_holds_all_that_may_be_seen(monkeypatch, kwargs):
    monkeypatch.setattr(deformation, 'MAX_ATTEMPTS', 1)
    transform = RandomDeformation(**NO_COLOR, **kwargs)
    size, patch_size = transform.window_size, transform.patch_size
    free = extremes(monkeypatch, transform, size + 200)
    free[:, [2, 5]] -= 100
    # what is refused would be left where it is
    got = extremes(monkeypatch, transform, size)
    np.testing.assert_allclose(got, free, atol=1e-4)
    # no larger than it has to be
    if size > patch_size:
        smaller = extremes(monkeypatch, transform, size - 2)
        smaller[:, [2, 5]] += 1
        assert np.abs(smaller - free).max() > 0.1


def test_window_has_the_middle_of_the_patch():
    for kwargs in (*WINDOWS, *NARROW):
        for patch_size in (1, 7, 8, 32, 33, 96):
            transform = RandomDeformation(
                **{**kwargs, 'patch_size': patch_size}
            )
            assert isinstance(transform.window_size, int)
            assert (transform.window_size - patch_size) % 2 == 0, kwargs


def test_windows_of_the_presets():
    # by hand: (cos 20 + sin 20 + 2 * 0.25) * 32 * sqrt 2 + 1 = 81.6
    assert RandomDeformation().window_size == 82
    # (cos 20 + sin 20 + 2 * 0.2) * 32 / 0.7 + 1 = 77.9
    assert RandomDeformation('paper').window_size == 78


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(scale=(2, 2), rotation=0, translation=0),
        dict(scale=(1.5, 3), rotation=0, translation=0.1),
    ],
)
def test_window_of_large_magnifications(kwargs):
    # the image must not be smaller than the patch
    transform = RandomDeformation(**kwargs)
    transform(dict(img=image(transform.window_size)))


# --- the transform and the device -------------------------------------------


@pytest.mark.parametrize(
    ('preset', 'recolor', 'bgr'),
    [
        ('paper', True, True),
        ('paper', False, False),
        ('released', True, False),
        ('released', False, True),
    ],
)
def test_transform_and_device_agree(preset, recolor, bgr):
    kwargs = dict(preset=preset, recolor=recolor)
    here = RandomDeformation(bgr=bgr, **kwargs)
    there = RandomDeformation(on_device=True, **kwargs)
    pack = PackInputs(algorithm_keys=('deformation',))
    mean, std = np.array([120.0, 110.0, 90.0]), np.array([50.0, 60.0, 70.0])
    patches, inputs, samples = [], [], []
    for i in range(35):
        img = image(60, 66, seed=i)
        keys = dict(deformation_seed=(3, i), valid=(2, 0, 60, 59))
        results = here(dict(img=img.copy(), **keys))
        patches.append(results['img'])
        packed = pack(there(dict(img=img, **keys)))
        inputs.append(packed['inputs'])
        samples.append(packed['data_samples'])
    want = np.stack(patches).astype(np.float64)
    if bgr:
        want = want[..., ::-1]
    want = want.transpose(0, 3, 1, 2)
    data = dict(inputs=torch.stack(inputs), data_samples=samples)
    for normalize in (False, True):
        settings = dict(mean=mean.tolist(), std=std.tolist())
        got = DeformationDataPreprocessor(
            bgr_to_rgb=bgr, **(settings if normalize else {})
        )(data)['inputs'].numpy()
        if normalize:
            got = got * std[:, None, None] + mean[:, None, None]
        # the transform rounds
        assert np.abs(got - want).max() <= 0.5 + 1e-3
        assert np.abs(got - want).max() > 0.4


@pytest.mark.parametrize('recolor', [True, False])
def test_order_of_the_channels(recolor):
    rgb = image(60)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    for seed in range(10):
        keys = dict(deformation_seed=seed)
        got = {
            order: RandomDeformation(recolor=recolor, **kwargs)(
                dict(img=img, **keys)
            )['img']
            for order, img, kwargs in (
                ('default', bgr, {}),
                ('bgr', bgr, dict(bgr=True)),
                ('rgb', rgb, dict(bgr=False)),
            )
        }
        numbers = RandomDeformation(recolor=recolor, on_device=True)(
            dict(img=rgb, **keys)
        )['deformation']
        want = cut(rgb, numbers[None], 32)[0].transpose(1, 2, 0)
        assert np.abs(got['rgb'] - want).max() <= 0.5 + 1e-3
        np.testing.assert_array_equal(got['bgr'], got['rgb'][..., ::-1])
        np.testing.assert_array_equal(got['bgr'], got['default'])


def test_results():
    img = image(60, 80)
    before = img.copy()
    transform = TRANSFORMS.build(
        dict(type='mm_rotssl.RandomDeformation', patch_size=20, preset='paper')
    )
    results = transform(
        dict(img=img, img_shape=(60, 80), exemplar_label=4, sample_idx=9)
    )
    assert results.keys() == {
        *('img', 'img_shape', 'exemplar_label', 'sample_idx')
    }
    assert results['img'].shape == (20, 20, 3)
    assert results['img'].dtype == np.uint8
    assert results['img'].flags['C_CONTIGUOUS']
    assert results['img_shape'] == (20, 20)
    assert (results['exemplar_label'], results['sample_idx']) == (4, 9)
    np.testing.assert_array_equal(img, before)


@pytest.mark.parametrize(('recolor', 'columns'), [(True, 16), (False, 6)])
def test_results_for_the_device(recolor, columns):
    img = image(60, 80)
    before = img.copy()
    transform = RandomDeformation(recolor=recolor, on_device=True)
    results = transform(dict(img=img, img_shape=(60, 80), exemplar_label=4))
    assert results.keys() == {
        *('img', 'img_shape', 'exemplar_label', 'deformation')
    }
    assert results['img'] is img
    assert results['img_shape'] == (60, 80)
    assert results['exemplar_label'] == 4
    assert results['deformation'].shape == (columns,)
    assert results['deformation'].dtype == np.float32
    np.testing.assert_array_equal(img, before)


def test_without_colors_the_geometry_is_the_same():
    for seed in range(20):
        rows = [
            RandomDeformation(recolor=recolor, on_device=True)(
                dict(img=image(82), deformation_seed=seed)
            )['deformation']
            for recolor in (True, False)
        ]
        np.testing.assert_array_equal(rows[0][:6], rows[1])


@pytest.mark.parametrize('size', [34, 33, 60])
def test_all_parts_off(size):
    # the patch of the middle, and stretched unless colors are left
    img = image(size, size + 2) // 4 + 70
    top = (size - 32) / 2
    low, high = math.floor(top), math.ceil(top)
    # an odd margin: in the middle between two rows
    rows = [img[x : x + 32].astype(float) for x in (low, high)]
    middle = sum(rows) / 2
    columns = [middle[:, x + 1 : x + 33] for x in (low, high)]
    want = sum(columns) / 2
    got = RandomDeformation(recolor=False, **OFF)(dict(img=img))['img']
    assert np.abs(got - want).max() <= 0.5 + 1e-3
    got = RandomDeformation(**OFF)(dict(img=img))['img']
    want = (want - want.min()) / np.ptp(want) * 255
    # the components are rounded to four digits, see COLOR_COMPONENTS
    assert np.abs(got - want).max() <= 0.6


# --- seeds ------------------------------------------------------------------


@pytest.mark.parametrize(
    ('seed', 'on_device'),
    [(0, False), (7, True), ((0, 12, 149), False), ([5, 1], True)],
)
def test_deformation_seed(on_device, seed):
    key = 'deformation' if on_device else 'img'
    transform = RandomDeformation(on_device=on_device)

    def run(seed):
        return transform(dict(img=image(60), deformation_seed=seed))[key]

    np.random.seed(0)
    before = np.random.get_state()
    first = run(seed)
    # neither read nor written
    for one, other in zip(before, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.random.seed(1)
    np.testing.assert_array_equal(run(seed), first)
    assert (run((3, 12, 149)) != first).any()


def test_seeds_that_differ_in_one_number():
    transform = RandomDeformation(on_device=True)
    rows = [
        transform(dict(img=image(82), deformation_seed=seed))['deformation']
        for seed in itertools.product(range(3), range(20), range(20))
    ]
    assert len(np.unique(np.stack(rows), axis=0)) == len(rows)
    # and give what is drawn without
    check_laws(decode(np.stack(rows), 32, 82), RANGES['released'])


def test_numpys_seed():
    transform = RandomDeformation(on_device=True)
    one, same = draw(transform, 20, seed=3), draw(transform, 20, seed=3)
    np.testing.assert_array_equal(one, same)
    assert (draw(transform, 20, seed=4) != one).any(axis=1).all()
    assert len(np.unique(one, axis=0)) == 20
    img = RandomDeformation()
    patches = []
    for _ in range(2):
        np.random.seed(5)
        patches.append(img(dict(img=image(60)))['img'])
    np.testing.assert_array_equal(*patches)


# --- refusals ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(preset='code'), r"preset='code'.*'paper', 'released'"),
        (dict(translation=-0.1), r'translation=-0\.1 .*not be negative'),
        (dict(rotation=-1), r'rotation=-1 .*not be negative'),
        (dict(add=-0.5), r'add=-0\.5 .*not be negative'),
        (dict(hue=-1), r'hue=-1 .*not be negative'),
        (dict(hue=math.nan), r'hue=nan .*not be negative'),
        (dict(scale=(0, 1)), r'scale=\(0, 1\) .*range \(low, high\)'),
        (dict(scale=(2, 1)), r'scale=\(2, 1\) .*range \(low, high\)'),
        (dict(scale=(1,)), r'scale=\(1,\) .*range \(low, high\)'),
        (dict(power=(-1, 1)), r'power=\(-1, 1\) .*positive'),
        (dict(power=(1, 1, 1)), r'power=\(1, 1, 1\) .*range'),
        (dict(multiply=(4, 2)), r'multiply=\(4, 2\) .*range'),
        (dict(multiply=(math.nan, 2)), r'multiply=\(nan, 2\) .*range'),
        (dict(pca_contrast=(2, 1)), r'pca_contrast=.*three standard'),
        (dict(pca_contrast=(0, 1)), r'pca_contrast=.*three standard'),
        (dict(pca_contrast=(1,) * 4), r'pca_contrast=.*three standard'),
        (
            dict(pca_contrast=(1, -1, 1)),
            r'pca_contrast=\(1, -1, 1\) .*no negative standard deviation',
        ),
        (dict(patch_size=0), r'patch_size=0 .*must be positive'),
    ],
    ids=str,
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        RandomDeformation(**kwargs)
    assert 'RandomDeformation' in str(caught.value)


@pytest.mark.parametrize(
    ('height', 'width', 'on_device'),
    [(31, 60, False), (60, 31, True), (8, 8, False)],
)
def test_image_smaller_than_the_patch(height, width, on_device):
    transform = RandomDeformation(on_device=on_device)
    with pytest.raises(ValueError, match='patch_size=32') as caught:
        transform(dict(img=image(height, width)))
    assert f'{width}x{height} pixels' in str(caught.value)
    assert 'Enlarge the image or set a smaller' in str(caught.value)


def test_repr_builds_the_same():
    for transform in (
        RandomDeformation('paper', 24, bgr=False),
        RandomDeformation(pca_contrast=[1, 2, 0], hue=0, on_device=True),
        RandomDeformation(recolor=False, scale=(1, 1), translation=0.5),
    ):
        copy = eval(repr(transform))
        assert vars(copy) == vars(transform)
        assert repr(copy) == repr(transform)
