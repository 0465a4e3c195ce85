"""Run a function on two gloo processes."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD_SIZE = 2


def _entry(rank: int, function: Callable, folder: str, args: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=WORLD_SIZE,
    )
    torch.save(function(rank, *args), f'{folder}/{rank}.pt')
    dist.barrier()
    # Torch 2.5 may deadlock when it takes a gloo group down: its destructor
    # waits, with Python's lock held, for a thread that wants that lock.
    os._exit(0)


def run_on_two(function: Callable, *args: Any) -> list:
    """Call ``function(rank, *args)`` on both; return what they return.

    The function must be importable and return tensors in plain containers.
    Both processes share the memory of tensors that are among ``args``: copy
    what is written to.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_entry, (function, folder, args), nprocs=WORLD_SIZE)
        return [
            torch.load(Path(folder) / f'{rank}.pt', weights_only=True)
            for rank in range(WORLD_SIZE)
        ]
