from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch

from mm_rotssl.utils import InputError

from ..measurement import Measurement, Metric
from ..subject import Subject


class Protocol(ABC):
    """A way of measuring a network.

    Sub-classes are frozen dataclasses; their fields, the settings, are
    written into reports. None knows another, and none draws.
    """

    #: On the command line and in reports.
    name: ClassVar[str]
    #: Heading of its tables.
    title: ClassVar[str]
    #: What is done, with which source: a few sentences, shown in reports.
    about: ClassVar[str]
    #: Whether it needs labeled images.
    labeled: ClassVar[bool]
    #: Whether it is measured unless others are asked for.
    quick: ClassVar[bool] = True

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Key -> what is measured, in the order of the tables' columns.

        Where it does not depend on settings, an attribute of the class.
        """

    @abstractmethod
    def run(self, subject: Subject) -> Iterator[Measurement]:
        """Measure a network.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: A figure each.
        """

    def count_images(
        self, stages: Mapping[str, torch.Tensor], least: int, copies: int = 1
    ) -> int:
        """Check that features can be measured.

        Args:
            stages (Mapping[str, Tensor]): What `Subject.image_features`
                gave.
            least (int): Number of images that are needed.
            copies (int): Versions of each image. Defaults to 1.

        Returns:
            int: Number of images.

        Raises:
            InputError: If there are fewer, or a feature is not finite.
        """
        count = min(map(len, stages.values())) // copies
        if count < least:
            raise InputError(
                f'{self.name} needs at least {least} images, got {count}. Add '
                'images.'
            )
        for stage, feats in stages.items():
            if not feats.isfinite().all():
                raise InputError(
                    f'{self.name}: features of stage {stage} are NaN or '
                    'infinite. Take a checkpoint from before the training '
                    'diverged.'
                )
        return count


def shots_title(shots: int | str) -> str:
    """Write a number of labels.

    Args:
        shots (int | str): See :meth:`Features.draw`.

    Returns:
        str: Heading of a column.

    Examples:
        >>> [shots_title(shots) for shots in (1, 5, '1%', 'all')]
        ['1 label a class', '5 labels a class', '1% labels', 'all labels']
    """
    if isinstance(shots, str) and not shots.isdecimal():
        return f'{shots} labels'
    return f'{shots} label{"" if int(shots) == 1 else "s"} a class'
