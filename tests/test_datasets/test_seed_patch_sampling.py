import itertools
import os
import re

import cv2
import numpy as np
import pytest
from mmengine.dataset import BaseDataset
from PIL import Image
from scipy.stats import chisquare

from mm_rotssl.datasets import (
    Digits,
    ImageFolder,
    SeedPatches,
    sample_seed_patches,
)
from mm_rotssl.datasets.exemplar.seed_patch_sampling import (
    SCALES,
    band_pass_energy,
    squared_gradient,
)
from mm_rotssl.datasets.exemplar.seed_patches import cut_window

ENERGIES = dict(band_pass=band_pass_energy, gradient=squared_gradient)


class Images(BaseDataset):
    """Images in memory, by name or, as CIFAR10's, without."""

    def __init__(self, images, named=True):
        self.images = images
        self.named = named
        # which collects garbage first, and so takes long
        super().__init__(serialize_data=False)

    def load_data_list(self):
        return [
            dict(img=img, img_path=f'{i:03d}') if self.named else dict(img=img)
            for i, img in enumerate(self.images)
        ]


def noise(height, width, seed=0, contrast=1.0):
    rng = np.random.default_rng((seed, height, width))
    image = rng.integers(0, 256, (height, width, 3)) - 128
    return (contrast * image + 128).astype(np.uint8)


def flat(height, width, color=(10, 200, 77)):
    return np.full((height, width, 3), color, np.uint8)


def blurred(image, sigma):
    """A Gaussian mean, by its definition in float64.

    OpenCV's kernel for float32 reaches 4 sigma to either side; beyond its
    border an image is mirrored around the middle of the last pixel.
    """
    reach = (round(8 * sigma + 1) | 1) // 2
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        length = image.shape[axis]
        total = np.zeros_like(image)
        for offset, weight in zip(offsets, kernel, strict=True):
            places = abs(np.arange(length) + offset)
            while length > 1 and places.max() >= length:
                places = np.where(
                    places >= length, 2 * (length - 1) - places, places
                )
                places = abs(places)
            if length == 1:
                places = [0]
            total += weight * image.take(places, axis)
        image = total
    return image


