from typing import Any

import torch
from mmpretrain.models.selfsup import SimCLR as BaseSimCLR
from mmpretrain.structures import DataSample

from mm_rotssl.registry import MODELS

from ..utils import check_batch_sizes, gather_rows


@MODELS.register_module()
class SimCLR(BaseSimCLR):
    """mmpretrain's SimCLR with the right gradient on several processes.

    Every process computes the loss of the whole batch. In mmpretrain it
    passes on to its own embeddings only what its own copy of this loss owes
    them, and the mean that DistributedDataParallel takes is the gradient of
    one process with the whole batch divided by the number of processes. Here
    what all copies owe them is added up, and the mean is that gradient.

    Arguments, parts and checkpoints are mmpretrain's. The embeddings are
    compared in float32 whatever autocast is in force.

    Source: Chen et al., *A Simple Framework for Contrastive Learning of
    Visual Representations*, ICML 2020 (https://arxiv.org/abs/2002.05709).
    """

    def loss(
        self,
        inputs: list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Contrast the two views of each image with the whole batch.

        Args:
            inputs (list[Tensor]): Two views (B, C, H, W) of B images, B
                the same on all processes.
            data_samples (list[DataSample], optional): Not read.
            kwargs (Any): Not read.

        Returns:
            dict[str, Tensor]: ``loss``, of the batch of all processes and
            the same on all.

        Raises:
            ValueError: If there are not two views, or the processes have
                batches of different sizes.
        """
        if isinstance(inputs, torch.Tensor) or len(inputs) != 2:
            raise ValueError(
                'SimCLR needs two views of an image. Put '
                "dict(type='MultiView', num_views=2, transforms=[...]) into "
                'the pipeline of train_dataloader.dataset.'
            )
        # the views of an image are neighbors
        feats = self.neck(self.backbone(torch.stack(inputs, 1).flatten(0, 1)))
        z = feats[0].to(torch.promote_types(feats[0].dtype, torch.float32))
        total = sum(check_batch_sizes(len(inputs[0]), 'SimCLR', z.device))
        with torch.autocast(z.device.type, enabled=False):
            z = z / (z.norm(dim=1, keepdim=True) + 1e-10)
            z = gather_rows(z)
            similarity = z @ z.t()
        mask, positive, negative = self._create_buffer(total, z.device)
        # without that of an embedding with itself, (2N, 2N - 1)
        similarity = similarity[mask == 1].reshape(2 * total, -1)
        loss = self.head.loss(
            similarity[positive].unsqueeze(1),
            similarity[negative == 1].reshape(2 * total, -1),
        )
        return dict(loss=loss)
