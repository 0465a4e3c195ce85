"""Other versions of an image, for protocols that compare them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as TF


@dataclass(frozen=True)
class Rotations:
    """The image and its exact rotations by 90, 180 and 270 degrees.

    Counter-clockwise; no pixel is interpolated.
    """

    copies: int = 4

    def __call__(
        self, images: torch.Tensor, indices: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Make the versions.

        Args:
            images (Tensor): Not yet normalized, (N, C, H, W), any dtype.
            indices (Tensor): Their places in the dataset, int64 (N,).

        Yields:
            Tensor: A version of each image, (N, C, H, W) or (N, C, W, H).
        """
        for turns in range(self.copies):
            yield torch.rot90(images, turns, (2, 3))


@dataclass(frozen=True)
class RandomViews:
    """Random crops of an image, mirrored or not, brighter or darker.

    The same for every network: the draws depend on the seed and the image's
    place in the dataset alone. They are no algorithm's own views; none is
    favored by them.

    Args:
        copies (int): Number of views of an image.
        seed (int): Of the draws. Defaults to 0.
        area (tuple[float, float]): Share of the image's area that a crop
            has. Defaults to (0.2, 1.0).
        brightness (float): Pixels are multiplied by a factor within 1 ±
            this. Defaults to 0.4.
    """

    copies: int
    seed: int = 0
    area: tuple[float, float] = (0.2, 1.0)
    brightness: float = 0.4

    def __call__(
        self, images: torch.Tensor, indices: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Make the versions.

        Args:
            images (Tensor): Not yet normalized, (N, C, H, W), any dtype.
            indices (Tensor): Their places in the dataset, int64 (N,).

        Yields:
            Tensor: A version of each image, of the same shape and dtype.
        """
        for copy in range(self.copies):
            yield torch.stack(
                [
                    self._view(image, np.random.default_rng(seed))
                    for image, seed in zip(
                        images,
                        ((self.seed, copy, i) for i in indices.tolist()),
                        strict=True,
                    )
                ]
            )

    def _view(
        self, image: torch.Tensor, rng: np.random.Generator
    ) -> torch.Tensor:
        height, width = image.shape[1:]
        # a crop of the image's own aspect ratio always fits
        scale = rng.uniform(*self.area) ** 0.5
        crop = max(1, round(scale * height)), max(1, round(scale * width))
        top, left = (
            int(rng.integers(whole - part + 1))
            for whole, part in zip((height, width), crop, strict=True)
        )
        view = TF.resized_crop(
            image, top, left, *crop, [height, width], antialias=True
        )
        if rng.random() < 0.5:
            view = view.flip(-1)
        factor = rng.uniform(1 - self.brightness, 1 + self.brightness)
        brighter = view.float() * factor
        if image.dtype == torch.uint8:
            brighter = brighter.round().clamp(0, 255)
        return brighter.to(image.dtype)


Variant = Rotations | RandomViews
