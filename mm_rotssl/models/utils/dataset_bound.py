from collections.abc import Sequence

import torch
from mmengine.model import BaseModule

from mm_rotssl.utils import fingerprint


class DatasetBound(BaseModule):
    """A part of a model that knows samples of the training set by their index.

    Before training :class:`BindDatasetHook` tells it the names of the
    samples. Their fingerprint is in the checkpoint, so that a run which is
    resumed with another dataset, or the same in another order, is noticed.

    Args:
        init_cfg (dict, optional): Initialization. Defaults to None.
    """

    #: Of the names, int64 (); 0: not known.
    fingerprint: torch.Tensor

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.register_buffer('fingerprint', torch.zeros((), dtype=torch.int64))

    def bind_dataset(self, names: Sequence[str]) -> None:
        """Take note of the samples.

        Args:
            names (Sequence[str]): Of the samples, by index.
        """
        self.fingerprint.fill_(fingerprint(names))

    def upgrade_state_dict(self, state_dict: dict, prefix: str) -> None:
        """Add what checkpoints from before 0.1.0 don't have, in place.

        Args:
            state_dict (dict[str, Tensor]): Of a model.
            prefix (str): What names of this module's tensors begin with.
        """
        state_dict.setdefault(
            f'{prefix}fingerprint', torch.zeros_like(self.fingerprint)
        )

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        self.upgrade_state_dict(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
