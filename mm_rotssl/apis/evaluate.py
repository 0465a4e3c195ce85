"""One report on checkpoints, with labels or without."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import joblib
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from mm_rotssl.evaluation.differences import compare
from mm_rotssl.evaluation.feature_store import (
    EMBEDDING,
    FeatureStore,
    describe_images,
    describe_network,
    describe_pipeline,
)
from mm_rotssl.evaluation.labels import (
    list_classes,
    list_labels,
    match_labels,
)
from mm_rotssl.evaluation.measurement import Measurement
from mm_rotssl.evaluation.protocols import PROTOCOLS, Protocol
from mm_rotssl.evaluation.report import write_summary
from mm_rotssl.evaluation.subject import Subject
from mm_rotssl.utils import InputError, write_file
from mm_rotssl.version import __version__
from mm_rotssl.visualization import write_html, write_markdown

from .duplicates import duplicate_remarks, find_duplicates
from .entries import Entry, Run, find_entry, name_entries
from .networks import (
    build_ordered_dataloader,
    build_untrained,
    load_network,
    read_network,
)
from .report_figures import draw_report_figures
from .sources import image_settings, labeled_settings

Report = Callable[[str], None]
UNTRAINED = 'untrained'
# sets of images, see Subject
PARTS = ('images', 'reference', 'test')


@dataclass
class _Candidate:
    """An entry with what is measured: a subject for each run."""

    entry: Entry
    cfg: Config
    subjects: list[Subject]
    # name of the entry of its untrained network; of such a one itself none
    untrained: str | None = None


def evaluate(
    sources: str | Path | Entry | Sequence[str | Path | Entry],
    out: str | Path,
    *,
    images: str | Path | None = None,
    labeled: Sequence[str | Path] | None = None,
    protocols: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_images: int | None = 5000,
    max_reference: int | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
    device: str = 'cpu',
    cfg_options: dict | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Measure checkpoints beside the untrained network, and write a report.

    Args:
        sources (str | Path | Entry | Sequence): What to measure, see
            :func:`find_entry`.
        out (str | Path): Folder of ``report.json``, ``report.md``,
            ``report.html`` and the figures, which are written anew after
            each protocol.
        images (str | Path, optional): Folder or list of images; labels are
            not needed. Defaults to None: those to test on of ``labeled``,
            else those of the config, see `image_settings`.
        labeled (Sequence[str | Path], optional): Images to learn from and
            to test on, see `labeled_settings`. Defaults to None, those
            of the configs; protocols that need labels are left out if there
            are none.
        protocols (Sequence[str], optional): Names, or 'all'. Defaults to
            None, those that take little time.
        options (Mapping[str, Mapping[str, Any]], optional): Protocol ->
            settings other than its defaults. Defaults to None.
        max_images (int, optional): Use only so many of the images without
            labels, drawn at random. Defaults to 5000.
        max_reference (int, optional): The same of the images to learn from.
            Defaults to None, all.
        cache (str | Path, optional): Folder of features and of figures that
            were measured before. Defaults to None, ``cache`` in ``out``.
        seed (int): Of untrained networks and of whatever is drawn. Defaults
            to 0.
        device (str): Where networks run. Defaults to 'cpu'.
        cfg_options (dict, optional): Dotted key -> value, settings of every
            config to replace. Defaults to None.
        report (Callable): Is told what is being done. Defaults to ``print``.

    Returns:
        dict[str, Any]: What ``report.json`` holds.

    Raises:
        FileNotFoundError: If a checkpoint, config or folder does not exist.
        ValueError: If a checkpoint does not fit its config, there is no such
            protocol or setting, or images or labels are missing that a
            protocol needs which was asked for.
    """
    start = time.monotonic()
    out = Path(out)
    if isinstance(sources, (str, Path, Entry)):
        sources = [sources]
    entries = name_entries(
        source if isinstance(source, Entry) else find_entry(source)
        for source in sources
    )
    chosen = choose_protocols(protocols, options or {})
    # it would tell of every weight that it was initialized
    MMLogger.get_current_instance().setLevel('ERROR')
    store = FeatureStore(cache or out / 'cache')
    builder = _Builder(
        store,
        images,
        labeled,
        max_images,
        max_reference,
        seed,
        device,
        cfg_options,
        report,
    )
    candidates = builder.build(entries)
    first = candidates[0].subjects[0]
    if first.reference is None:
        missing = [p.name for p in chosen if p.labeled]
        if protocols and 'all' not in protocols and missing:
            raise InputError(
                f'--protocols {" ".join(missing)}: needs labeled images, and '
                f'{entries[0].runs[0].config} names none. Name them: '
                '--labeled TRAIN VAL.'
            )
    written = _Written(
        out,
        candidates,
        dict(
            created=datetime.now().isoformat(timespec='seconds'),
            seed=seed,
            device=device,
            cfg_options=cfg_options or {},
        ),
        start,
    )
    for protocol in chosen:
        if protocol.labeled and first.reference is None:
            written.skip(protocol, 'there are no labeled images')
            continue
        found, reasons = {}, {}
        for candidate in candidates:
            name = candidate.entry.name
            report(f'{protocol.name}: {name}')
            try:
                found[name] = [
                    _measure(protocol, subject, store.folder)
                    for subject in candidate.subjects
                ]
            except InputError as error:
                # what was asked for is not left out; but an untrained network
                # has no memory of images, for instance
                if protocol.name in (protocols or ()) and candidate.untrained:
                    raise InputError(f'{name}: {error}') from error
                reasons[name] = str(error)
        if not found:
            written.skip(protocol, next(iter(reasons.values())))
            continue
        written.content['remarks'] += [
            f'{name} is missing in "{protocol.title}": {reason}'
            for name, reason in reasons.items()
        ]
        written.add(protocol, found)
        written.write()
    report('duplicates')
    duplicates = find_duplicates(first)
    written.content['remarks'] += [
        *stage_remarks(written.content),
        *duplicate_remarks(duplicates),
    ]
    report('figures')
    written.content['figures'] = draw_report_figures(
        written.content,
        {one.entry.name: one.subjects[0] for one in candidates},
        out,
        duplicates,
        report,
    )
    return written.write()


