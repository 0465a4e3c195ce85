"""Deformed patches against loops in float64 and the library's colorsys."""

import colorsys
import math

import numpy as np
import pytest
import torch

from mm_rotssl.ops import deform_patches

# 1e-3 of the range 0..255. Float32 alone gives some 1e-5 of it; but the
# slope of x ** 0.25 has no bound near 0, nor has the hue's near gray.
COLOR_TOLERANCE = 0.255
# a place is known to some 1e-5 pixels, each of which may differ by 255
PLACE_TOLERANCE = 0.01
# of the pixels of ImageNet's images, components in rows
MEAN = (0.485, 0.456, 0.406)
COMPONENTS = (
    (0.5675, 0.5808, 0.5836),
    (0.7192, -0.0045, -0.6948),
    (0.4009, -0.8140, 0.4203),
)
# with these a contrast of ones changes nothing at all
PLAIN = dict(mean=(0, 0, 0), components=np.eye(3).tolist())
KEEP = dict(
    contrast=(1, 1, 1), value=(1, 1, 0), saturation=(1, 1, 0), hue=(0,)
)


def sample(window, matrix, size):
    """Bilinear sampling of (3, H, W), pixel by pixel; its edge goes on."""
    _, height, width = window.shape
    a, b, c, d, e, f = matrix
    out = np.zeros((3, size, size))
    for row in range(size):
        for col in range(size):
            u = (col + 0.5) / size - 0.5
            v = (row + 0.5) / size - 0.5
            # numbers of pixels, the middle of the first is 0
            x = a * u + b * v + c - 0.5
            y = d * u + e * v + f - 0.5
            for j in (math.floor(y), math.floor(y) + 1):
                for i in (math.floor(x), math.floor(x) + 1):
                    weight = (1 - abs(x - i)) * (1 - abs(y - j))
                    inner_j = min(max(j, 0), height - 1)
                    inner_i = min(max(i, 0), width - 1)
                    out[:, row, col] += weight * window[:, inner_j, inner_i]
    return out


def contrast(patch, factors, mean, components):
    """Scale the pixels' parts along the components; (3, S, S) in 0..1.

    What leaves 0..1 is cut off.
    """
    out = np.empty_like(patch)
    for row, col in np.ndindex(patch.shape[1:]):
        pixel = np.array(mean, float)
        for factor, component in zip(factors, components, strict=True):
            part = np.dot(patch[:, row, col] - mean, component)
            pixel += factor * part * np.array(component)
        out[:, row, col] = np.clip(pixel, 0, 1)
    return out


def stretch(patch):
    low, high = patch.min(), patch.max()
    return (patch - low) / (high - low) if high > low else patch * 0


def recolor(patch, value, saturation, hue):
    out = np.empty_like(patch)
    for row, col in np.ndindex(patch.shape[1:]):
        h, s, v = colorsys.rgb_to_hsv(*patch[:, row, col].tolist())
        power, factor, summand = value
        v = factor * v**power + summand
        power, factor, summand = saturation
        s = factor * s**power + summand
        s, v = np.clip([s, v], 0, 1).tolist()
        out[:, row, col] = colorsys.hsv_to_rgb((h + hue) % 1, s, v)
    return out


def reference(window, numbers, size, mean=MEAN, components=COMPONENTS):
    numbers = np.asarray(numbers, np.float64)
    patch = sample(np.asarray(window, np.float64), numbers[:6], size)
    if len(numbers) == 6:
        return patch
    patch = contrast(patch / 255, numbers[6:9], mean, components)
    return 255 * recolor(
        stretch(patch), numbers[9:12], numbers[12:15], numbers[15]
    )


def in_place(height, width=None):
    """The geometry that leaves a window as it is."""
    width = height if width is None else width
    return [width, 0, width / 2, 0, height, height / 2]


def change(size, **parts):
    """Numbers for a patch that keeps its geometry."""
    parts = {**KEEP, **parts}
    return np.array(
        in_place(size)
        + [
            float(x)
            for name in ('contrast', 'value', 'saturation', 'hue')
            for x in parts[name]
        ],
        np.float32,
    )


def deform(window, numbers, size=None, **kwargs):
    """One window."""
    size = window.shape[-1] if size is None else size
    got = deform_patches(
        torch.from_numpy(window)[None],
        torch.as_tensor(np.array(numbers, np.float32))[None],
        size,
        **kwargs,
    )
    assert got.dtype == torch.float32
    assert got.shape == (1, 3, size, size)
    return got[0].numpy()


