"""Compare the classes that a network finds without labels with the real ones.

Measured are, on val_dataloader of the config,

- the classes that the network of the config itself gives (mm_rotssl.
  SelfClassifier and whatever else predicts a label), where it does;
- k-means on the pooled features of every stage, fitted on val_cfg.
  reference_dataloader, which uses no labels either,

of the network with the weights of the checkpoint, and untrained (one
initialization, as the config and --seed make it). k-means is run several
times; mean and sample standard deviation are given. With --hierarchy images
are also judged by groups of classes. Everything is written as JSON too.
"""

import argparse
from pathlib import Path

from .common import (
    add_checkpoint,
    add_config,
    add_device,
    add_seed,
    default_device,
    ends_with_error,
    make_console,
    parse_cfg_options,
    positive,
    show_progress,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument(
        '--out',
        type=Path,
        help='the JSON file; by default "clusters.json" beside the checkpoint',
    )
    parser.add_argument(
        '--num-clusters',
        type=positive,
        help='of k-means (default: as many as there are classes)',
    )
    parser.add_argument(
        '--draws',
        type=positive,
        default=3,
        help='runs of k-means (default: 3)',
    )
    parser.add_argument(
        '--hierarchy',
        type=Path,
        help='file of class,superclass (.csv or .json), or a folder of the '
        'BREEDS files; see docs/self_classifier.md',
    )
    parser.add_argument(
        '--level', type=int, help='depth of the superclasses (BREEDS folder)'
    )
    parser.add_argument(
        '--ancestor', help='only classes below this wnid (BREEDS folder)'
    )
    parser.add_argument(
        '--max-reference',
        type=positive,
        help='fit k-means to only so many images, drawn at random',
    )
    add_seed(parser, 'the untrained network and of k-means')
    add_device(parser)


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Evaluate and print."""
    from mm_rotssl.apis import clusters_tables, evaluate_clusters

    console = make_console()
    out = args.out or Path(args.checkpoint).parent / 'clusters.json'
    with show_progress(console) as report:
        summary = evaluate_clusters(
            args.config,
            args.checkpoint,
            out,
            num_clusters=args.num_clusters,
            draws=args.draws,
            hierarchy=args.hierarchy,
            level=args.level,
            ancestor=args.ancestor,
            seed=args.seed,
            max_reference=args.max_reference,
            device=args.device or default_device(),
            cfg_options=parse_cfg_options(args.cfg_options),
            report=report,
        )
    for table in clusters_tables(summary):
        console.print(table)
        console.print()
    console.print(
        f'checkpoint {args.checkpoint}\nnumbers    {out}',
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
