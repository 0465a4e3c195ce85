from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.registry import MODELS

from .multi_task import MultiTask
from .rotnet import RotNet


@MODELS.register_module()
class ESSL(MultiTask):
    """Any self-supervised algorithm, and rotation prediction beside it.

    Source: Dangovski et al., *Equivariant Contrastive Learning* (E-SSL), ICLR
    2022 (https://arxiv.org/abs/2111.00899). The representation is asked to be
    insensitive to the algorithm's augmentations and sensitive to four-fold
    rotation. As in the released code, one more crop of each image, a small
    one, goes through the backbone in all rotations, and a classifier of its
    own reads the backbone's features.

    It is a :class:`MultiTask` of the tasks ``algorithm`` and ``rotation``, a
    :class:`RotNet`, whose data are views of the same images. Hooks that look
    for parts or settings of the algorithm at the top of the model, such as
    mmpretrain's for SwAV and DenseCL, find them there.

    Args:
        algorithm (dict | nn.Module): A self-supervised algorithm with a
            ``backbone``, one of mmpretrain or of this package.
        head (dict | nn.Module): A :class:`RotationHead`; its
            ``num_rotations`` is filled in from ``rotations``. The authors'
            has ``hid_channels=2048`` and ``num_hidden=2`` on CIFAR-10, 3 on
            ImageNet.
        neck (dict | nn.Module, optional): Applied to the backbone's outputs
            before the head. Defaults to None.
        weight (float): Of the rotation loss. With 0 the extra crop is left
            out and training is that of the plain algorithm. Defaults to 0.4,
            the released code's.
        rotations (Sequence[int]): Angles in degrees, see :class:`RotNet`.
            Defaults to (0, 90, 180, 270).
        data_preprocessor (dict, optional): Of the algorithm, if that names
            none: the runner hands on that of the config. Defaults to None.

    Raises:
        ValueError: If ``weight`` is negative or not finite, ``rotations``
            no valid list of angles, or the algorithm predicts rotations
            itself.

    Examples:
        >>> simclr = dict(type='mm_rotssl.SimCLR')  # with its parts
        >>> model = dict(
        ...     type='mm_rotssl.ESSL',
        ...     algorithm=simclr,
        ...     neck=dict(type='GlobalAveragePooling'),
        ...     head=dict(
        ...         type='mm_rotssl.RotationHead',
        ...         in_channels=512,
        ...         hid_channels=2048,
        ...         num_hidden=2,
        ...     ),
        ... )
        >>> # and in the pipeline, as the last view, the crop to be rotated
        >>> multi_view = dict(
        ...     type='MultiView',
        ...     num_views=[2, 1],
        ...     transforms=[
        ...         [dict(type='RandomResizedCrop', scale=32)],
        ...         [dict(type='RandomResizedCrop', scale=16)],
        ...     ],
        ... )
    """

    def __init__(
        self,
        algorithm: dict | nn.Module,
        head: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        weight: float = 0.4,
        rotations: Sequence[int] = (0, 90, 180, 270),
        data_preprocessor: dict | None = None,
    ) -> None:
        built: Any = algorithm
        if isinstance(algorithm, dict):
            if data_preprocessor is not None:
                algorithm = {
                    'data_preprocessor': data_preprocessor,
                    **algorithm,
                }
            built = MODELS.build(algorithm)
        if isinstance(built, (RotNet, ESSL)):
            raise ValueError(
                f'model.algorithm, a {type(built).__name__}, predicts '
                'rotations already: train it without ESSL.'
            )
        rotation = dict(
            type='mm_rotssl.RotNet', head=head, neck=neck, rotations=rotations
        )
        # a checkpoint or a distribution of weights is for the backbone, too
        init_cfg, built.init_cfg = built.init_cfg, None
        super().__init__(
            backbone=built.backbone,
            tasks=dict(algorithm=built, rotation=rotation),
            weights=dict(rotation=weight),
            init_cfg=init_cfg,
        )
        # found in the algorithm, see __getattr__
        del self.neck, self.head, self.target_generator
        # all views, that to be rotated too, are prepared alike
        self.data_preprocessor = self.data_preprocessor.tasks['algorithm']

    def __getattr__(self, name: str) -> Any:
        """Look for what the model itself has not in the algorithm."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            # before it is there, as in unpickling
            if 'tasks' not in self.__dict__.get('_modules', {}):
                raise
            return getattr(self.tasks['algorithm'], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Change settings where they are, such as DenseCL's loss_lambda."""
        tasks = self.__dict__.get('_modules', {}).get('tasks')
        if tasks is not None and name not in self.__dict__:
            algorithm = tasks['algorithm']
            if name in algorithm.__dict__:
                setattr(algorithm, name, value)
                return
        super().__setattr__(name, value)

    def loss(  # type: ignore[override]
        self,
        inputs: list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The algorithm's losses and that of the rotations.

        Args:
            inputs (list[Tensor]): The algorithm's views, then the crop to be
                rotated, (N, C, S, S).
            data_samples (list[DataSample], optional): One an image; the
                algorithm may read them. Defaults to None.

        Returns:
            dict[str, Tensor]: ``loss_algorithm``, or what else the algorithm
            gives, see :meth:`MultiTask.loss`; ``loss_rotation``, weighted,
            and ``rotation_accuracy`` (percent).

        Raises:
            ValueError: If there is no crop beside the views.
        """
        if not isinstance(inputs, list) or len(inputs) < 2:
            raise ValueError(
                'ESSL needs one crop more than its algorithm, to be rotated. '
                "In the training pipeline's MultiView, add 1 to num_views "
                'and the transforms of a small crop to transforms.'
            )
        *views, crop = inputs
        return super().loss(
            dict(
                algorithm=dict(
                    # algorithms of a single view want a tensor
                    inputs=views if len(views) > 1 else views[0],
                    data_samples=data_samples,
                ),
                rotation=dict(inputs=crop, data_samples=None),
            )
        )

    def predict(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
    ) -> list[DataSample]:
        """Classify all rotations of each image and extract its features.

        Args:
            inputs (Tensor): Upright images (N, C, S, S), float.
            data_samples (list[DataSample], optional): One an image; new
                ones are made if None.

        Returns:
            list[DataSample]: What the algorithm predicts, and what
            :meth:`RotNet.predict_fields` gives.
        """
        samples = self.tasks['rotation'].predict(inputs, data_samples)
        algorithm = self.tasks['algorithm']
        if hasattr(algorithm, 'predict'):
            samples = algorithm.predict(inputs, samples)
        return samples

    def upgrade_state_dict(self, state_dict: dict, prefix: str) -> None:
        """Rename what checkpoints from before 0.1.0 call otherwise, in place.

        Args:
            state_dict (dict[str, Tensor]): Of a model.
            prefix (str): What names of this module's tensors begin with.
        """
        ours = [f'{prefix}{part}.' for part in ('backbone', 'tasks')]
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if key.startswith(tuple(ours)):
                continue
            name = key.removeprefix(prefix)
            for part in ('head', 'neck'):
                name = name.replace(
                    f'rotation_{part}.', f'rotation.{part}.', 1
                )
            if not name.startswith('rotation.'):
                name = f'algorithm.{name}'
            state_dict[f'{prefix}tasks.{name}'] = state_dict.pop(key)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        self.upgrade_state_dict(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
