"""How many threads a computation is worth."""

from threadpoolctl import threadpool_limits

# More products than this, of rows, columns and classes or clusters, are much
# work: for several threads, or for another device, where there is one.
MUCH_WORK = 2**30


def limit_threads(products: int) -> threadpool_limits:
    """Leave little work to one thread, until the context ends.

    With so little in each of many steps several threads hardly save time,
    and where other programs use the cores they take ten times as long.

    Args:
        products (int): Multiplications of a step.

    Returns:
        threadpool_limits: A context manager.
    """
    return threadpool_limits(1 if products <= MUCH_WORK else None)
