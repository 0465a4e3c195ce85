from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import BaseLoop, Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import read_checkpoint


@HOOKS.register_module()
class PretrainedCheckHook(Hook):
    """See to it that pre-trained weights arrive in the model.

    ``init_cfg=dict(type='Pretrained', checkpoint=...)`` loads the tensors
    whose names fit and logs the others, so a wrong file, prefix or variant of
    a network trains from random weights and looks like a poor checkpoint.
    Here each tensor of a module with such an ``init_cfg`` must be in its file,
    in its shape and finite, before the file is loaded; and in the model, bit
    for bit, before the first step. What else the file holds is ignored. A
    model without such a module, or a run that goes on from a checkpoint of
    its own, is left alone.

    Args:
        new (Sequence[str]): Beginnings of the names, in the model, of tensors
            that need not be in a file. Defaults to (), none.

    Examples:
        >>> # C4 detectors normalize once more after the last stage
        >>> hook = dict(
        ...     type='mm_rotssl.PretrainedCheckHook',
        ...     new=['roi_head.shared_head.norm.'],
        ... )
    """

    def __init__(self, new: Sequence[str] = ()) -> None:
        self.new = tuple(new)
        self._expected: dict[str, torch.Tensor] = {}

    def before_run(self, runner: Runner) -> None:
        """Read the files, without running code that they may carry.

        Args:
            runner (Runner): The runner.

        Raises:
            FileNotFoundError: If a file does not exist.
            ValueError: If it is damaged, or if tensors are missing, of
                another shape or not finite; all of them are named.
        """
        # validation and tests alone load weights of their own
        if not isinstance(runner._train_loop, BaseLoop):
            return
        if runner._load_from or (
            runner._resume and find_latest_checkpoint(runner.work_dir)
        ):
            return
        for name, module, settings in _pretrained_modules(runner.model):
            self._expected.update(self._read(name, module, settings))

    def before_train(self, runner: Runner) -> None:
        """Compare the model with what was read.

        Args:
            runner (Runner): The runner.

        Raises:
            RuntimeError: If a tensor differs; all of them are named.
        """
        expected, self._expected = self._expected, {}
        if not expected:
            return
        found = _unwrap(runner.model).state_dict()
        lost = [
            name
            for name, value in expected.items()
            if not torch.equal(found[name].cpu(), value.to(found[name].dtype))
        ]
        if lost:
            raise RuntimeError(
                f'{len(lost)} of {len(expected)} pre-trained tensors are not '
                'in the model: something has initialized them after the file '
                'was loaded.\n  ' + '\n  '.join(lost)
            )
        runner.logger.info(
            f'All {len(expected)} pre-trained tensors are in the model.'
        )

    def _read(
        self, name: str, module: nn.Module, settings: dict
    ) -> dict[str, torch.Tensor]:
        """Tensors of the file by their names in the model."""
        path = settings['checkpoint']
        # a stripped file has none
        prefix = settings.get('prefix') or ''
        if '://' in path:
            content = CheckpointLoader.load_checkpoint(path, 'cpu')
        else:
            content = read_checkpoint(path)
        weights = content.get('state_dict', content)
        weights = {k.removeprefix('module.'): v for k, v in weights.items()}
        expected, problems = {}, []
        for key, value in module.state_dict().items():
            place = f'{name}.{key}' if name else key
            have = weights.get(prefix + key)
            if have is None:
                # PyTorch before 0.4.1 did not count, and nothing reads it
                if not place.startswith(self.new) and not key.endswith(
                    '.num_batches_tracked'
                ):
                    problems.append(f'missing: {prefix}{key}')
            elif have.shape != value.shape:
                problems.append(
                    f'of another shape: {prefix}{key} is {tuple(have.shape)}, '
                    f'not {tuple(value.shape)}'
                )
            elif not have.isfinite().all():
                problems.append(f'not finite: {prefix}{key}')
            else:
                expected[place] = have
        if problems:
            raise ValueError(
                f'"{path}" does not have what model.{name}.init_cfg wants of '
                f'it ({len(expected)} tensors fit):\n  '
                + '\n  '.join(problems)
                + f'\nIts first names: {", ".join(list(weights)[:3])}. '
                'Weights for other libraries are written, and checked, by '
                'mm-rotssl export, and need no prefix; those of a training '
                'checkpoint have the prefix "backbone.". A ResNet from there '
                'is of type ResNet, not ResNetV1c or another variant.'
            )
        return expected


def _unwrap(model: Any) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _pretrained_modules(
    model: nn.Module,
) -> Iterator[tuple[str, nn.Module, dict]]:
    """Name, module and settings of each ``init_cfg`` with a file."""
    for name, module in _unwrap(model).named_modules():
        found = getattr(module, 'init_cfg', None) or ()
        for settings in [found] if isinstance(found, dict) else found:
            if settings['type'] in ('Pretrained', PretrainedInit):
                yield name, module, settings