def random_numbers(rng, count, height, width):
    """Within the windows and out of them; wider than the defaults."""
    rows = []
    for _ in range(count):
        side = min(height, width) * rng.uniform(0.3, 1.1)
        angle = rng.uniform(-1, 1)
        cos, sin = side * math.cos(angle), side * math.sin(angle)
        x, y = rng.uniform(0.35, 0.65, 2) * (width, height)
        row = [cos, sin, x, -sin, cos, y, *2 ** rng.normal(size=3)]
        for _ in range(2):
            row += [
                2 ** rng.uniform(-2, 2),
                2 ** rng.uniform(-0.5, 0.5),
                rng.uniform(-0.1, 0.1),
            ]
        rows.append([*row, rng.uniform(-0.1, 0.1)])
    return np.array(rows, np.float32)


def random_windows(rng, count, height, width=None):
    shape = count, 3, height, height if width is None else width
    return rng.integers(0, 256, shape, np.uint8)


def image_of(colors):
    """A square image (3, S, S) of these colors."""
    side = math.isqrt(len(colors))
    assert side * side == len(colors)
    return np.array(colors, np.float32).T.reshape(3, side, side).copy()


# gray, corners of the cube of colors, and others; black and white are in it
COLORS = image_of(
    [
        *[(0, 0, 0), (255, 255, 255), (128, 128, 128), (1, 1, 1)],
        *[(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)],
        *[(0, 255, 255), (255, 0, 255), (200, 10, 60), (200, 60, 10)],
        *[(10, 200, 60), (60, 200, 10), (10, 60, 200), (60, 10, 200)],
        *[(90, 90, 30), (30, 90, 90), (90, 30, 90), (30, 30, 90)],
        *[(30, 90, 30), (90, 30, 30), (254, 255, 255), (3, 2, 1), (7, 7, 9)],
    ]
)


# --- geometry ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('height', 'width', 'size'),
    [(9, 9, 4), (9, 9, 9), (8, 11, 5), (7, 10, 16), (33, 20, 8), (1, 1, 3)],
)
def test_geometry(height, width, size):
    rng = np.random.default_rng(0)
    windows = random_windows(rng, 12, height, width)
    numbers = random_numbers(rng, 12, height, width)[:, :6]
    # not only rotated squares: any matrix
    numbers[6:, [0, 1, 3, 4]] += rng.normal(size=(6, 4))
    got = deform_patches(
        torch.from_numpy(windows), torch.from_numpy(numbers), size
    )
    want = np.stack(
        [
            reference(window, row, size)
            for window, row in zip(windows, numbers, strict=True)
        ]
    )
    np.testing.assert_allclose(got.numpy(), want, atol=PLACE_TOLERANCE)


@pytest.mark.parametrize(
    ('size', 'margin'), [(1, 0), (1, 3), (4, 1), (5, 0), (32, 3), (33, 1)]
)
def test_pixels_of_the_middle_are_copied(size, margin):
    rng = np.random.default_rng(0)
    window = random_windows(rng, 1, size + 2 * margin)[0]
    middle = size / 2 + margin
    got = deform(window, [size, 0, middle, 0, size, middle], size)
    end = margin + size
    np.testing.assert_allclose(
        got, window[:, margin:end, margin:end], atol=PLACE_TOLERANCE
    )


def test_directions():
    # x counts columns: a quarter turn, of which the reference is a transpose
    window = random_windows(np.random.default_rng(0), 1, 6)[0]
    np.testing.assert_allclose(
        deform(window, [0, 6, 3, 6, 0, 3]),
        window.transpose(0, 2, 1),
        atol=PLACE_TOLERANCE,
    )
    # the left upper quarter, enlarged
    got = deform(window, [3, 0, 1.5, 0, 3, 1.5], 3)
    np.testing.assert_allclose(got, window[:, :3, :3], atol=PLACE_TOLERANCE)


def test_geometry_alone_neither_stretches_nor_clips():
    window = np.array([[[-40.0, 700.0]] * 2] * 3, np.float32)
    got = deform(window, in_place(2))
    np.testing.assert_allclose(got, window, atol=PLACE_TOLERANCE)


# --- colors, part by part --------------------------------------------------


@pytest.mark.parametrize(
    'factors',
    [(2, 1, 1), (1, 2, 1), (1, 1, 2), (0.3, 3, 0.5), (0.5, 0.7, 4), (0, 1, 1)],
)
def test_contrast(factors):
    rng = np.random.default_rng(1)
    window = random_windows(rng, 1, 5)[0]
    got = deform(window, change(5, contrast=factors))
    patch = contrast(window / 255, factors, MEAN, COMPONENTS)
    np.testing.assert_allclose(got, 255 * stretch(patch), atol=0.01)


