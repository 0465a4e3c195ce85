"""What the worker processes do: from JPEG bytes to a batch."""

import io
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from images import write_images
from measure import Comparison, Result, divide, interleave
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import default_collate as torch_collate
from torchvision import transforms

CONFIG = 'configs/_base_/datasets/imagenet.py'
WIDTH, HEIGHT, CROP = 500, 375, 224


@register_backend('benchmark')
class Memory(BaseStorageBackend):
    """Files that are in memory: the disk is not what is measured."""

    files: dict[str, bytes] = {}

    def get(self, filepath: str) -> bytes:
        """Give the content of a file."""
        return self.files[filepath]

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Give the content of a text file."""
        return self.get(filepath).decode(encoding)


class Ours:
    """The training pipeline of the ImageNet config.

    Args:
        root: The checkout.
        paths: Names of the batch's images in :class:`Memory`.
    """

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.paths = paths
        config = Config.fromfile(root / CONFIG)
        config.train_pipeline[0].backend_args = dict(backend='benchmark')
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            self.pipeline = Compose(config.train_pipeline)

    def __call__(self) -> torch.Tensor:
        """Make the batch, uint8 (N, 3, 224, 224)."""
        return default_collate(
            [
                self.pipeline(dict(img_path=path, sample_idx=number))
                for number, path in enumerate(self.paths)
            ]
        )['inputs']


class Classic:
    """Four rotated copies from the worker, as RotNet's official code does.

    Args:
        paths: Names of the batch's images in :class:`Memory`.
        as_float: Convert and normalize each copy, as the official code does;
            otherwise leave it uint8.
    """

    def __init__(self, paths: list[str], as_float: bool = True) -> None:
        self.paths = paths
        self.augment = transforms.Compose(
            [
                transforms.RandomResizedCrop(CROP),
                transforms.RandomHorizontalFlip(),
                np.array,
            ]
        )
        self.convert = (
            transforms.Compose(
                [
                    transforms.ToTensor(),
                    transforms.Normalize(
                        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
                    ),
                ]
            )
            if as_float
            else lambda copy: torch.from_numpy(copy).permute(2, 0, 1)
        )

    def __call__(self) -> torch.Tensor:
        """Make the batch, float32 or uint8 (4 * N, 3, 224, 224)."""
        return torch_collate(
            [self.four_copies(path) for path in self.paths]
        ).flatten(0, 1)

    def four_copies(self, path: str) -> torch.Tensor:
        """Rotate one crop and convert each copy."""
        with Image.open(io.BytesIO(Memory.files[path])) as image:
            crop = self.augment(image.convert('RGB'))
        return torch.stack(
            [self.convert(np.rot90(crop, turns).copy()) for turns in range(4)]
        )


def data_path(
    root: Path, images: int, repetitions: int, quality: int
) -> Result:
    """CPU time of one process without threads, per image.

    Args:
        root: The checkout.
        images: Number of images in the batch.
        repetitions: How often each way makes the batch.
        quality: Of the JPEG files.

    Returns:
        Ours over decoding alone, and over the classic recipe.
    """
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = write_images(Path(folder), images, WIDTH, HEIGHT, quality)
            Memory.files = {path: Path(path).read_bytes() for path in paths}
            contents = list(Memory.files.values())

            def decode() -> None:
                for content in contents:
                    mmcv.imfrombytes(content)

            seconds = interleave(
                dict(
                    decode=decode,
                    ours=Ours(root, paths),
                    classic=Classic(paths),
                ),
                repetitions,
                time.process_time,
            )
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    return Result(
        settings=dict(
            config=CONFIG,
            images=images,
            width=WIDTH,
            height=HEIGHT,
            crop=CROP,
            quality=quality,
            repetitions=repetitions,
        ),
        figures={
            'kilobytes per image': statistics.mean(map(len, contents)) / 1e3,
            **{
                f'{name}, ms per image': 1e3
                * statistics.median(spent)
                / images
                for name, spent in seconds.items()
            },
        },
        comparisons=[
            Comparison(
                'CPU time of the data path / of JPEG decoding alone',
                divide(seconds['ours'], seconds['decode']),
                goal=1.3,
            ),
            Comparison(
                'CPU time of the data path / of the classic recipe',
                divide(seconds['ours'], seconds['classic']),
                goal=0.5,
            ),
        ],
    )


def worker_bytes(root: Path, images: int) -> Result:
    """Bytes of the images' tensors that a worker hands over, per image.

    Args:
        root: The checkout.
        images: Number of images in the batch.

    Returns:
        Ours over four rotated copies, in uint8 and in float32.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), images, WIDTH, HEIGHT, 90)
        Memory.files = {path: Path(path).read_bytes() for path in paths}
        sizes = {
            name: batch.numel() * batch.element_size() / images
            for name, batch in (
                ('ours', Ours(root, paths)()),
                ('four copies, uint8', Classic(paths, as_float=False)()),
                ('four copies, float32', Classic(paths)()),
            )
        }
    return Result(
        settings=dict(config=CONFIG, images=images, crop=CROP),
        figures={
            f'{name}, bytes per image': size for name, size in sizes.items()
        },
        comparisons=[
            Comparison(
                f'bytes that a worker sends / of {name}',
                [sizes['ours'] / sizes[name]],
                goal=goal,
            )
            for name, goal in (
                ('four copies, uint8', 1 / 4),
                ('four copies, float32', 1 / 16),
            )
        ],
    )
