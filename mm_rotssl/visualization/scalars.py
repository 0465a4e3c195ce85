import json
from collections.abc import Iterable
from pathlib import Path


def read_scalars(
    paths: Iterable[str | Path],
) -> tuple[list[dict], list[dict]]:
    """Read the logged scalars of a run that may have been resumed.

    Every start of a run writes a file of its own. A later file replaces the
    earlier ones from its own first step on: a resumed run continues them, a
    run from scratch replaces them all.

    Args:
        paths (Iterable[str | Path]): ``<work_dir>/<time>/vis_data/
            scalars.json`` of each start, in the order of time: one JSON
            object a line, as mmengine's ``LocalVisBackend`` writes them.

    Returns:
        tuple[list[dict], list[dict]]: Lines of training, and of validation
        (those without ``iter``), each in the order of ``step``.

    Raises:
        ValueError: If a line is no JSON object.
    """
    merged: tuple[list[dict], list[dict]] = ([], [])
    for path in paths:
        parts: tuple[list[dict], list[dict]] = ([], [])
        with open(path, encoding='utf-8') as file:
            for number, text in enumerate(file, 1):
                try:
                    line = json.loads(text)
                    # lines of anything else than scalars have no step
                    if 'step' in line:
                        parts['iter' not in line].append(line)
                except (ValueError, TypeError) as error:
                    raise ValueError(
                        f'{path}:{number} is no JSON object: {text[:60]!r}'
                    ) from error
        for old, new in zip(merged, parts, strict=True):
            if new:
                first = new[0]['step']
                old[:] = [line for line in old if line['step'] < first] + new
    return merged
