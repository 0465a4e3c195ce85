"""Features of networks, extracted once and kept on the disk.

However many images there are, a batch of features is in memory at once, and
what was extracted before an interruption is not extracted again.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.necks import (
    LinearNeck,
    MoCoV2Neck,
    NonLinearNeck,
    SwAVNeck,
)
from torch import nn
from torch.utils.data import DataLoader, Subset

from mm_rotssl.models import ESSL, SelfSupervisor
from mm_rotssl.ops import pool_features
from mm_rotssl.utils import InputError, write_file
from mm_rotssl.version import __version__

from .variants import Variant

Report = Callable[[str], None]
Pool = Callable[..., tuple[torch.Tensor, ...]]
EMBEDDING = 'embedding'
# types of what a module was made with
SETTINGS = (bool, int, float, str, tuple, list)
# rows are written, and counted as done, at least every so many
FLUSHED_ROWS = 4096


@dataclass
class Extracted:
    """Features of the images of a dataset that could be read.

    Args:
        stages (dict[str, Tensor]): Name of a stage -> features (rows *
            copies, C), float32, mapped from the disk, not to be written to;
            the versions of an image are neighbors.
        index (Tensor): Place of each row's image in the dataset, int64
            (rows,).
        labels (Tensor, optional): Classes, int64 (rows,); None if an image
            has none, or several: see `label_matrix`.
    """

    stages: dict[str, torch.Tensor]
    index: torch.Tensor
    labels: torch.Tensor | None


class FeatureStore:
    """Extract features, or take those that are there.

    An entry is a folder. Its name is computed from all that the features
    depend on: weights and structure of the network, the preparation of
    images, and the files' paths, sizes and times of change, or the pixels of
    images that are in memory. Whatever changes leads to another entry.

    Args:
        folder (str | Path, optional): Where entries are kept. Defaults to
            None, a temporary folder that ends with this object.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._temporary = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(
                prefix='features-', ignore_cleanup_errors=True
            )
            folder = self._temporary.name
        self.folder = Path(folder)

    def extract(
        self,
        model: nn.Module,
        dataloader: DataLoader,
        variant: Variant | None = None,
        pool: Pool = pool_features,
        input_size: int | None = None,
        report: Report | None = None,
    ) -> Extracted:
        """Run a dataset through a network, as far as not done before.

        Args:
            model (nn.Module): See `iterate_features`; left in eval mode.
            dataloader (DataLoader): Images in a fixed order.
            variant (Variant, optional): Other versions of each image.
                Defaults to None, the image itself.
            pool (Callable): See `iterate_features`.
            input_size (int, optional): See `iterate_features`.
            report (Callable, optional): Is told how far it is. Defaults to
                None.

        Returns:
            Extracted: Of all images that could be read.

        Raises:
            OSError: If the disk is full or the folder can't be written.
            ValueError: If images of a batch have different sizes.
        """
        model.eval()
        copies = 1 if variant is None else variant.copies
        key = joblib.hash(
            (
                describe_network(model),
                describe_images(dataloader.dataset),
                describe_pipeline(dataloader.dataset),
                _settings_of(variant),
                _settings_of(pool),
                input_size,
                __version__,
            )
        )
        entry = self.folder / key
        entry.mkdir(parents=True, exist_ok=True)
        state = _read_state(entry, copies)
        total = len(_places(dataloader.dataset))
        if state.seen < total:
            batches = iterate_features(
                model,
                _rest(dataloader, state.seen),
                variant,
                pool,
                input_size,
            )
            _go_on(entry, state, batches, dataloader.dataset, copies, report)
        return _read_entry(entry, state, copies)


def choose_images(
    dataloader: DataLoader, most: int | None, seed: int
) -> DataLoader:
    """Take some of the images.

    Args:
        dataloader (DataLoader): Images in a fixed order.
        most (int, optional): How many; None: all.
        seed (int): Of the draw.

    Returns:
        DataLoader: At most so many, in the same order.
    """
    dataset: Any = dataloader.dataset
    if most is None or len(dataset) <= most:
        return dataloader
    drawn = np.random.default_rng(seed).permutation(len(dataset))[:most]
    return _subset(dataloader, np.sort(drawn).tolist())


