"""JPEG files cut out of scikit-learn's two sample photographs."""

from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_images


def write_images(
    folder: Path, count: int, width: int, height: int, quality: int
) -> list[str]:
    """Write random cuts, never enlarged, half of them mirrored.

    Args:
        folder: Where to, created if missing.
        count: Number of files.
        width: Of every image, in pixels, at most 569.
        height: Of every image, in pixels, at most 427.
        quality: Of the JPEG files, 1 to 100.

    Returns:
        The paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    photographs = [
        cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR)
        for photograph in load_sample_images().images
    ]
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        full_height, full_width = photograph.shape[:2]
        zoom = rng.uniform(1, min(full_width / width, full_height / height))
        cut_width, cut_height = int(width * zoom), int(height * zoom)
        x = rng.integers(full_width - cut_width + 1)
        y = rng.integers(full_height - cut_height + 1)
        image = photograph[y : y + cut_height, x : x + cut_width]
        image = cv2.resize(
            image[:, :: rng.choice((-1, 1))],
            (width, height),
            interpolation=cv2.INTER_AREA,
        )
        paths.append(str(folder / f'{number:05d}.jpg'))
        cv2.imwrite(paths[-1], image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return paths
