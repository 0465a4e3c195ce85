r"""Train six methods on CIFAR-10 at one budget, and report on all of them.

    python benchmarks/compare_methods.py --out work_dirs/methods --jobs 2

Images are every fifth of CIFAR-10 (JPEG files in folders). The budget is
80,000 passes of a 32 x 32 view through the network; a smaller view counts
by its area. Each method has the small network of its shipped config. What is
there already is not done again. The report is `mm-rotssl evaluate --compare`
on DIR/NAME/seed_N, with 10,000 training images as the reference set and all
test images; `--evaluate` has its other arguments.

With `--publish FOLDER` the report is also written there, with the figures of
numbers only.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from mm_rotssl.visualization import write_html

ROOT = Path(__file__).resolve().parents[1]
# figures of numbers; others are large, or show images of the dataset
PUBLISHED = ('metrics', 'invariance')
EVERY_FIFTH = list(range(0, 50000, 5))
# name -> config, and what brings it to the budget of 80,000 views
METHODS: dict[str, tuple[str, dict[str, object]]] = {
    # 2 epochs of 10,000 images in 4 rotations
    'rotnet': (
        'rotnet_nin-w24_1xb64-coslr-8e_cifar10-folder',
        {'train_cfg.max_epochs': 2},
    ),
    'decoupling': (
        'feature-decoupling_nin-w24_1xb64-coslr-8e_cifar10-folder',
        {'train_cfg.max_epochs': 2, 'model.noise_start_epoch': 1},
    ),
    # 4 epochs of 2,000 seed patches in 10 deformations
    'exemplar-cnn': (
        'exemplar-cnn_32c5-32c5-128f_1xb128-8e_cifar10-folder',
        {'train_cfg.max_epochs': 4},
    ),
    # 2 epochs of 10,000 images in 4 views
    'self-classifier': (
        'self-classifier_32c5-32c5-128f_1xb128-8e_cifar10-folder',
        {'train_cfg.max_epochs': 2},
    ),
    # 3 epochs of 10,000 images in 2 views and 4 rotated ones of 16 pixels,
    # 90,000 by their area
    'essl-simclr': (
        'essl-simclr_nin-w24_1xb128-6e_cifar10-folder',
        {
            'train_cfg.max_epochs': 3,
            'train_dataloader.dataset.indices': EVERY_FIFTH,
        },
    ),
    # 4 epochs of 10,000 images in 2 views
    'swav': (
        'swav_nin-w24_1xb128-6e_cifar10-folder',
        {
            'train_cfg.max_epochs': 4,
            'train_dataloader.dataset.indices': EVERY_FIFTH,
        },
    ),
}


def train(out: Path, options: list[str], name: str, seed: int) -> None:
    """Train a method, unless its last checkpoint is there."""
    config, settings = METHODS[name]
    folder = out / name / f'seed_{seed}'
    if (folder / 'done').is_file():
        return
    words = [
        *(sys.executable, str(ROOT / 'tools/train.py')),
        *(config, '--work-dir', str(folder), '--resume'),
        *('--no-validate', '--cfg-options', f'randomness.seed={seed}'),
        # the last is enough
        *('default_hooks.checkpoint.interval=1',),
        *('default_hooks.checkpoint.max_keep_ckpts=1',),
        *(
            f'{key}={str(value).replace(" ", "")}'
            for key, value in settings.items()
        ),
        *options,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'output.txt', 'w', encoding='utf-8') as log:
        subprocess.run(words, stdout=log, stderr=log, check=True, cwd=ROOT)
    (folder / 'done').touch()


def main() -> None:
    """Train, then report."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--methods', nargs='+', default=list(METHODS))
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--train-only', action='store_true')
    parser.add_argument('--publish', type=Path)
    parser.add_argument('--evaluate', default='', type=shlex.split)
    parser.add_argument('--cfg-options', nargs='+', default=[])
    args = parser.parse_args()
    out = args.out.resolve()
    with ThreadPoolExecutor(args.jobs) as pool:
        list(
            pool.map(
                lambda task: train(out, args.cfg_options, *task),
                [(name, s) for s in args.seeds for name in args.methods],
            )
        )
    if args.train_only:
        return
    first, *others = (str(out / name) for name in args.methods)
    words = [
        *(sys.executable, '-m', 'mm_rotssl', 'evaluate', first),
        *('--compare', *others, '--out', str(out / 'report')),
        *('--images', 'data/cifar10/test'),
        *('--labeled', 'data/cifar10/train', 'data/cifar10/test'),
        *('--max-reference', '10000'),
        *args.evaluate,
    ]
    print(shlex.join(words))
    subprocess.run(words, check=True, cwd=ROOT)
    if args.publish:
        publish(out / 'report', args.publish)


def publish(report: Path, folder: Path) -> None:
    """Write a report with the figures of numbers only."""
    text = (report / 'report.json').read_text()
    # paths as in the repository, not those of a machine
    content = json.loads(text.replace(f'{ROOT}/', ''))
    content['figures'] = [
        figure
        for figure in content['figures']
        if figure['file'].startswith(PUBLISHED)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as small:
        for figure in content['figures']:
            # few colors, and a third of the bytes
            with Image.open(report / figure['file']) as image:
                image.convert('RGB').quantize(16).save(
                    Path(small) / figure['file'], optimize=True
                )
        write_html(content, folder / 'report.html', small)
    (folder / 'report.json').write_text(
        json.dumps(content, separators=(',', ':')) + '\n'
    )


if __name__ == '__main__':
    main()