@torch.no_grad()
def iterate_features(
    model: Any,
    dataloader: DataLoader,
    variant: Variant | None = None,
    pool: Pool = pool_features,
    input_size: int | None = None,
) -> Iterator[
    tuple[torch.Tensor | None, torch.Tensor | None, dict[str, torch.Tensor]]
]:
    """Run a dataset through a network, batch by batch.

    Args:
        model (nn.Module): A self-supervised algorithm or an image classifier
            of mmpretrain, in eval mode.
        dataloader (DataLoader): Images in a fixed order.
        variant (Variant, optional): Other versions of each image. Defaults
            to None, the image itself.
        pool (Callable): Makes a vector an image of each of the backbone's
            outputs. Defaults to :func:`pool_features`, their mean.
        input_size (int, optional): Scale the images to this side in
            pixels, bicubically, before they enter the network. Defaults to
            None.

    Yields:
        tuple[Tensor | None, Tensor | None, dict[str, Tensor]]: ``sample_idx``
        and label of each image of the batch, int64 (N,), None if an image
        has none or several; and for each stage its features (N * copies, C),
        float32, on the CPU, the versions of an image beside each other.
        Behind the stages, which are numbered as in the backbone, comes the
        'embedding', where the network projects its features to one.
    """
    # CPUs convolve such images up to three times as fast
    memory_format = torch.channels_last
    for data_batch in dataloader:
        samples = data_batch['data_samples']
        index = _field(samples, 'sample_idx')
        images = data_batch['inputs']
        if not isinstance(images, torch.Tensor):
            images = _stack(images)
        versions: Iterable[torch.Tensor] = [images]
        if variant is not None:
            places = torch.arange(len(images)) if index is None else index
            versions = variant(images, places)
        found: list[dict[str, torch.Tensor]] = []
        for version in versions:
            data = model.data_preprocessor(
                {**data_batch, 'inputs': version}, False
            )
            inputs = data['inputs']
            if input_size is not None:
                # with antialias=True the cubic is that of Pillow and Matlab
                inputs = F.interpolate(
                    inputs,
                    (input_size, input_size),
                    mode='bicubic',
                    antialias=True,
                )
            inputs = inputs.contiguous(memory_format=memory_format)
            try:
                outputs = network_outputs(model, inputs, pool)
            except RuntimeError:
                if memory_format is torch.contiguous_format:
                    raise
                # of a layer that flattens with Tensor.view, perhaps
                memory_format = torch.contiguous_format
                outputs = network_outputs(model, inputs.contiguous(), pool)
            found.append(outputs)
        yield (
            index,
            _field(samples, 'gt_label'),
            {
                name: torch.stack([one[name] for one in found], 1)
                .flatten(0, 1)
                .cpu()
                for name in found[0]
            },
        )


def network_outputs(
    model: Any, inputs: torch.Tensor, pool: Pool = pool_features
) -> dict[str, torch.Tensor]:
    """Name what a network makes of images.

    Args:
        model (nn.Module): See `iterate_features`.
        inputs (Tensor): Images as its backbone takes them, (N, C, H, W).
        pool (Callable): See `iterate_features`.

    Returns:
        dict[str, Tensor]: Stage -> its vectors (N, C), float32.
    """
    outputs = backbone_outputs(model, inputs)
    pooled = pool(outputs)
    found = dict(
        zip(stage_names(model.backbone, len(pooled)), pooled, strict=True)
    )
    embedding = _embed(model, outputs)
    if embedding is not None:
        found[EMBEDDING] = embedding.float()
    return found


def _embed(model: Any, outputs: Any) -> torch.Tensor | None:
    if isinstance(model, ESSL):
        # beside it, rotations are predicted
        model = model.tasks['algorithm']
    if isinstance(model, SelfSupervisor):
        return model.project(outputs)
    neck = getattr(model, 'neck', None)
    # they look at the first stage that they are handed, which is the last
    # where training asks for one
    last = (outputs[-1] if isinstance(outputs, (tuple, list)) else outputs,)
    if isinstance(neck, SwAVNeck):
        # it takes a list of crops of one size each
        return neck([last])
    if isinstance(neck, (LinearNeck, MoCoV2Neck, NonLinearNeck)):
        return neck(last)[0]
    return None


def backbone_outputs(model: Any, inputs: torch.Tensor) -> Any:
    """Run a network's backbone.

    Args:
        model (nn.Module): See `iterate_features`.
        inputs (Tensor): Images as its backbone takes them, (N, C, H, W).

    Returns:
        Any: What the backbone gives, see `pool_features`.
    """
    if isinstance(model, BaseClassifier):
        return model.extract_feat(inputs, stage='backbone')
    return model(inputs, mode='tensor')


