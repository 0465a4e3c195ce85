"""What the figures of a report have in common."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from torch.utils.data import DataLoader

from mm_rotssl.evaluation.feature_store import EMBEDDING
from mm_rotssl.evaluation.features import class_names
from mm_rotssl.evaluation.subject import Subject
from mm_rotssl.utils import save_figure
from mm_rotssl.visualization import (
    network_styles,
    shown_image,
    shown_settings,
    stage_label,
    summarize_runs,
)

from .duplicates import bottom_dataset

Report = Callable[[str], None]
NUM_CLUSTERS = 10
# that are clustered, and that others are chosen from
MAX_IMAGES = 20_000


def finite_runs(runs: Sequence[Sequence[float | None]]) -> list[list[float]]:
    """Leave out what is no number.

    Args:
        runs (Sequence[Sequence[float]]): For each training run the repeated
            measurements; JSON has null for NaN.

    Returns:
        list[list[float]]: The same, without runs that have none.
    """
    found = [
        [value for value in run if value is not None and np.isfinite(value)]
        for run in runs
    ]
    return [run for run in found if run]


@dataclass
class Images:
    """The images of a dataset that could be read, as a network sees them.

    Args:
        dataset (Dataset): Below all subsets.
        places (ndarray): Theirs in it, int64 (N,).
        stages (dict[str, Tensor]): Name of a stage -> features (N, C).
        labels (ndarray, optional): Their classes, int64 (N,); None if one
            has none.
    """

    dataset: Any
    places: np.ndarray
    stages: dict[str, torch.Tensor]
    labels: np.ndarray | None

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Find images by their places.

        Args:
            places (ndarray): int64 (M,).

        Returns:
            ndarray: Their rows, int64 (M,).
        """
        order = np.argsort(self.places)
        found = np.searchsorted(self.places, places, sorter=order)
        rows: np.ndarray = order[found]
        return rows


@dataclass
class Clusters:
    """What k-means found on the features of a network.

    Args:
        numbers (ndarray): Cluster of each image, int64 (N,), from 0, the
            largest first.
        distances (ndarray): Of each image to its cluster's center, float
            (N,).
    """

    numbers: np.ndarray
    distances: np.ndarray