def choose_protocols(
    names: Sequence[str] | None, options: Mapping[str, Mapping[str, Any]]
) -> list[Protocol]:
    """Make protocols with their settings.

    Args:
        names (Sequence[str], optional): Their names, or 'all'. None: those
            that take little time.
        options (Mapping[str, Mapping[str, Any]]): Protocol -> settings;
            whatever has some is chosen, too.

    Returns:
        list[Protocol]: In the order of :data:`PROTOCOLS`.

    Raises:
        ValueError: If a name or setting is not known.
    """
    for name in {*(names or ()), *options} - {'all', *PROTOCOLS}:
        raise InputError(
            f'There is no protocol "{name}". Known are '
            f'{", ".join(PROTOCOLS)}, and all.'
        )
    chosen = []
    for name, kind in PROTOCOLS.items():
        asked_for = {*(names or ()), *options}
        quick = names is None and kind.quick
        if not (quick or asked_for & {name, 'all'}):
            continue
        settings = dict(options.get(name, {}))
        hints = get_type_hints(kind)
        dataclass_kind: Any = kind
        known = {item.name for item in dataclasses.fields(dataclass_kind)}
        for key, value in settings.items():
            if key not in known:
                raise InputError(
                    f'Protocol {name} has no setting "{key}". It has '
                    f'{", ".join(sorted(known)) or "none"}.'
                )
            settings[key] = _read_setting(f'{name}.{key}', value, hints[key])
        chosen.append(kind(**settings))
    return chosen


def _read_setting(name: str, value: Any, hint: Any) -> Any:
    """Check a value against the type of a protocol's field."""
    allowed = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    for kind in allowed:
        if get_origin(kind) in (tuple, Sequence):
            values = value if isinstance(value, (list, tuple)) else (value,)
            inner = [one for one in get_args(kind) if one is not ...]
            fits = (
                len(values) == len(inner) if len(inner) > 1 else bool(values)
            )
            if fits:
                return tuple(
                    _read_setting(name, one, inner[0]) for one in values
                )
        elif kind is bool or isinstance(value, bool):
            if kind is bool and isinstance(value, bool):
                return value
        elif kind is float and isinstance(value, (int, float)):
            if value >= 0:
                return value
        elif isinstance(value, kind) and (kind is not int or value > 0):
            return value
    names = {
        int: 'a whole number above 0',
        float: 'a number',
        bool: 'True or False',
        str: 'a text',
        type(None): 'None',
    }
    expected = ' or '.join(
        names.get(kind)
        or f'[{", ".join(names.get(one, "...") for one in get_args(kind))}]'
        for kind in allowed
    )
    raise InputError(
        f'--protocol-options {name}={value!r}: expected {expected}.'
    )