def stage_names(backbone: Any, count: int) -> list[str]:
    """Number the stages as in the backbone, where it says which it gives.

    Args:
        backbone (Any): A module, perhaps with ``out_indices``.
        count (int): Number of its outputs.

    Returns:
        list[str]: A number for each output, from 1.
    """
    indices = getattr(backbone, 'out_indices', ())
    indices = (indices,) if isinstance(indices, int) else tuple(indices)
    if len(indices) != count or min(indices) < 0:
        indices = tuple(range(count))
    return [str(i + 1) for i in sorted(indices)]


@dataclass
class _State:
    """How far an entry is; ``channels`` of each stage."""

    seen: int = 0
    rows: int = 0
    labeled: bool = True
    channels: dict[str, int] = field(default_factory=dict)


def _go_on(
    entry: Path,
    state: _State,
    batches: Iterator,
    dataset: Any,
    copies: int,
    report: Report | None,
) -> None:
    places = torch.tensor(_places(dataset))
    unsaved = 0
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for index, labels, stages in batches:
            count = len(next(iter(stages.values()))) // copies
            expected = places[state.seen : state.seen + count]
            # in place of a file that can't be read another image comes again
            own = expected == (expected if index is None else index)
            if labels is None:
                state.labeled = False
                labels = torch.full((count,), -1)
            if not files:
                state.channels = {n: f.size(1) for n, f in stages.items()}
                for name, (_, size) in _layout(state, copies).items():
                    file = stack.enter_context(
                        open(entry / name, 'r+b', opener=_create)
                    )
                    file.seek(state.rows * size)
                    files[name] = file
            parts = dict(index=expected[own], labels=labels[own])
            for name, feats in stages.items():
                parts[f'stage-{name}'] = feats[own.repeat_interleave(copies)]
            for name, part in parts.items():
                files[name].write(part.contiguous().numpy().data)
            state.rows += int(own.sum())
            state.seen += count
            unsaved += count
            if unsaved >= FLUSHED_ROWS or state.seen == len(dataset):
                unsaved = 0
                for file in files.values():
                    file.flush()
                write_file(
                    entry / 'state.json', json.dumps(asdict(state)).encode()
                )
                if report is not None:
                    report(
                        f'features of {state.seen} of {len(dataset)} images'
                    )


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _layout(state: _State, copies: int) -> dict[str, tuple[np.dtype, int]]:
    """Files of an entry -> type of their numbers, and bytes of an image."""
    return {
        'index': (np.dtype('<i8'), 8),
        'labels': (np.dtype('<i8'), 8),
        **{
            f'stage-{name}': (np.dtype('<f4'), 4 * copies * channels)
            for name, channels in state.channels.items()
        },
    }


def _read_state(entry: Path, copies: int) -> _State:
    """How far an entry is; the beginning if it is damaged."""
    try:
        state = _State(**json.loads((entry / 'state.json').read_bytes()))
        for name, (_, size) in _layout(state, copies).items():
            if (entry / name).stat().st_size < state.rows * size:
                return _State()
    except (OSError, ValueError, TypeError):
        return _State()
    return state


def _read_entry(entry: Path, state: _State, copies: int) -> Extracted:
    if not state.rows:
        raise InputError('None of the images could be read.')
    arrays = {}
    for name, (dtype, _) in _layout(state, copies).items():
        mapped = np.memmap(
            entry / name, dtype, 'r', shape=_shape(state, copies, name)
        )
        with warnings.catch_warnings():
            # that it must not be written to; a map that may be takes up
            # memory, as far as the system counts
            warnings.filterwarnings('ignore', '.*not writable', UserWarning)
            arrays[name] = torch.from_numpy(mapped)
    return Extracted(
        {name: arrays[f'stage-{name}'] for name in state.channels},
        arrays['index'],
        arrays['labels'] if state.labeled else None,
    )


def _shape(state: _State, copies: int, name: str) -> tuple[int, ...]:
    if name in ('index', 'labels'):
        return (state.rows,)
    channels = state.channels[name.removeprefix('stage-')]
    return state.rows * copies, channels


