"""Ratios that are measured in one run, and what is kept of them."""

import operator
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmengine
import mmpretrain
import numpy as np
import torch

import mm_rotssl


class MissingPackageError(Exception):
    """What a benchmark compares with is not installed."""


@dataclass
class Comparison:
    """A ratio, once a repetition, and the goal it is held against.

    Args:
        name: What is divided by what.
        ratios: One a repetition.
        goal: The bound on their median.
        at_least: Whether the median must reach the goal, not stay within it.
    """

    name: str
    ratios: list[float]
    goal: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the median of the ratios is on the right side."""
        within = operator.ge if self.at_least else operator.le
        return within(statistics.median(self.ratios), self.goal)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for the JSON file."""
        return dict(
            name=self.name,
            goal=self.goal,
            goal_is='at least' if self.at_least else 'at most',
            ratios=self.ratios,
            median=statistics.median(self.ratios),
            min=min(self.ratios),
            max=max(self.ratios),
            met=self.met,
        )


@dataclass
class Result:
    """What a benchmark found.

    Args:
        settings: What it ran with.
        figures: Absolute figures; they hold for this machine only.
        comparisons: The ratios.
    """

    settings: dict[str, Any]
    figures: dict[str, float]
    comparisons: list[Comparison]


def interleave(
    ways: Mapping[str, Callable[[], object]],
    repetitions: int,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Time several ways to do a thing in turn: A B C, A B C, ...

    A machine that slows down for a while then slows all of them. A first
    round that fills caches and memory pools is not counted.

    Args:
        ways: Name to function.
        repetitions: Number of rounds that count.
        clock: Gives seconds.

    Returns:
        Name to seconds, one a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions + 1):
        for name, way in ways.items():
            start = clock()
            way()
            seconds[name].append(clock() - start)
    return {name: spent[1:] for name, spent in seconds.items()}


def divide(above: list[float], below: list[float]) -> list[float]:
    """Ratios of the figures of each repetition."""
    return [a / b for a, b in zip(above, below, strict=True)]


def machine() -> dict[str, Any]:
    """Facts that a reader needs to judge the figures."""
    info = Path('/proc/cpuinfo')
    models = [
        line.partition(':')[2].strip()
        for line in (info.read_text().splitlines() if info.is_file() else ())
        if line.startswith('model name')
    ]
    return dict(
        cpu=models[0] if models else platform.processor(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, 'sched_getaffinity')
        else os.cpu_count(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else '',
        # above the number of cores, others are at work too
        load_average=os.getloadavg()[0],
        torch_threads=torch.get_num_threads(),
        system=platform.platform(),
        python=platform.python_version(),
        versions={
            module.__name__: module.__version__
            for module in (
                *(mm_rotssl, mmengine, mmcv, mmpretrain),
                *(torch, cv2, np),
            )
        },
    )
