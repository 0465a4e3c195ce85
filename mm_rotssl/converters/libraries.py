"""The libraries that a backbone is written for, and how they read the file.

Imports nothing, so that a command can name them at once.
"""

# Who named the weights of a checkpoint.
SOURCES = ('mm_rotssl', 'torchvision')

_NO_PREFIX = (
    "# In the config. There must be no prefix='backbone.': the names have "
    'none.\n'
)
_PRETRAINED = "init_cfg=dict(type='Pretrained', checkpoint={out!r})"
_BY_HAND = (
    '# The init_cfg of a config reads .safetensors only beside\n'
    "# custom_hooks = [dict(type='mm_rotssl.PretrainedCheckHook')]. Without, "
    'in Python:\n'
    'from safetensors.torch import load_file\n'
    'model.backbone.load_state_dict(load_file({out!r}))'
)

#: Library -> how it reads a ``.pth`` file. Filled in are ``out``, the file,
#: ``depth``, of the ResNet, ``config``, ``images``, what the library is told
#: of mean, std and channels, and ``blocks``, what basic blocks need.
HINTS = {
    'mmdet': _NO_PREFIX
    + '# The last stage of a C4 detector is in roi_head.shared_head: give '
    'that the same\n# init_cfg, and style, or it keeps the weights of the '
    'base config or random ones.\n'
    'model = dict({images}\n'
    "    backbone=dict(type='ResNet', depth={depth}, style='pytorch',\n"
    '        ' + _PRETRAINED + '))',
    'mmseg': _NO_PREFIX
    + "# type='ResNet' is needed where the base config has ResNetV1c, whose "
    'stem these\n# weights lack; pretrained=None where it names a file.\n'
    'model = dict({images}\n'
    '    pretrained=None,\n'
    "    backbone=dict(type='ResNet', depth={depth}, style='pytorch',\n"
    '        ' + _PRETRAINED + '))',
    'mmpretrain': _NO_PREFIX
    + '# The other settings of the backbone, and data_preprocessor, as in '
    '{config}.\n'
    'model = dict(backbone=dict(' + _PRETRAINED + '))',
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
    'MODEL.RESNETS.STRIDE_IN_1X1 = False\n'
    '{blocks}{images}',
}

#: The same for a ``.safetensors`` file.
SAFETENSORS_HINTS = {
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

TARGETS = tuple(HINTS)


def describe_blocks(depth: int | None) -> str:
    """What detectron2 must be told of a ResNet of basic blocks.

    Args:
        depth (int, optional): Of the ResNet.

    Returns:
        str: Lines of a config, none for bottleneck blocks.
    """
    if depth not in (18, 34):
        return ''
    return (
        '# of basic blocks; the default, C4, has a head of bottleneck blocks, '
        'which these\n# weights do not fit: begin with Base-RCNN-FPN.yaml\n'
        'MODEL.RESNETS.RES2_OUT_CHANNELS = 64\n'
    )


def describe_images(target: str, facts: dict) -> str:
    """What a library must be told of images, to see them as in pre-training.

    Args:
        target (str): The library.
        facts (dict): See :func:`~mm_rotssl.utils.preprocessing_of`.

    Returns:
        str: Arguments or lines, as ``HINTS`` need them; for the other
        libraries, whose users prepare images themselves, nothing.
    """
    mean, std = (
        facts[key] * (3 if len(facts[key]) == 1 else 1)
        if key in facts
        else None
        for key in ('mean', 'std')
    )
    channels = facts.get('channels')
    if target == 'detectron2':
        lines = '# as in pre-training'
        if mean is None or channels is None:
            lines += (
                ', which the config does not tell in full: INPUT.FORMAT (the '
                'default is BGR),\n# MODEL.PIXEL_MEAN and MODEL.PIXEL_STD'
            )
        if channels is not None:
            lines += f'\nINPUT.FORMAT = {channels.upper()!r}'
        if mean is not None:
            lines += f'\nMODEL.PIXEL_MEAN = {mean}\nMODEL.PIXEL_STD = {std}'
        return lines
    if target not in ('mmdet', 'mmseg') or mean is None:
        return ''
    swap = f', bgr_to_rgb={channels == "rgb"}' if channels is not None else ''
    return (
        f'\n    data_preprocessor=dict(mean={mean},\n        std={std}{swap}),'
    )
