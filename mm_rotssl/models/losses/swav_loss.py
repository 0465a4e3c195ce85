from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, get_rank, get_world_size
from mmengine.model import BaseModule
from torch import nn

from mm_rotssl.ops import sinkhorn
from mm_rotssl.registry import MODELS

from ..utils import check_batch_sizes


@MODELS.register_module()
class SwAVLoss(BaseModule):
    r"""Prototypes, and the swapped prediction of views' assignments to them.

    The assignments :math:`q_i` of a view, those of :func:`sinkhorn`, are to
    be predicted from each other view of the image:

    .. math::
        L = -\frac{1}{|A| (V - 1) B} \sum_{i \in A} \sum_{v \neq i} \sum_{b,k}
            q_i(b, k) \ln \sigma_k(s_v(b) / \tau)

    with the scores :math:`s_v` of view v, the products of embeddings and
    prototypes of length 1, V views of B images, and the views A that are
    assigned. The prototypes are normalized before each use, in place.

    It stands in for mmpretrain's ``SwAVLoss`` together with its
    ``SwAVHook``, and has the same arguments and prototypes. On several
    processes it does what one does with the whole batch, while mmpretrain's
    adds up the rows of each process alone. Queue and counter are in the
    checkpoint, as tensors, and the same on all processes; a queue of another
    size in a checkpoint is not loaded, and reported as a mismatch. The
    prototypes' scores are float32 whatever autocast is in force.

    Source: Caron et al., *Unsupervised Learning of Visual Features by
    Contrasting Cluster Assignments*, NeurIPS 2020
    (https://arxiv.org/abs/2006.09882), and the authors' code, where the queue
    is filled from ``queue_start`` on and used once it is full. Here it is
    filled from the first step, and what it holds is used from ``queue_start``
    on.

    Args:
        feat_dim (int): Length D of an embedding.
        sinkhorn_iterations (int): Iterations of :func:`sinkhorn`. Defaults
            to 3.
        epsilon (float): Divides the scores of the assignments. Defaults to
            0.05.
        temperature (float): Divides the scores of the predictions. Defaults
            to 0.1.
        crops_for_assign (Sequence[int]): Numbers of the views A that are
            assigned, from 0; a setting of the authors' code, which assigns
            the two large crops. Defaults to (0, 1).
        num_crops (Sequence[int]): Number of views of each size; their sum is
            V. Defaults to (2,).
        num_prototypes (int): Number of prototypes K. Defaults to 3000.
        queue_length (int): Number of earlier embeddings, of all processes
            together, that are assigned along with the batch, for each view
            in A; 0 for none. Defaults to 0.
        queue_start (int): Number of training steps after which the queue is
            used. Defaults to 0.
        frozen_steps (int): Number of training steps in which the prototypes
            get a gradient of zero, ``--freeze_prototypes_niters`` of the
            authors' code. Defaults to 0.
        init_cfg (dict | list[dict], optional): Initialization. Defaults to
            None.

    Raises:
        ValueError: If a setting is out of range.
    """

    queued: torch.Tensor
    filled: torch.Tensor
    steps: torch.Tensor

    def __init__(
        self,
        feat_dim: int,
        sinkhorn_iterations: int = 3,
        epsilon: float = 0.05,
        temperature: float = 0.1,
        crops_for_assign: Sequence[int] = (0, 1),
        num_crops: Sequence[int] = (2,),
        num_prototypes: int = 3000,
        queue_length: int = 0,
        queue_start: int = 0,
        frozen_steps: int = 0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not isinstance(num_prototypes, int) or num_prototypes < 1:
            raise ValueError(
                f'num_prototypes={num_prototypes} of SwAVLoss must be a '
                'positive number; for several sets of prototypes use several '
                'losses.'
            )
        self.num_views = sum(num_crops)
        if self.num_views < 2:
            raise ValueError(
                f'num_crops={num_crops} of SwAVLoss must add up to two views '
                'at least.'
            )
        if not crops_for_assign or not all(
            0 <= crop < self.num_views for crop in crops_for_assign
        ):
            raise ValueError(
                f'crops_for_assign={crops_for_assign} of SwAVLoss must be '
                f'one or more of 0..{self.num_views - 1}, the views of '
                f'num_crops={num_crops}.'
            )
        if min(temperature, epsilon) <= 0 or sinkhorn_iterations < 1:
            raise ValueError(
                f'temperature={temperature} and epsilon={epsilon} of SwAVLoss '
                f'must be positive, and sinkhorn_iterations='
                f'{sinkhorn_iterations} at least 1.'
            )
        if min(queue_length, queue_start, frozen_steps) < 0:
            raise ValueError(
                f'queue_length={queue_length}, queue_start={queue_start} and '
                f'frozen_steps={frozen_steps} of SwAVLoss must not be '
                'negative.'
            )
        self.feat_dim = feat_dim
        self.sinkhorn_iterations = sinkhorn_iterations
        self.epsilon = epsilon
        self.temperature = temperature
        self.crops_for_assign = list(crops_for_assign)
        self.queue_length = queue_length
        self.queue_start = queue_start
        self.frozen_steps = frozen_steps
        self.prototypes = nn.Linear(feat_dim, num_prototypes, bias=False)
        # embeddings of earlier batches, the newest first
        self.register_buffer(
            'queued',
            torch.zeros(len(self.crops_for_assign), queue_length, feat_dim),
        )
        # how many of these rows have been written
        self.register_buffer('filled', torch.tensor(0))
        # training steps so far
        self.register_buffer('steps', torch.tensor(0))

    def __setattr__(self, name: str, value: Any) -> None:
        # mmpretrain's SwAVHook sets a queue, which would never be used
        if name == 'queue':
            raise AttributeError(
                'mm_rotssl.SwAVLoss keeps its queue itself. Remove SwAVHook '
                'from custom_hooks: queue_length (of all processes together), '
                'queue_start and frozen_steps (both in training steps, not '
                'epochs) of the loss replace it.'
            )
        super().__setattr__(name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the loss; in training, put the embeddings into the queue.

        Args:
            x (Tensor): Embeddings (V * B, D) of length 1, all of the first
                view first, of this process's B images; B must be the same
                in all.

        Returns:
            Tensor: Scalar, of the prototypes' type: the mean over this
            process's images.

        Raises:
            ValueError: If the shape is wrong, or the processes have batches
                of different sizes.
        """
        self._check(x)
        weight = self.prototypes.weight
        with torch.no_grad():
            weight.copy_(F.normalize(weight, dim=1))
        if self.steps < self.frozen_steps:
            # a gradient of zero rather than none: DistributedDataParallel
            # waits for the gradient of every parameter
            weight = weight.detach() + 0 * weight
        # Scores up to 1 have steps of 0.004 in bfloat16; divided by 0.05
        # that would be an error of 8 % in the exponential.
        with torch.autocast(x.device.type, enabled=False):
            feats = x.to(weight.dtype).unflatten(0, (self.num_views, -1))
            scores = F.linear(feats, weight)
            chosen = feats[self.crops_for_assign].detach()
            codes = self._assign(scores[self.crops_for_assign].detach())
        if self.training:
            self._push(chosen)
            self.steps.add_(1)
        log_p = (scores / self.temperature).log_softmax(-1)
        # for each assigned view the sum over all views that predict it
        others = log_p.sum(0) - log_p[self.crops_for_assign]
        total = (codes * others).sum((0, 2)).mean()
        return -total / (len(self.crops_for_assign) * (self.num_views - 1))

    @torch.no_grad()
    def _assign(self, scores: torch.Tensor) -> torch.Tensor:
        own = scores.shape[1]
        if self.steps >= self.queue_start:
            rows = self.queued[:, : int(self.filled)]
            # the queue is the same on all processes: each assigns a part of
            # its rows, since sinkhorn() joins the rows of all
            share = rows[:, get_rank() :: get_world_size()]
            weight = self.prototypes.weight
            scores = torch.cat([F.linear(share, weight), scores], 1)
        codes = sinkhorn(scores, self.epsilon, self.sinkhorn_iterations)
        return codes[:, -own:]

    @torch.no_grad()
    def _push(self, feats: torch.Tensor) -> None:
        if self.queue_length:
            feats = torch.cat(all_gather(feats.contiguous()), 1)
            rows = torch.cat([feats, self.queued], 1)
            self.queued.copy_(rows[:, : self.queue_length])
            self.filled.add_(feats.shape[1]).clamp_(max=self.queue_length)

    def _check(self, x: torch.Tensor) -> None:
        if (
            x.dim() != 2
            or x.shape[1] != self.feat_dim
            or not len(x)
            or len(x) % self.num_views
        ):
            raise ValueError(
                f'Embeddings of shape {tuple(x.shape)} for SwAVLoss with '
                f'feat_dim={self.feat_dim} and num_crops that add up to '
                f'{self.num_views}: they must be ({self.num_views} * B, '
                f'{self.feat_dim}).'
            )
        check_batch_sizes(len(x) // self.num_views, 'SwAVLoss', x.device)

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        saved = state_dict.get(f'{prefix}queued')
        if saved is not None and saved.shape != self.queued.shape:
            error_msgs.append(
                f'{prefix}queued is {tuple(saved.shape)} in the checkpoint, '
                f'and {tuple(self.queued.shape)} with queue_length='
                f'{self.queue_length}, feat_dim={self.feat_dim} and '
                f'crops_for_assign={self.crops_for_assign}. Such a queue is '
                'not loaded; this one keeps its rows.'
            )
            # keep rows and their number together
            state_dict = {
                **state_dict,
                f'{prefix}queued': self.queued,
                f'{prefix}filled': self.filled,
            }
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
