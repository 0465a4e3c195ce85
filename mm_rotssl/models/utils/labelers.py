from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import nn

from mm_rotssl.ops import kmeans, sinkhorn, whiten
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import InputError


@MODELS.register_module()
class KMeansLabeler(nn.Module):
    """Labels are the clusters of k-means.

    Starting from images that are drawn at random, anew each time; spherical
    where the classifier's weights are prototypes. See :func:`kmeans` for
    clusters that run empty.

    Args:
        iterations (int): Defaults to 20.
        channels (int, optional): Reduce features to so many principal
            components of variance 1 and then to length 1, as DeepCluster's
            code does. Defaults to None, features as they are.
    """

    def __init__(
        self, iterations: int = 20, channels: int | None = None
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.channels = channels

    def forward(
        self,
        feats: torch.Tensor,
        indices: torch.Tensor,
        head: Any,
        number: int,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Label the images of all processes.

        Args:
            feats (Tensor): Features of this process's images, (N, C).
            indices (Tensor): Their places in the dataset, int64 (N,).
            head (PseudoLabelHead): Says how many classes there are.
            number (int): Of its classifier.
            rng (Generator): The same on all processes.

        Returns:
            tuple[Tensor, Tensor]: Labels, int64 (N,), and centroids (K, C).

        Raises:
            InputError: If there are fewer images than clusters.
        """
        rows = feats
        if self.channels is not None:
            rows = F.normalize(whiten(feats, self.channels), dim=1)
        start = self._start(rows, indices, head.num_classes[number], rng)
        return kmeans(rows, start, self.iterations, head.prototypes)

    def _start(
        self,
        rows: torch.Tensor,
        indices: torch.Tensor,
        count: int,
        rng: np.random.Generator,
    ) -> torch.Tensor:
        """Rows of some images, whichever process has them."""
        length = indices.amax() + 1 if len(indices) else indices.new_zeros(())
        all_reduce(length, 'max')
        owners = torch.zeros(int(length), device=rows.device)
        owners[indices] = 1
        all_reduce(owners)
        present = owners.nonzero().flatten().cpu().numpy()
        if len(present) < count:
            raise InputError(
                f'model.head.num_classes={count}, and there are only '
                f'{len(present)} images to make clusters of. Lower it.'
            )
        drawn = torch.from_numpy(rng.choice(present, count, replace=False))
        own = torch.full((int(length),), -1, device=rows.device)
        own[indices] = torch.arange(len(indices), device=rows.device)
        places = own[drawn.to(rows.device)]
        start = torch.zeros(count, rows.size(1), device=rows.device)
        start[places >= 0] = rows[places[places >= 0]].float()
        all_reduce(start)
        # an image may be on several, in a padded part
        return start / owners[drawn.to(rows.device), None]


@MODELS.register_module()
class SinkhornLabeler(nn.Module):
    r"""Labels are the predictions, evened out until classes are equally large.

    The class of the largest entry of the assignment that Sinkhorn's algorithm
    makes of the predicted probabilities' powers :math:`p^\lambda`, where
    :math:`\lambda` is 1 / ``epsilon``.

    Source: Asano, Rupprecht and Vedaldi, *Self-labelling via Simultaneous
    Clustering and Representation Learning*, ICLR 2020
    (https://arxiv.org/abs/1911.05371), and the authors' code.

    Args:
        epsilon (float): Defaults to 0.04, the authors' :math:`\lambda` of
            25; on CIFAR-10 they have 10.
        tolerance (float): See :func:`sinkhorn`. Defaults to 0.1; the
            authors' on CIFAR-10 is 0.01.
        max_iterations (int): Defaults to 10000.
    """

    def __init__(
        self,
        epsilon: float = 0.04,
        tolerance: float = 0.1,
        max_iterations: int = 10000,
    ) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def forward(
        self,
        feats: torch.Tensor,
        indices: torch.Tensor,
        head: Any,
        number: int,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, None]:
        """Label the images of all processes.

        Args:
            feats (Tensor): Features of this process's images, (N, C).
            indices (Tensor): Not read.
            head (PseudoLabelHead): With the classifier.
            number (int): Of its classifier.
            rng (Generator): Not read.

        Returns:
            tuple[Tensor, None]: Labels, int64 (N,), and no centroids.
        """
        logits = head.classifiers[number](feats).float() / head.temperature
        shares = sinkhorn(
            logits.log_softmax(1),
            self.epsilon,
            self.max_iterations,
            self.tolerance,
        )
        return shares.argmax(1), None
