"""Write the backbone of a checkpoint for use in another library.

The file is loaded into the other library's network, and its features are
compared with those of the config's backbone, before it takes its place.
Checkpoints of mmpretrain and of mmselfsup do as well; the config is one of
mmpretrain or mm_rotssl with the same model.backbone.
"""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from mm_rotssl.apis import algorithm_settings, export_backbone, read_config
from mm_rotssl.converters.backbone import SOURCES, TARGETS

# how to use the file: as .pth, and as .safetensors where that differs
_ENGINE = "init_cfg=dict(type='Pretrained', checkpoint={out!r})"
_NO_PREFIX = (
    "# In the config. There must be no prefix='backbone.': the names have "
    'none.\n'
)
_BY_HAND = (
    '# The init_cfg of a config reads .pth files only, so in Python:\n'
    'from safetensors.torch import load_file\n'
    'model.backbone.load_state_dict(load_file({out!r}))'
)
HINTS = {
    'mmdet': _NO_PREFIX
    + "model = dict(backbone=dict(type='ResNet', depth={depth}, "
    + _ENGINE
    + '))',
    'mmseg': _NO_PREFIX
    + "# type='ResNet' is needed where the base config has ResNetV1c, whose "
    'stem these\n# weights lack; pretrained=None where it names a file.\n'
    "model = dict(pretrained=None, backbone=dict(type='ResNet', "
    'depth={depth}, ' + _ENGINE + '))',
    'mmpretrain': _NO_PREFIX
    + '# The other settings of the backbone as in {config}.\n'
    'model = dict(backbone=dict(' + _ENGINE + '))',
    'torchvision': 'import torch, torchvision\n'
    'model = torchvision.models.resnet{depth}()\n'
    '# before your own classifier takes this place\n'
    'model.fc = torch.nn.Identity()\n'
    'model.load_state_dict(torch.load({out!r}, weights_only=True))',
    'timm': 'import timm\n'
    "model = timm.create_model('resnet{depth}', num_classes=0, "
    'checkpoint_path={out!r})\n'
    '# model.reset_classifier(10) adds one of ten classes',
    'detectron2': 'MODEL.WEIGHTS = {out!r}\n'
    'MODEL.RESNETS.DEPTH = {depth}\n'
    '# by default another convolution has the stride than in these weights\n'
    'MODEL.RESNETS.STRIDE_IN_1X1 = False',
}
SAFE_HINTS = {
    **HINTS,
    **dict.fromkeys(('mmdet', 'mmseg', 'mmpretrain'), _BY_HAND),
    'torchvision': HINTS['torchvision']
    .replace('import torch,', 'import safetensors.torch, torch,')
    .replace(
        'torch.load({out!r}, weights_only=True)',
        'safetensors.torch.load_file({out!r})',
    ),
    'detectron2': '# MODEL.WEIGHTS of detectron2 reads .pth files only: for '
    'that, write one.',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config the checkpoint was made with')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--to', choices=TARGETS, required=True, help='library to write for'
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='file to write, .pth or .safetensors',
    )
    parser.add_argument(
        '--from',
        dest='source',
        choices=SOURCES,
        default=SOURCES[0],
        help='who named the weights: mm_rotssl (mmpretrain and mmselfsup, '
        'too) or torchvision, a bare ResNet (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=64,
        help='side in pixels of the image on which features are compared '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='replace settings of the config: key=value, with dots for '
        'nested keys',
    )
    args = parser.parse_args()
    if args.size < 1:
        parser.error(f'--size {args.size} must be positive')
    return args


def preparation(cfg: Config) -> str:
    """What the backbone expects of images, if the config says so."""
    settings = algorithm_settings(cfg).get('data_preprocessor', {})
    names = ('mean', 'std', 'to_rgb', 'bgr_to_rgb')
    found = [f'{n}={settings[n]}' for n in names if n in settings]
    return f'\nimages    {", ".join(found)}' if found else ''


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    try:
        done = export_backbone(
            cfg, args.checkpoint, args.to, args.out, args.source, args.size
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(
            f'Error: {error}\n"{args.out}" was not written.'
        ) from error
    hints = SAFE_HINTS if args.out.suffix == '.safetensors' else HINTS
    compared = (
        'could not be compared, as detectron2 is not built here; the names '
        'turned back give the input'
        if args.to == 'detectron2'
        else f'differ by at most {done.difference:.1e} of the largest value'
    )
    hint = hints[args.to].format(
        out=str(args.out.resolve()), depth=done.depth, config=args.config
    )
    print(
        f'tensors     {done.tensors} matched\n'
        f'features    {compared}{preparation(cfg)}\n'
        f'written     {args.out}\n\n{hint}'
    )


if __name__ == '__main__':
    main()