def reference_band_pass(image, scale, patch_size):
    step = max(1, patch_size // 8)
    cells = image[::step, ::step]
    if scale != 1:
        # compared with means over areas in test_seed_patches
        height, width = cells.shape[:2]
        cells = cv2.resize(
            np.ascontiguousarray(cells),
            (max(1, round(width * scale)), max(1, round(height * scale))),
            interpolation=cv2.INTER_AREA,
        )
    total = cells.astype(np.float64).sum(2)
    cells_of_patch = patch_size / step
    fine = blurred(total, cells_of_patch / 4)
    sigma = min(cells_of_patch / 4, len(total) / 4)
    energy = blurred((total - fine) ** 2, sigma)
    border = int(np.ceil(cells_of_patch / 2)) + 1
    height, width = energy.shape
    for y, x in itertools.product(range(height), range(width)):
        if not (
            border <= y < height - border and border <= x < width - border
        ):
            energy[y, x] = 0
    return energy


def reference_gradient(image, scale, patch_size):
    if scale != 1:
        height, width = image.shape[:2]
        image = cv2.resize(
            image,
            (max(1, round(width * scale)), max(1, round(height * scale))),
            interpolation=cv2.INTER_AREA,
        )
    gray = image.astype(np.float64).mean(2)
    height, width = gray.shape
    squared = np.zeros_like(gray)
    for y, x in itertools.product(range(height), range(width)):
        for step in ((0, 1), (1, 0)):
            ahead = min(y + step[0], height - 1), min(x + step[1], width - 1)
            behind = max(y - step[0], 0), max(x - step[1], 0)
            distance = sum(ahead) - sum(behind)
            if distance:
                slope = (gray[ahead] - gray[behind]) / distance
                squared[y, x] += slope**2
    energy = np.zeros_like(gray)
    for top in range(height - patch_size + 1):
        for left in range(width - patch_size + 1):
            patch = squared[top : top + patch_size, left : left + patch_size]
            place = top + patch_size // 2, left + patch_size // 2
            energy[place] = patch.mean()
    return energy


REFERENCES = dict(band_pass=reference_band_pass, gradient=reference_gradient)


@pytest.mark.parametrize('name', list(ENERGIES))
@pytest.mark.parametrize(
    ('shape', 'scale', 'patch_size'),
    [
        ((96, 96), 1, 32),
        ((96, 96), 0.8, 32),
        ((97, 133), 0.512, 32),
        ((61, 74), 1, 32),
        ((48, 51), 1, 16),
        ((45, 39), 0.8, 16),
        ((64, 33), 0.64, 16),
        ((47, 60), 1, 15),
        ((47, 60), 0.8, 23),
        ((70, 59), 1, 33),
        ((9, 12), 1, 2),
        ((14, 9), 0.7, 3),
        ((40, 40), 1, 32),
        ((5, 70), 1, 8),
        ((50, 1), 1, 16),
        ((1, 50), 0.8, 16),
        ((1, 1), 0.5, 2),
    ],
)
def test_energies_are_those_of_the_formulas(name, shape, scale, patch_size):
    image = noise(*shape)
    # not the same everywhere
    image[: shape[0] // 2] //= 3
    image[:, : shape[1] // 3, 1] = 50
    energy = ENERGIES[name](image.copy(), scale, patch_size)
    expected = REFERENCES[name](image, scale, patch_size)
    assert energy.dtype == np.float32
    assert energy.shape == expected.shape
    # where no patch fits it is exactly 0, elsewhere not
    np.testing.assert_array_equal(energy > 0, expected > 0)
    # The code's float32 has 24 bits. Sums up to 765, less a mean near them,
    # leave an error near 1e-4 of differences of tens to hundreds.
    np.testing.assert_allclose(
        energy, expected, rtol=1e-5, atol=2e-6 * expected.max()
    )


@pytest.mark.parametrize('name', list(ENERGIES))
def test_one_color_has_no_energy(name):
    rng = np.random.default_rng(0)
    for patch_size in (2, 15, 16, 32):
        for scale in SCALES:
            color = rng.integers(0, 256, 3)
            energy = ENERGIES[name](flat(80, 90, color), scale, patch_size)
            assert not energy.any(), (color, patch_size, scale)


@pytest.mark.parametrize('name', list(ENERGIES))
def test_energy_beside_strong_contrast(name):
    # as a photograph with a black bar below
    rng = np.random.default_rng(0)
    image = np.zeros((200, 130, 3), np.uint8)
    stripes = np.where(np.arange(130) // 2 % 2, 255, 0)[:, None]
    image[:100] = np.clip(stripes + rng.integers(-9, 9, (100, 130, 3)), 0, 255)
    image[66:100] = rng.integers(0, 2, (34, 130, 3))
    for scale in (1, 0.8):
        for patch_size in (16, 64):
            energy = ENERGIES[name](image, scale, patch_size)
            assert energy.max() > 0
            assert energy.min() == 0
    for seed in range(5):
        sample_seed_patches(
            Images([image]), 1, 64, (1.0,), name, random_seed=seed
        )


@pytest.mark.parametrize('name', list(ENERGIES))
def test_every_place_with_energy_admits_the_patch(tmp_path, name):
    rng = np.random.default_rng(0)
    path = tmp_path / 'a.npz'
    places = 0
    for _ in range(120):
        patch_size = int(rng.integers(2, 49))
        scale = float(rng.choice([1, 0.8, 0.512, rng.uniform(0.15, 1)]))
        smallest = patch_size / scale
        height, width = (
            smallest * rng.uniform(0.8, 2.5, 2) + rng.integers(0, 9)
        ).astype(int)
        image = noise(max(height, 1), max(width, 1))
        energy = ENERGIES[name](image, scale, patch_size)
        rows, columns = np.nonzero(energy)
        if not len(rows):
            continue
        # all rows and columns that come, not every pair of them
        found = [np.unique(columns), np.unique(rows)]
        count = max(map(len, found))
        indices = np.stack([np.resize(f, count) for f in found], 1)
        # patches of the gradient are around corners of pixels if they have
        # an even side
        middle = 0.0 if name == 'gradient' and patch_size % 2 == 0 else 0.5
        size = np.array([width, height])
        centers = (indices + middle) * (size / energy.shape[::-1])
        for side, scaled in zip(
            centers.T, (width * scale, height * scale), strict=True
        ):
            starts = side * scale - patch_size / 2
            # a pixel may be lost where the image's size is rounded
            assert starts.min() >= -1
            assert starts.max() <= scaled - patch_size + 1
        SeedPatches(
            ['a'],
            size[None],
            np.zeros(count, np.int64),
            centers,
            np.full(count, scale),
            patch_size,
        ).save(path)
        seed_patches = SeedPatches.load(path)
        for center in seed_patches.centers:
            _, valid = cut_window(
                image,
                center,
                seed_patches.scales[0],
                patch_size,
                patch_size + 8,
            )
            assert max(valid[:2]) <= 4
            assert min(valid[2:]) >= patch_size + 4
            places += 1
    assert places > 500


def sampled(images, num_exemplars, **kwargs):
    return sample_seed_patches(Images(images), num_exemplars, **kwargs)


def equal(one, other):
    assert one.keys == other.keys
    assert one.made_by == other.made_by
    for name in ('sizes', 'images', 'centers', 'scales'):
        np.testing.assert_array_equal(
            getattr(one, name), getattr(other, name), name
        )
    return True


def likely(observed, shares):
    """Whether counts are as expected; the settings are fixed."""
    expected = np.asarray(shares) / np.sum(shares) * np.sum(observed)
    assert expected.min() >= 5, 'too few for the test'
    return chisquare(observed, expected).pvalue > 1e-3


def test_images_are_drawn_alike():
    """Whatever their energy is, each at most once, in any order."""
    images = [
        noise(48, 48, 2, 0.5),
        noise(44, 60, 3),
        flat(50, 50),
        noise(52, 46, 4, 0.05),
    ]
    energies = [reference_band_pass(image, 1, 16).mean() for image in images]
    assert max(energies) > 50 * min(e for e in energies if e)
    drawn = dict.fromkeys(itertools.permutations((0, 1, 3), 2), 0)
    for seed in range(300):
        seed_patches = sampled(
            images, 2, patch_size=16, scales=(1.0,), random_seed=seed
        )
        drawn[
            tuple(int(seed_patches.keys[i]) for i in seed_patches.images)
        ] += 1
    assert likely(list(drawn.values()), np.ones(6))


def test_images_may_be_drawn_several_times():
    """Each is then there as often as it may be drawn."""
    images = [noise(96, 96, 1), noise(96, 96, 2, 0.6)]
    drawn = dict.fromkeys(itertools.product((0, 1), repeat=2), 0)
    for seed in range(300):
        seed_patches = sampled(
            images,
            2,
            patch_size=16,
            scales=(1.0,),
            max_per_image=2,
            random_seed=seed,
        )
        drawn[
            tuple(int(seed_patches.keys[i]) for i in seed_patches.images)
        ] += 1
    # of four slots, then of the three that are left
    assert likely(
        [drawn[0, 0] + drawn[1, 1], drawn[0, 1], drawn[1, 0]], [1] * 3
    )
    assert likely([drawn[0, 0], drawn[1, 1]], [1] * 2)


def test_scales_are_uniform_among_those_that_fit():
    # at 0.64 and 0.512 the cells of 64 pixels are too few for a patch
    images = [noise(64, 70, i) for i in range(300)]
    images += [noise(96, 97, i) for i in range(300)]
    for image, fitting in ((images[0], 2), (images[-1], 4)):
        energies = [reference_band_pass(image, s, 32) for s in SCALES]
        assert [e.any() for e in energies] == [i < fitting for i in range(4)]
    seed_patches = sampled(images, 600)
    assert sorted(seed_patches.images) == list(range(600))
    large = np.array([int(key) >= 300 for key in seed_patches.keys])[
        seed_patches.images
    ]
    for chosen, fitting in ((~large, 2), (large, 4)):
        scales = seed_patches.scales[chosen]
        counts = [(scales == np.float32(s)).sum() for s in SCALES]
        assert sum(counts) == 300
        assert sum(counts[fitting:]) == 0
        assert likely(counts[:fitting], np.ones(fitting))


# places on a line of the grid belong to one side, whatever rounding did
TINY = 1e-5


def place_shares(image, name, scale, patch_size, grid):
    """Share of the energy in each cell of a coarse grid of the image."""
    energy = REFERENCES[name](image, scale, patch_size)
    middle = 0.0 if name == 'gradient' and patch_size % 2 == 0 else 0.5
    shares = np.zeros(grid)
    for row, column in np.argwhere(energy > 0):
        y = (row + middle) / energy.shape[0] + TINY
        x = (column + middle) / energy.shape[1] + TINY
        shares[int(y * grid[0]), int(x * grid[1])] += energy[row, column]
    return shares / shares.sum()


def place_counts(seed_patches, size, grid):
    height, width = size
    counts = np.zeros(grid)
    for x, y in seed_patches.centers.tolist():
        y, x = y / height + TINY, x / width + TINY
        counts[int(y * grid[0]), int(x * grid[1])] += 1
    return counts


@pytest.mark.parametrize(
    ('name', 'scale', 'patch_size'),
    [
        ('band_pass', 1.0, 16),
        ('band_pass', 0.64, 16),
        ('gradient', 1.0, 16),
        ('gradient', 0.8, 15),
    ],
)
def test_places_are_drawn_in_proportion_to_the_energy(name, scale, patch_size):
    # wide, and with more to see in the upper right
    height, width = 64, 104
    image = noise(height, width)
    slope = np.linspace(0.2, 1, width) * np.linspace(1, 0.4, height)[:, None]
    image = (slope[..., None] * image).astype(np.uint8)
    # once in each of many images
    seed_patches = sampled(
        [image] * 700,
        700,
        patch_size=patch_size,
        scales=(scale,),
        energy=name,
    )
    grid = (4, 6)
    shares = place_shares(image, name, scale, patch_size, grid)
    counts = place_counts(seed_patches, (height, width), grid)
    often = shares * 700 >= 5
    assert often.sum() >= 6
    assert counts[shares == 0].sum() == 0
    assert likely(
        [*counts[often], counts[~often].sum() + 10],
        [*shares[often] * 700, shares[~often].sum() * 700 + 10],
    )


@pytest.mark.parametrize('patch_size', [8, 9])
def test_patches_of_the_gradient_begin_anywhere(patch_size):
    # as steep everywhere, in one row of patches
    width = 30
    ramp = np.tile(np.arange(width) * 5, (patch_size, 1)).astype(np.uint8)
    image = np.repeat(ramp[..., None], 3, 2)
    seed_patches = sampled(
        [image] * 600,
        600,
        patch_size=patch_size,
        scales=(1.0,),
        energy='gradient',
    )
    starts = []
    for center in seed_patches.centers:
        patch, _ = cut_window(image, center, 1, patch_size, patch_size)
        starts.append(patch[0, 0, 0] // 5)
    counts = np.bincount(starts, minlength=width - patch_size + 1)
    assert len(counts) == width - patch_size + 1
    assert likely(counts, np.ones_like(counts))


def test_which_image_and_where_are_independent():
    image = noise(96, 96, 5)
    shares = place_shares(image, 'band_pass', 1.0, 32, (6, 1)).ravel()
    other = [noise(96, 96, 6)]
    for images, key in (
        ([image, *other], '000'),
        ([*other, image], '001'),
    ):
        counts = np.zeros(6)
        for seed in range(300):
            seed_patches = sampled(images, 1, scales=(1.0,), random_seed=seed)
            if seed_patches.keys == [key]:
                counts += place_counts(seed_patches, (96, 96), (6, 1)).ravel()
        often = shares > 0.05
        assert counts[~often].sum() < 0.1 * counts.sum()
        assert likely(counts[often], shares[often]), key


def mixed():
    """Images of different sizes, some with room for one seed only."""
    images = [noise(48, 48, i) for i in range(5)]
    images += [noise(140, 200, i, 0.4) for i in range(3)]
    images += [noise(200, 90, 9, 0.4), flat(70, 70), noise(20, 90)]
    return images


def test_the_same_seed_gives_the_same_whatever_the_threads(monkeypatch):
    settings = dict(num_exemplars=40, patch_size=32, max_per_image=12)
    known = sampled(mixed(), random_seed=3, **settings)
    for threads in (1, 2, 7):
        monkeypatch.setattr(os, 'cpu_count', lambda n=threads: n)
        assert equal(sampled(mixed(), random_seed=3, **settings), known)
    other = sampled(mixed(), random_seed=4, **settings)
    assert not np.array_equal(known.centers, other.centers)
    assert not np.array_equal(known.images, other.images)
    # what is drawn in an image does not depend on the state of NumPy
    np.random.seed(0)
    assert equal(sampled(mixed(), random_seed=3, **settings), known)


def check_seeds(seed_patches, images, max_per_image):
    """Places within, apart, and not too many an image."""
    used = [int(key) for key in seed_patches.keys]
    assert sorted(set(seed_patches.images)) == list(range(len(used)))
    assert len(set(used)) == len(used)
    for i, index in enumerate(used):
        assert seed_patches.sizes[i].tolist() == [*images[index].shape[1::-1]]
        mine = np.flatnonzero(seed_patches.images == i)
        assert len(mine) <= max_per_image
        for one, other in itertools.combinations(mine, 2):
            apart = abs(
                seed_patches.centers[one] - seed_patches.centers[other]
            ).max()
            side = seed_patches.patch_size / max(
                seed_patches.scales[[one, other]]
            )
            # of float32 numbers
            assert apart >= side / 2 - 1e-3
    reach = (seed_patches.patch_size / 2 / seed_patches.scales)[:, None]
    assert (seed_patches.centers >= reach - 1).all()
    assert (
        seed_patches.centers + reach
        <= seed_patches.sizes[seed_patches.images] + 1
    ).all()
    assert (
        seed_patches.centers.dtype == seed_patches.scales.dtype == np.float32
    )
    assert seed_patches.images.dtype == np.int64


@pytest.mark.parametrize('name', list(ENERGIES))
@pytest.mark.parametrize(
    # all that there are of one and of two an image
    ('num_exemplars', 'most'),
    [(9, 1), (13, 2), (40, 12), (60, 40)],
)
def test_seeds_are_apart_and_as_many_as_asked_for(name, num_exemplars, most):
    images = mixed()
    for seed in range(4):
        seed_patches = sampled(
            images,
            num_exemplars,
            energy=name,
            max_per_image=most,
            random_seed=seed,
        )
        assert len(seed_patches) == len(seed_patches.images) == num_exemplars
        check_seeds(seed_patches, images, most)


@pytest.mark.parametrize('name', list(ENERGIES))
def test_no_place_is_left_when_no_more_are_found(name):
    image = noise(60, 75)
    settings = dict(
        patch_size=16,
        scales=(1.0, 0.64),
        energy=name,
        max_per_image=500,
        random_seed=2,
    )
    with pytest.raises(ValueError, match='there are only') as error:
        sampled([image], 400, **settings)
    (found,) = re.findall(r'only (\d+)', str(error.value))
    seed_patches = sampled([image], int(found), **settings)
    check_seeds(seed_patches, [image], 500)
    assert set(seed_patches.scales) == {np.float32(1), np.float32(0.64)}
    for scale in settings['scales']:
        energy = REFERENCES[name](image, scale, 16)
        middle = 0.0 if name == 'gradient' else 0.5
        for row, column in np.argwhere(energy > 0):
            place = np.array([column, row]) + middle
            place *= np.array([75, 60]) / energy.shape[::-1]
            apart = abs(seed_patches.centers - place).max(1)
            half = 8 / np.maximum(seed_patches.scales, scale)
            assert (apart < half + 1e-3).any()


def test_too_few_images():
    images = [*(noise(48, 48, i) for i in range(3)), flat(60, 60)]
    with pytest.raises(
        ValueError, match='7 seed patches were asked for'
    ) as error:
        sampled(images, 7, max_per_image=2)
    message = str(error.value)
    assert 'only 6: 4 images, 3 of which' in message
    assert 'at most 2 an image' in message
    for remedy in ('fewer', 'add images', 'max_per_image', 'below 32'):
        assert remedy in message
    # who asks for what the message says gets there: each of the three has
    # room for one
    wanted = 7
    while True:
        try:
            seed_patches = sampled(images, wanted, max_per_image=2)
        except ValueError as error:
            (found,) = re.findall(r'only (\d+): 4 images', str(error))
            assert 3 <= int(found) < wanted
            wanted = int(found)
        else:
            break
    assert wanted == 3
    assert sorted(seed_patches.keys) == ['000', '001', '002']


@pytest.mark.parametrize('name', list(ENERGIES))
def test_images_without_a_patch_are_named(log, name):
    without = [
        flat(96, 80),
        flat(50, 50, 0),
        flat(70, 60, 255),
        noise(20, 90),
        noise(90, 31),
        noise(200, 1),
        noise(1, 200),
        noise(1, 1),
    ]
    images = [noise(64, 64, 1), *without, noise(64, 64, 2)]
    seed_patches = sampled(images, 2, energy=name)
    assert sorted(seed_patches.keys) == ['000', '009']
    check_seeds(seed_patches, images, 1)
    text = log.read_text()
    assert 'WARNING' in text
    assert '8 images give no patch of 32 pixels' in text
    lines = [line.strip() for line in text.splitlines()]
    assert lines[1:9] == [
        f'{i + 1:03d} ({p.shape[1]}x{p.shape[0]})'
        for i, p in enumerate(without)
    ]
    assert "can't be read" not in text
    # not even if there are no others
    with pytest.raises(
        ValueError, match=r'3 seed patches .* only 2: 10 images, 2'
    ):
        sampled(images, 3, energy=name)


def test_not_all_of_many_are_named(log):
    sampled([noise(64, 64), *(flat(40, 30 + i) for i in range(27))], 1)
    lines = [line.strip() for line in log.read_text().splitlines()]
    assert '27 images give no patch' in lines[0]
    assert lines[1:21] == [f'{i + 1:03d} ({30 + i}x40)' for i in range(20)]
    assert lines[21] == 'and 7 more'


def test_nothing_is_said_of_good_images(log):
    sampled([noise(64, 64)], 1)
    assert log.read_text() == ''


def test_gray_images():
    gray = [noise(70, 64, i)[..., 0] for i in range(6)]
    for name in ENERGIES:
        settings = dict(patch_size=16, energy=name, max_per_image=3)
        seed_patches = sampled(gray, 12, **settings)
        color = [np.repeat(g[..., None], 3, 2) for g in gray]
        assert equal(seed_patches, sampled(color, 12, **settings))


def folder_of(path, count):
    path.mkdir()
    for i in range(count):
        Image.fromarray(noise(64, 70 + i, i)).save(path / f'ö {i}.jpg')
    return path


def loaded(folder, **kwargs):
    return ImageFolder(
        str(folder),
        pipeline=[dict(type='mm_rotssl.LoadIntactImage')],
        **kwargs,
    )


def test_files(tmp_path, log):
    folder = folder_of(tmp_path / 'a', 6)
    content = (folder / 'ö 1.jpg').read_bytes()
    (folder / 'ö 1.jpg').write_bytes(content[: len(content) // 2])
    (folder / 'empty.png').write_bytes(b'')
    (folder / 'text.png').write_text('text')
    seed_patches = sample_seed_patches(loaded(folder), 5)
    assert seed_patches.keys == [f'ö {i}.jpg' for i in (0, 2, 3, 4, 5)]
    assert seed_patches.sizes.tolist() == [
        [70 + i, 64] for i in (0, 2, 3, 4, 5)
    ]
    assert seed_patches.made_by == dict(
        num_exemplars=5,
        scales=list(SCALES),
        energy='band_pass',
        max_per_image=1,
        random_seed=0,
        images_looked_at=8,
    )
    text = log.read_text()
    assert "3 images can't be read and are left out" in text
    for name in ('ö 1.jpg: the file is truncated', 'empty.png', 'text.png'):
        assert f'{folder}/{name}' in text
    assert 'give no patch' not in text
    with pytest.raises(ValueError, match='only 5: 8 images, 5 of which'):
        sample_seed_patches(loaded(folder), 6)
    # what was decoded is what was measured
    images = [cv2.imread(str(folder / key)) for key in seed_patches.keys]
    again = sample_seed_patches(Images(images), 5)
    assert again.sizes.tolist() == seed_patches.sizes.tolist()
    # a list that is not read yet, and one in another folder
    assert equal(
        sample_seed_patches(loaded(folder, lazy_init=True), 5), seed_patches
    )
    folder.rename(tmp_path / 'b')
    assert equal(sample_seed_patches(loaded(tmp_path / 'b'), 5), seed_patches)


def test_only_broken_files(tmp_path, log):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a/1.png').write_bytes(b'')
    with pytest.raises(
        ValueError, match=r'1 seed patches .* only 0: 1 images, 0'
    ):
        sample_seed_patches(loaded(tmp_path / 'a'), 1)
    assert '1.png' in log.read_text()


def test_equal_images_without_a_name(tmp_path):
    """They have the same key; as two classes they would show the same."""
    one, other = noise(64, 64, 1), noise(64, 64, 2)
    data = Images([one, other, one, one], named=False)
    seed_patches = sample_seed_patches(data, 2)
    assert len(set(seed_patches.keys)) == 2
    seed_patches.save(tmp_path / 'a.npz')
    assert equal(SeedPatches.load(tmp_path / 'a.npz'), seed_patches)
    with pytest.raises(ValueError, match='only 2'):
        sample_seed_patches(data, 3)


def test_digits():
    data = Digits(size=48, indices=range(60))
    seed_patches = sample_seed_patches(data, 50, scales=(1.0,))
    names = [data.get_data_info(i)['img_path'] for i in range(60)]
    assert set(seed_patches.keys) <= set(names)
    assert len(seed_patches.keys) == 50
    assert seed_patches.sizes.tolist() == [[48, 48]] * 50
    # the two by two cells in which the patch fits
    assert set(seed_patches.centers.ravel().tolist()) == {22, 26}


@pytest.mark.parametrize(
    ('settings', 'say'),
    [
        (dict(num_exemplars=0), 'num_exemplars=0'),
        (dict(num_exemplars=-3), 'num_exemplars=-3'),
        (dict(max_per_image=0), 'max_per_image=0'),
        (dict(patch_size=1), 'patch_size=1'),
        (dict(patch_size=-32), 'patch_size=-32'),
        (dict(scales=()), r'scales=\(\)'),
        (dict(scales=(1.0, 0)), r'scales=\(1.0, 0\)'),
        (dict(scales=[0.5, -1]), r'scales=\(0.5, -1\)'),
        (dict(scales=(1.5,)), r'scales=\(1.5,\).*at most 1'),
        (dict(scales=(float('nan'),)), 'scales='),
        (dict(energy='gradients'), "'gradients'.*'band_pass', 'gradient'"),
    ],
)
def test_settings_that_make_no_sense(settings, say):
    with pytest.raises(ValueError, match=say):
        sampled([noise(64, 64)], **dict(dict(num_exemplars=1), **settings))
