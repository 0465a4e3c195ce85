"""Write one report on a checkpoint, or on several side by side.

    mm-rotssl evaluate CONFIG CHECKPOINT --images FOLDER
    mm-rotssl evaluate RUN --labeled TRAIN VAL --compare simclr=RUNS
    mm-rotssl evaluate timm:resnet18 weights.safetensors --images FOLDER

Measured is every stage of the network, beside the same network untrained.
Without labels: rank and dimension of the features, how they change when an
image is rotated, and so on. With labels also kNN, linear probes and clusters;
more, such as fine-tuning, on demand. Features and figures are kept in DIR, so
that a call that was interrupted goes on.
"""

import argparse
from pathlib import Path

from .common import (
    add_cfg_options,
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
    parser.add_argument(
        'config',
        help='config file or the name of a shipped config; folder of a run, '
        'or of its seeds; checkpoint beside its config; timm:NAME or '
        'torchvision:NAME',
    )
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='file of the weights, if not in CONFIG; or folder of runs',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        help='images, which need no labels: a folder, or a list (default: '
        "VAL of --labeled, else the config's)",
    )
    parser.add_argument(
        '--labeled',
        '--labelled',
        nargs=2,
        metavar=('TRAIN', 'VAL'),
        help='labeled images to learn from and to test on: a folder with a '
        'sub-folder a class, or a list with a path and a number a line, '
        'LIST@FOLDER where its files are below another folder than its own '
        "(default: the config's, if it names some)",
    )
    parser.add_argument(
        '--protocols',
        nargs='+',
        metavar='NAME',
        help='what to measure, or "all" (default: what takes little time)',
    )
    parser.add_argument(
        '--protocol-options',
        nargs='+',
        default=[],
        metavar='NAME.KEY=VALUE',
        help='settings of protocols, such as "linear.shots=[1,10]"',
    )
    parser.add_argument(
        '--compare',
        nargs='+',
        default=[],
        metavar='[NAME=]RUN',
        help='more to stand beside it: what can be given in place of CONFIG, '
        'or CONFIG@CHECKPOINT, CONFIG@FOLDER_OF_RUNS',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='folder of the report (default: "report" beside the checkpoint)',
    )
    parser.add_argument(
        '--max-images',
        type=positive,
        default=5000,
        help='use only so many images where labels are not needed, drawn at '
        'random (default: 5000)',
    )
    parser.add_argument(
        '--max-reference',
        type=positive,
        help='use only so many labeled images to learn from, drawn at random',
    )
    parser.add_argument(
        '--cache',
        metavar='DIR',
        help='folder that features are kept in (default: "cache" in that of '
        'the report)',
    )
    add_seed(parser, 'untrained networks and of whatever is drawn')
    add_device(parser)


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Evaluate and print."""
    from mm_rotssl import apis

    console = make_console()
    first = apis.find_entry(
        *(
            (args.config,)
            if args.checkpoint is None
            else (args.checkpoint, args.config)
        )
    )
    checkpoint = first.runs[0].checkpoint
    folder = Path('work_dirs') if checkpoint is None else Path(checkpoint)
    out = args.out or folder.parent / 'report'
    options: dict[str, dict] = {}
    for key, value in parse_cfg_options(args.protocol_options).items():
        name, _, setting = key.partition('.')
        options.setdefault(name, {})[setting] = value
    with show_progress(console) as report:
        found = apis.evaluate(
            [first, *map(apis.find_entry, args.compare)],
            out,
            images=args.images,
            labeled=args.labeled,
            protocols=args.protocols,
            options=options,
            max_images=args.max_images,
            max_reference=args.max_reference,
            cache=args.cache,
            seed=args.seed,
            device=args.device or default_device(),
            cfg_options=parse_cfg_options(args.cfg_options),
            report=report,
        )
    for table in apis.report_tables(found):
        console.print(table)
        console.print()
    for remark in found['remarks']:
        console.print(remark, highlight=False)
    for name in ('report.html', 'report.md', 'report.json'):
        console.print(
            f'{name:12} {out / name}',
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