def test_contrast_with_other_components():
    # not symmetric, so rows and columns are told apart; a mean of its own
    rng = np.random.default_rng(2)
    components = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert np.abs(components - components.T).max() > 0.5
    mean = (0.9, 0.1, 0.4)
    window = random_windows(rng, 1, 5)[0]
    for factors in ((3, 1, 1), (0.2, 1.5, 2)):
        row = change(5, contrast=factors, value=(0.7, 1.2, -0.05), hue=(0.04,))
        got = deform(window, row, mean=mean, components=components.tolist())
        want = reference(window, row, 5, mean, components)
        np.testing.assert_allclose(got, want, atol=COLOR_TOLERANCE)


def test_contrast_keeps_the_mean():
    # the mean's pixel stands still, and so it lies between two others
    patch = np.array([[MEAN] * 4] * 4, np.float32).transpose(2, 0, 1) * 255
    first = np.array(COMPONENTS[0], np.float32)
    patch[:, 0, 0] += 60 * first
    patch[:, 3, 3] -= 60 * first
    for factor in (0.5, 2):
        got = deform(patch, change(4, contrast=(factor, 1, 1)))
        ends = np.stack([got[:, 0, 0], got[:, 3, 3]])
        np.testing.assert_allclose(got[:, 1, 2], ends.mean(0), atol=0.01)


@pytest.mark.parametrize(('low', 'high'), [(0, 255), (40, 90), (100, 101)])
def test_stretched_over_all_pixels_and_channels(low, high):
    # the lowest and the highest are in different channels and pixels
    patch = np.random.default_rng(0).uniform(low, high, (3, 4, 4))
    patch[0, 1, 2], patch[2, 3, 0] = low, high
    patch = patch.astype(np.float32)
    got = deform(patch, change(4), **PLAIN)
    want = (patch - low) / (high - low) * 255
    np.testing.assert_allclose(got, want, atol=0.01)
    assert got.min() == 0
    assert got.max() == pytest.approx(255, abs=1e-3)


def test_each_patch_is_stretched_by_itself():
    rng = np.random.default_rng(0)
    windows = np.stack(
        [rng.uniform(20, 30, (3, 4, 4)), rng.uniform(100, 250, (3, 4, 4))]
    ).astype(np.float32)
    got = deform_patches(
        torch.from_numpy(windows),
        torch.from_numpy(np.stack([change(4)] * 2)),
        4,
        **PLAIN,
    ).numpy()
    for i in range(2):
        want = 255 * stretch(windows[i].astype(np.float64))
        np.testing.assert_allclose(got[i], want, atol=0.01)


POWERS = [
    (0.25, 1, 0),
    (4, 1, 0),
    (1, 0.7, 0),
    (1, 1.4, 0),
    (1, 1, 0.1),
    (1, 1, -0.1),
    (0.25, 1.4, 0.1),
    (0.4, 1.3, -0.1),
    (3, 0.8, 0.1),
    (4, 0.7, -0.1),
]


@pytest.mark.parametrize('part', ['value', 'saturation'])
@pytest.mark.parametrize('numbers', POWERS)
def test_power_factor_and_summand(part, numbers):
    # black and white are among them: it is stretched already
    parts = {part: numbers}
    got = deform(COLORS, change(5, **parts), **PLAIN)
    want = recolor(
        COLORS.astype(np.float64) / 255,
        parts.get('value', (1, 1, 0)),
        parts.get('saturation', (1, 1, 0)),
        0,
    )
    np.testing.assert_allclose(got, 255 * want, atol=0.01)


def test_cut_off_after_the_contrast():
    """Before the patch is stretched: what was cut off is not told apart."""
    patch = image_of([(0, 0, 0), (90, 120, 60), (140, 140, 150), (255,) * 3])
    # three times as far from a mean in the middle
    numbers = change(2, contrast=(3, 3, 3))
    plain = {**PLAIN, 'mean': (0.5, 0.5, 0.5)}
    got = deform(patch, numbers, **plain)
    want = np.clip(3 * (patch - 127.5) + 127.5, 0, 255)
    np.testing.assert_allclose(got, want, atol=0.01)
    assert (want == 0).sum() == 4
    assert (want == 255).sum() == 3


