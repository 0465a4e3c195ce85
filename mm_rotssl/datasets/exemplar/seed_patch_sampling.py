"""Find the seed patches of Exemplar-CNN in images."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from rich.progress import track

from ..image_keys import image_keys
from ..transforms.loading import BrokenImageError
from .seed_patches import SeedPatches, load_image, scaled_image

# scales of the authors' code
SCALES = (1.0, 0.8, 0.64, 0.512)
MAX_NAMED = 20


def _without_noise(energy: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Set to 0 what is only a rounding error; overwrites the array."""
    # of 8 bits; real numbers may have any unit
    unit = 1.0 if image.dtype == np.uint8 else float(abs(image).max()) / 255
    energy[energy < 1e-3 * unit**2] = 0
    return energy


def band_pass_energy(
    image: np.ndarray, scale: float, patch_size: int
) -> np.ndarray:
    """Band-pass energy of an image, as in the authors' code.

    Every fourth pixel of the image is taken and the result is scaled; the
    sum of the channels minus its Gaussian mean is squared and smoothed by a
    Gaussian; then a border in which a patch would not fit is set to 0. A
    patch of 32 pixels covers 8x8 of these cells; for other sizes the step of
    four pixels changes in proportion.

    Source: Dosovitskiy et al. (https://arxiv.org/abs/1406.6909), code. Its
    paper says "squared gradient magnitude", see :func:`squared_gradient`.

    Args:
        image (ndarray): uint8 or float32 (H, W, C).
        scale (float): Of the patches, see :class:`SeedPatches`.
        patch_size (int): Side of the patches in pixels.

    Returns:
        ndarray: float32 (h, w), not negative: one number for each cell. All 0
        if the image is too small.
    """
    step = max(1, patch_size // 8)
    cells = scaled_image(np.ascontiguousarray(image[::step, ::step]), scale)
    total = cells.sum(2, dtype=np.float32)
    across = patch_size / step
    fine = cv2.GaussianBlur(total, (0, 0), across / 4)
    sigma = min(across / 4, total.shape[0] / 4)
    energy = cv2.GaussianBlur((total - fine) ** 2, (0, 0), sigma)
    border = math.ceil(across / 2) + 1
    inside = np.zeros_like(energy)
    inner = slice(border, -border)
    inside[inner, inner] = energy[inner, inner]
    return _without_noise(inside, image)


def squared_gradient(
    image: np.ndarray, scale: float, patch_size: int
) -> np.ndarray:
    """Mean squared gradient of the patch around each pixel.

    Source: Dosovitskiy et al. (https://arxiv.org/abs/1406.6909), section
    2.1, which does not name a channel: here it is the gradient of the mean of
    the channels, by central differences.

    Args:
        image (ndarray): uint8 or float32 (H, W, C).
        scale (float): Of the patches, see :class:`SeedPatches`.
        patch_size (int): Side of the patches in pixels.

    Returns:
        ndarray: float32 (h, w), one number for each pixel of the scaled
        image; 0 where the patch would not fit.
    """
    gray = scaled_image(image, scale).mean(2, dtype=np.float32)
    inside = np.zeros_like(gray)
    height, width = gray.shape
    if min(height, width) < max(2, patch_size):
        return inside
    down, across = np.gradient(gray)
    half = patch_size // 2
    mean = cv2.boxFilter(
        down**2 + across**2, -1, (patch_size,) * 2, anchor=(half, half)
    )
    # the patch around x covers x - half .. x - half + patch_size - 1
    inner = (
        slice(half, height - patch_size + half + 1),
        slice(half, width - patch_size + half + 1),
    )
    inside[inner] = mean[inner]
    return _without_noise(inside, image)


# name -> function, and offset of a patch's center in its cell: the patches of
# `squared_gradient` begin at whole pixels, so those of an even size have their
# center at the corner of a pixel
ENERGIES: dict[str, tuple[Callable, float]] = {
    'band_pass': (band_pass_energy, 0.5),
    'gradient': (squared_gradient, 0.0),
}


class _Sampler:
    """State of the sampling of seed patches from the images of a dataset."""

    def __init__(
        self,
        dataset: BaseDataset,
        patch_size: int,
        scales: Sequence[float],
        energy: str,
        random_seed: int,
        progress: bool,
    ) -> None:
        self.dataset = dataset
        self.keys = image_keys(dataset)
        self.patch_size = patch_size
        self.scales = tuple(scales)
        self.measure, self.offset = ENERGIES[energy]
        if energy == 'gradient':
            # patches of an odd size have it in the middle of a pixel
            self.offset += patch_size % 2 / 2
        self.random_seed = random_seed
        self.progress = progress
        self.sizes = np.zeros((len(self.keys), 2), np.int32)
        self.broken: list[str] = []
        # index of an image -> x, y and scale of its seed patches so far
        self.taken: dict[int, list[tuple[float, float, float]]] = {}
        self.energies = np.array(
            self._map(
                self._mean_energies,
                list(range(len(self.keys))),
                'looking at images',
            )
        ).reshape(-1, len(self.scales))
        self._report()
        # images that are named by their pixels may be equal: only the first
        # of them gives seed patches, so that no two classes are the same
        _, first = np.unique(self.keys, return_index=True)
        again = np.ones(len(self.keys), bool)
        again[first] = False
        self.energies[again] = 0

    def _map(
        self, function: Callable[[Any], Any], items: list, title: str
    ) -> list:
        # threads suffice: decoding and filtering release the GIL
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            found = threads.map(function, items)
            return list(
                track(
                    found,
                    title,
                    total=len(items),
                    disable=not self.progress,
                )
            )

    def _load(self, index: int) -> np.ndarray:
        return load_image(self.dataset, index)

    def _mean_energies(self, index: int) -> list[float]:
        try:
            image = self._load(index)
        except BrokenImageError as error:
            self.broken.append(str(error))
            return [0.0] * len(self.scales)
        self.sizes[index] = image.shape[1::-1]
        return [
            float(self.measure(image, scale, self.patch_size).mean())
            for scale in self.scales
        ]

    def _report(self) -> None:
        """Name the images that give no patch."""
        empty = np.flatnonzero(~self.energies.any(1) & (self.sizes.min(1) > 0))
        for title, lines in (
            ("images can't be read and are left out", self.broken),
            (
                f'images give no patch of {self.patch_size} pixels and are '
                'left out: they are too small, or of one color',
                [
                    '{} ({}x{})'.format(self.keys[i], *self.sizes[i])
                    for i in empty
                ],
            ),
        ):
            if lines:
                more = len(lines) - MAX_NAMED
                print_log(
                    f'{len(lines)} {title}:\n  '
                    + '\n  '.join(sorted(lines)[:MAX_NAMED])
                    + (f'\n  and {more} more' if more > 0 else ''),
                    'current',
                    logging.WARNING,
                )

    def draw(
        self, num_exemplars: int, max_per_image: int
    ) -> list[tuple[int, float, float, float]]:
        """Draw seed patches: image, x, y and scale of each."""
        rng = np.random.default_rng(self.random_seed)
        usable = self.energies[:, int(np.argmax(self.scales))] > 0
        left = np.where(usable, max_per_image, 0)
        drawn: list[tuple[int, float, float, float]] = []
        while len(drawn) < num_exemplars:
            # drawn without replacement from a list that holds each image as
            # often as it may still be drawn
            slots = np.repeat(np.arange(len(left)), left)
            missing = num_exemplars - len(drawn)
            if len(slots) < missing:
                raise ValueError(
                    f'{num_exemplars} seed patches were asked for, and there '
                    f'are only {len(drawn) + len(slots)}: {len(self.keys)} '
                    f'images, {usable.sum()} of which are readable and '
                    f'large enough, at most {max_per_image} an image. Ask for '
                    'fewer, add images, raise max_per_image or take a '
                    f'patch_size below {self.patch_size}.'
                )
            chosen = rng.choice(slots, missing, replace=False)
            images, counts = np.unique(chosen, return_counts=True)
            found = dict(
                zip(
                    images.tolist(),
                    self._map(
                        self._places,
                        list(zip(images.tolist(), counts, strict=True)),
                        'drawing seed patches',
                    ),
                    strict=True,
                )
            )
            left[images] -= counts
            for index, count in zip(images.tolist(), counts, strict=True):
                self.taken.setdefault(index, []).extend(found[index])
                if len(found[index]) < count:
                    left[index] = 0
            drawn += [
                (index, *found[index].pop(0))
                for index in chosen.tolist()
                if found[index]
            ]
        return drawn

    def _places(
        self, what: tuple[int, int]
    ) -> list[tuple[float, float, float]]:
        """Draw x, y and scale of the seed patches of an image."""
        index, count = what
        taken = list(self.taken.get(index, ()))
        before = len(taken)
        # The 1 keeps this apart from the generator of draw(): NumPy treats
        # (seed, 0, 0) and (seed,) as the same seed.
        rng = np.random.default_rng((self.random_seed, 1, index, before))
        image = self._load(index)
        height, width = image.shape[:2]
        scales = [
            scale
            for scale, energy in zip(
                self.scales, self.energies[index], strict=True
            )
            if energy > 0
        ]
        while scales and len(taken) < before + count:
            scale = scales[rng.integers(len(scales))]
            energy = self.measure(image, scale, self.patch_size)
            energy = energy.astype(np.float64)
            x = (np.arange(energy.shape[1]) + self.offset) * (
                width / energy.shape[1]
            )
            y = (np.arange(energy.shape[0]) + self.offset) * (
                height / energy.shape[0]
            )
            for other_x, other_y, other_scale in taken:
                near = self.patch_size / 2 / max(scale, other_scale)
                energy[
                    np.ix_(abs(y - other_y) < near, abs(x - other_x) < near)
                ] = 0
            total = energy.sum()
            if not total:
                scales.remove(scale)
                continue
            place = rng.choice(energy.size, p=energy.ravel() / total)
            row, column = divmod(int(place), energy.shape[1])
            taken.append((float(x[column]), float(y[row]), scale))
        return taken[before:]


def sample_seed_patches(
    dataset: BaseDataset,
    num_exemplars: int,
    patch_size: int = 32,
    scales: Sequence[float] = SCALES,
    energy: str = 'band_pass',
    max_per_image: int = 1,
    random_seed: int = 0,
    progress: bool = False,
) -> SeedPatches:
    """Sample seed patches where images have structure.

    As in the authors' code images are drawn uniformly, each at most
    ``max_per_image`` times, a scale uniformly, and the place in proportion
    to the energy there. (Their code weighs images by their energy, but those
    that it weighs were drawn uniformly before, and each of them is used.)
    Images that have none at the largest scale are left out. In datasets of
    images of different sizes a scale is drawn from those at which the image
    is large enough.

    The centers of two seed patches of an image are at least half the smaller
    patch apart along one axis, so that no two classes show the same.

    Args:
        dataset (BaseDataset): The images; its pipeline loads ``img``,
            uint8 or float32 (H, W, C), and does no more.
        num_exemplars (int): Number of seed patches.
        patch_size (int): Their side in pixels. Defaults to 32.
        scales (Sequence[float]): See :class:`SeedPatches`. Defaults to the
            authors', powers of 0.8.
        energy (str): 'band_pass', that of the authors' code, or 'gradient',
            that of the paper. Defaults to 'band_pass'.
        max_per_image (int): Largest number of seed patches of an image.
            Defaults to 1, as in the authors' code.
        random_seed (int): Seed of the draws. Defaults to 0.
        progress (bool): Show a progress bar. Defaults to False.

    Returns:
        SeedPatches: In the order in which they were drawn.

    Raises:
        ValueError: If a setting is out of range, or fewer seed patches are
            possible than asked for.
    """
    if num_exemplars < 1 or max_per_image < 1 or patch_size < 2:
        raise ValueError(
            f'num_exemplars={num_exemplars} and max_per_image={max_per_image} '
            f'must be positive, patch_size={patch_size} at least 2.'
        )
    if not scales or not all(0 < scale <= 1 for scale in scales):
        raise ValueError(
            f'scales={tuple(scales)}: numbers above 0, at most 1; patches '
            'cover patch_size / scale pixels.'
        )
    if energy not in ENERGIES:
        raise ValueError(
            f"energy='{energy}': one of {', '.join(map(repr, ENERGIES))}."
        )
    sampler = _Sampler(
        dataset, patch_size, scales, energy, random_seed, progress
    )
    drawn = sampler.draw(num_exemplars, max_per_image)
    used, places = np.unique(
        [patch[0] for patch in drawn], return_inverse=True
    )
    return SeedPatches(
        keys=[sampler.keys[i] for i in used],
        sizes=sampler.sizes[used],
        images=places.astype(np.int64),
        centers=np.array([patch[1:3] for patch in drawn], np.float32),
        scales=np.array([patch[3] for patch in drawn], np.float32),
        patch_size=patch_size,
        made_by=dict(
            num_exemplars=num_exemplars,
            scales=list(scales),
            energy=energy,
            max_per_image=max_per_image,
            random_seed=random_seed,
            images_looked_at=len(sampler.keys),
        ),
    )
