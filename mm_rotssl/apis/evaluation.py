"""Measure how good the features of a checkpoint are.

The network of the config with the weights of the checkpoint is compared with
the same network untrained. The figures come from
:mod:`mm_rotssl.evaluation.protocols`; here they are collected, written as
JSON, drawn and put into tables.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich.table import Table
from torch import nn

from mm_rotssl.evaluation import FINE_TUNING, read_hierarchy
from mm_rotssl.evaluation.features import Features
from mm_rotssl.evaluation.labels import match_labels
from mm_rotssl.evaluation.protocols import (
    KNN,
    Clusters,
    LinearProbe,
    clusters_rows,
    fine_tuned_accuracy,
    predict_classes,
    rotation_accuracy,
    svm_protocol,
)
from mm_rotssl.evaluation.report import (
    format_spread,
    make_table,
    write_summary,
)

from .config import read_config
from .figures import (
    draw_curves,
    draw_embedding,
    draw_neighbors,
    draw_stage_accuracy,
)
from .networks import (
    NETWORKS,
    build_networks,
    build_ordered_dataloader,
    read_labeled_config,
)

Report = Callable[[str], None]


class _Evaluation:
    """What all evaluations of a checkpoint begin and end with."""

    def __init__(
        self,
        config: str | Path,
        checkpoint: str | Path,
        *,
        seed: int,
        device: str,
        cfg_options: dict | None,
        max_reference: int | None = None,
        data: str | Path | None = None,
    ) -> None:
        self.start = time.monotonic()
        self.settings: dict[str, Any] = dict(
            config=str(config),
            cfg_options=cfg_options or {},
            checkpoint=str(checkpoint),
            seed=seed,
            device=device,
        )
        # of another config the model is not looked at
        read = read_config if data else read_labeled_config
        self.cfg: Config = read(config, cfg_options)
        labeled = read_labeled_config(data) if data else self.cfg
        init_default_scope(self.cfg.get('default_scope', 'mmpretrain'))
        # it would tell of every weight that it was initialized
        MMLogger.get_current_instance().setLevel('ERROR')
        self.networks: dict[str, nn.Module] = build_networks(
            self.cfg, checkpoint, seed, device
        )
        self.reference: Any = build_ordered_dataloader(
            labeled.val_cfg.reference_dataloader, max_reference, seed
        )
        self.test: Any = build_ordered_dataloader(labeled.val_dataloader)

    def write(self, path: str | Path, **results: Any) -> dict[str, Any]:
        """Write and return the summary."""
        return write_summary(
            path,
            **self.settings,
            seconds=round(time.monotonic() - self.start, 1),
            **results,
        )


def evaluate(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    draws: int = 5,
    shots: Sequence[int | str] = (1, 5, 10, 'all'),
    finetune_shots: int = 10,
    seed: int = 0,
    max_reference: int | None = None,
    device: str = 'cpu',
    cfg_options: dict | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Measure a checkpoint: rotation, kNN, linear probes, fine-tuning.

    Labels are taken from ``val_cfg.reference_dataloader``, accuracy is
    measured on ``val_dataloader``, both of the config.

    Args:
        config (str | Path): Config that the checkpoint was made with.
        checkpoint (str | Path): The file.
        out (str | Path): Folder of ``results.json`` and the figures.
        draws (int): Draws of labels. Defaults to 5.
        shots (Sequence[int | str]): Labels a class of the linear probe.
            Defaults to (1, 5, 10, 'all').
        finetune_shots (int): Labels a class of fine-tuning; 0 leaves it
            out. Defaults to 10.
        seed (int): Of the untrained network, the draws and fine-tuning.
            Defaults to 0.
        max_reference (int, optional): Use only so many labeled images, drawn
            at random. Defaults to None.
        device (str): Where the networks run. Defaults to 'cpu'.
        cfg_options (dict, optional): Dotted key -> value, settings of the
            config to replace. Defaults to None.
        report (Callable): Is told what is being done. Defaults to ``print``.

    Returns:
        dict[str, Any]: What ``results.json`` holds: ``results`` of both
        networks in percent (``rotation_accuracy``, of each stage ``knn`` and
        ``linear`` by labels a class, ``fine_tuned``), names of ``stages``,
        ``classes`` and ``figures``, a ``remark`` if the last stage got worse
        while another one gained, and how all of it came about.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it does not fit the config, images have no labels,
            test images are of a class that no labeled image is of, or a class
            has too few of them.
    """
    out = Path(out)
    run = _Evaluation(
        config,
        checkpoint,
        seed=seed,
        device=device,
        cfg_options=cfg_options,
        max_reference=max_reference,
    )
    reference, test = run.reference, run.test
    test_to_reference = match_labels(reference.dataset, test.dataset)
    report(
        f'features of {len(reference.dataset)} labeled and '
        f'{len(test.dataset)} test images'
    )
    feats = {
        name: Features.extract(model, reference, test, test_to_reference)
        for name, model in run.networks.items()
    }
    first = feats[NETWORKS[0]]
    # drawn before anything is measured: too few labels are noticed at once
    chosen: dict[int | str, list[torch.Tensor]] = {
        n: first.draw(int(n), draws, seed)
        for n in sorted({*shots, finetune_shots} - {'all', 0}, key=int)
    }
    chosen['all'] = [torch.arange(len(first.reference_labels))]
    knn = KNN()
    probe = LinearProbe({str(n): chosen[n] for n in shots})
    results: dict[str, dict[str, Any]] = {}
    for name, model in run.networks.items():
        report(f'{name}: rotation accuracy, kNN and linear probes')
        by_stage = zip(
            knn.run(feats[name]), probe.run(feats[name]), strict=True
        )
        results[name] = {
            'rotation_accuracy': rotation_accuracy(model, test),
            'stages': [{'knn': k, 'linear': n} for k, n in by_stage],
            'fine_tuned': [],
        }
    for i in range(draws if finetune_shots else 0):
        report(f'fine-tuning, draw {i + 1} of {draws}')
        for name, model in run.networks.items():
            results[name]['fine_tuned'].append(
                fine_tuned_accuracy(
                    model,
                    reference,
                    test,
                    chosen[finetune_shots][i],
                    len(first.classes),
                    seed + i,
                    test_to_reference,
                )
            )
    report('figures')
    figures = _draw_figures(run, results, feats, knn.k, out)
    return run.write(
        out / 'results.json',
        reference_images=len(reference.dataset),
        test_images=len(test.dataset),
        classes=first.classes,
        draws=draws,
        knn=asdict(knn),
        linear_probe='StandardScaler, LogisticRegression(C=1.0)',
        fine_tuning={'labels': finetune_shots, **FINE_TUNING},
        stages=first.stages,
        results=results,
        remark=_remark(results, first.stages),
        figures=[path.name for path in figures],
    )


