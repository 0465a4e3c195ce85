from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import pool_features

from ..utils import set_feats


class SelfSupervisor(BaseSelfSupervisor):
    """Base class of the algorithms.

    It adds to mmpretrain's base class what validation during training needs,
    the mode 'predict', and what algorithms read of data samples. An
    algorithm defines ``loss`` and, where it predicts more than features,
    :meth:`predict_fields`.

    Args:
        backbone (dict | nn.Module): Any backbone of mmpretrain or of this
            package.
        neck (dict | nn.Module, optional): Applied to the backbone's outputs
            before the head. Defaults to None.
        head (dict | nn.Module, optional): Defaults to None.
        data_preprocessor (dict | nn.Module, optional): Settings without a
            ``type`` are those of :attr:`default_preprocessor`. Defaults to
            None.
        init_cfg (dict, optional): Initialization. Defaults to None.
    """

    #: Type of the data preprocessor. It names its scope, since the default
    #: scope of a config may be that of mmdet or mmseg.
    default_preprocessor = 'mmpretrain.SelfSupDataPreprocessor'

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if data_preprocessor is None or isinstance(data_preprocessor, dict):
            data_preprocessor = {
                'type': self.default_preprocessor,
                **(data_preprocessor or {}),
            }
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )

    def forward(
        self,
        inputs: Any,
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Entry for training, validation and feature extraction.

        Args:
            inputs (Tensor | list[Tensor] | dict): Images (N, C, H, W), float;
                in mode 'loss' whatever the algorithm trains on.
            data_samples (list[DataSample], optional): One an image.
                Defaults to None.
            mode (str): 'tensor', 'loss' or 'predict'. Defaults to 'tensor'.

        Returns:
            tuple[Tensor] | dict[str, Tensor] | list[DataSample]: The
            backbone's outputs, the losses, or see :meth:`predict`.

        Raises:
            RuntimeError: If ``mode`` is another one.
        """
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    def predict(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
    ) -> list[DataSample]:
        """Extract the features of images, and predict.

        Args:
            inputs (Tensor): Images (N, C, H, W), float.
            data_samples (list[DataSample], optional): One an image; new ones
                are made if None.

        Returns:
            list[DataSample]: The samples with ``feats``, a tuple with a
            float32 vector (C,) for each of the backbone's outputs, and the
            fields of :meth:`predict_fields`.
        """
        samples = data_samples or [DataSample() for _ in inputs]
        feats = self.extract_feat(inputs)
        set_feats(samples, pool_features(feats))
        for name, rows in self.predict_fields(inputs, feats).items():
            for sample, row in zip(samples, rows, strict=True):
                sample.set_field(row, name)
        return samples

    def predict_fields(
        self, inputs: torch.Tensor, feats: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Predict what validation reads beside features.

        Args:
            inputs (Tensor): Images (N, C, H, W), float.
            feats (Sequence[Tensor]): The backbone's outputs for them.

        Returns:
            dict[str, Tensor]: Name of a field -> its values (N, ...). Here
            nothing.
        """
        return {}

    def project(self, feats: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """Project features to the vectors that the algorithm compares.

        Args:
            feats (Sequence[Tensor]): The backbone's outputs for N images.

        Returns:
            Tensor | None: (N, C); None, as here, if it compares none.
        """
        return None

    def pool_views(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Run the backbone on views, those of a size in a row together.

        So batch normalization in it sees one size at a time.

        Args:
            views (Sequence[Tensor]): V times (B, C, H, W).

        Returns:
            Tensor: Its pooled last outputs, (V * B, D), all of the first
            view first.
        """
        feats = [
            pool_features(self.backbone(torch.cat(list(group))))[-1]
            for _, group in groupby(views, lambda view: view.shape[2:])
        ]
        return torch.cat(feats)

    @staticmethod
    def read_field(
        data_samples: Sequence[DataSample] | None,
        name: str,
        inputs: torch.Tensor,
        remedy: str,
    ) -> torch.Tensor:
        """Read a field that each sample must have.

        Args:
            data_samples (Sequence[DataSample], optional): One an image.
            name (str): Of the field, whole numbers or arrays of one shape.
            inputs (Tensor): The images (N, ...), to compare their number and
                for the device.
            remedy (str): What to do where a sample has no such field.

        Returns:
            Tensor: (N, ...), int64 or of the arrays' type.

        Raises:
            ValueError: If a sample or its field is missing.
        """
        samples = data_samples or ()
        if len(samples) != len(inputs) or not all(name in s for s in samples):
            raise ValueError(f'A sample has no {name}. {remedy}')
        values = [torch.as_tensor(sample.get(name)) for sample in samples]
        return torch.stack(values).to(inputs.device)

    def sample_indices(
        self,
        data_samples: Sequence[DataSample] | None,
        inputs: torch.Tensor,
    ) -> torch.Tensor:
        """Read the places of images in the dataset.

        Args:
            data_samples (Sequence[DataSample], optional): One an image.
            inputs (Tensor): The images (N, ...).

        Returns:
            Tensor: ``sample_idx``, int64 (N,).

        Raises:
            ValueError: If a sample has none.
        """
        return self.read_field(
            data_samples,
            'sample_idx',
            inputs,
            "It is set by mmengine's BaseDataset and has to be among the "
            'meta_keys of PackInputs.',
        )
