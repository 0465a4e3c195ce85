"""Measure how good the features of a checkpoint are, stage by stage.

The network of the config, with the weights of the checkpoint, is compared
with the same network untrained (one initialization, as the config and --seed
make it). Labels are taken from val_cfg.reference_dataloader, accuracy is
measured on val_dataloader, both of the config:

- rotation accuracy, where the algorithm predicts rotations;
- for every stage kNN accuracy and a linear probe on the pooled features;
- fine-tuning the whole backbone.

Where only some labels are used, mean and sample standard deviation over
several draws are given; both networks get the same draws. Everything is also
written as JSON and drawn.
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


def number_of_labels(text: str) -> int | str:
    """Read a positive number or 'all'."""
    return text if text == 'all' else positive(text)


def not_negative(text: str) -> int:
    """Read a positive number or 0."""
    return 0 if text == '0' else positive(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument(
        '--out',
        type=Path,
        help='folder of results.json and the figures; by default "features" '
        'beside the checkpoint',
    )
    parser.add_argument(
        '--draws',
        type=positive,
        default=5,
        help='draws of labels (default: 5)',
    )
    parser.add_argument(
        '--shots',
        nargs='+',
        type=number_of_labels,
        default=[1, 5, 10, 'all'],
        help='labels a class of the linear probe (default: 1 5 10 all)',
    )
    parser.add_argument(
        '--finetune-shots',
        type=not_negative,
        default=10,
        help='labels a class of fine-tuning; 0 leaves it out (default: 10)',
    )
    parser.add_argument(
        '--max-reference',
        type=positive,
        help='use only so many labeled images, drawn at random',
    )
    add_seed(parser, 'the untrained network, the draws and fine-tuning')
    add_device(parser)


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Evaluate and print."""
    from mm_rotssl.apis import evaluate, evaluation_tables

    console = make_console()
    out = args.out or Path(args.checkpoint).parent / 'features'
    with show_progress(console) as report:
        summary = evaluate(
            args.config,
            args.checkpoint,
            out,
            draws=args.draws,
            shots=args.shots,
            finetune_shots=args.finetune_shots,
            seed=args.seed,
            max_reference=args.max_reference,
            device=args.device or default_device(),
            cfg_options=parse_cfg_options(args.cfg_options),
            report=report,
        )
    for table in evaluation_tables(summary):
        console.print(table)
        console.print()
    if summary['remark']:
        console.print(summary['remark'], highlight=False)
    if 'training_curves.png' not in summary['figures']:
        console.print(
            'No training curves: no */vis_data/scalars.json beside the '
            'checkpoint.',
            highlight=False,
        )
    for title, file in (
        ('checkpoint', args.checkpoint),
        ('numbers', out / 'results.json'),
        *(('figure', out / name) for name in summary['figures']),
    ):
        console.print(
            f'{title:11}{file}', highlight=False, soft_wrap=True, markup=False
        )
