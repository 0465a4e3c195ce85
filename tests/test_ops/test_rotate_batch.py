import numpy as np
import pytest
import torch

from mm_rotssl.ops import rotate_batch

FOUR = (0, 90, 180, 270)
EIGHT = tuple(range(0, 360, 45))


def official(image: np.ndarray, angle: int) -> np.ndarray:
    """The flips and transposes of the official code, on (H, W)."""
    return {
        0: image,
        90: np.flipud(image.T),
        180: np.fliplr(np.flipud(image)),
        270: np.flipud(image).T,
    }[angle]


@pytest.mark.parametrize(
    'rotations', [FOUR, (0, 180), (90, 270), (270, 0, 90)]
)
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_order_direction_and_interleaving(rotations, dtype):
    images = torch.randint(0, 256, (3, 2, 5, 5)).to(dtype)
    copies, labels = rotate_batch(images, rotations)
    assert copies.shape == (3 * len(rotations), 2, 5, 5)
    assert copies.dtype == dtype
    assert labels.dtype == torch.int64
    row = 0
    for i in range(3):
        for r, angle in enumerate(rotations):
            assert labels[row] == r
            for c in range(2):
                np.testing.assert_array_equal(
                    copies[row, c].numpy(),
                    official(images[i, c].numpy(), angle),
                )
            row += 1


def test_ninety_degrees_is_counter_clockwise():
    corner = torch.zeros(1, 1, 4, 4)
    corner[0, 0, 0, 3] = 1  # top right goes to top left
    copies, _ = rotate_batch(corner)
    assert copies[1, 0, 0, 0] == 1
    np.testing.assert_array_equal(
        copies[3, 0].numpy(), np.rot90(corner[0, 0].numpy(), 3)
    )


def bilinear(image: np.ndarray, angle: float) -> np.ndarray:
    """Turn counter-clockwise; sample the inscribed square, in float64."""
    size = len(image)
    out = np.zeros((size, size))
    center = (size - 1) / 2
    theta = np.deg2rad(angle)
    for row in range(size):
        for col in range(size):
            # y up, as in the mathematical sense of rotation
            x, y = col - center, center - row
            x, y = x / np.sqrt(2), y / np.sqrt(2)
            # where the pixel was before it was rotated
            sx = np.cos(theta) * x + np.sin(theta) * y
            sy = -np.sin(theta) * x + np.cos(theta) * y
            u, v = center + sx, center - sy
            left, top = int(np.floor(u)), int(np.floor(v))
            for dv in (0, 1):
                for du in (0, 1):
                    weight = (1 - abs(u - left - du)) * (1 - abs(v - top - dv))
                    if weight > 1e-12:
                        out[row, col] += weight * image[top + dv, left + du]
    return out


@pytest.mark.parametrize('size', [8, 9])
def test_eight_rotations_sample_the_inscribed_square(size):
    images = torch.rand(2, 1, size, size, dtype=torch.float64)
    copies, labels = rotate_batch(images, EIGHT)
    assert labels.tolist() == list(range(8)) * 2
    for i in range(2):
        for r, angle in enumerate(EIGHT):
            np.testing.assert_allclose(
                copies[8 * i + r, 0].numpy(),
                bilinear(images[i, 0].numpy(), angle),
                atol=1e-9,
            )


def test_no_pixel_from_outside_reaches_the_eight():
    # Only the inner circle is read: paint all else and nothing changes.
    size = 32
    center = (size - 1) / 2
    rows, cols = np.mgrid[:size, :size]
    outside = np.hypot(rows - center, cols - center) > size / 2 + 1
    clean = torch.rand(1, 1, size, size)
    painted = clean.clone()
    painted[0, 0][torch.from_numpy(outside)] = 1e6
    assert torch.equal(
        rotate_batch(clean, EIGHT)[0], rotate_batch(painted, EIGHT)[0]
    )
    # a constant image stays constant: there is no fill
    flat, _ = rotate_batch(torch.full((1, 1, size, size), 3.0), EIGHT)
    torch.testing.assert_close(flat, torch.full_like(flat, 3.0))


def test_every_eighth_looks_equally_interpolated():
    # Multiples of 90 degrees must not stand out by being sharper.
    torch.manual_seed(0)
    noise = torch.randn(64, 1, 32, 32)
    copies, labels = rotate_batch(noise, EIGHT)
    spread = [copies[labels == r].std().item() for r in range(8)]
    # white noise is the worst case; untouched copies would be at 1.4
    assert max(spread) / min(spread) < 1.1


def test_image_that_is_not_square():
    with pytest.raises(ValueError, match=r'height 4 and width 6.*square crop'):
        rotate_batch(torch.zeros(1, 3, 4, 6))


@pytest.mark.parametrize('rotations', [(0,), (0, 0), (0, 30), (0, 360), ()])
def test_bad_rotations(rotations):
    with pytest.raises(ValueError, match='rotations='):
        rotate_batch(torch.zeros(1, 3, 4, 4), rotations)
