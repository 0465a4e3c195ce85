import torch
from mmpretrain.models.heads import (
    LatentCrossCorrelationHead as BaseLatentCrossCorrelationHead,
)

from mm_rotssl.registry import MODELS

from ..utils import check_batch_sizes, gather_rows


@MODELS.register_module()
class LatentCrossCorrelationHead(BaseLatentCrossCorrelationHead):
    """mmpretrain's head of Barlow Twins, right on several processes.

    The cross correlation is that of the batch of all processes. mmpretrain
    adds up those of the processes without telling autograd, and the mean that
    DistributedDataParallel takes is the gradient of one process with the
    whole batch divided by the number of processes, as it is in the authors'
    code; and it normalizes the embeddings over each process's own batch, in
    which the authors' code converts the layer to synchronized batch
    normalization. Here they are gathered first: loss and gradient are those
    of one process.

    Arguments, parts and checkpoints are mmpretrain's. The cross correlation
    is computed in float32 whatever autocast is in force.

    Source: Zbontar et al., *Barlow Twins: Self-Supervised Learning via
    Redundancy Reduction*, ICML 2021 (https://arxiv.org/abs/2103.03230).
    """

    def loss(
        self,
        input: torch.Tensor,  # noqa: A002, the host's name
        target: torch.Tensor,
    ) -> torch.Tensor:
        """Compare the two views of each image, over the whole batch.

        Args:
            input (Tensor): Embeddings (B, C) of the first view, B the same
                on all processes.
            target (Tensor): Of the second, (B, C).

        Returns:
            Tensor: Scalar, of the batch of all processes and the same on
            all.

        Raises:
            ValueError: If the processes have batches of different sizes.
        """
        sizes = check_batch_sizes(
            len(input), 'LatentCrossCorrelationHead', input.device
        )
        dtype = torch.promote_types(input.dtype, torch.float32)
        with torch.autocast(input.device.type, enabled=False):
            one, other = (
                self.bn(gather_rows(view.to(dtype)))
                for view in (input, target)
            )
            return self.loss_module(one.T @ other / sum(sizes))