def stage_remarks(report: Mapping[str, Any]) -> list[str]:
    """Explain a last stage that got worse while an earlier one gained.

    Args:
        report (Mapping[str, Any]): What report.json holds.

    Returns:
        list[str]: A remark for each network of which both are sure, by the
        first figure of kNN and the interval of its difference.
    """
    first = [
        next(iter(protocol['metrics']))
        for protocol in report['protocols']
        if protocol['name'] == 'knn'
    ]

    def of_knn(key: str) -> list[dict[str, Any]]:
        return [
            one
            for one in report[key]
            if one['protocol'] == 'knn' and one['metric'] in first
        ]

    means = {
        (one['entry'], one['stage']): float(
            np.mean([np.mean(run) for run in one['runs']])
        )
        for one in of_knn('measurements')
    }
    remarks = []
    for entry in report['entries']:
        name, untrained = entry['name'], entry['untrained']
        gains = {
            one['stage']: one
            for one in of_knn('differences')
            if (one['entry'], one['baseline']) == (name, untrained)
            and one['stage'] != EMBEDDING
            and one['low'] is not None
        }
        if not gains:
            continue
        last = list(gains)[-1]
        best = max(gains, key=lambda stage: gains[stage]['value'])
        if gains[last]['high'] >= 0 or gains[best]['low'] <= 0:
            continue
        lost, gained = (
            f'({means[untrained, stage]:.1f} to {means[name, stage]:.1f} %)'
            for stage in (last, best)
        )
        remarks.append(
            f'{name}: stage {last} has lost kNN accuracy {lost} while stage '
            f'{best} gained {gained}: the last stage specializes in the '
            'pretext task. That is the method, not a defect; take features '
            'from an earlier stage.'
        )
    return remarks


@dataclass(frozen=True)
class _Builder:
    """Builds networks and dataloaders."""

    store: FeatureStore
    images: str | Path | None
    labeled: Sequence[str | Path] | None
    max_images: int | None
    max_reference: int | None
    seed: int
    device: str
    cfg_options: dict | None
    report: Report

    def build(self, entries: Sequence[Entry]) -> list[_Candidate]:
        """All entries, and behind them their untrained networks."""
        trained = []
        untrained: dict[str, _Candidate] = {}
        keys = []
        for entry in entries:
            cfg = read_network(entry.runs[0].config, self.cfg_options)
            init_default_scope(cfg.get('default_scope', 'mmpretrain'))
            data = self._dataloaders(cfg)
            subjects = []
            for run in entry.runs:
                own = read_network(run.config, self.cfg_options)
                if own.model != cfg.model:
                    raise InputError(
                        f'"{entry.name}" has runs of different models, such '
                        f'as {entry.runs[0].config} and {run.config}: they '
                        'can not be averaged. Name each folder by itself, '
                        'those behind the first with --compare.'
                    )
                model = load_network(own, run.checkpoint)
                subjects.append(self._subject(model, data))
            trained.append(_Candidate(entry, cfg, subjects))
            # entries with the same network, which is prepared the same
            # images, have one between them
            pipelines = [
                describe_pipeline(data[part].dataset)
                for part in PARTS
                if part in data
            ]
            model = build_untrained(cfg, self.seed)
            keys.append(joblib.hash((describe_network(model), pipelines)))
            shared = untrained.setdefault(keys[-1], _Candidate(entry, cfg, []))
            for number in range(len(shared.subjects), len(entry.runs)):
                model = build_untrained(cfg, self.seed + number)
                shared.subjects.append(self._subject(model, data))
        for one in untrained.values():
            name = UNTRAINED
            if len(untrained) > 1:
                name += f' {one.entry.name}'
            run = Run(one.entry.runs[0].config)
            one.entry = Entry(name, (run,) * len(one.subjects))
        for candidate, key in zip(trained, keys, strict=True):
            candidate.untrained = untrained[key].entry.name
        found = [*trained, *untrained.values()]
        for candidate in found:
            _check_same_images(found[0], candidate)
        return found

    def _dataloaders(self, cfg: Config) -> dict[str, Any]:
        """Arguments of a subject."""
        labeled = labeled_settings(cfg, self.labeled)
        if self.images is None and self.labeled is not None:
            assert labeled is not None
            images = labeled[1]
        else:
            images = image_settings(cfg, self.images)
        data: dict[str, Any] = dict(
            images=build_ordered_dataloader(images, self.max_images, self.seed)
        )
        if labeled is not None:
            data['reference'] = build_ordered_dataloader(
                labeled[0], self.max_reference, self.seed
            )
            data['test'] = build_ordered_dataloader(labeled[1])
            data['test_to_reference'] = match_labels(
                data['reference'].dataset, data['test'].dataset
            )
            _check_classes(
                data['reference'].dataset,
                data['test'].dataset,
                data['test_to_reference'],
            )
        return data

    def _subject(self, model: Any, data: dict[str, Any]) -> Subject:
        model.to(self.device)
        # mmpretrain's backbones do not return themselves
        model.eval()
        return Subject(
            model, self.store, seed=self.seed, report=self.report, **data
        )