class Drawing:
    """Networks, images and choices that figures share.

    Args:
        report (Mapping[str, Any]): What report.json holds.
        subjects (Mapping[str, Subject]): Name of an entry -> its first run.
        out (Path): Folder of the figures.
        progress (Callable, optional): Is told what is drawn. Defaults to
            None.

    Attributes:
        figures (list[dict[str, Any]]): What was written, see
            :func:`draw_report_figures`.
        entries (dict[str, dict]): Name -> entry of the report.
        styles (dict[str, dict]): Name of an entry -> settings of its line.
        trained (list[str]): Trained networks; all, if none is.
        order (list[str]): All networks, each untrained one behind the first
            trained one that is compared with it.
        labeled (bool): Whether there are images with a label each.
        shown_set (str): 'test', or 'images' without labels: those that are
            looked at.
    """

    def __init__(
        self,
        report: Mapping[str, Any],
        subjects: Mapping[str, Subject],
        out: Path,
        progress: Report | None = None,
    ) -> None:
        self.report, self.subjects, self.out = report, subjects, out
        self.progress = progress
        self.figures: list[dict[str, Any]] = []
        self.entries: dict[str, Mapping[str, Any]] = {
            entry['name']: entry
            for entry in report['entries']
            if entry['name'] in subjects
        }
        self.baselines: dict[str, str | None] = {
            name: name if entry['kind'] == 'untrained' else entry['untrained']
            for name, entry in self.entries.items()
        }
        self.styles = network_styles(self.baselines)
        self.trained = [
            name for name, other in self.baselines.items() if name != other
        ] or list(self.entries)
        pairs = [(name, self.baselines[name]) for name in self.trained]
        names = [*(name for pair in pairs for name in pair), *self.entries]
        self.order = [n for n in dict.fromkeys(names) if n in self.entries]
        first = subjects[self.trained[0]]
        self.seed = first.seed
        self._settings = shown_settings(first.model.data_preprocessor)
        self._images: dict[tuple[str, str], Images] = {}
        self._clusters: dict[str, Clusters] = {}
        self.labeled = all(
            getattr(first, part) is not None
            # of images of several classes none is the one to be shown
            and self.images(self.trained[0], part).labels is not None
            for part in ('reference', 'test')
        )
        self.shown_set = 'test' if self.labeled else 'images'

    def save(
        self,
        figure: Figure,
        name: str,
        title: str,
        about: str,
        protocol: str | None = None,
    ) -> None:
        """Write a figure, and note it.

        Args:
            figure (Figure): The figure.
            name (str): Of the file, without the ending.
            title (str): What is shown.
            about (str): How to read it.
            protocol (str, optional): That it belongs to, if the report has
                it. Defaults to None.
        """
        path = save_figure(figure, self.out / f'{name}.png', svg=True)
        known = {found['name'] for found in self.report['protocols']}
        self.figures.append(
            dict(
                file=path.name,
                title=title,
                about=about,
                protocol=protocol if protocol in known else None,
            )
        )

    def say(self, what: str) -> None:
        """Tell what is drawn."""
        if self.progress is not None:
            self.progress(f'figures: {what}')

    def name_file(self, kind: str, entry: str) -> str:
        """Name the figure of one trained network.

        Args:
            kind (str): Of figure, the name if there is but one network.
            entry (str): The network.

        Returns:
            str: Of the file, without the ending.
        """
        if len(self.trained) == 1:
            return kind
        plain = re.sub(r'[^A-Za-z0-9.-]+', '_', entry).strip('_.')
        # names may differ in what is left out
        number = self.trained.index(entry) + 1
        return f'{kind}_{number}_{plain}'.rstrip('_')

    def name_title(self, title: str, entry: str) -> str:
        """Say of which network something is, if there are several."""
        return title if len(self.trained) == 1 else f'{title}: {entry}'

    def images(self, entry: str, which: str) -> Images:
        """Features of images, extracted or read.

        Args:
            entry (str): The network.
            which (str): 'images', 'reference' or 'test'.

        Returns:
            Images: Labels are those of the reference set.
        """
        key = entry, which
        if key not in self._images:
            subject = self.subjects[entry]
            loader: DataLoader = getattr(subject, which)
            found = subject.store.extract(
                subject.model, loader, report=subject.report
            )
            labels = found.labels
            match = subject.test_to_reference
            if which == 'test' and match is not None and labels is not None:
                labels = match[labels]
            self._images[key] = Images(
                bottom_dataset(loader),
                found.index.numpy(),
                found.stages,
                None if labels is None else labels.numpy(),
            )
        return self._images[key]

    def show(self, which: str, places: Iterable[int]) -> list[np.ndarray]:
        """Images as the first network's pipeline gives them.

        Args:
            which (str): See :meth:`images`.
            places (Iterable[int]): In the dataset.

        Returns:
            list[ndarray]: uint8 (H, W, 3), in RGB order.
        """
        dataset = self.images(self.trained[0], which).dataset
        return [shown_image(dataset, int(i), self._settings) for i in places]

    @cached_property
    def places(self) -> np.ndarray:
        """Places of the images that are looked at, ascending.

        Those that every network could read; of more than 20,000, so many,
        drawn at random.
        """
        common = self.images(self.order[0], self.shown_set).places
        for name in self.order[1:]:
            others = self.images(name, self.shown_set).places
            common = np.intersect1d(common, others)
        order = np.random.default_rng(self.seed).permutation(len(common))
        found: np.ndarray = np.sort(common[order[:MAX_IMAGES]])
        return found

    @cached_property
    def labels(self) -> np.ndarray:
        """Classes of the images at :attr:`places`, which must be labeled."""
        found = self.images(self.trained[0], self.shown_set)
        assert found.labels is not None
        labels: np.ndarray = found.labels[found.rows(self.places)]
        return labels

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes."""
        sets = [self.images(self.trained[0], n) for n in ('reference', 'test')]
        labels = [found.labels for found in sets if found.labels is not None]
        count = max(int(found.max()) for found in labels) + 1
        return class_names([found.dataset for found in sets], count)

    def features(self, entry: str) -> np.ndarray:
        """Directions of a network's features, of the stage that is shown.

        Args:
            entry (str): The network.

        Returns:
            ndarray: Of the images at :attr:`places`, float32 (N, C).
        """
        found = self.images(entry, self.shown_set)
        feats = found.stages[self.stages[entry]][found.rows(self.places)]
        vectors: np.ndarray = normalize(feats.numpy())
        return vectors

    @cached_property
    def judge(self) -> Mapping[str, Any] | None:
        """The first protocol whose first metric tells stages apart."""
        for protocol in self.report['protocols']:
            if protocol['labeled'] and any(
                self._scores(protocol, name) for name in self.trained
            ):
                found: Mapping[str, Any] = protocol
                return found
        return None

    def _scores(
        self, protocol: Mapping[str, Any], entry: str
    ) -> dict[str, float]:
        """Stage -> mean of the first metric, if higher is better."""
        key = next(iter(protocol['metrics']), None)
        if key is None or protocol['metrics'][key]['better'] != 'higher':
            return {}
        names = protocol['name'], entry, key
        return {
            found['stage']: summarize_runs(runs)[0]
            for found in self.report['measurements']
            if (found['protocol'], found['entry'], found['metric']) == names
            and found['stage'] is not None
            and (runs := finite_runs(found['runs']))
        }

    @cached_property
    def stages(self) -> dict[str, str]:
        """The stage of each network that is shown.

        The best of a trained network, or the last where nothing tells; of
        an untrained network the same.
        """
        chosen: dict[str, str] = {}
        for name in self.trained:
            there = self.images(name, self.shown_set).stages
            scores = self._scores(self.judge, name) if self.judge else {}
            known = [stage for stage in there if stage in scores]
            if known:
                chosen[name] = max(known, key=scores.__getitem__)
            else:
                chosen[name] = [s for s in there if s != EMBEDDING][-1]
            baseline = self.baselines[name]
            if baseline is not None:
                chosen.setdefault(baseline, chosen[name])
        for name in self.order:
            there = self.images(name, self.shown_set).stages
            if chosen.get(name) not in there:
                chosen[name] = [s for s in there if s != EMBEDDING][-1]
        return chosen

    def where(self, names: Sequence[str]) -> str:
        """Say which stage of networks is shown, and why that.

        Args:
            names (Sequence[str]): The networks.

        Returns:
            str: Such as 'stage 2, the best by kNN'.
        """
        why = 'the last'
        if self.judge:
            why = f'the best by {self.judge["title"]}'
        shown = {self.stages[name] for name in names}
        if len(shown) == 1:
            return f'{stage_label(shown.pop())}, {why}'
        return f'the stage of each network that is {why}'

    def at(self, names: Sequence[str]) -> str:
        """Name the stage that is shown, for titles.

        Args:
            names (Sequence[str]): The networks.

        Returns:
            str: Such as ', stage 2'; nothing if it differs.
        """
        shown = {self.stages[name] for name in names}
        return f', {stage_label(shown.pop())}' if len(shown) == 1 else ''

    def clusters(self, entry: str) -> Clusters:
        """Cluster the images at :attr:`places` by k-means.

        Args:
            entry (str): The network, whose stage that is shown is taken.

        Returns:
            Clusters: As many as there are classes, or ten.
        """
        if entry not in self._clusters:
            feats = self.features(entry)
            count = NUM_CLUSTERS
            if self.labeled:
                count = len(np.unique(self.labels))
            found = KMeans(
                min(count, len(feats)), n_init=3, random_state=self.seed
            ).fit(feats)
            numbers = found.labels_
            sizes = np.bincount(numbers, minlength=found.n_clusters)
            order = np.argsort(-sizes, kind='stable')
            self._clusters[entry] = Clusters(
                np.argsort(order)[numbers],
                found.transform(feats).min(1),
            )
        return self._clusters[entry]
