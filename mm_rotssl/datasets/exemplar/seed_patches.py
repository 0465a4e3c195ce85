"""Seed patches of Exemplar-CNN: where they are, and the pixels around them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dataset import BaseDataset

from mm_rotssl.utils import open_arrays, write_arrays

TOOL = 'mm-rotssl sample-patches'


@dataclass(frozen=True)
class SeedPatches:
    """Seed patches of a set of images.

    Attributes:
        keys (list[str]): Names of the M images that hold a seed patch, see
            :func:`mm_rotssl.datasets.image_keys`.
        sizes (ndarray): Their widths and heights in pixels, int32 (M, 2).
        images (ndarray): For each of the N seed patches its place in ``keys``,
            int64 (N,).
        centers (ndarray): x and y of its center in pixels, from the corner
            of the image, float32 (N, 2).
        scales (ndarray): Factors by which the image is scaled before the patch
            is cut, float32 (N,): a patch covers ``patch_size / scale`` pixels.
        patch_size (int): Side of the patches in pixels.
        made_by (dict): Settings with which they were sampled, for the record.
    """

    keys: list[str]
    sizes: np.ndarray
    images: np.ndarray
    centers: np.ndarray
    scales: np.ndarray
    patch_size: int
    made_by: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def names(self) -> list[str]:
        """What tells each seed patch from any other, N strings.

        :func:`mm_rotssl.utils.fingerprint` makes one number of them.
        """
        return [
            f'{self.keys[image]} of {self.sizes[image].tolist()} pixels: '
            f'{self.patch_size} pixels around {center} at scale {scale}'
            for image, center, scale in zip(
                self.images.tolist(),
                # of the file's precision, whose digits are all shown
                self.centers.astype(np.float32).tolist(),
                self.scales.astype(np.float32).tolist(),
                strict=True,
            )
        ]

    def save(self, path: str | Path) -> None:
        """Write a ``.npz`` file without pickled objects.

        It appears when it is complete.

        Args:
            path (str | Path): The file.
        """
        write_arrays(
            path,
            # UTF-8, because NumPy's strings take four bytes a character
            keys=np.array(
                [key.encode(errors='surrogateescape') for key in self.keys]
            ),
            sizes=self.sizes.astype(np.int32),
            images=self.images.astype(np.int64),
            centers=self.centers.astype(np.float32),
            scales=self.scales.astype(np.float32),
            patch_size=np.array(self.patch_size),
            made_by=np.array(json.dumps(self.made_by)),
        )

    @classmethod
    def load(cls, path: str | Path) -> 'SeedPatches':
        """Read a file and check what is in it.

        Args:
            path (str | Path): The file.

        Returns:
            SeedPatches: Its content.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is no such file, holds no seed patch, an image
                comes twice, or a patch is not within its image.
        """
        with open_arrays(
            path,
            'Exemplar-CNN seed patches',
            TOOL,
            'have them sampled at the start with '
            'seed_patches=dict(num_exemplars=...)',
        ) as arrays:
            # the name in files written before 0.1.0
            images = 'pictures' if 'pictures' in arrays else 'images'
            seed_patches = cls(
                keys=[
                    key.decode(errors='surrogateescape')
                    for key in arrays['keys'].tolist()
                ],
                made_by=json.loads(str(arrays['made_by'])),
                patch_size=int(arrays['patch_size']),
                **{
                    field: arrays[name].astype(dtype, casting='same_kind')
                    for field, name, dtype in (
                        ('sizes', 'sizes', np.int32),
                        ('images', images, np.int64),
                        ('centers', 'centers', np.float32),
                        ('scales', 'scales', np.float32),
                    )
                },
            )
            seed_patches._check_arrays()
        seed_patches._check_places(path)
        return seed_patches

    def _check_arrays(self) -> None:
        count, total = len(self), len(self.keys)
        for name, shape in (
            ('sizes', (total, 2)),
            ('images', (count,)),
            ('centers', (count, 2)),
            ('scales', (count,)),
        ):
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f'{name} has the shape {getattr(self, name).shape}; '
                    f'{total} images and {count} seed patches make {shape}'
                )
        if not count:
            raise ValueError('it holds no seed patch')
        if len(set(self.keys)) != total:
            raise ValueError('an image is in it more than once')
        if self.images.min() < 0 or self.images.max() >= total:
            wrong = self.images[(self.images < 0) | (self.images >= total)]
            raise ValueError(f'a seed patch is in image {wrong[0]} of {total}')
        if self.patch_size < 1:
            raise ValueError(f'patch_size={self.patch_size}')

    def _check_places(self, path: str | Path) -> None:
        with np.errstate(divide='ignore', invalid='ignore'):
            reach = (self.patch_size / 2 / self.scales)[:, None]
            # the size of a scaled image is rounded by up to a pixel
            slack = 1 / self.scales[:, None]
            sizes = self.sizes[self.images]
            # written so that NaN is found, too
            good = (
                (self.scales[:, None] > 0)
                & np.isfinite(self.scales[:, None])
                & (self.centers - reach >= -slack)
                & (self.centers + reach <= sizes + slack)
            ).all(1)
        if not good.all():
            lines = [
                f'\n  seed patch {i}: scale {self.scales[i]:g}, center '
                f'{self.centers[i].tolist()}, image '
                f'{self.keys[self.images[i]]} of {sizes[i].tolist()} pixels'
                for i in np.flatnonzero(~good)[:5]
            ]
            raise ValueError(
                f'{(~good).sum()} patches in "{path}" reach out of their '
                'image:' + ''.join(lines)
            )


def load_image(dataset: BaseDataset, index: int) -> np.ndarray:
    """Load an image that seed patches are taken from.

    Args:
        dataset (BaseDataset): Its pipeline loads ``img`` and does no more.
        index (int): Which image.

    Returns:
        ndarray: uint8 or float32 (H, W, C); gray images have three equal
        channels.

    Raises:
        ValueError: If its values are of another type.
    """
    info = dataset.get_data_info(index)
    img: np.ndarray = dataset.pipeline(info)['img']
    if img.dtype not in (np.uint8, np.float32):
        raise ValueError(
            f'{info.get("img_path")} has {img.dtype} values. Set bit_depth of '
            'LoadIntactImage, which makes 8 bits of them, or to_float32=True.'
        )
    return np.repeat(img[..., None], 3, 2) if img.ndim == 2 else img


def scaled_image(image: np.ndarray, scale: float) -> np.ndarray:
    """Scale an image down, averaging over areas.

    Args:
        image (ndarray): uint8 (H, W, 3).
        scale (float): Above 0; 1 leaves it as it is.

    Returns:
        ndarray: uint8, its sides rounded to whole pixels.
    """
    if scale == 1:
        return image
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def cut_window(
    image: np.ndarray,
    center: np.ndarray,
    scale: float,
    patch_size: int,
    window_size: int,
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Cut a seed patch and its surroundings out of its image.

    The image is scaled once, as in the authors' code, and the window lies on
    whole pixels of the result: at scale 1 pixels are copied.

    Args:
        image (ndarray): uint8 (H, W, 3).
        center (ndarray): x and y of the patch's center in its pixels, (2,).
        scale (float): Scale of the patch.
        patch_size (int): Side of the patch in pixels.
        window_size (int): Side S of the window in pixels, odd if and only if
            ``patch_size`` is.

    Returns:
        tuple[ndarray, tuple[int, int, int, int]]: The window, uint8
        (S, S, 3), centered on the patch; and the part of it that is within
        the image: left, top, right, bottom. The rest repeats its edge.
    """
    height, width = image.shape[:2]
    image = scaled_image(image, float(scale))
    spans = []
    for middle, full, length in zip(
        center, (width, height), image.shape[1::-1], strict=True
    ):
        start = round(float(middle) * length / full - patch_size / 2)
        # rounding must not move the patch out of the image
        start = max(0, min(start, length - patch_size))
        start -= (window_size - patch_size) // 2
        spans.append((start, max(0, start), min(length, start + window_size)))
    (x, left, right), (y, top, bottom) = spans
    valid = left - x, top - y, right - x, bottom - y
    window = cv2.copyMakeBorder(
        image[top:bottom, left:right],
        valid[1],
        window_size - valid[3],
        valid[0],
        window_size - valid[2],
        cv2.BORDER_REPLICATE,
    )
    return window, valid
