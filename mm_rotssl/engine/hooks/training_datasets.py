from collections.abc import Iterator
from typing import Any

from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from mm_rotssl.datasets import StackedDataset
from mm_rotssl.utils import unwrap_model


def training_dataloader(runner: Runner) -> DataLoader | None:
    """Get the dataloader of training, if there is one.

    Args:
        runner (Runner): The runner.

    Returns:
        DataLoader: None if the runner only validates or tests, or only plays
        the schedule through, as mmpretrain's ``vis_scheduler.py`` lets it do
        with a list.
    """
    if not isinstance(runner._train_loop, BaseLoop):
        return None
    loader = runner.train_dataloader
    return None if isinstance(loader, list) else loader


def training_datasets(
    runner: Runner,
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Go through the datasets of training and what learns from them.

    From a dataset of a :class:`StackedDataset`, which may be in a
    ``RepeatDataset``, the task of its name learns; from any other dataset,
    all of the model.

    Args:
        runner (Runner): The runner.

    Yields:
        tuple[str, Any, dict[str, nn.Module]]: Where the dataset is in
        ``train_dataloader.dataset``, '' or '.datasets.NAME'; the dataset;
        and the parts of the model by their names in it, without the prefix
        of a wrapper.
    """
    loader = training_dataloader(runner)
    if loader is None:
        return
    model = unwrap_model(runner.model)
    modules = dict(model.named_modules())
    dataset: Any = loader.dataset
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
