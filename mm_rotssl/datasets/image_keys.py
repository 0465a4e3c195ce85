import hashlib
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, ConcatDataset


def image_keys(dataset: Any) -> list[str]:
    """Name the images of a dataset, in the order of their indices.

    ``keys[sample_idx]`` is an image's path below the folder of the dataset,
    so that it stays the same when the folder is moved, or, for datasets that
    hold their images in memory, a digest of its pixels.

    Datasets that show an image several times (``RepeatDataset``,
    ``ClassBalancedDataset``) or only some of them (``KFoldDataset``,
    ``torch.utils.data.Subset``) count the images of the dataset inside,
    as their ``sample_idx`` does.

    Args:
        dataset (mmengine.dataset.BaseDataset): The dataset, or a wrapper.

    Returns:
        list[str]: A name for each image.

    Raises:
        ValueError: If datasets are concatenated, whose indices collide, or
            an entry is not where its ``sample_idx`` says.
        TypeError: If it is no dataset of mmengine, or an entry has neither
            a path nor pixels.
    """
    while not isinstance(dataset, BaseDataset):
        if isinstance(dataset, ConcatDataset):
            if len(dataset.datasets) > 1:
                sizes = ' + '.join(str(len(part)) for part in dataset.datasets)
                raise ValueError(
                    f'The training set joins {len(dataset.datasets)} datasets '
                    f'({sizes} images), each of which counts its '
                    'images from 0: different images have the same '
                    'index. Make one dataset of them: a folder with links '
                    'to theirs (ImageFolder searches all sub-folders), or '
                    'one ann_file that lists all.'
                )
            dataset = dataset.datasets[0]
        elif hasattr(dataset, 'dataset'):
            dataset = dataset.dataset
        else:
            raise TypeError(
                f'The training set is a {type(dataset).__name__}. Images '
                'can be told apart only in datasets derived from '
                "mmengine's BaseDataset, whose entries carry a sample_idx."
            )
    dataset.full_init()
    root = dataset.data_prefix.get('img_path') or ''
    # with the slash, so that '/a/b' is no prefix of '/a/bc/1.jpg'
    root = root and root.rstrip('/') + '/'
    keys = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        if info.get('sample_idx') != i:
            raise ValueError(
                f'Entry {i} of {type(dataset).__name__} says that its '
                f'sample_idx is {info.get("sample_idx")}. The index must be '
                'the place in the dataset: leave it to BaseDataset.'
            )
        keys.append(_key(info, root))
    return keys


def sample_names(dataset: Any) -> list[str]:
    """Name what a model knows by its index: exemplars, else images.

    Args:
        dataset (mmengine.dataset.BaseDataset): The dataset, or a wrapper.

    Returns:
        list[str]: The seed patches of an :class:`ExemplarDataset` by their
        ``exemplar_label``, else the images by their ``sample_idx``.

    Raises:
        ValueError: See :func:`image_keys`.
        TypeError: See :func:`image_keys`.
    """
    inner = dataset
    while inner is not None:
        if hasattr(inner, 'seed_patches'):
            return inner.seed_patches.names
        inner = getattr(inner, 'dataset', None)
    return image_keys(dataset)


def _key(info: dict, root: str) -> str:
    if 'img_path' in info:
        return str(info['img_path']).removeprefix(root)
    if 'img' in info:
        img = np.ascontiguousarray(info['img'])
        digest = hashlib.sha256(f'{img.dtype}{img.shape}'.encode())
        digest.update(img.data)
        return f'pixels:{digest.hexdigest()[:24]}'
    raise TypeError(
        'An entry of the training set has neither "img_path" nor "img", but '
        f'{", ".join(info)}: nothing tells which image it is.'
    )