def _stack(images: Sequence[torch.Tensor]) -> torch.Tensor:
    sizes = sorted({tuple(image.shape[-2:]) for image in images})
    if len(sizes) > 1:
        raise InputError(
            f'Images of a batch have different sizes, such as {sizes[0]} and '
            f'{sizes[-1]}. Let the pipeline of their dataset make them '
            "equally large, such as by dict(type='Resize', scale=(224, 224))."
        )
    return torch.stack(list(images))


def _field(samples: Sequence[Any], name: str) -> torch.Tensor | None:
    """A number of each sample, int64 (N,); None if one has none or more."""
    values = [
        torch.as_tensor(sample.get(name))
        for sample in samples
        if name in sample
    ]
    if len(values) < len(samples) or any(v.numel() != 1 for v in values):
        return None
    return torch.tensor([int(value) for value in values])


def _places(dataset: Any) -> list[int]:
    """Place of each image in the dataset below all subsets."""
    if isinstance(dataset, Subset):
        places = _places(dataset.dataset)
        return [places[i] for i in dataset.indices]
    if not hasattr(dataset, 'get_data_info'):
        # in which several images have the same place
        raise InputError(
            f'A {type(dataset).__name__} can not be evaluated. Let the config '
            'name a single dataset, or name folders: --images FOLDER '
            '--labeled TRAIN VAL.'
        )
    return list(range(len(dataset)))


def _rest(dataloader: DataLoader, seen: int) -> DataLoader:
    """The dataloader without the first images."""
    if not seen:
        return dataloader
    dataset: Any = dataloader.dataset
    return _subset(dataloader, range(seen, len(dataset)))


def _subset(dataloader: DataLoader, indices: Sequence[int]) -> DataLoader:
    return DataLoader(
        Subset(dataloader.dataset, indices),
        batch_size=dataloader.batch_size,
        num_workers=dataloader.num_workers,
        collate_fn=dataloader.collate_fn,
        worker_init_fn=dataloader.worker_init_fn,
    )


def describe_network(model: Any) -> tuple:
    """Collect all that decides what a network makes of an image.

    Args:
        model (BaseModel): The network.

    Returns:
        tuple: Its layers, their weights and the preparation of images, to be
        hashed.
    """
    return (
        repr(model),
        {
            name: tensor.detach().cpu().numpy()
            for name, tensor in chain(
                model.named_parameters(), model.named_buffers()
            )
        },
        # settings that are not shown by repr, such as which stages are given
        [
            {
                name: value
                for name, value in vars(module).items()
                if name != 'training' and isinstance(value, SETTINGS)
            }
            for module in model.modules()
        ],
    )


def describe_images(dataset: Any) -> str:
    """Sum up all that decides what images a dataset has.

    Args:
        dataset (Dataset): The dataset, or a subset.

    Returns:
        str: A digest of the places of the images, their labels, and the
        paths, sizes and times of change of their files, or their pixels.

    Raises:
        OSError: If a file is gone.
        InputError: If it is a wrapper of several datasets.
    """
    places = _places(dataset)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    digest = hashlib.sha256()
    for place in places:
        info = dataset.get_data_info(place)
        known: list[Any] = [place, info.get('gt_label')]
        # images that are in memory have paths, too, to be named by
        if 'img' in info:
            image = np.ascontiguousarray(info['img'])
            known += [image.shape, image.dtype.str]
            digest.update(image.data)
        else:
            file = os.stat(info['img_path'])
            known += [info['img_path'], file.st_size, file.st_mtime_ns]
        digest.update(repr(known).encode(errors='surrogateescape'))
    return digest.hexdigest()


def describe_pipeline(dataset: Any) -> Any:
    """Find the transforms that prepare the images of a dataset.

    Args:
        dataset (Dataset): The dataset, or a subset.

    Returns:
        Any: Their types and settings, to be hashed.
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return _settings_of(dataset.pipeline)


def _settings_of(value: Any) -> Any:
    """What an object was made with, without what it notes for itself."""
    if isinstance(value, Mapping):
        return {key: _settings_of(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_settings_of(item) for item in value]
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, MethodType):
        return value.__qualname__, _settings_of(value.__self__)
    if isinstance(value, (type, FunctionType)):
        return value.__module__, value.__qualname__
    if not hasattr(value, '__dict__'):
        return value
    public = {
        name: _settings_of(item)
        for name, item in vars(value).items()
        if not name.startswith('_')
    }
    # modules keep what is inside of them elsewhere
    inside = repr(value) if isinstance(value, nn.Module) else ''
    return type(value).__qualname__, public, inside