def _check_classes(
    reference: Any, test: Any, test_to_reference: torch.Tensor | None
) -> None:
    """Refuse a single class, and test images of one without reference."""
    known, asked = list_labels(reference), list_labels(test)
    if test_to_reference is not None:
        asked = {int(test_to_reference[label]) for label in asked}
    if known and asked - known:
        names = list_classes(reference)
        missing = [
            names[label] if label < len(names) else str(label)
            for label in sorted(asked - known)
        ]
        raise InputError(
            f'There are test images of {len(missing)} classes, such as '
            f'"{missing[0]}", of which none of the '
            f'{len(reference)} images to learn from is: they can '
            'never be right. Add some, raise --max-reference, or leave these '
            'test images out.'
        )
    if len(known) == 1:
        raise InputError(
            f'The {len(reference)} images to learn from are all of one class: '
            'there is nothing to tell apart. Name images of several, such as '
            'a folder with a sub-folder for each.'
        )


def _check_same_images(first: _Candidate, other: _Candidate) -> None:
    """Refuse to compare what was measured on different images."""
    for part in PARTS:
        loaders = [
            getattr(candidate.subjects[0], part)
            for candidate in (first, other)
        ]
        counts = [
            'none' if loader is None else str(len(loader.dataset))
            for loader in loaders
        ]
        if None in loaders:
            same = loaders[0] is loaders[1]
        else:
            same = describe_images(loaders[0].dataset) == describe_images(
                loaders[1].dataset
            )
        if not same:
            option = (
                '--images FOLDER'
                if part == 'images'
                else ('--labeled TRAIN VAL')
            )
            raise InputError(
                f'"{first.entry.name}" and "{other.entry.name}" would be '
                f'measured on different images ({part}: {counts[0]} and '
                f'{counts[1]}). Name the same for both: {option}.'
            )


def _measure(
    protocol: Protocol, subject: Subject, cache: Path
) -> list[Measurement]:
    """Run a protocol, or read what it gave before."""
    settings = vars(protocol)
    files = [
        (file.stat().st_size, file.stat().st_mtime_ns)
        for value in settings.values()
        if isinstance(value, str) and (file := Path(value)).is_file()
    ]
    key = joblib.hash(
        (protocol.name, settings, files, subject.key, __version__)
    )
    file = cache / f'{protocol.name}-{key}.json'
    if file.is_file():
        return [
            Measurement(
                **{
                    **values,
                    'correct': None
                    if values['correct'] is None
                    else np.array(values['correct'], np.float32),
                }
            )
            for values in json.loads(file.read_bytes())
        ]
    found = list(protocol.run(subject))
    content = [
        {
            **vars(one),
            'values': [float(value) for value in one.values],
            'correct': None if one.correct is None else one.correct.tolist(),
        }
        for one in found
    ]
    write_file(file, json.dumps(content).encode())
    return found


