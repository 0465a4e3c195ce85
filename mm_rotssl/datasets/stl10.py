from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from torchvision.datasets import stl10, utils

from mm_rotssl.registry import DATASETS

# axes in the files: channel, column, row
SHAPE = (3, 96, 96)
IMAGE_BYTES = 3 * 96 * 96
# images of each part, for messages only: a file may hold an excerpt
RELEASED = dict(train=5_000, test=8_000, unlabeled=100_000)
ARCHIVE = (
    f'{stl10.STL10.filename} from {stl10.STL10.url} (the STL-10 page of '
    "Stanford's Adam Coates)"
)


@DATASETS.register_module()
class STL10(BaseDataset):
    """STL-10: photographs of 96x96 pixels, most of them without a label.

    Reads the binary release, http://ai.stanford.edu/~acoates/stl10/, which
    has to be downloaded and unpacked before. The images stay in its files
    until they are asked for, and come in RGB order: leave ``to_rgb=False`` in
    the data preprocessor, and no loading in the pipeline.

    Source: A. Coates, H. Lee and A. Y. Ng, *An Analysis of Single-Layer
    Networks in Unsupervised Feature Learning*, AISTATS 2011.

    Args:
        data_root (str): The folder ``stl10_binary``, or the one that holds
            it. Defaults to 'data/stl10'.
        split (str): 'train' (5,000 images), 'test' (8,000), 'unlabeled'
            (100,000), or 'train+unlabeled', one after the other. Defaults to
            'train'.
        fold (int, optional): Which of the ten published folds of 'train'
            (1,000 images each) to take, 0 to 9, in the order of the
            release. Defaults to None, all images.
        verify_checksum (bool): Compare the MD5 sums of the files that the
            split needs with those of the release when the dataset is loaded
            (2.8 GB for 'unlabeled'). ``fold_indices.txt``, for which no sum
            is known, is only parsed. Defaults to True.
        **kwargs: Other arguments of :class:`mmengine.dataset.BaseDataset`,
            except ``data_prefix``.

    Raises:
        FileNotFoundError: If the folder or a file of the split is missing.
        ValueError: If ``split`` or ``fold`` is none of the above, or
            ``fold`` is given with a split other than 'train'; if a file has
            the wrong size or checksum, or holds something else than labels
            or folds.
    """

    METAINFO = dict(
        classes=(
            'airplane',
            'bird',
            'car',
            'cat',
            'deer',
            'dog',
            'horse',
            'monkey',
            'ship',
            'truck',
        )
    )

    def __init__(
        self,
        data_root: str = 'data/stl10',
        split: str = 'train',
        fold: int | None = None,
        verify_checksum: bool = True,
        **kwargs: Any,
    ) -> None:
        if split not in ('train', 'test', 'unlabeled', 'train+unlabeled'):
            raise ValueError(
                f"split='{split}' of STL10: 'train', 'test', 'unlabeled' or "
                "'train+unlabeled'."
            )
        if fold is not None:
            # not isinstance: True is an int, too
            if type(fold) is not int or not 0 <= fold <= 9:
                raise ValueError(
                    f'fold={fold!r} of STL10: an integer from 0 to 9, or None '
                    'for all images.'
                )
            if split != 'train':
                raise ValueError(
                    f"fold={fold} of STL10 with split='{split}': only 'train' "
                    'has folds. Leave fold out.'
                )
        self.split = split
        self.fold = fold
        self.verify_checksum = verify_checksum
        # absolute, so that files are found after a change of the directory
        folder = Path(data_root).absolute()
        if (folder / stl10.STL10.base_folder).is_dir():
            folder /= stl10.STL10.base_folder
        self._folder = folder
        super().__init__(data_root=data_root, data_prefix={}, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Check the files and list the images of the split.

        Returns:
            list[dict]: ``img_path``, which tells the part of the release and
            the place in it, such as 'stl10/train/000012': there is no such
            file; and ``gt_label``, int, for the labeled images.
        """
        data_list = []
        for part in self.split.split('+'):
            count = self._count_images(part)
            self._verify(f'{part}_X.bin')
            infos: list[dict] = [
                dict(img_path=f'stl10/{part}/{number:06d}')
                for number in range(count)
            ]
            if part != 'unlabeled':
                labels = self._read_labels(part, count)
                for info, label in zip(infos, labels, strict=True):
                    info['gt_label'] = label
            if self.fold is not None:
                infos = [infos[number] for number in self.folds()[self.fold]]
            data_list += infos
        return data_list

    def get_data_info(self, idx: int) -> dict:
        """Read an image.

        Args:
            idx (int): Its place in the dataset.

        Returns:
            dict: ``img``, uint8 (96, 96, 3) in RGB order; ``img_path``, its
            name in the release; ``sample_idx``, int; and, if it is labeled,
            ``gt_label``, int from 0 to 9.
        """
        info: dict = super().get_data_info(idx)
        _, part, number = info['img_path'].split('/')
        # Mapped anew each time, which takes microseconds: if the map were an
        # attribute, pickle and deepcopy would read the whole file.
        image = np.memmap(
            self._folder / f'{part}_X.bin',
            np.uint8,
            'r',
            offset=int(number) * IMAGE_BYTES,
            shape=SHAPE,
        )
        info['img'] = np.ascontiguousarray(image.transpose(2, 1, 0))
        return info

    def folds(self) -> list[np.ndarray]:
        """Read the ten published folds of the training images.

        Returns:
            list[ndarray]: For each fold int64 (K,), the numbers of its
            images, which are their indices in a dataset of the whole of
            'train'. K is 1,000 in the release.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If the split is not 'train', or the file is damaged.
        """
        if self.split != 'train':
            raise ValueError(
                f"STL10 with split='{self.split}' has no folds: ask one with "
                "split='train'."
            )
        count = self._count_images('train')
        file = self._find(stl10.STL10.folds_list_file)
        remedy = f'Unpack it again, or download {ARCHIVE} again.'
        folds = [
            line.split()
            for line in file.read_bytes().splitlines()
            if line.strip()
        ]
        lengths = sorted({len(fold) for fold in folds})
        if len(folds) != 10 or len(lengths) != 1:
            raise ValueError(
                f'"{file}" is damaged: it has {len(folds)} lines of '
                f'{" or ".join(map(str, lengths)) or "no"} numbers, not ten '
                f'of equally many. {remedy}'
            )
        for i, fold in enumerate(folds):
            for number in fold:
                if not number.isdigit() or int(number) >= count:
                    raise ValueError(
                        f'"{file}" is damaged: fold {i} holds '
                        f'"{number.decode(errors="replace")}", but the '
                        'training images are numbered from 0 to '
                        f'{count - 1}. {remedy}'
                    )
        return [np.array([int(i) for i in fold], np.int64) for fold in folds]

    def _find(self, name: str) -> Path:
        remedy = (
            f'Download {ARCHIVE}, unpack it, and set data_root of STL10 to '
            f'the folder with its {stl10.STL10.base_folder}.'
        )
        if not self._folder.is_dir():
            raise FileNotFoundError(
                f'There is no folder "{self._folder}". {remedy}'
            )
        file = self._folder / name
        if not file.is_file():
            raise FileNotFoundError(f'There is no file "{file}". {remedy}')
        return file

    def _count_images(self, part: str) -> int:
        file = self._find(f'{part}_X.bin')
        size = file.stat().st_size
        if size == 0 or size % IMAGE_BYTES:
            released = RELEASED[part]
            raise ValueError(
                f'"{file}" has {size:,} bytes, which is no multiple of the '
                f"{IMAGE_BYTES:,} of an image; the release's has "
                f'{released * IMAGE_BYTES:,} ({released:,} images). '
                f'Unpack it again, or download {ARCHIVE} again.'
            )
        return size // IMAGE_BYTES

    def _verify(self, name: str) -> None:
        if not self.verify_checksum:
            return
        file = self._find(name)
        known = stl10.STL10.train_list + stl10.STL10.test_list
        want = dict(known)[name]
        found = utils.calculate_md5(file)
        if found != want:
            raise ValueError(
                f'"{file}" is not the file of the release: its MD5 sum is '
                f'{found} instead of {want}. Unpack it again, or download '
                f'{ARCHIVE} again; set verify_checksum=False of STL10 if the '
                'file is meant to differ.'
            )

    def _read_labels(self, part: str, count: int) -> list[int]:
        name = f'{part}_y.bin'
        file = self._find(name)
        size = file.stat().st_size
        if size != count:
            raise ValueError(
                f'"{file}" has {size:,} bytes, one for each label, but there '
                f'are {count:,} images in "{part}_X.bin"; the release has '
                f'{RELEASED[part]:,} of each. Unpack both again, or download '
                f'{ARCHIVE} again.'
            )
        self._verify(name)
        labels = np.fromfile(file, np.uint8)
        wrong = np.flatnonzero((labels < 1) | (labels > 10))
        if len(wrong):
            raise ValueError(
                f'"{file}" is damaged: byte {wrong[0]} is '
                f'{labels[wrong[0]]}, and labels are 1 to 10. Unpack it '
                f'again, or download {ARCHIVE} again.'
            )
        # the file counts classes from 1
        return (labels.astype(int) - 1).tolist()
