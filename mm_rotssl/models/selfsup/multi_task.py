import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.logging import MessageHub
from mmengine.model import BaseDataPreprocessor, ModuleDict
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.registry import MODELS

from ..utils import zero_loss
from .base import SelfSupervisor


class _TaskDataPreprocessor(BaseDataPreprocessor):
    """Hand each task its part of a batch, and images alone to another.

    Args:
        images (nn.Module): For batches of images, those of validation.
        tasks (dict[str, nn.Module]): By task, for batches of
            :class:`StackedDataset`.
        weights (dict[str, float]): Those of the model, the same object: what
            has weight 0 now is left out.
    """

    def __init__(
        self,
        images: nn.Module,
        tasks: Mapping[str, nn.Module],
        weights: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.images = images
        self.tasks = ModuleDict(tasks)
        self.weights = weights

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move to the device and normalize.

        Args:
            data (dict): ``inputs`` and ``data_samples`` of images, or such
                a dict for each task.
            training (bool): Handed on. Defaults to False.

        Returns:
            dict: Arguments of :meth:`MultiTask.forward`.

        Raises:
            ValueError: If the batch lacks data of a task, or has some for
                another one.
        """
        if 'inputs' in data:
            return self.images(data, training)
        for name in self.tasks:
            if name not in data:
                raise ValueError(
                    f'model.tasks.{name} gets no data: the batch has '
                    f'{", ".join(data)}. Add {name}=dict(...) to datasets of '
                    "train_dataloader.dataset, a dict(type='mm_rotssl."
                    "StackedDataset', datasets=dict(...))."
                )
        for name in data:
            if name not in self.tasks:
                raise ValueError(
                    f'train_dataloader.dataset has data for "{name}", and '
                    f'model.tasks only {", ".join(self.tasks)}. Take it out '
                    'of train_dataloader.dataset.datasets or add its task.'
                )
        return dict(
            inputs={
                name: task(data[name], training)
                for name, task in self.tasks.items()
                if self.weights[name]
            }
        )


@MODELS.register_module()
class MultiTask(SelfSupervisor):
    r"""A weighted mixture of self-supervised algorithms on one backbone.

    In each step each task gets a batch of its own dataset, see
    :class:`StackedDataset`, runs it through the backbone, and the optimizer
    descends :math:`\sum_t w_t L_t`. A task of weight 0 is left out of the
    step: the rest is, bit for bit, that of a model without it. Its own
    parameters get gradients of 0, since a distributed run waits for them, so
    an optimizer's momentum and weight decay go on.

    A task is any algorithm that reads its ``backbone`` by that name and calls
    it with images alone: those of this package, and mmpretrain's with
    views, such as SimSiam, BYOL or MoCo, whose momentum encoders copy the
    shared backbone. Those that hand it masks (MAE) don't fit beside others.
    What belongs to a task has the prefix ``tasks.NAME.``, and hooks that
    look for it at the top of the model (mmpretrain's for DenseCL and SwAV)
    do not find it. ``init_cfg`` of a task concerns its own parts. Running
    statistics of batch normalization in the backbone are those of all tasks'
    images in turn.

    Args:
        backbone (dict | nn.Module): Any backbone that fits the tasks.
        tasks (dict[str, dict | nn.Module]): The algorithms by name, settings
            without backbone, or built with this one. They run in this order.
        weights (dict[str, float], optional): Their weights, finite and not
            negative, 1 where nothing is said; :class:`TaskWeightHook` changes
            them while training. Defaults to None.
        gradient_interval (int): Every so many steps, beginning with the
            first, log by ``NAME_gradient_norm`` the length of the gradient of
            each task's weighted loss with respect to the backbone, and by
            ``NAME_OTHER_cosine`` the cosine between those of two tasks, of
            the batch of all processes. It takes another backward pass
            through the backbone, and changes nothing but the logs. Loss
            scaling of fp16 comes later, so small gradients may be lost in
            these numbers; a backbone's ``with_cp`` does not allow them.
            Defaults to 0, never.
        data_preprocessor (dict, optional): For images alone, as in
            validation; mmpretrain's ``SelfSupDataPreprocessor`` if it names
            no ``type``. A task that has no ``data_preprocessor`` takes these
            settings with the type that it has by default. Defaults to None.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If there is no task, a name or weight is invalid or
            belongs to no task, a task has a backbone of its own, or
            ``gradient_interval`` is negative.

    Examples:
        >>> model = dict(
        ...     type='mm_rotssl.MultiTask',
        ...     backbone=dict(type='ResNet', depth=18),
        ...     tasks=dict(
        ...         rotation=dict(
        ...             type='mm_rotssl.RotNet',
        ...             neck=dict(type='GlobalAveragePooling'),
        ...             head=dict(
        ...                 type='mm_rotssl.RotationHead', in_channels=512
        ...             ),
        ...         ),
        ...         clusters=dict(
        ...             type='mm_rotssl.SelfClassifier',
        ...             neck=dict(
        ...                 type='mm_rotssl.SelfClassifierNeck',
        ...                 in_channels=512,
        ...             ),
        ...             head=dict(
        ...                 type='mm_rotssl.SelfClassifierHead',
        ...                 in_channels=128,
        ...             ),
        ...         ),
        ...     ),
        ...     weights=dict(rotation=0.5),
        ... )
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        tasks: Mapping[str, Any],
        weights: Mapping[str, float] | None = None,
        gradient_interval: int = 0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        _check_names(tasks)
        if gradient_interval < 0:
            raise ValueError(
                f'model.gradient_interval={gradient_interval} must be 0, for '
                'never, or a number of steps.'
            )
        super().__init__(
            backbone, data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        # a task's own type of preprocessor knows what its images need
        settings = {
            name: value
            for name, value in (data_preprocessor or {}).items()
            if name != 'type'
        }
        self.tasks = ModuleDict(
            {
                name: self._build(name, task, settings)
                for name, task in tasks.items()
            }
        )
        self.weights: dict[str, float] = dict.fromkeys(tasks, 1.0)
        for name, weight in (weights or {}).items():
            self.set_weight(name, weight)
        self.data_preprocessor: Any = _TaskDataPreprocessor(
            self.data_preprocessor,
            {
                name: task._modules.pop('data_preprocessor')
                for name, task in self.tasks.items()
            },
            self.weights,
        )
        ignored = [
            f'tasks.{name}.{parameter}'
            for name, task in self.tasks.items()
            for parameter in _ignored(task)
        ]
        # DistributedDataParallel looks for it here alone
        self._ddp_params_and_buffers_to_ignore = ignored
        self.gradient_interval = gradient_interval

    def _build(self, name: str, task: Any, settings: dict) -> nn.Module:
        built = task
        if isinstance(task, dict):
            if 'backbone' in task:
                raise ValueError(
                    f'model.tasks.{name} has a backbone of its own. All tasks '
                    'share model.backbone: leave it out.'
                )
            built = MODELS.build(
                {
                    'data_preprocessor': dict(settings),
                    **task,
                    'backbone': self.backbone,
                }
            )
        if built._modules.pop('backbone', None) is not self.backbone:
            raise ValueError(
                f'model.tasks.{name}, a {type(built).__name__}, has no '
                'backbone that could be shared.'
            )
        # Reached as an attribute, but no submodule of the task: names,
        # checkpoints and optimizers have the backbone once, at the top.
        built.__dict__['backbone'] = self.backbone
        return built

    def set_weight(self, task: str, weight: float) -> None:
        """Change a weight.

        Args:
            task (str): Name of the task.
            weight (float): Its weight from the next step on.

        Raises:
            ValueError: If there is no such task, or the weight is negative
                or not finite.
        """
        if task not in self.weights:
            raise ValueError(
                f'There is a weight for "{task}", and model.tasks has '
                f'{", ".join(self.weights)}.'
            )
        if not 0 <= weight < math.inf:
            raise ValueError(
                f'The weight {weight} of model.tasks.{task} must be finite '
                'and not negative.'
            )
        self.weights[task] = weight

    def loss(
        self,
        inputs: dict[str, dict],
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Weighted losses of the tasks.

        Args:
            inputs (dict[str, dict]): For each task whose weight is not 0 its
                arguments, ``inputs`` and ``data_samples``.
            data_samples (list[DataSample], optional): Not read.

        Returns:
            dict[str, Tensor]: What the tasks give: ``loss`` of a task becomes
            ``loss_NAME``, its ``loss_x`` becomes ``loss_NAME_x`` and ``y``
            becomes ``NAME_y``, or stays where it begins with the name.
            Losses are multiplied by the weight, so that their sum is the
            mixture's; a task that is left out has a ``loss_NAME`` of 0. For
            ``gradient_interval``, see the class.

        Raises:
            ValueError: If the batch is not divided by tasks, all weights are
                0, or two tasks' numbers have the same name.
        """
        if not isinstance(inputs, dict):
            raise ValueError(
                'The batch has no data of their own for the tasks '
                f'{", ".join(self.tasks)}. Train on '
                "dict(type='mm_rotssl.StackedDataset', datasets=dict(...))."
            )
        if not any(self.weights.values()):
            raise ValueError(
                'All weights are 0, of '
                f'{", ".join(self.weights)}: there is nothing to train. Set '
                'one of model.weights, or the begin of a TaskWeightHook.'
            )
        results: dict[str, Any] = {}
        totals = {}
        for name, task in self.tasks.items():
            found = self._task_losses(name, task, inputs)
            for key in found:
                if key in results:
                    raise ValueError(
                        f'Two of model.tasks give a "{key}". Rename "{name}".'
                    )
            results.update(found)
            if self.weights[name]:
                totals[name] = self.parse_losses(found)[0]
        if self._gradients_are_due():
            results.update(self._compare_gradients(totals))
        return results

    def _task_losses(
        self, name: str, task: Any, inputs: dict[str, dict]
    ) -> dict[str, Any]:
        weight = self.weights[name]
        if not weight:
            ignored = _ignored(task)
            return {
                f'loss_{name}': zero_loss(
                    parameter
                    for key, parameter in task.named_parameters()
                    if key not in ignored
                )
            }
        found = {}
        for key, value in task._run_forward(inputs[name], mode='loss').items():
            if 'loss' in key:
                value = (
                    weight * value
                    if isinstance(value, torch.Tensor)
                    else [weight * part for part in value]
                )
            found[_log_name(name, key)] = value
        return found

    def _gradients_are_due(self) -> bool:
        if not (self.gradient_interval and self.training):
            return False
        step = MessageHub.get_current_instance().get_info('iter', 0)
        return torch.is_grad_enabled() and step % self.gradient_interval == 0

    def _compare_gradients(
        self, totals: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Lengths of the tasks' gradients, and cosines between them."""
        shared = [p for p in self.backbone.parameters() if p.requires_grad]
        gradients = {}
        for name, total in totals.items():
            parts = torch.autograd.grad(
                total, shared, retain_graph=True, materialize_grads=True
            )
            gradient = torch.cat([part.flatten().float() for part in parts])
            # as DistributedDataParallel does, later on
            all_reduce(gradient, 'mean')
            gradients[name] = gradient
        results = {
            f'{name}_gradient_norm': gradient.norm()
            for name, gradient in gradients.items()
        }
        for one, other in combinations(gradients, 2):
            results[f'{one}_{other}_cosine'] = torch.cosine_similarity(
                gradients[one], gradients[other], dim=0
            )
        return results


def _log_name(task: str, key: str) -> str:
    """Name a number of a task among those of all tasks."""
    if key == 'loss' or key.startswith('loss_'):
        return key.replace('loss', f'loss_{task}', 1)
    return key if key.startswith(f'{task}_') else f'{task}_{key}'


def _ignored(task: nn.Module) -> list[str]:
    """Parameters that DistributedDataParallel is to leave to the task."""
    return getattr(task, '_ddp_params_and_buffers_to_ignore', [])


def _check_names(tasks: Mapping[str, dict]) -> None:
    if not tasks:
        raise ValueError('model.tasks names no task.')
    for name in tasks:
        if not name.isidentifier() or hasattr(ModuleDict, name):
            raise ValueError(
                f'A task in model.tasks is named "{name}": names consist of '
                'letters, digits and underscores, and are not those of '
                'methods of a ModuleDict.'
            )
        if 'loss' in name or name in ('inputs', 'data_samples'):
            raise ValueError(
                f'A task in model.tasks is named "{name}". Numbers whose '
                "names hold 'loss' are added to the loss, and parts of a "
                "batch are named 'inputs' and 'data_samples': choose another "
                'name.'
            )