def _draw_figures(
    run: _Evaluation,
    results: dict[str, dict[str, Any]],
    feats: dict[str, Features],
    k: int,
    out: Path,
) -> list[Path]:
    first = feats[NETWORKS[0]]
    knn = [stage['knn'] for stage in results['trained']['stages']]
    best = max(range(len(knn)), key=knn.__getitem__)
    where = (
        f'stage {first.stages[best]}, the best of the trained network by kNN'
    )
    curves = draw_curves(run.settings['checkpoint'], first.stages, out)
    return [
        *([curves] if curves else []),
        draw_stage_accuracy(results, first, k, out),
        draw_neighbors(
            feats,
            best,
            run.reference.dataset,
            run.test.dataset,
            run.cfg,
            f'Nearest neighbors ({where})',
            out,
        ),
        draw_embedding(feats, best, run.settings['seed'], where, out),
    ]


def _remark(
    results: Mapping[str, Mapping[str, Any]], stages: Sequence[str]
) -> str | None:
    """Explain a last stage that got worse while an earlier one gained."""
    untrained, trained = (
        [stage['knn'] for stage in results[name]['stages']]
        for name in NETWORKS
    )
    gains = [t - u for t, u in zip(trained, untrained, strict=True)]
    best = max(range(len(gains)), key=gains.__getitem__)
    if gains[-1] >= 0 or gains[best] <= 0:
        return None
    return (
        f'Stage {stages[-1]} has lost kNN accuracy ({untrained[-1]:.1f} to '
        f'{trained[-1]:.1f} %) while stage {stages[best]} gained '
        f'({untrained[best]:.1f} to {trained[best]:.1f} %): the last stage '
        'specializes in the pretext task. That is the method, not a defect; '
        'take features from an earlier stage.'
    )


