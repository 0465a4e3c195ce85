"""Measure the features of a checkpoint as Exemplar-CNN's papers do.

The features of all outputs of the backbone, each max-pooled over its four
quadrants and divided by its 99.99th percentile, are classified by a linear
one-against-rest SVM, whose C is chosen on training images that are held
out. The network of the config with the weights of the checkpoint is compared
with the same network untrained. Labels are taken from
val_cfg.reference_dataloader, accuracy is measured on val_dataloader, both of
the config, or of another one (--data) whose model is not looked at.

--protocol sets everything else:

  stl10        the ten predefined folds, 96x96 images
  cifar10      all labels, images enlarged to 64x64
  cifar10-400  ten draws of 400 labels a class, 64x64
  caltech101   ten draws of 30 labels a class, tested on at most 50 others,
               mean over the classes, 150x150, pyramid of 1 + 4 + 16 cells
  all          all labels, images as they are: any labeled folder
  few          ten draws of 10 labels a class, images as they are

Mean and sample standard deviation are over folds or draws; both networks get
the same.
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
    parser.add_argument('--protocol', required=True, help='see above')
    parser.add_argument(
        '--data', help='config of the labeled images; by default CONFIG'
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='JSON file; by default svm_PROTOCOL.json beside the checkpoint',
    )
    parser.add_argument(
        '--labels', type=positive, help='labels a class in each draw'
    )
    parser.add_argument(
        '--draws', type=positive, help='number of draws or folds'
    )
    parser.add_argument('--trials', type=positive, help='number of Cs to try')
    parser.add_argument(
        '--input-size', type=positive, help='side that images are scaled to'
    )
    add_seed(parser, 'the untrained network, the draws and the Cs')
    add_device(parser)


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Evaluate and print."""
    from mm_rotssl.apis import evaluate_svm, svm_table

    console = make_console()
    out = args.out or (
        Path(args.checkpoint).parent / f'svm_{args.protocol}.json'
    )
    with show_progress(console) as report:
        summary = evaluate_svm(
            args.config,
            args.checkpoint,
            args.protocol,
            out,
            data=args.data,
            labels=args.labels,
            draws=args.draws,
            trials=args.trials,
            input_size=args.input_size,
            seed=args.seed,
            device=args.device or default_device(),
            cfg_options=parse_cfg_options(args.cfg_options),
            report=report,
        )
    console.print(svm_table(summary))
    console.print(f'numbers    {out}', highlight=False, soft_wrap=True)
