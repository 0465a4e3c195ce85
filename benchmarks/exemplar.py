"""Exemplar-CNN: deformations of a batch, and a classifier of exemplars."""

import statistics
import time

import numpy as np
import torch
from measure import Comparison, Result, divide, interleave

from mm_rotssl.datasets import RandomDeformation
from mm_rotssl.engine import RowSGD
from mm_rotssl.models import ExemplarHead
from mm_rotssl.ops import deform_patches


def deformation(patches: int, repetitions: int) -> Result:
    """Patches per second on one core, deformed together and one by one.

    Args:
        patches: In the batch.
        repetitions: How often each is timed.

    Returns:
        The ratio of their numbers per second, with and without the time in
        which the deformations are drawn.
    """
    draw = RandomDeformation(on_device=True)
    apply = RandomDeformation()
    size = draw.window_size
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 256, (patches, size, size, 3), dtype=np.uint8)
    planes = torch.from_numpy(windows).permute(0, 3, 1, 2).contiguous()

    def drawn() -> torch.Tensor:
        return torch.from_numpy(
            np.stack(
                [draw(dict(img=window))['deformation'] for window in windows]
            )
        )

    ready = drawn()
    ways = {
        'one by one, drawn and deformed': lambda: [
            apply(dict(img=window)) for window in windows
        ],
        'batch, drawn and deformed': lambda: deform_patches(
            planes, drawn(), draw.patch_size
        ),
        'one by one, deformed': lambda: [
            deform_patches(
                planes[i : i + 1], ready[i : i + 1], draw.patch_size
            )
            for i in range(patches)
        ],
        'batch, deformed': lambda: deform_patches(
            planes, ready, draw.patch_size
        ),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = interleave(ways, repetitions, time.process_time)
    finally:
        torch.set_num_threads(threads)
    return Result(
        settings=dict(
            patches=patches, window_size=size, repetitions=repetitions
        ),
        figures={
            f'{way}, patches per second': patches / statistics.median(spent)
            for way, spent in seconds.items()
        },
        comparisons=[
            Comparison(
                f'patches per second of a batch / one by one: {what}',
                divide(
                    seconds[f'one by one, {what}'], seconds[f'batch, {what}']
                ),
                goal=10,
                at_least=True,
            )
            for what in ('deformed', 'drawn and deformed')
        ],
    )


class HeadStep:
    """Loss, gradient and update of a classifier of seed patches.

    Args:
        num_exemplars: Number of classes.
        num_sampled: Of the sampled softmax; None for all classes.
        batch_size: Patches.
        channels: Length of the feature vectors.
    """

    def __init__(
        self,
        num_exemplars: int,
        num_sampled: int | None,
        batch_size: int,
        channels: int,
    ) -> None:
        self.head = ExemplarHead(channels, num_exemplars, num_sampled)
        optimizer = torch.optim.SGD if num_sampled is None else RowSGD
        self.optimizer = optimizer(
            self.head.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4
        )
        self.feats = torch.randn(batch_size, channels, requires_grad=True)
        self.labels = torch.randint(num_exemplars, (batch_size,))

    def __call__(self) -> None:
        """Take a step."""
        loss = self.head.loss((self.feats,), self.labels)['loss']
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def exemplar_head(
    batch_size: int,
    channels: int,
    num_sampled: int,
    seed_series: list[int],
    repetitions: int,
) -> Result:
    """Time of a step of the classifier with all classes and with some.

    Args:
        batch_size: Patches.
        channels: Length of the feature vectors.
        num_sampled: Of the sampled softmax.
        seed_series: Numbers of seed patches, each more than `num_sampled`.
        repetitions: How often each is timed.

    Returns:
        Sampled over full for each number of seed patches, and sampled with the
        most seed patches over sampled with the fewest.
    """
    sampled: dict[int, list[float]] = {}
    full: dict[int, list[float]] = {}
    for num_exemplars in seed_series:
        # one after the other, for the memory's sake
        ways = {
            name: HeadStep(num_exemplars, count, batch_size, channels)
            for name, count in (('sampled', num_sampled), ('full', None))
        }
        seconds = interleave(ways, repetitions, time.perf_counter)
        sampled[num_exemplars] = seconds['sampled']
        full[num_exemplars] = seconds['full']
    first, last = seed_series[0], seed_series[-1]
    return Result(
        settings=dict(
            batch_size=batch_size,
            channels=channels,
            num_sampled=num_sampled,
            seed_series=seed_series,
            repetitions=repetitions,
        ),
        figures={
            f'{name}, {num_exemplars} seed patches, milliseconds a step': 1000
            * statistics.median(spent[num_exemplars])
            for num_exemplars in seed_series
            for name, spent in (('sampled', sampled), ('full', full))
        },
        comparisons=[
            *(
                Comparison(
                    f'step of {num_sampled} sampled classes / of all '
                    f'{num_exemplars}',
                    divide(sampled[num_exemplars], full[num_exemplars]),
                    goal=1,
                )
                for num_exemplars in seed_series
            ),
            Comparison(
                f'sampled step with {last} seed patches / with {first}',
                divide(sampled[last], sampled[first]),
                goal=1.5,
            ),
        ],
    )
