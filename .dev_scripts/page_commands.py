"""Run the commands of README.md and of all other pages, on small data.

    .venv/bin/python .dev_scripts/page_commands.py [PAGE ...]

For each page a copy of the checkout's files stands for the clone, and the
environment of the Python that runs this for the one that the Makefile would
make there. The commands are run in their order, each as it is written but for
two things: what stands for something of the reader's own is filled in, and
more options at its end make it short. What is not run is listed with the
reason. A command that is not known here is an error, so that none is added to
a page and never run.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from compileall import compile_dir
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torchvision
from mmengine.registry import init_default_scope

from mm_rotssl.apis import read_config
from mm_rotssl.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
# The changelog has commands of before.
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ('*.md', 'configs/**/*.md', 'docs/*.md')
    for page in ROOT.glob(pattern)
    if page.name != 'CHANGELOG.md'
)

# Start of a command -> why it is not run.
NOT_RUN = {
    'git clone ': 'what this script does; Git has its own tests',
    'make test ': 'continuous integration has just done it',
    '.venv/bin/python -m pytest ': 'a part of make test',
    'pip install ': 'downloads; tests/test_package.py installs the wheel',
    'ls data/imagenet/train ': 'needs ImageNet; '
    'tests/test_configs/test_transfer_configs.py runs it on some names',
    'GPUS=8 tools/slurm_train.sh ': 'needs Slurm; '
    'tests/test_cli/test_train_command.py runs it with an imitation',
}

# Start of a command -> what stands there for something of the reader's own,
# or follows from the length of a run -> what it is here. `weights` has a file
# for each of NETWORKS.
R18 = 'rotnet_resnet18_1xb64-100e_custom'
R50 = 'rotnet_resnet50_8xb16-steplr-70e_in1k'
ALEXNET = 'rotnet_alexnet-bn_1xb192-steplr-50e_in1k'
DIGITS = 'rotnet_nin-w24_1xb128-15e_digits'
CLUSTERS = 'self-classifier_32c5-32c5-128f_1xb128-20e_digits'
SEGMENTER = 'fcn_r{}-d8_4xb4-20k_voc12aug-512x512'
NETWORKS = (R18, R50, ALEXNET, DIGITS, CLUSTERS)
FILLED_IN: dict[str, dict[str, str]] = {
    'python tools/train.py CONFIG --cfg-options ': {
        'CONFIG': SEGMENTER.format(50)
    },
    'python tools/train.py CONFIG ': {'CONFIG': DIGITS},
    'tools/dist_train.sh CONFIG': {'CONFIG': DIGITS},
    # synchronized normalization needs GPUs: one process, see ALONE
    'tools/dist_train.sh configs/transfer/': {'8': '1', '4': '1'},
    'torchrun ': {'8': '2', '...': DIGITS},
    'mm-rotssl estimate-noise CONFIG_OF_A_ROTNET ': {
        'CONFIG_OF_A_ROTNET': DIGITS,
        'FOLDER': 'work_dirs/noise',
    },
    **{
        f'mm-rotssl {command} CONFIG ': {
            'CONFIG': DIGITS,
            'CHECKPOINT': f'weights/{DIGITS}.pth',
            'FOLDER': 'images',
        }
        for command in ('evaluate', 'embed')
    },
    'mm-rotssl evaluate-svm ': {
        'CONFIG': DIGITS,
        'CHECKPOINT': f'weights/{DIGITS}.pth',
        'CONFIG_WITH_LABELED_IMAGES': DIGITS,
    },
    'mm-rotssl evaluate-clusters ': {
        'CONFIG': CLUSTERS,
        'CHECKPOINT': f'weights/{CLUSTERS}.pth',
    },
    # the first for ResNet-50, the second for ResNet-18, as what follows there
    'python tools/model_converters/export_backbone.py ': {
        'CONFIG': R50,
        'CHECKPOINT': f'weights/{R50}.pth',
    },
    'mm-rotssl export CONFIG ': {
        'CONFIG': R18,
        'CHECKPOINT': f'weights/{R18}.pth',
    },
    'mm-rotssl compare-transfer CONFIG --out work_dirs/compared --init '
    'random ours': {'CONFIG': SEGMENTER.format(50)},
    'mm-rotssl compare-transfer CONFIG --out work_dirs/compared --init '
    'random mine': {'CONFIG': SEGMENTER.format(18)},
    'mm-rotssl compare-transfer $CONFIG ': {
        'work_dirs/r18.pth': 'work_dirs/backbone.pth'
    },
    '': {
        '/path/to/images': 'images',
        'FOLDER': 'images',
        'epoch_15.pth': 'epoch_1.pth',
        'epoch_20.pth': 'epoch_1.pth',
        'epoch_60.pth': 'epoch_1.pth',
        'epoch_100.pth': 'epoch_1.pth',
    },
}

# Of an evaluation of features.
FEW_FIGURES = (
    '--protocols knn --protocol-options knn.k=[2] --max-reference 100'
)
FEW_TESTS = 'val_dataloader.dataset.indices=50'
FEW_DIGITS = f'train_dataloader.dataset.indices=256 {FEW_TESTS}'
FEW_EXEMPLARS = (
    'model.head.num_exemplars=64 '
    f'train_dataloader.dataset.seed_patches.num_exemplars=64 {FEW_TESTS}'
)
STACKED = 'train_dataloader.dataset.datasets'
FEW_STACKED = (
    f'{STACKED}.rotation.indices=128 {STACKED}.clusters.indices=128 '
    f'{STACKED}.exemplar.seed_patches.num_exemplars=64 '
    f'model.tasks.exemplar.head.num_exemplars=64 {FEW_TESTS}'
)
ONE_EPOCH = 'train_cfg.max_epochs=1'
# All images in the stand-in for CIFAR-10 in folders, two of each class.
FOUR = (
    f'{ONE_EPOCH} train_dataloader.batch_size=4 '
    'val_cfg.reference_dataloader.dataset.indices=4'
)
FOUR_IMAGES = f'{FOUR} train_dataloader.dataset.indices=4'
FOUR_EXEMPLARS = (
    f'{FOUR} train_dataloader.dataset.dataset.indices=4 '
    'train_dataloader.dataset.seed_patches.num_exemplars=4 '
    'model.head.num_exemplars=4'
)
# Digits stand for the release of CIFAR-10, which has checksums: as many as
# hold every class.
AS_CIFAR10 = (
    f'{ONE_EPOCH} train_dataloader.batch_size=16 '
    'val_dataloader.dataset.split=val '
) + ' '.join(
    f'{part}.dataset.type=mm_rotssl.Digits {part}.dataset.indices=64 '
    f'{part}.num_workers=0'
    for part in (
        'train_dataloader',
        'val_dataloader',
        'val_cfg.reference_dataloader',
    )
)

# Fine-tuning, of images and crops of another size than in the config.
NO_WORKERS = ' '.join(
    f'{part}_dataloader.num_workers=0 '
    f'{part}_dataloader.persistent_workers=False'
    for part in ('train', 'val')
)
ONE_STEP = (
    'train_cfg.max_iters=1 train_cfg.val_interval=1 '
    f'train_dataloader.batch_size=2 {NO_WORKERS}'
)
SMALL_CROPS = f'--crop-size 65 --cfg-options {ONE_STEP}'
SMALL_SCENES = (
    "val_dataloader.dataset.pipeline.1.scale='(128,128)' "
    'model.train_cfg.rpn_proposal.max_per_img=12 '
    'model.train_cfg.rcnn.sampler.num=8 model.test_cfg.rpn.max_per_img=12'
)
SMALL_COCO = (
    f'--epochs 1 --cfg-options {NO_WORKERS} {SMALL_SCENES} '
    "train_dataloader.dataset.pipeline.2.scales='[(128,128)]'"
)
SMALL_VOC = f'--cfg-options {ONE_STEP} {SMALL_SCENES} ' + ' '.join(
    f"train_dataloader.dataset.datasets.{i}.pipeline.2.scales='[(128,128)]'"
    for i in (0, 1)
)
# Synchronized normalization of several processes needs GPUs.
ALONE = '--launcher none'


def start_from(name: str) -> str:
    """Setting of a config of transfer: which weights it starts from.

    Args:
        name (str): One of NETWORKS.

    Returns:
        str: To be added to --cfg-options.
    """
    return (
        f'model.backbone.init_cfg.checkpoint=weights/{name}.pth '
        'model.backbone.init_cfg.prefix=backbone.'
    )


# Start of a command -> options that make it short; the longest start counts.
# Those after --cfg-options join what the command has there.
LINEAR = 'tools/dist_train.sh configs/transfer/mmpretrain/linear/'
SEMI = 'tools/dist_train.sh configs/transfer/mmpretrain/semi/'
DETECTION = 'tools/dist_train.sh configs/transfer/mmdetection/'
SEGMENTATION = 'tools/dist_train.sh configs/transfer/mmsegmentation/'
EXPERIMENT = 'python benchmarks/experiment.py'
REPORT = f'--seeds 0 --evaluate "{FEW_FIGURES}" --cfg-options'
SHORT = {
    'make demo ': f'DEMO_EPOCHS=1 DEMO_EVALUATE="{FEW_FIGURES} '
    f'--cfg-options {FEW_TESTS}"',
    'make demo-transfer ': 'TRANSFER_SEEDS=0 TRANSFER_EPOCHS=1 UNLABELED=64 '
    'TRANSFER_COMPARE="--images 1 --cfg-options train_cfg.max_iters=2 '
    'train_cfg.val_interval=2"',
    'mm-rotssl configs ': '',
    'mm-rotssl check-images ': '',
    'mm-rotssl convert-mmselfsup ': '',
    # pre-training
    'mm-rotssl train ': '--epochs 1 --batch-size 4 --crop-size 32',
    'mm-rotssl train exemplar-cnn': '--epochs 1 --batch-size 4 '
    '--cfg-options model.head.num_exemplars=4',
    'python tools/train.py ': f'--epochs 1 --cfg-options {FEW_DIGITS}',
    'python tools/train.py configs/exemplar_cnn/': '--epochs 1 '
    f'--cfg-options {FEW_EXEMPLARS}',
    'python tools/train.py $CONFIG --work-dir work_dirs/multi-task ': (
        f'--epochs 1 --cfg-options {FEW_STACKED}'
    ),
    'python tools/train.py $C --work-dir work_dirs/scan ': '--epochs 1 '
    f'--cfg-options load_from=work_dirs/simclr/epoch_1.pth {FEW_TESTS}',
    'tools/dist_train.sh CONFIG ': f'--epochs 1 --cfg-options {FEW_DIGITS}',
    'mm-rotssl sample-patches ': '--num-exemplars 4',
    'python tools/sample_seed_patches.py ': '--num-exemplars 4',
    'mm-rotssl estimate-noise ': '--folds 2 --cfg-options '
    f'{ONE_EPOCH} train_dataloader.batch_size=4',
    'mm-rotssl estimate-noise CONFIG_OF_A_ROTNET ': '--folds 2 '
    f'--cfg-options {ONE_EPOCH} {FEW_DIGITS}',
    'python tools/estimate_rotation_noise.py ': '--folds 2 --cfg-options '
    f'{ONE_EPOCH} {FEW_DIGITS}',
    'python tools/estimate_rotation_noise.py $R ': '--folds 2 --cfg-options '
    f'{FOUR_IMAGES}',
    'torchrun ': f'--folds 2 --cfg-options {ONE_EPOCH} {FEW_DIGITS}',
    # evaluation
    'mm-rotssl evaluate ': f'{FEW_FIGURES} --cfg-options {FEW_TESTS}',
    'mm-rotssl embed ': '',
    'mm-rotssl mine-neighbors ': '',
    'mm-rotssl evaluate-svm ': '--labels 1 --draws 1 --trials 1 '
    f'--input-size 32 --cfg-options {FEW_TESTS}',
    'mm-rotssl evaluate-clusters ': '--draws 1 --max-reference 100',
    'python tools/evaluation/evaluate_clusters.py ': '--draws 1 '
    '--max-reference 100',
    'mm-rotssl sort ': '',
    'python tools/sort_images.py ': '',
    # benchmarks
    'python benchmarks/run.py --help ': '',
    f'{EXPERIMENT} ': f'{REPORT} {FOUR_IMAGES}',
    f'{EXPERIMENT} $C --out work_dirs/decoupling-weighted ': f'{REPORT} '
    f'{FOUR_IMAGES} model.noise_start_epoch=0',
    f'{EXPERIMENT} $EX ': '--seeds 0 --svm "--protocol cifar10-400 --labels 1 '
    f'--draws 1 --trials 1" --cfg-options {FOUR_EXEMPLARS}',
    f'{EXPERIMENT} configs/exemplar_cnn/': f'{REPORT} {ONE_EPOCH} '
    f'{FEW_EXEMPLARS}',
    f'{EXPERIMENT} configs/feature_decoupling/': f'{REPORT} {AS_CIFAR10}',
    **{
        f'{EXPERIMENT} configs/{folder}/': f'{REPORT} {ONE_EPOCH} {FEW_DIGITS}'
        for folder in ('deepcluster', 'deepcluster_v2', 'npid', 'sela')
    },
    # without the probes, which read CIFAR-10 too and take no options
    f'{EXPERIMENT} configs/rotnet/rotnet_nin_1xb128-steplr-200e_cifar10.py ': (
        f'--probes {REPORT} {AS_CIFAR10}'
    ),
    'OMP_NUM_THREADS=1 python benchmarks/essl.py ': '--seeds 0 --algorithms '
    f'simclr --cfg-options {FOUR_IMAGES}',
    'python benchmarks/essl.py nin-w24_1xb128-20e_digits ': '--algorithms '
    f'simclr --cfg-options {ONE_EPOCH} {FEW_DIGITS}',
    'python benchmarks/essl.py resnet18_1xb512-coslr-200e_cifar10 ': '--seeds '
    f'0 --algorithms simclr --cfg-options {AS_CIFAR10}',
    'python benchmarks/compare_methods.py ': '--seeds 0 --methods rotnet swav '
    f'--evaluate "{FEW_FIGURES}" --cfg-options {FOUR_IMAGES}',
    'python benchmarks/rank_correlations.py ': '',
    # transfer
    'mm-rotssl export ': '',
    'python tools/model_converters/export_backbone.py ': '',
    'python tools/train.py CONFIG --cfg-options ': SMALL_CROPS,
    'python tools/train.py configs/transfer/mmpretrain/': '--cfg-options '
    f'{ONE_STEP} {start_from(ALEXNET)}',
    **dict.fromkeys(
        (LINEAR, SEMI),
        f'{ALONE} --epochs 1 --cfg-options '
        'train_dataloader.batch_size=2 train_dataloader.num_workers=0 '
        f'val_dataloader.num_workers=0 {start_from(R50)}',
    ),
    f'{DETECTION}coco/': f'{ALONE} {SMALL_COCO}',
    f'{DETECTION}coco/faster-rcnn_r18': f'{ALONE} {SMALL_COCO} '
    f'{start_from(R18)}',
    f'{DETECTION}coco/mask-rcnn_r18': f'{ALONE} {SMALL_COCO} '
    f'{start_from(R18)}',
    f'{DETECTION}voc0712/': f'{ALONE} {SMALL_VOC}',
    f'{DETECTION}voc0712/faster-rcnn_r18': f'{ALONE} {SMALL_VOC} '
    f'{start_from(R18)}',
    SEGMENTATION: f'{ALONE} {SMALL_CROPS}',
    f'{SEGMENTATION}voc12aug/fcn_r18': f'{ALONE} {SMALL_CROPS} '
    f'{start_from(R18)}',
    f'{SEGMENTATION}cityscapes/fcn_r18': f'{ALONE} {SMALL_CROPS} '
    f'{start_from(R18)}',
    'mm-rotssl compare-transfer ': f'--seeds 0 --images 1 {SMALL_CROPS}',
}
VARIABLE = r'\w+=("[^"]*"|\S*)'
PROGRAMS = r'(?:make|mm-rotssl|pip|torchrun|(?:\.venv/bin/)?python|tools/\S+)'


def find_commands(text: str) -> list[str]:
    """Find the commands in a text.

    Args:
        text (str): Of a page, Markdown.

    Returns:
        list[str]: The lines of the blocks of shell commands, without
        comments, of which those that end with a backslash are joined; and
        what the text between has as code, if it begins with a program and
        has two more words (one more is a name, as in ``mm-rotssl train``).
    """
    found = []
    for block, code in re.findall(
        r'^```(?:shell\n(.*?)|.*?)^```|`([^`]+)`',
        text,
        re.DOTALL | re.MULTILINE,
    ):
        lines = block.replace('\\\n', ' ').splitlines()
        found += [re.sub(r'(^|\s+)#.*', '', line) for line in lines]
        if re.match(rf'{PROGRAMS}\s+\S+\s+\S', code):
            found.append(code)
    return [' '.join(line.split()) for line in found if line.strip()]


def read_commands(page: str) -> list[str]:
    """Find the commands of a page.

    Args:
        page (str): Its path in the checkout.

    Returns:
        list[str]: See :func:`find_commands`.
    """
    return find_commands((ROOT / page).read_text(encoding='utf-8'))


def entry(table: dict[str, str], command: str) -> str | None:
    """What the longest fitting start of a command stands for in a table."""
    starts = [start for start in table if f'{command} '.startswith(start)]
    return table[max(starts, key=len)] if starts else None


def shorten(command: str) -> str:
    """Make a command short.

    Args:
        command (str): As it is written; none of NOT_RUN.

    Returns:
        str: What to run.

    Raises:
        SystemExit: If the command is not known.
    """
    options = entry(SHORT, command)
    if options is None:
        raise SystemExit(
            f'How is this made short?\n    {command}\n'
            f'Tell it in {Path(__file__).name}.'
        )
    short = command
    for start, words in FILLED_IN.items():
        if f'{command} '.startswith(start):
            for written, filled in words.items():
                whole = rf'(?<![\w$]){re.escape(written)}(?!\w)'
                short = re.sub(whole, filled, short)
    flags, _, settings = options.partition('--cfg-options')
    parts = [flags, settings and f'--cfg-options{settings}']
    if '--cfg-options' in command:
        parts = [settings, flags]
    return ' '.join([short, *(part.strip() for part in parts if part)])


def copy_checkout(target: Path) -> None:
    """Copy what Git has or would add.

    Args:
        target (Path): New folder.
    """
    listing = subprocess.check_output(
        ['git', 'ls-files', '-coz', '--exclude-standard'], cwd=ROOT, text=True
    )
    for name in listing.split('\0'):
        # not what was deleted and not yet committed
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def write_stand_ins(folder: Path) -> None:
    """Write what the commands read and nobody has made in the page before.

    Args:
        folder (Path): New folder of data, weights and caches.
    """
    sys.path.append(str(ROOT / 'tests'))
    from stand_ins import draw_images, write_data

    write_data(folder / 'data')
    draw_images(folder / 'images', 8, '.png', (48, 64))
    (folder / 'weights').mkdir()
    for name in NETWORKS:
        cfg = read_config(name)
        init_default_scope(cfg.default_scope)
        weights = MODELS.build(cfg.model).state_dict()
        torch.save(dict(state_dict=weights), folder / f'weights/{name}.pth')
        if name == R50:
            write_mmselfsup(folder, weights)
    cache = folder / 'torch/hub/checkpoints'
    cache.mkdir(parents=True)
    for build, file in {
        torchvision.models.resnet18: 'resnet18-f37072fd.pth',
        torchvision.models.resnet50: 'resnet50-0676ba61.pth',
    }.items():
        torch.save(build().state_dict(), cache / file)


def write_mmselfsup(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write a checkpoint and a config of mmselfsup."""
    theirs = {
        key.replace('head.fc.', 'head.fc_cls.'): value
        for key, value in weights.items()
        if key.startswith(('backbone.', 'head.fc.'))
    }
    torch.save(
        dict(meta=dict(mmengine_version='0.7.3'), state_dict=theirs),
        folder / 'rotation-pred_resnet50.pth',
    )
    (folder / 'rotation-pred_resnet50_8xb16-steplr-70e_in1k.py').write_text(
        'model = dict(\n'
        "    type='RotationPred',\n"
        "    data_preprocessor=dict(type='RotationPredDataPreprocessor'),\n"
        "    backbone=dict(type='ResNet', depth=50, out_indices=[4]),\n"
        '    head=dict(\n'
        "        type='ClsHead', loss=dict(type='mmcls.CrossEntropyLoss'),\n"
        '        with_avg_pool=True, in_channels=2048, num_classes=4))\n'
        "default_scope = 'mmselfsup'\n"
    )


