from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, all_reduce_params
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.hooks import RemovableHandle

from mm_rotssl.evaluation.feature_store import stage_names
from mm_rotssl.evaluation.labels import list_classes
from mm_rotssl.models.selfsup import ESSL, MultiTask
from mm_rotssl.ops import pool_features
from mm_rotssl.registry import HOOKS, OPTIMIZERS
from mm_rotssl.utils import InputError, unwrap_model

from .training_datasets import training_datasets

# in the checkpoint
KEY = 'online_linear_probe'
REMEDY = (
    'OnlineLinearProbeHook needs labels, which the algorithm never sees: '
    'train on a labeled dataset (e.g. with_label=True of '
    'mm_rotssl.ImageFolder), or take the hook out of custom_hooks.'
)


@HOOKS.register_module()
class OnlineLinearProbeHook(Hook):
    """Watch, while pre-training, how well each stage tells real classes.

    Beside each stage of the backbone a linear classifier is trained on the
    features of the images of each step, which the algorithm computes anyway.
    Features are averaged over their positions and scaled to mean 0 and
    variance 1 over the batch, of all processes. No gradient leaves a
    classifier, its loss is no part of the reported one, and no random number
    is drawn: a run with the hook trains the same network, bit for bit, as
    one without.

    Before the classifiers learn from a batch they classify it. The share that
    is right, in percent, is logged as ``train/probe/accuracy_stageN``, N as
    in ``knn/stageN``. It is an accuracy on augmented images of the training
    set, of classifiers that lag behind the network: for watching a run, not
    for comparing methods.

    Of what an algorithm hands its backbone, those rows are taken that are
    the images as they come from the data preprocessor, the first view of
    each: the un-rotated copies of :class:`RotNet`,
    :class:`RotationFeatureDecoupling` and such, the first views of
    :class:`SimCLR`, :class:`SelfClassifier` and mmpretrain's algorithms, the
    algorithm's first view of :class:`ESSL`, not the small crop, and the
    images of one task of :class:`MultiTask`, in steps in which its weight is
    not 0. With ``rotated_by_dataset`` of :class:`RotNet` they are rotated.
    Where the backbone never gets the images themselves, as with
    ``rotations`` without 0 or with odd multiples of 45 degrees, there is an
    error.

    The classifiers and their optimizer are saved in checkpoints, and a
    resumed run goes on with them, with settings as configured now.

    Args:
        num_classes (int, optional): Defaults to None, as many as the training
            dataset names.
        optimizer (dict, optional): Of the classifiers. Defaults to None,
            ``dict(type='SGD', lr=0.01, momentum=0.9)``.
        task (str, optional): With a :class:`MultiTask`, whose images are
            classified. Defaults to None, those of the first task.
    """

    # of the step
    _labels: torch.Tensor | None
    _images: torch.Tensor | None
    _feats: tuple[torch.Tensor, ...] | None

    def __init__(
        self,
        num_classes: int | None = None,
        optimizer: dict | None = None,
        task: str | None = None,
    ) -> None:
        self.num_classes = num_classes
        self.optimizer = optimizer or dict(type='SGD', lr=0.01, momentum=0.9)
        self.task = task
        self._probes = nn.ModuleDict()
        self._optimizer: Any = None
        self._saved: dict[str, Any] | None = None
        self._handles: list[RemovableHandle] = []
        self._forget()

    def before_train(self, runner: Runner) -> None:
        """Begin to listen to the data preprocessor and the backbone.

        Args:
            runner (Runner): The runner.

        Raises:
            InputError: If there is no such task, or the number of classes is
                not known.
        """
        model = unwrap_model(runner.model)
        # data of ESSL are views of the same images
        if isinstance(model, MultiTask) and not isinstance(model, ESSL):
            self.task = self.task or next(iter(model.tasks))
            if self.task not in model.tasks:
                raise InputError(
                    f'task="{self.task}" of OnlineLinearProbeHook: model is '
                    f'a MultiTask of {", ".join(model.tasks)}.'
                )
        elif self.task is not None:
            raise InputError(
                f'task="{self.task}" of OnlineLinearProbeHook: model is a '
                f'{type(model).__name__}, without tasks of their own images. '
                'Leave it out.'
            )
        self.num_classes = self.num_classes or self._count_classes(runner)
        self._handles = [
            model.data_preprocessor.register_forward_hook(self._note_images),
            model.backbone.register_forward_hook(self._note_features),
        ]

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Read the labels of the batch.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not read.
            data_batch (dict): What the dataloader gave.

        Raises:
            InputError: If an image does not have one label of a known class.
        """
        if self.task is not None:
            data_batch = data_batch[self.task]
        self._labels = self._read_labels(data_batch['data_samples'])

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Classify the images of the step, then learn from them.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not read.
            data_batch (Any): Not read.
            outputs (dict, optional): Not read.

        Raises:
            InputError: If the backbone did not get the images.
        """
        labels, images, feats = self._labels, self._images, self._feats
        self._forget()
        if images is None:
            # the task's weight is 0
            return
        if feats is None:
            raise InputError(
                'OnlineLinearProbeHook finds no images of the batch, as they '
                'come from the data preprocessor, among what the backbone '
                'gets: the algorithm shows it only changed ones, such as '
                'with model.rotations without 0. Take the hook out of '
                'custom_hooks.'
            )
        assert labels is not None
        if not self._probes:
            names = stage_names(
                unwrap_model(runner.model).backbone, len(feats)
            )
            self._build(dict(zip(names, feats, strict=True)))
        for name, right in self._step(feats, labels.to(images.device)).items():
            runner.message_hub.update_scalar(
                f'train/probe/accuracy_stage{name}', right
            )

    def after_train(self, runner: Runner) -> None:
        """Listen no longer.

        Args:
            runner (Runner): The runner.
        """
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Save the classifiers.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is to be saved; changed in place.
        """
        saved = self._saved
        if self._probes:
            saved = dict(
                probes=dict(self._probes.state_dict()),
                optimizer=self._optimizer.state_dict(),
            )
        if saved is not None:
            checkpoint[KEY] = saved

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the classifiers of the run that is resumed.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read.
        """
        if runner._resume:
            self._saved = checkpoint.get(KEY)

    def _forget(self) -> None:
        self._labels = self._images = self._feats = None

    def _count_classes(self, runner: Runner) -> int:
        for place, dataset, _ in training_datasets(runner):
            if place in ('', f'.datasets.{self.task}'):
                classes = list_classes(dataset)
                if classes:
                    return len(classes)
        raise InputError(
            'OnlineLinearProbeHook: the training dataset names no classes. '
            'Set num_classes=... of the hook.'
        )

    def _read_labels(self, samples: Sequence[Any]) -> torch.Tensor:
        labels = []
        for sample in samples or (None,):
            if sample is None or 'gt_label' not in sample:
                raise InputError(f'A sample has no gt_label. {REMEDY}')
            if sample.gt_label.numel() != 1:
                raise InputError(
                    f'A sample has {sample.gt_label.numel()} labels, and '
                    'OnlineLinearProbeHook knows images of one class only. '
                    'Take the hook out of custom_hooks.'
                )
            labels.append(int(sample.gt_label))
        wrong = {x for x in labels if not 0 <= x < (self.num_classes or 0)}
        if wrong:
            raise InputError(
                f'A sample has gt_label={min(wrong)}, and '
                f'OnlineLinearProbeHook num_classes={self.num_classes}. '
                'Set num_classes of the hook to the number of classes.'
            )
        return torch.tensor(labels)

    def _note_images(self, module: nn.Module, args: Any, data: Any) -> None:
        # not in validation
        if self._labels is None:
            return
        if self.task is not None and 'data_samples' not in data:
            data = data['inputs'].get(self.task)
        if data is not None:
            views = data['inputs']
            self._images = (
                views if isinstance(views, torch.Tensor) else views[0]
            )

    @torch.no_grad()
    def _note_features(
        self, module: nn.Module, args: tuple[Any, ...], output: Any
    ) -> None:
        if self._images is None or self._feats is not None:
            return
        rows = _find_rows(args[0], self._images)
        if rows is not None:
            self._feats = tuple(feat[rows] for feat in pool_features(output))

    def _build(self, feats: Mapping[str, torch.Tensor]) -> None:
        for name, feat in feats.items():
            probe = torch.nn.utils.skip_init(
                nn.Linear, feat.size(1), self.num_classes, device=feat.device
            )
            # the problem is convex, and random numbers are the algorithm's
            nn.init.zeros_(probe.weight)
            nn.init.zeros_(probe.bias)
            self._probes[name] = probe
        self._optimizer = OPTIMIZERS.build(
            dict(self.optimizer, params=list(self._probes.parameters()))
        )
        if self._saved is not None:
            self._go_on(**self._saved)
            self._saved = None

    def _go_on(
        self, probes: dict[str, torch.Tensor], optimizer: dict[str, Any]
    ) -> None:
        now, before = (
            {name: tuple(value.shape) for name, value in state.items()}
            for state in (self._probes.state_dict(), probes)
        )
        if now != before:
            raise InputError(
                'OnlineLinearProbeHook: the classifiers of the checkpoint '
                f'have other shapes, by stage: {before}, and here {now}. '
                'Leave classes and stages as they were, or take the hook out '
                'of custom_hooks.'
            )
        self._probes.load_state_dict(probes)
        # its settings are those of the config
        self._optimizer.load_state_dict(
            dict(self._optimizer.state_dict(), state=optimizer['state'])
        )

    @torch.enable_grad()
    def _step(
        self, feats: Sequence[torch.Tensor], labels: torch.Tensor
    ) -> dict[str, float]:
        """Accuracies before the step, of the images of all processes."""
        count = torch.tensor(len(labels), device=labels.device)
        all_reduce(count)
        hits = []
        self._optimizer.zero_grad()
        with torch.autocast(labels.device.type, enabled=False):
            for probe, feat in zip(self._probes.values(), feats, strict=True):
                logits = probe(_standardize(feat, count))
                loss = F.cross_entropy(logits, labels, reduction='sum')
                (loss / count).backward()
                hits.append((logits.detach().argmax(1) == labels).sum())
        total = torch.stack(hits).double()
        all_reduce_params([p.grad for p in self._probes.parameters()])
        all_reduce(total)
        self._optimizer.step()
        shares = (100 * total / count).tolist()
        return dict(zip(self._probes, shares, strict=True))


def _find_rows(inputs: torch.Tensor, images: torch.Tensor) -> slice | None:
    """Where N images are among M: versions are neighbors, or one batch each.

    Args:
        inputs (Tensor): What the backbone gets, (M, C, H, W).
        images (Tensor): (N, C, H, W).

    Returns:
        slice | None: Of N rows; None if the images are not there.
    """
    size = len(images)
    if inputs.shape[1:] != images.shape[1:] or len(inputs) % size:
        return None
    copies = len(inputs) // size
    for first in range(copies):
        for rows in (
            slice(first, None, copies),
            slice(first * size, (first + 1) * size),
        ):
            if torch.equal(inputs[rows], images):
                return rows
    return None


def _standardize(feats: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Scale to mean 0 and variance 1 over the batch of all processes."""
    exact = feats.double()
    moments = torch.stack([exact.sum(0), exact.square().sum(0)])
    all_reduce(moments)
    mean, square = moments / count
    variance = (square - mean.square()).clamp_min(0)
    # features of any scale count, but for the noise of what is constant
    return ((exact - mean) / (variance + 1e-12).sqrt()).float()