class _Written:
    """The report, as far as it is."""

    def __init__(
        self,
        out: Path,
        candidates: Sequence[_Candidate],
        facts: Mapping[str, Any],
        start: float,
    ) -> None:
        self.out = out
        self.candidates = candidates
        self.start = start
        first = candidates[0].subjects[0]
        self.content: dict[str, Any] = dict(
            **facts,
            data={
                part: _describe_data(getattr(first, part)) for part in PARTS
            },
            entries=[
                dict(
                    name=candidate.entry.name,
                    kind='trained' if candidate.untrained else 'untrained',
                    untrained=candidate.untrained,
                    runs=[
                        dict(
                            config=run.config,
                            checkpoint=run.checkpoint,
                            seed=None
                            if candidate.untrained
                            else facts['seed'] + number,
                        )
                        for number, run in enumerate(candidate.entry.runs)
                    ],
                    stages=list(candidate.subjects[0].image_features()),
                )
                for candidate in candidates
            ],
            protocols=[],
            measurements=[],
            differences=[],
            figures=[],
            remarks=[],
        )
        self.content['data']['classes'] = (
            []
            if first.reference is None
            # of images of several classes there are no features by label
            else list_classes(first.reference.dataset)
            or first.features.classes
        )

    def skip(self, protocol: Protocol, reason: str) -> None:
        """Say why a protocol was not run."""
        self.content['protocols'].append(
            {**_describe_protocol(protocol), 'skipped': reason}
        )

    def add(
        self, protocol: Protocol, found: Mapping[str, list[list[Measurement]]]
    ) -> None:
        """Take what a protocol gave: name of an entry -> of each run."""
        self.content['protocols'].append(_describe_protocol(protocol))
        by_key: dict[tuple, dict[str, list[Measurement]]] = {}
        for entry, runs in found.items():
            for run in runs:
                for one in run:
                    key = one.metric, one.stage
                    by_key.setdefault(key, {}).setdefault(entry, []).append(
                        one
                    )
        for (metric, stage), by_entry in by_key.items():
            where = dict(protocol=protocol.name, metric=metric, stage=stage)
            for entry, measured in by_entry.items():
                self.content['measurements'].append(
                    dict(
                        where,
                        entry=entry,
                        runs=[
                            [float(v) for v in one.values] for one in measured
                        ],
                        chance=measured[0].chance,
                    )
                )
            if protocol.metrics[metric].better is not None:
                self._add_differences(where, by_entry)

    def _add_differences(
        self, where: dict, by_entry: Mapping[str, list[Measurement]]
    ) -> None:
        first = self.candidates[0].entry.name
        for candidate in self.candidates:
            name = candidate.entry.name
            if name not in by_entry or candidate.untrained is None:
                continue
            for baseline in (candidate.untrained, first):
                if baseline == name or baseline not in by_entry:
                    continue
                difference = compare(
                    by_entry[name], by_entry[baseline], self.content['seed']
                )
                self.content['differences'].append(
                    dict(
                        where,
                        entry=name,
                        baseline=baseline,
                        **dataclasses.asdict(difference),
                    )
                )

    def write(self) -> dict[str, Any]:
        """Write all files."""
        content = write_summary(
            self.out / 'report.json',
            **self.content,
            seconds=round(time.monotonic() - self.start, 1),
        )
        write_markdown(content, self.out / 'report.md')
        write_html(content, self.out / 'report.html', self.out)
        return content


def _describe_protocol(protocol: Protocol) -> dict[str, Any]:
    return dict(
        name=protocol.name,
        title=protocol.title,
        about=protocol.about,
        labeled=protocol.labeled,
        settings=vars(protocol),
        metrics={
            key: dataclasses.asdict(metric)
            for key, metric in protocol.metrics.items()
        },
        skipped=None,
    )


def _describe_data(loader: DataLoader | None) -> dict[str, Any] | None:
    if loader is None:
        return None
    dataset: Any = loader.dataset
    count = len(dataset)
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    name = getattr(dataset, 'data_root', '') or type(dataset).__name__
    return dict(name=str(name), count=count)