def test_cut_off_before_colors():
    """A saturation below 0 would turn a hue around, one above 1 go beyond."""
    value, saturation = (1, 1.4, 0.1), (1, 0.7, -0.1)
    patch = COLORS.astype(np.float64) / 255
    late = np.empty_like(patch)
    for row, col in np.ndindex(patch.shape[1:]):
        h, s, v = colorsys.rgb_to_hsv(*patch[:, row, col])
        late[:, row, col] = colorsys.hsv_to_rgb(
            h, 0.7 * s - 0.1, 1.4 * v + 0.1
        )
    got = deform(
        COLORS, change(5, value=value, saturation=saturation), **PLAIN
    )
    want = recolor(patch, value, saturation, 0)
    np.testing.assert_allclose(got, 255 * want, atol=0.01)
    assert np.abs(got - 255 * np.clip(late, 0, 1)).max() > 20


@pytest.mark.parametrize('hue', [0.1, -0.1, 1 / 6, 0.5, -0.97, 1, 2.3])
def test_hue(hue):
    # around the circle, the jump from 1 to 0 included, weak and strong
    circle = [
        tuple(255 * x for x in colorsys.hsv_to_rgb(i / 23, s, v))
        for i in range(23)
        for s, v in ((1, 1), (0.3, 0.6))
    ]
    patch = image_of([*circle, (0, 0, 0), (255, 255, 255), (99, 99, 99)])
    got = deform(patch, change(7, hue=(hue,)), **PLAIN)
    want = recolor(patch.astype(np.float64) / 255, (1, 1, 0), (1, 1, 0), hue)
    np.testing.assert_allclose(got, 255 * want, atol=0.01)
    # one third turns red to green, green to blue, blue to red
    third = deform(COLORS, change(5, hue=(1 / 3,)), **PLAIN)
    np.testing.assert_allclose(third, COLORS[[2, 0, 1]], atol=0.01)


@pytest.mark.parametrize(
    'color',
    [
        (0, 0, 0),
        (255, 255, 255),
        (77, 77, 77),
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (10, 100, 200),
        (5, 90, 5),
    ],
)
def test_patch_of_one_color(color):
    # All of one value is stretched to 0, whose hue and saturation are 0.
    window = np.array(color, np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    parts = dict(
        value=(0.5, 1.2, 0.07), saturation=(2, 1.1, 0.05), hue=(-0.08,)
    )
    row = change(4, **parts)
    got = deform(window, row, **PLAIN)
    want = reference(window, row, 4, **PLAIN)
    np.testing.assert_allclose(got, want, atol=0.01)
    assert np.ptp(got, axis=(1, 2)).max() < 0.01
    # what the components make of it has a color
    row = change(4, contrast=(1.7, 0.6, 1.3), **parts)
    np.testing.assert_allclose(
        deform(window, row), reference(window, row, 4), atol=COLOR_TOLERANCE
    )


# --- all together -----------------------------------------------------------


@pytest.mark.parametrize(
    ('count', 'height', 'width', 'size'),
    [(1, 30, 30, 16), (31, 14, 14, 7), (33, 16, 13, 6), (70, 12, 12, 8)],
)
def test_all_parts_of_a_batch(count, height, width, size):
    rng = np.random.default_rng(count)
    windows = random_windows(rng, count, height, width)
    numbers = random_numbers(rng, count, height, width)
    got = deform_patches(
        torch.from_numpy(windows), torch.from_numpy(numbers), size
    ).numpy()
    assert got.shape == (count, 3, size, size)
    for i in range(count):
        want = reference(windows[i], numbers[i], size)
        np.testing.assert_allclose(got[i], want, atol=COLOR_TOLERANCE)


def test_smooth_and_gray_images():
    # digits and skies: long edges, large gray parts
    rng = np.random.default_rng(3)
    rows, cols = np.mgrid[:20, :20]
    disc = np.hypot(rows - 9.5, cols - 9.5) < 6
    gray = np.stack([np.where(disc, 230, 20)] * 3)
    ramp = np.stack([12 * cols, 6 * rows + 60, 200 + 0 * cols])
    windows = np.stack([gray, ramp]).repeat(6, 0).astype(np.uint8)
    numbers = random_numbers(rng, 12, 20, 20)
    got = deform_patches(
        torch.from_numpy(windows), torch.from_numpy(numbers), 9
    ).numpy()
    for i in range(12):
        want = reference(windows[i], numbers[i], 9)
        np.testing.assert_allclose(got[i], want, atol=COLOR_TOLERANCE)


@pytest.mark.parametrize('columns', [6, 16])
@pytest.mark.parametrize('count', [32, 70])
def test_a_batch_gives_what_its_windows_give(count, columns):
    rng = np.random.default_rng(0)
    windows = torch.from_numpy(random_windows(rng, count, 21))
    numbers = torch.from_numpy(random_numbers(rng, count, 21, 21))
    numbers = numbers[:, :columns]
    got = deform_patches(windows, numbers, 10)
    for i in range(count):
        alone = deform_patches(windows[i, None], numbers[i, None], 10)
        # sums may be taken in another order
        torch.testing.assert_close(got[i], alone[0], rtol=0, atol=0.05)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.int16])
