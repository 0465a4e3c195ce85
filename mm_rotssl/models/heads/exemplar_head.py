from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce, broadcast
from torch import nn

from mm_rotssl.registry import MODELS

from ..losses import sampled_softmax_loss
from ..utils import DatasetBound


class _Rows(torch.autograd.Function):
    """Some rows of a parameter, with a gradient that holds only those.

    The rows must be the same on all processes; their gradient is averaged
    over these, as DistributedDataParallel does with the others.
    """

    @staticmethod
    def forward(
        ctx: Any, parameter: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = parameter.shape
        return parameter[rows]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (rows,) = ctx.saved_tensors
        # all_reduce writes in place, and this tensor belongs to autograd
        grad = grad.clone(memory_format=torch.contiguous_format)
        all_reduce(grad, 'mean')
        sparse = torch.sparse_coo_tensor(
            rows[None], grad, ctx.shape, is_coalesced=True
        )
        return sparse, None


@MODELS.register_module()
class ExemplarHead(DatasetBound):
    """Linear classifier over the seed patches.

    With ``num_sampled`` only so many classes, drawn anew for each step, are
    compared with the right ones, see :func:`sampled_softmax_loss`, and only
    their rows get a gradient, which is sparse: its memory and time no longer
    grow with the number of seed patches. Train with :class:`RowSGD`,
    without ``clip_grad``. On a CPU it pays with more than twice as many seed
    patches as are sampled, see docs/benchmarks.md.

    Source: Dosovitskiy et al., *Discriminative Unsupervised Feature Learning
    with Exemplar Convolutional Neural Networks*, NIPS 2014
    (https://arxiv.org/abs/1406.6909), equations 1 to 3; there are always all
    classes. No temperature, no normalization.

    Args:
        in_channels (int): Length of the feature vector.
        num_exemplars (int): Number of seed patches N of the dataset.
        num_sampled (int, optional): Classes that are drawn for a step.
            Defaults to None, all.
        init_cfg (dict, optional): Initialization. Defaults to None: PyTorch's
            own of a linear layer.

    Raises:
        ValueError: If a number is not positive or ``num_sampled`` above
            ``num_exemplars``.
    """

    def __init__(
        self,
        in_channels: int,
        num_exemplars: int,
        num_sampled: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if in_channels < 1 or num_exemplars < 1:
            raise ValueError(
                f'in_channels={in_channels} and num_exemplars={num_exemplars} '
                'of ExemplarHead must be positive.'
            )
        if num_sampled is not None and not 1 <= num_sampled <= num_exemplars:
            raise ValueError(
                f'num_sampled={num_sampled} of ExemplarHead must be in '
                f'1..{num_exemplars}, the number of seed patches, or None for '
                'all.'
            )
        self.in_channels = in_channels
        self.num_exemplars = num_exemplars
        self.num_sampled = num_sampled
        self.fc = nn.Linear(in_channels, num_exemplars)
        self._same_everywhere = False

    def bind_dataset(self, names: Sequence[str]) -> None:
        """Check that there is a class for each seed patch.

        Args:
            names (Sequence[str]): Of the seed patches, by their label.

        Raises:
            ValueError: If their number is another one.
        """
        if len(names) != self.num_exemplars:
            raise ValueError(
                f'{len(names)} samples to be told apart, and num_exemplars='
                f'{self.num_exemplars} of ExemplarHead. Set num_exemplars to '
                "the number of seed patches of the dict(type='mm_rotssl."
                "ExemplarDataset', ...) that it is trained on."
            )
        super().bind_dataset(names)

    def forward(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Classify the last stage.

        Args:
            feats (Sequence[Tensor]): Stages of the neck or backbone, the
                last of shape (M, in_channels).

        Returns:
            Tensor: Logits (M, num_exemplars).

        Raises:
            ValueError: If the last stage has another shape.
        """
        return self.fc(self._last(feats))

    def _last(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        feat = feats[-1]
        if feat.dim() != 2 or feat.size(1) != self.in_channels:
            raise ValueError(
                f'ExemplarHead(in_channels={self.in_channels}) was handed '
                f'features of shape {tuple(feat.shape)}. Set '
                'model.head.in_channels to the length that the backbone '
                "gives, and model.neck=dict(type='GlobalAveragePooling') "
                'where it gives maps.'
            )
        return feat

    def loss(
        self, feats: Sequence[torch.Tensor], labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Loss and accuracy.

        Args:
            feats (Sequence[Tensor]): As in :meth:`forward`.
            labels (Tensor): Numbers of the seed patches, int64 (M,).

        Returns:
            dict[str, Tensor]: ``loss``, a float32 scalar, and
            ``exemplar_accuracy`` in percent; with ``num_sampled`` it is
            ``sampled_accuracy``, among the right and the drawn classes.
        """
        if self.num_sampled is not None:
            return self._sampled_loss(self._last(feats), labels)
        # in float32 under autocast too
        logits = self(feats).float()
        hits = logits.argmax(1) == labels
        return dict(
            loss=F.cross_entropy(logits, labels),
            exemplar_accuracy=100 * hits.float().mean(),
        )

    def _sampled_loss(
        self, feat: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        weight, bias = self.fc.weight, self.fc.bias
        if not self._same_everywhere:
            # DistributedDataParallel leaves out these parameters, whose
            # sparse gradients it could not reduce
            broadcast(weight.data)
            broadcast(bias.data)
            self._same_everywhere = True
        drawn = self._draw(labels.device)
        rows = torch.cat([drawn, *all_gather(labels)]).unique()
        some = _Rows.apply(weight, rows).float()
        some_bias = _Rows.apply(bias, rows).float()
        own = torch.searchsorted(rows, labels)
        others = torch.searchsorted(rows, drawn)
        with torch.autocast(feat.device.type, enabled=False):
            feat = feat.float()
            positive = (feat * some[own]).sum(1) + some_bias[own]
            scores = F.linear(feat, some[others], some_bias[others])
            loss = sampled_softmax_loss(
                positive, scores, drawn, labels, self.num_exemplars
            )
        wrong = scores.masked_fill(drawn == labels[:, None], -torch.inf)
        hits = positive > wrong.amax(1)
        return dict(loss=loss, sampled_accuracy=100 * hits.float().mean())

    def _draw(self, device: torch.device) -> torch.Tensor:
        """Draw different classes, the same on all processes."""
        assert self.num_sampled is not None
        if 4 * self.num_sampled > self.num_exemplars:
            drawn = torch.randperm(self.num_exemplars, device=device)
            drawn = drawn[: self.num_sampled]
        else:
            # cheaper than a permutation of millions of classes: draw with
            # replacement until there are enough different ones
            drawn = torch.empty(0, dtype=torch.int64, device=device)
            while len(drawn) < self.num_sampled:
                more = torch.randint(
                    self.num_exemplars, (2 * self.num_sampled,), device=device
                )
                drawn = torch.cat([drawn, more]).unique()
            order = torch.randperm(len(drawn), device=device)
            drawn = drawn[order[: self.num_sampled]]
        broadcast(drawn)
        return drawn
