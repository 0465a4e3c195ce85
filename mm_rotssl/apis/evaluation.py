"""Published measurements that have settings of their own.

The network of the config with the weights of the checkpoint is compared with
the same network untrained.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich.table import Table
from torch import nn

from mm_rotssl.evaluation import read_hierarchy
from mm_rotssl.evaluation.features import Features
from mm_rotssl.evaluation.labels import match_labels
from mm_rotssl.evaluation.protocols import (
    Clusters,
    clusters_rows,
    predict_classes,
    svm_protocol,
)
from mm_rotssl.evaluation.report import (
    format_spread,
    make_table,
    write_summary,
)

from .config import read_config
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
    protocol = Clusters(num_clusters, draws)
    results = {}
    for name, model in run.networks.items():
        report(f'{name}: features')
        feats = Features.extract(model, run.reference, run.test)
        own = predict_classes(model, run.test)
        report(f'{name}: k-means')
        results[name] = protocol.judge(feats, own, seed, superclasses)
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
        see :meth:`ExemplarSVM.measure`, and how they came about.

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
        results[name] = svm.measure(feats, splits, seed, report_network)
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
