import torch
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.registry import MODELS

from .base import SelfSupervisor


@MODELS.register_module()
class ExemplarCNN(SelfSupervisor):
    """Self-supervision by telling seed patches apart, however deformed.

    Source: Dosovitskiy, Fischer, Springenberg, Riedmiller and Brox,
    *Discriminative Unsupervised Feature Learning with Exemplar Convolutional
    Neural Networks*, NIPS 2014 and TPAMI 2016
    (https://arxiv.org/abs/1406.6909).

    Args:
        backbone (dict | nn.Module): Any backbone whose last output is a map
            (with a pooling ``neck``) or a vector.
        head (dict | nn.Module): An :class:`ExemplarHead`.
        neck (dict | nn.Module, optional): Applied to the backbone's outputs
            before the head. Defaults to None.
        data_preprocessor (dict | nn.Module, optional): Defaults to
            :class:`DeformationDataPreprocessor`.
        init_cfg (dict, optional): Initialization. Defaults to None.
    """

    default_preprocessor = 'mm_rotssl.DeformationDataPreprocessor'

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(backbone, neck, head, data_preprocessor, init_cfg)
        if self.head.num_sampled is not None:
            # The head averages its sparse gradients over the processes
            # itself, since not every backend of torch.distributed can.
            self._ddp_params_and_buffers_to_ignore = [
                f'head.{name}' for name, _ in self.head.named_parameters()
            ]

    def loss(
        self, inputs: torch.Tensor, data_samples: list[DataSample]
    ) -> dict[str, torch.Tensor]:
        """Cross entropy over the exemplars.

        Args:
            inputs (Tensor): Deformed patches (N, C, S, S), float.
            data_samples (list[DataSample]): Read for their
                ``exemplar_label``; other labels are ignored.

        Returns:
            dict[str, Tensor]: See :meth:`ExemplarHead.loss`.

        Raises:
            ValueError: If a sample has no ``exemplar_label``.
            IndexError: If one is beyond the classes of the head.
        """
        labels = self.read_field(
            data_samples,
            'exemplar_label',
            inputs,
            "Train on dict(type='mm_rotssl.ExemplarDataset', ...) and put "
            "algorithm_keys=('exemplar_label', 'deformation') into the "
            'PackInputs of its pipeline.',
        )
        if labels.max() >= self.head.num_exemplars:
            raise IndexError(
                f'There is an exemplar_label={labels.max()}, and '
                f'model.head.num_exemplars={self.head.num_exemplars}. Set it '
                'to the number of seed patches of train_dataloader.dataset.'
            )
        feats = self.extract_feat(inputs)
        if self.with_neck:
            feats = self.neck(feats)
        return self.head.loss(feats, labels)
