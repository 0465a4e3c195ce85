"""Self-Classifier's loss: lean, and written down as the formula is."""

import ctypes
import gc
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import Comparison, Result, divide, interleave

from mm_rotssl.models import SelfClassifierHead

ROW, COLUMN, EPS = 0.1, 0.05, 1e-12


def straightforward_loss(
    views: Iterable[torch.Tensor], num_global: int = 2
) -> torch.Tensor:
    """Every pair of views by itself, as in the released code.

    Args:
        views: Scores (B, C) of each view.
        num_global: How many of them are global.

    Returns:
        The mean over the pairs.
    """
    targets, predictions = [], []
    for scores in views:
        target = F.softmax(scores / COLUMN, dim=0)
        targets.append(F.normalize(target, p=1, dim=1, eps=EPS))
        prediction = F.softmax(scores / ROW, dim=1)
        prediction = F.normalize(prediction, p=1, dim=0, eps=EPS)
        share = scores.size(0) / scores.size(1)
        predictions.append(torch.log(share * prediction + EPS))
    terms = [
        -(target * prediction).sum(1).mean()
        for i, target in enumerate(targets)
        for j, prediction in enumerate(predictions)
        if i != j and (i < num_global or j < num_global)
    ]
    return torch.stack(terms).mean()


def peak_memory(way: Callable[[], object], device: torch.device) -> int:
    """Bytes that a call needs beyond what is there before it."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    # Linux: what glibc keeps is handed back, and the peak begins anew
    ctypes.CDLL('libc.so.6').malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')

    def kilobytes(name: str) -> int:
        for line in Path('/proc/self/status').read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
        raise RuntimeError(f'{name} is not in /proc/self/status')

    before = kilobytes('VmRSS')
    way()
    # what is handed out in pages may need none
    return 1024 * max(kilobytes('VmHWM') - before, 4)


def gradient(
    loss: Callable[[torch.Tensor], torch.Tensor], scores: torch.Tensor
) -> torch.Tensor:
    """Of a loss, by the scores."""
    scores = scores.clone().requires_grad_()
    return torch.autograd.grad(loss(scores), scores)[0]


def self_classifier_loss(
    batch_size: int, num_classes: list[int], num_views: int, repetitions: int
) -> Result:
    """Time and peak memory of heads and loss, forward and backward.

    Args:
        batch_size: Images.
        num_classes: Of the heads.
        num_views: Two of which are global.
        repetitions: How often each way is measured.

    Returns:
        Lean over straightforward, time and memory, and how far the
        gradients of both are from those in float64.
    """
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    torch.manual_seed(0)
    head = SelfClassifierHead(128, num_classes).to(device)
    embeds = torch.randn(num_views, batch_size, 128, device=device)
    embeds = F.normalize(embeds, dim=2).requires_grad_()
    wanted = [embeds, *head.parameters()]

    def lean() -> torch.Tensor:
        return torch.stack([head.loss_module(x) for x in head(embeds)]).mean()

    def straightforward() -> torch.Tensor:
        logits = [head(view) for view in embeds]
        losses = [
            straightforward_loss(views) for views in zip(*logits, strict=True)
        ]
        return torch.stack(losses).mean()

    def step(loss: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, ...]:
        value = loss()
        found = value.detach(), *torch.autograd.grad(value, wanted)
        if device.type == 'cuda':
            torch.cuda.synchronize()
        return found

    ways = {
        'lean': lambda: step(lean),
        'straightforward': lambda: step(straightforward),
    }
    errors = {'lean': 0.0, 'straightforward': 0.0}
    for scores in head(embeds):
        scores = scores.detach()
        exact = gradient(straightforward_loss, scores.double())
        for name, found in (
            ('lean', gradient(head.loss_module, scores)),
            ('straightforward', gradient(straightforward_loss, scores)),
        ):
            error = (found - exact).abs().max() / exact.abs().max()
            errors[name] = max(errors[name], error.item())
    memory: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            memory[name].append(peak_memory(way, device))
    seconds = interleave(ways, repetitions, time.perf_counter)
    classes = '+'.join(map(str, num_classes))
    return Result(
        settings=dict(
            batch_size=batch_size,
            num_classes=num_classes,
            num_views=num_views,
            repetitions=repetitions,
        ),
        figures={
            **{
                f'{name}, largest error of a gradient over the largest '
                'gradient': error
                for name, error in errors.items()
            },
            **{
                f'{name}, megabytes': min(found) / 1e6
                for name, found in memory.items()
            },
            **{
                f'{name}, seconds': min(spent)
                for name, spent in seconds.items()
            },
        },
        comparisons=[
            Comparison(
                f'peak memory of the lean loss / straightforward, {classes}',
                divide(memory['lean'], memory['straightforward']),
                goal=1 / 3,
            ),
            Comparison(
                f'time of the lean loss / straightforward, {classes}',
                divide(seconds['lean'], seconds['straightforward']),
                goal=1,
            ),
        ],
    )