def evaluation_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Put what :func:`evaluate` found into tables.

    Args:
        summary (Mapping[str, Any]): What it returned.

    Returns:
        list[Table]: Accuracy by stage; and that of the whole network, where
        it was measured.
    """
    results, stages = summary['results'], summary['stages']
    shots = list(results[NETWORKS[0]]['stages'][0]['linear'])
    by_stage = make_table(
        'Test accuracy by stage (%), frozen features:\n'
        'kNN with all labels, linear probe with so many a class',
        ['stage', 'network'],
        ['kNN', *(f'{n} label{"" if n == "1" else "s"}' for n in shots)],
    )
    for i, stage in enumerate(stages):
        for name in NETWORKS:
            values = results[name]['stages'][i]
            by_stage.add_row(
                stage if name == NETWORKS[0] else '',
                name,
                f'{values["knn"]:.1f}',
                *(format_spread(values['linear'][n]) for n in shots),
                style='bold' if name == 'trained' else None,
            )
        by_stage.add_section()
    whole = make_table(
        'Test accuracy of the whole network (%)', [''], NETWORKS
    )
    if results['trained']['rotation_accuracy'] is not None:
        whole.add_row(
            'rotation',
            *(f'{results[n]["rotation_accuracy"]:.1f}' for n in NETWORKS),
        )
    if results['trained']['fine_tuned']:
        labels = summary['fine_tuning']['labels']
        whole.add_row(
            f'class, fine-tuned with {labels} labels a class',
            *(format_spread(results[n]['fine_tuned']) for n in NETWORKS),
        )
    return [by_stage, whole] if whole.row_count else [by_stage]


def evaluate_clusters(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    num_clusters: int | None = None,
    draws: int = 3,
    hierarchy: str | Path | None = None,
    level: int | None = None,
    ancestor: str | None = None,
    seed: int = 0,
    max_reference: int | None = None,
    device: str = 'cpu',
    cfg_options: dict | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Compare classes that a network finds without labels with the real.

    Judged are, on ``val_dataloader`` of the config, the network's own
    classes, where it gives some, and k-means on the features of every stage,
    fitted to ``val_cfg.reference_dataloader``.

    Args:
        config (str | Path): Config that the checkpoint was made with.
        checkpoint (str | Path): The file.
        out (str | Path): The JSON file.
        num_clusters (int, optional): Of k-means. Defaults to None, as many
            as there are classes.
        draws (int): Runs of k-means. Defaults to 3.
        hierarchy (str | Path, optional): File or folder of superclasses, see
            :func:`read_hierarchy`. Defaults to None.
        level (int, optional): Depth of the superclasses. Defaults to None.
        ancestor (str, optional): Only classes below it. Defaults to None.
        seed (int): Of the untrained network and of k-means. Defaults to 0.
        max_reference (int, optional): Fit k-means to only so many images,
            drawn at random. Defaults to None.
        device (str): Where the networks run. Defaults to 'cpu'.
        cfg_options (dict, optional): Dotted key -> value, settings of the
            config to replace. Defaults to None.
        report (Callable): Is told what is being done. Defaults to ``print``.

    Returns:
        dict[str, Any]: What the file holds: ``results`` (network -> way of
        clustering -> scores of each run, see :func:`clustering_scores`), and
        how they came about.

    Raises:
        FileNotFoundError: If the checkpoint or the hierarchy is missing.
        ValueError: If the checkpoint does not fit the config, images have no
            labels, there are fewer than clusters, or the hierarchy does not
            fit the classes.
    """
    if hierarchy is None and (level, ancestor) != (None, None):
        raise ValueError('--level and --ancestor belong to --hierarchy.')
    run = _Evaluation(
        config,
        checkpoint,
        seed=seed,
        device=device,
        cfg_options=cfg_options,
        max_reference=max_reference,
    )
    superclasses = None
    if hierarchy is not None:
        names = run.test.dataset.metainfo.get('classes')
        if not names:
            raise ValueError(
                f'--hierarchy {hierarchy} groups classes by name, and the '
                'dataset of val_dataloader has no names of classes. Add '
                "metainfo=dict(classes=[...]) to val_dataloader's dataset."
            )
        superclasses, _ = read_hierarchy(hierarchy, names, level, ancestor)
    protocol = Clusters(num_clusters, draws, seed, superclasses)
    results = {}
    for name, model in run.networks.items():
        report(f'{name}: features')
        feats = Features.extract(model, run.reference, run.test)
        own = predict_classes(model, run.test)
        report(f'{name}: k-means')
        results[name] = protocol.run(feats, own)
    return run.write(
        out,
        reference_images=len(run.reference.dataset),
        test_images=len(run.test.dataset),
        hierarchy=hierarchy and str(hierarchy),
        level=level,
        ancestor=ancestor,
        results=results,
    )


