"""What evaluations start from: the features of a network, extracted once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModel
from torch.utils.data import DataLoader

from mm_rotssl.utils import InputError

from .feature_store import EMBEDDING, FeatureStore
from .functional import draw_labels
from .labels import REFERENCE, TEST, list_classes

# read at once
CHUNK_ROWS = 16384


def class_names(datasets: Sequence[Any], count: int) -> list[str]:
    """Name the classes as the first dataset that knows names does.

    Args:
        datasets (Sequence[Any]): Datasets or wrappers of such.
        count (int): Number of classes.

    Returns:
        list[str]: A name for each class; its number where there is none.
    """
    names: list[str] = []
    for dataset in datasets:
        names = names or list_classes(dataset)
    return [names[i] if i < len(names) else str(i) for i in range(count)]


@dataclass
class Features:
    """Features of a network: reference set and test images, by stage.

    Args:
        stages (list[str]): Names of the stages.
        classes (list[str]): Names of the classes, by label.
        reference (list[Tensor]): Of each stage the features of the labeled
            images to learn from, float32 (M, C).
        reference_labels (Tensor): Their classes, int64 (M,).
        test (list[Tensor]): Of each stage the features of the images to
            classify, float32 (N, C).
        test_labels (Tensor): Their classes, int64 (N,).
    """

    stages: list[str]
    classes: list[str]
    reference: list[torch.Tensor]
    reference_labels: torch.Tensor
    test: list[torch.Tensor]
    test_labels: torch.Tensor

    @classmethod
    def extract(
        cls,
        model: BaseModel,
        reference: DataLoader,
        test: DataLoader,
        test_to_reference: torch.Tensor | None = None,
        store: FeatureStore | None = None,
        embedding: bool = False,
        **settings: Any,
    ) -> 'Features':
        """Run both datasets through a network.

        Args:
            model (BaseModel): The network with its weights.
            reference (DataLoader): Labeled images to learn from.
            test (DataLoader): Labeled images to classify; the same object
                goes through the network only once.
            test_to_reference (Tensor, optional): See `match_labels`, by
                which labels of the test images become those of the reference
                set. Defaults to None, they are the same.
            store (FeatureStore, optional): Where features are kept. Defaults
                to None, a temporary folder.
            embedding (bool): Count the vectors that an algorithm projects
                its features to as a last stage. Defaults to False.
            **settings (Any): See `FeatureStore.extract`.

        Returns:
            Features: On the CPU.

        Raises:
            InputError: If an image has no label, or several, or a feature is
                not finite.
        """
        store = store or FeatureStore()
        found: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
        for key, loader in ((REFERENCE, reference), (TEST, test)):
            if key == TEST and test is reference:
                found.append(found[0])
                continue
            extracted = store.extract(model, loader, **settings)
            if extracted.labels is None:
                name = type(loader.dataset).__name__
                raise InputError(
                    f'{key}: an image of its {name} does not have one label. '
                    'Use a labeled dataset (e.g. with_label=True of '
                    'mm_rotssl.ImageFolder); for images of several classes '
                    'there is the protocol svm.'
                )
            if not embedding:
                extracted.stages.pop(EMBEDDING, None)
            _check_finite(extracted.stages)
            found.append((extracted.stages, extracted.labels))
        (feats, labels), (test_feats, test_labels) = found
        if test_to_reference is not None:
            test_labels = test_to_reference[test_labels]
        count = int(torch.cat([labels, test_labels]).max()) + 1
        return cls(
            list(feats),
            class_names((reference.dataset, test.dataset), count),
            list(feats.values()),
            labels,
            list(test_feats.values()),
            test_labels,
        )

    @property
    def chance(self) -> float:
        """Accuracy in percent of guessing among the reference classes."""
        return 100 / len(self.reference_labels.unique())

    def draw_possible(
        self, shots: Sequence[int | str], draws: int, seed: int
    ) -> dict[int | str, list[torch.Tensor]]:
        """Choose reference images, where there are enough.

        Args:
            shots (Sequence[int | str]): See :meth:`draw`; more images a
                class than the smallest class has are left out.
            draws (int): See :meth:`draw`.
            seed (int): See :meth:`draw`.

        Returns:
            dict[int | str, list[Tensor]]: What :meth:`draw` gives for each
            that is possible.

        Raises:
            InputError: If none is; see also :meth:`draw`.
        """
        fewest = int(self.reference_labels.unique(return_counts=True)[1].min())
        possible = [
            one
            for one in shots
            if one == 'all'
            or isinstance(number := _read_shots(one), float)
            or number <= fewest
        ]
        return {
            one: self.draw(one, draws, seed) for one in possible or shots[:1]
        }

    def draw(
        self, shots: int | str, draws: int, seed: int
    ) -> list[torch.Tensor]:
        """Choose reference images, the same for every network.

        Args:
            shots (int | str): Images of each class that occurs; 'all'; or a
                share of each class, such as '1%', at least one.
            draws (int): Number of independent draws; of 'all' there is one.
            seed (int): Of all of them.

        Returns:
            list[Tensor]: Of each draw the positions in the reference set,
            int64, see `draw_labels`.

        Raises:
            InputError: If a class has fewer images, or ``shots`` is none of
                these.
        """
        if shots == 'all':
            return [torch.arange(len(self.reference_labels))]
        number = _read_shots(shots)
        counts = self.reference_labels.bincount().tolist()
        for name, count in zip(self.classes, counts, strict=False):
            if 0 < count < number:
                raise InputError(
                    f'{shots} labels a class were asked for, but class '
                    f'"{name}" has only {count} images in {REFERENCE}. Ask '
                    'for fewer or add labeled images.'
                )
        return [
            draw_labels(self.reference_labels, number, (seed, draw))
            for draw in range(draws)
        ]


def _check_finite(stages: Mapping[str, torch.Tensor]) -> None:
    for name, feats in stages.items():
        if not all(part.isfinite().all() for part in feats.split(CHUNK_ROWS)):
            raise InputError(
                f'Features of stage {name} are NaN or infinite. Take a '
                'checkpoint from before the training diverged.'
            )


def _read_shots(shots: int | str) -> int | float:
    """A number of images, or a share of them as a real number."""
    text = str(shots)
    try:
        if text.endswith('%') and 0 < float(text[:-1]) <= 100:
            return float(text[:-1]) / 100
        if int(text) > 0:
            return int(text)
    except ValueError:
        pass
    raise InputError(
        f"shots={shots!r}: a number of labels a class, a share such as '1%', "
        "or 'all'."
    )
