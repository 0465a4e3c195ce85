"""Exact search of nearest neighbors: ours, or faiss."""

import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from measure import Comparison, MissingPackageError, Result, divide, interleave

from mm_rotssl.evaluation import search_neighbors


def knn_search(
    queries: int, rows: int, channels: int, ks: list[int], repetitions: int
) -> Result:
    """Time the search by cosine similarity, from vectors to neighbors.

    Args:
        queries: Number of vectors to search for.
        rows: Number of vectors to search among.
        channels: Of each vector.
        ks: Numbers of neighbors.
        repetitions: Number of timed rounds.

    Returns:
        Seconds and ratios.

    Raises:
        MissingPackageError: If faiss is not installed.
        RuntimeError: If both find different neighbors.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            'faiss, which it is compared with, is not installed: '
            'pip install faiss-cpu'
        ) from error

    # both have as many threads
    faiss.omp_set_num_threads(torch.get_num_threads())
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(rows, channels, generator=generator)
    asked = torch.randn(queries, channels, generator=generator)

    def ours(k: int) -> tuple[np.ndarray, np.ndarray]:
        similarity, positions = search_neighbors(reference, asked, k)
        return similarity.numpy(), positions.numpy()

    def theirs(k: int) -> tuple[np.ndarray, np.ndarray]:
        index = faiss.IndexFlatIP(channels)
        index.add(F.normalize(reference).numpy())
        return index.search(F.normalize(asked).numpy(), k)

    figures: dict[str, float] = {}
    comparisons = []
    for k in ks:
        found, expected = ours(k), theirs(k)
        same = float((found[1] == expected[1]).mean())
        # but for the last digits, by which neighbors change places
        if same < 0.99 or not np.allclose(found[0], expected[0], atol=1e-5):
            raise RuntimeError(
                f'{k} neighbors: ours are others than those that faiss finds.'
            )
        seconds = interleave(
            {'ours': partial(ours, k), 'faiss': partial(theirs, k)},
            repetitions,
            time.perf_counter,
        )
        for name, times in seconds.items():
            figures[f'{name}, {k} neighbors, seconds (median)'] = sorted(
                times
            )[len(times) // 2]
        comparisons.append(
            Comparison(
                f'search of {k} neighbors, ours / faiss',
                divide(seconds['ours'], seconds['faiss']),
                1.0,
            )
        )
    return Result(
        dict(
            queries=queries,
            rows=rows,
            channels=channels,
            neighbors=ks,
            threads=torch.get_num_threads(),
            faiss=faiss.__version__,
            repetitions=repetitions,
        ),
        figures,
        comparisons,
    )
