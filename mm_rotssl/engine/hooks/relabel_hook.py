import copy
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_rotssl.models.selfsup import PseudoLabel
from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import InputError, unwrap_model

from .training_datasets import training_datasets

SCHEDULES = ('linear', 'quadratic')


@HOOKS.register_module()
class RelabelHook(Hook):
    r"""Make new pseudo-labels for :class:`PseudoLabel`, now and then.

    Of ``times`` t = 0, ..., T - 1 each comes before the first step that is
    not before

    .. math:: (E + 1.01) \Big(\frac{t}{T - 1}\Big)^p

    epochs, of E in all, with p = 2 ('quadratic', SeLa's on ImageNet: sixteen
    of a hundred within the first ten of 400 epochs) or 1 ('linear'), as far
    as that is before the end. By default labels are made at the beginning of
    each epoch. The labels' ``stamp`` says when they were made: a run that is
    resumed makes them where one that was never stopped does.

    Features come from a pass over the training images, with the training's
    pipeline or another one. It is in eval mode, as in the code of DeepCluster,
    or in training mode, as in those of SeLa and DeepCluster-v2: in random
    order, normalized by the batch, with the running statistics moving. While
    these are far from those of the images, as before the first step, features
    are nearly alike in eval mode, and SeLa's labels bad.

    Where the model has memories, the pass only fills them, before the first
    step; from then on labels are made of what training has put there.

    Random numbers of a pass are its own, by the run's seed and the step, and
    those of training go on as if there had been none.

    Args:
        times (int, optional): T. Defaults to None, once an epoch.
        schedule (str): Of ``times``. Defaults to 'quadratic'.
        one_head (bool): Label for one classifier each time, in turn, as SeLa
            does on CIFAR-10; the first time for all. Defaults to False.
        train_mode (bool): See above. Defaults to False.
        pipeline (Sequence[dict], optional): How images are prepared for the
            pass. Defaults to None, as for training: of several views the
            first ones, as many as are kept in memory, are taken.

    Raises:
        ValueError: If ``times`` is not above 1 or ``schedule`` not known.
    """

    # after the random state of an epoch is set
    priority = 'LOW'

    def __init__(
        self,
        times: int | None = None,
        schedule: str = 'quadratic',
        one_head: bool = False,
        train_mode: bool = False,
        pipeline: Sequence[dict] | None = None,
    ) -> None:
        if (times is not None and times < 2) or schedule not in SCHEDULES:
            raise ValueError(
                f'times={times} and schedule={schedule!r} of RelabelHook: at '
                f'least 2, and one of {", ".join(SCHEDULES)}.'
            )
        self.times = times
        self.schedule = schedule
        self.one_head = one_head
        self.train_mode = train_mode
        self.pipeline = pipeline
        self.steps: list[int] = []

    def before_train(self, runner: Runner) -> None:
        """Find the steps before which labels are made.

        Args:
            runner (Runner): The runner.

        Raises:
            InputError: If nothing takes labels.
        """
        if not list(self._parts(runner)):
            raise InputError(
                'custom_hooks has a RelabelHook, and no part of the model is '
                'a PseudoLabel. Take it out.'
            )
        length = len(runner.train_dataloader)
        total = runner.max_iters
        if self.times is None:
            self.steps = list(range(0, total, length))
            return
        power = 2 if self.schedule == 'quadratic' else 1
        moments = np.linspace(0, 1, self.times) ** power
        found = {
            math.ceil(moment * (total / length + 1.01) * length)
            for moment in moments
        }
        self.steps = sorted(step for step in found if step < total)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Make labels, if it is time to.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not read.
            data_batch (Any): Not read.
        """
        if runner.iter not in self.steps:
            return
        for prefix, dataset, model in self._parts(runner):
            if int(model.bank.stamp) != runner.iter:
                with _random_state((runner.seed, runner.iter, get_rank())):
                    self._relabel(runner, prefix, dataset, model)

    def _parts(self, runner: Runner) -> Iterator[tuple[str, Any, PseudoLabel]]:
        for _, dataset, modules in training_datasets(runner):
            for name, module in modules.items():
                if isinstance(module, PseudoLabel):
                    yield f'{name}.' if name else '', dataset, module

    def _relabel(
        self, runner: Runner, prefix: str, dataset: Any, model: PseudoLabel
    ) -> None:
        first = int(model.bank.stamp) < 0
        if model.memories and not first:
            indices = torch.arange(
                get_rank(), len(model.bank), get_world_size()
            )
            indices = indices.to(model.bank.labels.device)
            feats = torch.stack([m.rows(indices) for m in model.memories])
        else:
            feats, indices = self._extract(runner, dataset, model)
            for memory, rows in zip(model.memories, feats, strict=False):
                memory.fill(indices, rows)
        heads: Sequence[int] = range(model.bank.num_heads)
        if self.one_head and not first:
            heads = [self.steps.index(runner.iter) % len(heads)]
        found = model.relabel(
            feats, indices, heads, (runner.seed, runner.iter)
        )
        if model.reset_head:
            # what the optimizer knows is of weights that are gone
            state = runner.optim_wrapper.optimizer.state
            for number in heads:
                for weight in model.head.classifiers[number].parameters():
                    state.pop(weight, None)
        model.bank.stamp.fill_(runner.iter)
        for name, value in found.items():
            runner.message_hub.update_scalar(f'train/{prefix}{name}', value)
        text = ', '.join(f'{key} {value:.4g}' for key, value in found.items())
        runner.logger.info(f'New pseudo-labels: {text}')

    @torch.no_grad()
    def _extract(
        self, runner: Runner, dataset: Any, model: PseudoLabel
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (A, N, D) and indices of this process's images."""
        if self.pipeline is not None:
            dataset = copy.copy(dataset)
            dataset.pipeline = Compose(self.pipeline)
        settings = copy.deepcopy(runner.cfg.train_dataloader.to_dict())
        settings.update(
            dataset=dataset,
            # None of them twice; but synchronized normalization needs as many
            # batches on each process.
            sampler=dict(
                type='DefaultSampler',
                shuffle=self.train_mode,
                round_up=self.train_mode,
            ),
            drop_last=False,
            persistent_workers=False,
        )
        settings.pop('batch_sampler', None)
        loader = Runner.build_dataloader(settings, seed=runner.seed)
        # another order each time
        loader.sampler.set_epoch(runner.iter)
        prepare = unwrap_model(runner.model).data_preprocessor
        count = len(model.crops_for_assign)
        # its backbone is that of all tasks
        unwrap_model(runner.model).train(self.train_mode)
        embeds, places = [], []
        for batch in loader:
            data = prepare(batch, False)
            inputs = data['inputs']
            views = [inputs] if isinstance(inputs, torch.Tensor) else inputs
            found = model.embed(views[:count])
            embeds.append(found.float())
            places.append(model.sample_indices(data['data_samples'], views[0]))
        unwrap_model(runner.model).train()
        feats, indices = torch.cat(embeds, 1), torch.cat(places)
        # in place of a file that can't be read another image came again
        unique, kept = np.unique(indices.cpu().numpy(), return_index=True)
        return (
            feats[:, torch.from_numpy(kept).to(feats.device)],
            torch.from_numpy(unique).to(feats.device),
        )


@contextmanager
def _random_state(seed: Sequence[int]) -> Iterator[None]:
    """Random numbers by a seed, and then those of before."""
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
