from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce

from mm_rotssl.registry import MODELS

from ..utils import DatasetBound

#: Of an image without a label, which losses pass over.
UNLABELED = -100


@MODELS.register_module()
class LabelBank(DatasetBound):
    """Pseudo-labels of the images of a dataset, by their index.

    They are the same on all processes, and in the checkpoint. A loss looks
    them up by ``sample_idx``, so workers of a dataloader, however long they
    live, have none that could be old.

    Args:
        num_heads (int): Labels of an image, one for each classifier.
            Defaults to 1.
    """

    #: int64 (num_heads, images)
    labels: torch.Tensor
    #: Training step before which they were made, int64 (); -1: none yet.
    stamp: torch.Tensor

    def __init__(self, num_heads: int = 1) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.register_buffer('labels', self._unlabeled(0))
        self.register_buffer('stamp', torch.tensor(-1))

    def _unlabeled(self, length: int) -> torch.Tensor:
        return torch.full((self.num_heads, length), UNLABELED)

    def __len__(self) -> int:
        return self.labels.size(1)

    def bind_dataset(self, names: Sequence[str]) -> None:
        """Make room for the labels of a dataset's images.

        Args:
            names (Sequence[str]): Of its images, by index.
        """
        self.labels = self._unlabeled(len(names)).to(self.labels.device)
        super().bind_dataset(names)

    def read(self, indices: torch.Tensor) -> torch.Tensor:
        """Look up labels.

        Args:
            indices (Tensor): Of images, int64 (B,).

        Returns:
            Tensor: int64 (num_heads, B).

        Raises:
            RuntimeError: If there are no labels yet.
        """
        if self.stamp < 0:
            raise RuntimeError(
                'The images have no pseudo-labels yet. Add '
                "dict(type='mm_rotssl.BindDatasetHook') and dict(type="
                "'mm_rotssl.RelabelHook') to custom_hooks."
            )
        return self.labels[:, indices]

    @torch.no_grad()
    def write(
        self, head: int, indices: torch.Tensor, labels: torch.Tensor
    ) -> None:
        """Replace all labels of a classifier by those of all processes.

        Args:
            head (int): Number of the classifier.
            indices (Tensor): Of the images of this process, int64 (B,),
                perhaps none; an image that no process has is unlabeled
                afterwards.
            labels (Tensor): Their labels, int64 (B,).
        """
        found = torch.full_like(self.labels[head], UNLABELED)
        found[indices] = labels
        # of an image that two have, the larger one
        all_reduce(found, 'max')
        self.labels[head] = found

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        saved = state_dict.get(f'{prefix}labels')
        # not bound to a dataset yet, as when a checkpoint is evaluated
        if saved is not None and not len(self) and saved.dim() == 2:
            self.labels = self._unlabeled(saved.size(1)).to(self.labels.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