def clusters_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Put what :func:`evaluate_clusters` found into tables.

    Args:
        summary (Mapping[str, Any]): What it returned.

    Returns:
        list[Table]: One a network; mean and sample standard deviation over
        the runs.
    """
    headings, rows = clusters_rows(summary['results'])
    tables = []
    for network, lines in rows.items():
        table = make_table(
            f'{network}: clusters and classes (%)', ['clusters by'], headings
        )
        for line in lines:
            table.add_row(*line)
        tables.append(table)
    return tables


def evaluate_svm(
    config: str | Path,
    checkpoint: str | Path,
    protocol: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    labels: int | None = None,
    draws: int | None = None,
    trials: int | None = None,
    input_size: int | None = None,
    seed: int = 0,
    device: str = 'cpu',
    cfg_options: dict | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Measure a checkpoint by a linear SVM, as Exemplar-CNN's papers do.

    Args:
        config (str | Path): Config that the checkpoint was made with.
        checkpoint (str | Path): The file.
        protocol (str): One of ``SVM_PROTOCOLS``.
        out (str | Path): The JSON file.
        data (str | Path, optional): Config of the labeled images. Defaults
            to None, ``config``.
        labels (int, optional): Labels a class in each draw. Defaults to
            None, the protocol's own, as the following.
        draws (int, optional): Number of draws or folds.
        trials (int, optional): Number of Cs to try.
        input_size (int, optional): Side that images are scaled to, in
            pixels.
        seed (int): Of the untrained network, the draws and the Cs. Defaults
            to 0.
        device (str): Where the networks run. Defaults to 'cpu'.
        cfg_options (dict, optional): Dotted key -> value, settings of the
            config to replace. Defaults to None.
        report (Callable): Is told what is being done. Defaults to ``print``.

    Returns:
        dict[str, Any]: What the file holds: ``results`` of both networks,
        see :meth:`LinearSVM.run`, and how they came about.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If there is no such protocol or the data does not suit
            it, or the checkpoint does not fit the config.
    """
    svm = svm_protocol(
        protocol,
        labels=labels,
        draws=draws,
        trials=trials,
        input_size=input_size,
    )
    run = _Evaluation(
        config,
        checkpoint,
        seed=seed,
        device=device,
        cfg_options=cfg_options,
        data=data,
    )
    test = run.test if svm.test_rest is None else run.reference
    test_to_reference = match_labels(run.reference.dataset, test.dataset)
    results: dict[str, dict[str, Any]] = {}
    splits: list[torch.Tensor] = []
    for name, model in run.networks.items():

        def report_network(message: str, name: str = name) -> None:
            report(f'{name}: {message}')

        report_network('features')
        feats = Features.extract(
            model,
            run.reference,
            test,
            test_to_reference,
            pool=svm.pool,
            input_size=svm.input_size,
        )
        splits = splits or svm.split(feats, run.reference.dataset, seed)
        results[name] = svm.run(feats, splits, seed, report_network)
    return run.write(
        out,
        data=str(data or config),
        protocol=protocol,
        settings=asdict(svm),
        training_images=len(splits[0]),
        results=results,
    )


def svm_table(summary: Mapping[str, Any]) -> Table:
    """Put what :func:`evaluate_svm` found into a table.

    Args:
        summary (Mapping[str, Any]): What it returned.

    Returns:
        Table: A row a network.
    """
    results = summary['results']
    times = len(results['trained']['accuracy'])
    table = make_table(
        f'Test accuracy of a linear SVM (%),\n{summary["protocol"]}: '
        f'{summary["training_images"]} labels, {times} times',
        ['network'],
        ['accuracy', 'held out', 'C', 'features'],
    )
    for name in NETWORKS:
        found = results[name]
        table.add_row(
            name,
            format_spread(found['accuracy']),
            f'{found["held_out_accuracy"]:.1f}',
            f'{found["c"]:.2g}',
            str(sum(found['features'])),
        )
    return table