def test_type_of_the_windows_does_not_matter(dtype):
    rng = np.random.default_rng(0)
    windows = torch.from_numpy(random_windows(rng, 40, 12))
    numbers = torch.from_numpy(random_numbers(rng, 40, 12, 12))
    want = deform_patches(windows, numbers, 8)
    assert want.dtype == torch.float32
    got = deform_patches(windows.to(dtype), numbers, 8)
    assert torch.equal(got, want)
    # nor that of the numbers, nor the order in memory
    assert torch.equal(deform_patches(windows, numbers.double(), 8), want)
    channels_last = windows.contiguous(memory_format=torch.channels_last)
    assert torch.equal(deform_patches(channels_last, numbers, 8), want)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
@pytest.mark.parametrize('columns', [6, 16])
def test_input_stays_as_it_is(dtype, columns):
    rng = np.random.default_rng(0)
    windows = torch.from_numpy(random_windows(rng, 33, 8)).to(dtype)
    numbers = torch.from_numpy(random_numbers(rng, 33, 8, 8))[:, :columns]
    before = windows.clone(), numbers.clone()
    first = deform_patches(windows, numbers, 8)
    kept = first.clone()
    assert torch.equal(windows, before[0])
    assert torch.equal(numbers, before[1])
    # nor is what was returned overwritten by the next call
    second = deform_patches(255 - windows, numbers, 8)
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)


def test_autocast_changes_nothing():
    rng = np.random.default_rng(0)
    windows = torch.from_numpy(random_windows(rng, 33, 12))
    numbers = torch.from_numpy(random_numbers(rng, 33, 12, 12))
    want = deform_patches(windows, numbers, 8)
    with torch.autocast('cpu', torch.bfloat16):
        # autocast is on and would matter
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        got = deform_patches(windows, numbers, 8)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


def test_no_gradient_is_tracked():
    rng = np.random.default_rng(0)
    windows = torch.from_numpy(random_windows(rng, 3, 8)).float()
    numbers = torch.from_numpy(random_numbers(rng, 3, 8, 8))
    windows.requires_grad_()
    numbers.requires_grad_()
    for columns in (6, 16):
        got = deform_patches(windows, numbers[:, :columns], 8)
        assert not got.requires_grad
        assert got.grad_fn is None
    assert torch.is_grad_enabled()


# --- refusals ---------------------------------------------------------------


def test_windows_of_another_shape():
    with pytest.raises(ValueError, match=r'\(N, C, H, W\), got \(3, 8, 8\)'):
        deform_patches(torch.zeros(3, 8, 8), torch.zeros(3, 6), 4)


@pytest.mark.parametrize('channels', [1, 2, 4, 8])
def test_any_number_of_channels(channels):
    torch.manual_seed(0)
    windows = 255 * torch.rand(5, channels, 12, 14)
    numbers = torch.tensor([[8.0, 1, 7, -1, 8, 6]]).repeat(5, 1)
    got = deform_patches(windows, numbers, 6)
    for channel in range(channels):
        alone = windows[:, [channel] * 3]
        want = deform_patches(alone, numbers, 6)[:, 0]
        torch.testing.assert_close(got[:, channel], want)
    with pytest.raises(
        ValueError, match=rf'{channels} channels.*recolor=False of RandomDef'
    ):
        deform_patches(windows, torch.ones(5, 16), 6)


@pytest.mark.parametrize(
    'shape', [(2, 7), (2, 10), (2, 15), (2, 2, 3), (3, 6), (1, 16), (6,)]
)
def test_deformations_of_another_shape(shape):
    with pytest.raises(ValueError, match=r'\(2, 6\) or \(2, 16\)') as caught:
        deform_patches(torch.zeros(2, 3, 8, 8), torch.zeros(shape), 4)
    assert str(shape) in str(caught.value)
