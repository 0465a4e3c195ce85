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
    '# The init_cfg of a config reads .pth files only, so in Python:\n'
    'from safetensors.torch import load_file\n'
    'model.backbone.load_state_dict(load_file({out!r}))'
)

#: Library -> how it reads a ``.pth`` file. Filled in are ``out``, the file,
#: ``depth``, of the ResNet, and ``config``.
HINTS = {
    'mmdet': _NO_PREFIX
    + "model = dict(backbone=dict(type='ResNet', depth={depth}, "
    + _PRETRAINED
    + '))',
    'mmseg': _NO_PREFIX
    + "# type='ResNet' is needed where the base config has ResNetV1c, whose "
    'stem these\n# weights lack; pretrained=None where it names a file.\n'
    "model = dict(pretrained=None, backbone=dict(type='ResNet', "
    'depth={depth}, ' + _PRETRAINED + '))',
    'mmpretrain': _NO_PREFIX
    + '# The other settings of the backbone as in {config}.\n'
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
    'MODEL.RESNETS.STRIDE_IN_1X1 = False',
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
