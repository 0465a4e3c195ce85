from typing import Any

import cv2
import numpy as np
from mmengine.dataset import BaseDataset
from sklearn.datasets import load_digits

from mm_rotssl.registry import DATASETS


@DATASETS.register_module()
class Digits(BaseDataset):
    """The 1,797 real handwritten digits that scikit-learn ships.

    Without a download and small enough for memory: for trying an algorithm in
    a minute. The 8x8 images are scaled to ``size``, bilinearly, with three
    equal channels, so that any pipeline and backbone takes them.

    Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten
    Digits*, UCI Machine Learning Repository, 1998, test part; see
    :func:`sklearn.datasets.load_digits`.

    Args:
        split (str): 'train' (1,438 images), or 'val' (359), which is every
            fifth image of the original order. Both hold all ten classes.
            Defaults to 'train'.
        size (int): Side of the images in pixels. Defaults to 32.
        **kwargs: Other arguments of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        ValueError: If ``split`` is neither 'train' nor 'val', or ``size`` not
            positive.
    """

    METAINFO = dict(classes=tuple(str(digit) for digit in range(10)))

    def __init__(
        self, split: str = 'train', size: int = 32, **kwargs: Any
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split='{split}' of Digits: 'train' or 'val'.")
        if size < 1:
            raise ValueError(f'size={size} of Digits must be positive.')
        self.split = split
        self.size = size
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Make the images of the split.

        Returns:
            list[dict]: ``img``, uint8 (size, size, 3); ``gt_label``, int;
            and ``img_path``, the name of an image, which is no file.
        """
        images, labels = load_digits(return_X_y=True)
        # scikit-learn's gray values are 0..16
        images = images.reshape(-1, 8, 8).astype(np.float32) * (255 / 16)
        data_list = []
        for number, (image, label) in enumerate(
            zip(images, labels, strict=True)
        ):
            if (number % 5 == 4) == (self.split == 'val'):
                gray = cv2.resize(
                    image,
                    (self.size, self.size),
                    interpolation=cv2.INTER_LINEAR,
                )
                gray = np.rint(gray).astype(np.uint8)
                data_list.append(
                    dict(
                        img=np.repeat(gray[..., None], 3, axis=2),
                        img_path=f'digits/{number:04d}',
                        gt_label=int(label),
                    )
                )
        return data_list
