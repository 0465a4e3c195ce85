"""Negatives from the memory bank: shared by the batch, or as officially."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import Comparison, Result, divide, interleave

from mm_rotssl.models import InstanceDiscriminationHead

DIM = 128
TEMPERATURE = 0.07


class OfficialGather:
    """The step of the released code: a row for each image and negative.

    Alias draw with replacement, its first column overwritten, rows gathered
    as (B, K + 1, D), products, exponential, constant Z, the two logarithms,
    and the update of the bank. The projection is that of the head it is
    compared with.

    Args:
        head: Gives projection and bank.
        num_negatives: K.
    """

    def __init__(
        self, head: InstanceDiscriminationHead, num_negatives: int
    ) -> None:
        self.fc = head.fc
        self.bank = head.memory.feature_bank
        self.num_negatives = num_negatives
        self.z = 2.2 * len(self.bank)

    def __call__(self, feats: torch.Tensor, indices: torch.Tensor) -> None:
        """Forward, backward and update."""
        rows, k = len(self.bank), self.num_negatives
        vectors = F.normalize(self.fc(feats), dim=1)
        # the alias table of a uniform distribution sends all to themselves
        drawn = torch.randint(rows, (len(indices) * (k + 1),))
        drawn = drawn.view(len(indices), k + 1)
        drawn[:, 0] = indices
        gathered = self.bank.index_select(0, drawn.flatten())
        gathered = gathered.view(len(indices), k + 1, -1).float()
        out = torch.bmm(gathered, vectors[:, :, None]).squeeze(2)
        out = (out / TEMPERATURE).exp() / self.z
        noise = k / rows
        positive = (out[:, 0] / (out[:, 0] + noise + 1e-7)).log()
        negative = (noise / (out[:, 1:] + noise + 1e-7)).log()
        loss = -(positive.sum() + negative.sum()) / len(indices)
        loss.backward()
        with torch.no_grad():
            old = self.bank.index_select(0, indices).float()
            new = F.normalize(0.5 * old + 0.5 * vectors, dim=1)
            self.bank.index_copy_(0, indices, new.to(self.bank.dtype))


def memory_bank(
    batch_size: int,
    num_negatives: int,
    rows: int,
    sizes: list[int],
    repetitions: int,
) -> Result:
    """Time the steps of instance discrimination.

    Args:
        batch_size: Images a step.
        num_negatives: K.
        rows: Of the bank in the comparison of the ways.
        sizes: Rows of the banks whose step should cost the same.
        repetitions: Number of timed rounds.

    Returns:
        Seconds and ratios.
    """
    torch.manual_seed(0)
    feats = torch.randn(batch_size, DIM)

    def head(
        length: int, shared: bool, dtype: str
    ) -> InstanceDiscriminationHead:
        return InstanceDiscriminationHead(
            DIM,
            memory=dict(length=length, dtype=dtype),
            loss=dict(z=2.2),
            num_negatives=num_negatives,
            shared_negatives=shared,
        )

    def step(
        one: InstanceDiscriminationHead, length: int
    ) -> Callable[[], None]:
        def run() -> None:
            one.loss(feats, torch.randint(length, (batch_size,)))[
                'loss'
            ].backward()

        return run

    per_sample = head(rows, False, 'float32')
    official = OfficialGather(per_sample, num_negatives)
    ways = {
        'official gather': lambda: official(
            feats, torch.randint(rows, (batch_size,))
        ),
        'a draw for each image': step(per_sample, rows),
        'shared by the batch': step(head(rows, True, 'float32'), rows),
        'a draw for each image, float16': step(
            head(rows, False, 'float16'), rows
        ),
    }
    seconds = interleave(ways, repetitions, time.perf_counter)
    del ways, per_sample

    # float16, so that the largest of them fits into more machines
    for shared in (False, True):
        ways = {
            f'{size:.0e} rows': step(head(size, shared, 'float16'), size)
            for size in sizes
        }
        spent = interleave(ways, repetitions, time.perf_counter)
        kind = 'shared' if shared else 'per image'
        seconds |= {f'{kind}, {name}': times for name, times in spent.items()}
        del ways
    # bytes of rows that a step reads for its negatives
    each = batch_size * num_negatives * DIM * 4
    figures = {
        f'{name}, ms a step (median)': 1000 * sorted(times)[len(times) // 2]
        for name, times in seconds.items()
    }
    figures['negatives read per step, official, MB'] = each / 1e6
    figures['negatives read per step, shared, MB'] = each / 1e6 / batch_size
    base = seconds['official gather']
    comparisons = [
        Comparison(
            'step with shared negatives / official gather',
            divide(seconds['shared by the batch'], base),
            0.1,
        ),
        Comparison(
            'step with a draw for each image / official gather',
            divide(seconds['a draw for each image'], base),
            1.1,
        ),
    ]
    for kind in ('per image', 'shared'):
        smallest = seconds[f'{kind}, {sizes[0]:.0e} rows']
        comparisons += [
            Comparison(
                f'{kind}: step with {size:.0e} rows / {sizes[0]:.0e}',
                divide(seconds[f'{kind}, {size:.0e} rows'], smallest),
                1.5,
            )
            for size in sizes[1:]
        ]
    return Result(
        dict(
            batch_size=batch_size,
            num_negatives=num_negatives,
            rows=rows,
            sizes=sizes,
            dimensions=DIM,
            repetitions=repetitions,
        ),
        figures,
        comparisons,
    )
