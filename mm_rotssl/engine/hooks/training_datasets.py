from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner

from mm_rotssl.datasets import StackedDataset


def training_datasets(
    runner: Runner,
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Go through the datasets of training and what learns from them.

    From a dataset of a :class:`StackedDataset`, which may be in a
    ``RepeatDataset``, the task of its name learns; from any other dataset,
    all of the model.

    Args:
        runner (Runner): The runner. Validation and tests alone have no
            dataset of training.

    Yields:
        tuple[str, Any, dict[str, nn.Module]]: Where the dataset is in
        ``train_dataloader.dataset``, '' or '.datasets.NAME'; the dataset;
        and the parts of the model by their names in it, without the prefix
        of a wrapper.
    """
    if not isinstance(runner._train_loop, BaseLoop):
        return
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    modules = dict(model.named_modules())
    dataset = runner.train_dataloader.dataset
    inner = dataset
    while not isinstance(inner, StackedDataset):
        if not hasattr(inner, 'dataset'):
            yield '', dataset, modules
            return
        inner = inner.dataset
    for task, part in inner.datasets.items():
        # with a dot: 'tasks.one' is no part of 'tasks.one_more'
        prefix = f'tasks.{task}.'
        yield (
            f'.datasets.{task}',
            part,
            {
                name: module
                for name, module in modules.items()
                if f'{name}.'.startswith(prefix)
            },
        )


def training_transforms(dataset: Any) -> list[Any]:
    """List the transforms of a dataset's pipeline.

    Args:
        dataset (Dataset): The dataset, or a wrapper such as
            ``RepeatDataset``.

    Returns:
        list[Any]: Of the pipelines of the wrappers, too.
    """
    found: list[Any] = []
    while dataset is not None:
        pipeline = getattr(dataset, 'pipeline', None)
        found += getattr(pipeline, 'transforms', ())
        dataset = getattr(dataset, 'dataset', None)
    return found