def run_page(page: str, folder: Path, done: set[str]) -> None:
    """Run the commands of a page in a copy of the checkout.

    Args:
        page (str): Its path in the checkout.
        folder (Path): Of the checkout and of what it lacks; a copy is made
            there.
        done (set[str]): What was run already, which grows.

    Raises:
        SystemExit: If a command fails or is not known.
    """
    checkout = folder / 'copies' / page.replace('/', '-')
    environment = Path(sys.prefix)
    env = {
        **os.environ,
        'PATH': f'{environment / "bin"}{os.pathsep}{os.environ["PATH"]}',
        'PYTHONPATH': str(checkout),
        'TORCH_HOME': str(folder / 'stand_ins/torch'),
        # a page a core
        'OMP_NUM_THREADS': '1',
    }
    # the environment is complete, whatever the dates of the copied files
    stamps = [f'.venv/.{stage}-done' for stage in ('runtime', 'dev', 'test')]
    make = ' '.join(['make', *(f'-o {stamp}' for stamp in stamps)])
    variables = ''
    commands = read_commands(page)
    if commands:
        shutil.copytree(folder / 'checkout', checkout)
        (checkout / '.venv').symlink_to(environment)
        for stand_in in (folder / 'stand_ins').iterdir():
            (checkout / stand_in.name).symlink_to(stand_in)
    for command in commands:
        if re.fullmatch(VARIABLE, command):
            variables += f'{command}\n'
            continue
        reason = entry(NOT_RUN, command)
        if reason:
            print(f'{page}: not run  {command}\n    ({reason})', flush=True)
            continue
        short = variables + re.sub('^make', make, shorten(command))
        if short in done:
            continue
        done.add(short)
        started = time.perf_counter()
        ended = subprocess.run(
            short,
            shell=True,
            cwd=checkout,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if ended.returncode:
            raise SystemExit(
                f'{ended.stdout[-4000:]}\n{page}: failed   {command}\n'
                f'as\n{short}'
            )
        print(f'{page}: {seconds:5.1f} s  {command}', flush=True)


def main() -> None:
    """Run the commands."""
    # those with the most commands first, so that all cores end together
    pages = sorted(
        sys.argv[1:] or PAGES,
        key=lambda page: len(read_commands(page)),
        reverse=True,
    )
    done: set[str] = set()
    with (
        tempfile.TemporaryDirectory() as temporary,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        folder = Path(temporary)
        write_stand_ins(folder / 'stand_ins')
        copy_checkout(folder / 'checkout')
        # once for all copies
        compile_dir(folder / 'checkout/mm_rotssl', quiet=1)
        for _ in pool.map(lambda page: run_page(page, folder, done), pages):
            pass


if __name__ == '__main__':
    main()
