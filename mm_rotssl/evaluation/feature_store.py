"""Features of networks, extracted once and kept on the disk.

However many images there are, a batch of features is in memory at once, and
what was extracted before an interruption is not extracted again.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
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

from mm_rotssl.models import SelfSupervisor
from mm_rotssl.ops import pool_features
from mm_rotssl.utils import write_file

from .variants import Variant

Report = Callable[[str], None]
Pool = Callable[..., tuple[torch.Tensor, ...]]
EMBEDDING = 'embedding'
# rows are written, and counted as done, at least every so many
FLUSHED_ROWS = 4096


@dataclass
class Extracted:
    """Features of the images of a dataset that could be read.

    Args:
        stages (dict[str, Tensor]): Name of a stage -> features (rows *
            copies, C), float32, mapped from the disk; the versions of an
            image are neighbors.
        index (Tensor): Place of each row's image in the dataset, int64
            (rows,).
        labels (Tensor, optional): Classes, int64 (rows,); None if an image
            has none.
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
                _describe_network(model),
                _describe_dataset(dataloader.dataset),
                variant,
                pool,
                input_size,
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
        has none; and for each stage its features (N * copies, C), float32,
        on the CPU, the versions of an image beside each other. Behind the
        stages, which are numbered as in the backbone, comes the 'embedding',
        where the network projects its features to one.
    """
    for data_batch in dataloader:
        samples = data_batch['data_samples']
        index = _field(samples, 'sample_idx')
        versions: Iterable[Any] = [data_batch['inputs']]
        if variant is not None:
            images = torch.as_tensor(data_batch['inputs'])
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
            found.append(network_outputs(model, inputs, pool))
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
    if isinstance(model, SelfSupervisor):
        return model.project(outputs)
    neck = getattr(model, 'neck', None)
    if isinstance(neck, SwAVNeck):
        # it takes a list of crops of one size each
        return neck([outputs])
    if isinstance(neck, (LinearNeck, MoCoV2Neck, NonLinearNeck)):
        return neck(outputs)[0]
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
                    file.truncate(state.rows * size)
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
        raise ValueError('None of the images could be read.')
    arrays = {
        name: torch.from_numpy(
            # copy-on-write: nothing is read before it is needed
            np.memmap(
                entry / name, dtype, 'c', shape=_shape(state, copies, name)
            )
        )
        for name, (dtype, _) in _layout(state, copies).items()
    }
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


def _field(samples: Sequence[Any], name: str) -> torch.Tensor | None:
    """A number of each sample, int64 (N,); None if one has none."""
    if not all(name in sample for sample in samples):
        return None
    return torch.tensor([int(sample.get(name)) for sample in samples])


def _places(dataset: Any) -> list[int]:
    """Place of each image in the dataset below all subsets."""
    if isinstance(dataset, Subset):
        places = _places(dataset.dataset)
        return [places[i] for i in dataset.indices]
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


def _describe_network(model: Any) -> tuple:
    """All that decides what a network makes of an image."""
    preprocessor = model.data_preprocessor
    return (
        # layers and their settings
        repr(model),
        {
            name: tensor.detach().cpu().numpy()
            for name, tensor in chain(
                model.named_parameters(), model.named_buffers()
            )
        },
        {
            name: value
            for name, value in vars(preprocessor).items()
            if isinstance(value, (bool, int, float, str, tuple, list))
        },
    )


def _describe_dataset(dataset: Any) -> tuple:
    """All that decides what images a dataset gives."""
    places = _places(dataset)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    images = []
    for place in places:
        info = dataset.get_data_info(place)
        # images that are in memory have paths, too, to be named by
        if 'img' not in info and 'img_path' in info:
            file = os.stat(info['img_path'])
            images.append((info['img_path'], file.st_size, file.st_mtime_ns))
        else:
            images.append(joblib.hash(info))
    return places, images, dataset.pipeline
