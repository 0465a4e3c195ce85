from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

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
    #: Key -> what is measured, in the order of the tables' columns. Those
    #: that depend on settings are properties.
    metrics: Mapping[str, Metric]

    @abstractmethod
    def run(self, subject: Subject) -> Iterator[Measurement]:
        """Measure a network.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: A figure each.
        """
