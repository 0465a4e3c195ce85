"""Run a function on two gloo processes."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

WORLD_SIZE = 2

# Both processes are forked from a server that has imported what takes
# seconds, once for all tests, and nothing that a test could have changed.
# Not our own package: the server does not get pytest's ``pythonpath``, so it
# could import an installed one.
multiprocessing.set_forkserver_preload(
    ['mmpretrain.models', 'mmpretrain.datasets', 'mmpretrain.evaluation']
)


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


def run_on_two(function: Callable, *args: Any, timeout: float = 120) -> list:
    """Call ``function(rank, *args)`` on both; return what they return.

    The function must be importable and return tensors in plain containers.
    Both processes share the memory of tensors that are among ``args``: copy
    what is written to.

    Raises:
        TimeoutError: The processes have not ended after ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = start_processes(
            _entry,
            (function, folder, args),
            nprocs=WORLD_SIZE,
            join=False,
            start_method='forkserver',
        )
        end = time.monotonic() + timeout
        # each call returns when one of them has ended
        while not context.join(max(0, end - time.monotonic())):
            if time.monotonic() > end:
                for process in context.processes:
                    process.kill()
                    process.join()
                raise TimeoutError(f'{function.__name__}: {timeout} s')
        return [
            torch.load(Path(folder) / f'{rank}.pt', weights_only=True)
            for rank in range(WORLD_SIZE)
        ]
