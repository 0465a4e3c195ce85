"""From mmselfsup's ``RotationPred`` to :class:`RotNet`.

Written against mmselfsup 0.11.0 and 1.0.0, whose checkpoints have the same
keys but not the same labels. ``docs/migration_from_mmselfsup.md`` shows the
tables below.
"""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import Registry
from mmpretrain.registry import DATASETS, HOOKS, TRANSFORMS

from mm_rotssl.utils import (
    checkpoint_bytes,
    read_checkpoint,
    replacing,
    write_file,
)

#: Names in a checkpoint: theirs and ours. A ``*`` stands for any rest.
CHECKPOINT_KEYS = {
    'backbone.*': 'backbone.*',
    'head.fc_cls.weight': 'head.fc.weight',
    'head.fc_cls.bias': 'head.fc.bias',
}

#: Row ``k`` of our classifier is row ``LABELS[version][k]`` of theirs. All
#: count quarter turns, but ``mmcv.imrotate``, which 1.x uses, makes them
#: clockwise.
LABELS = {'0.x': (0, 1, 2, 3), '1.x': (0, 3, 2, 1)}

#: Types in a config: theirs, and ours or None where nothing is needed.
CONFIG_TYPES = {
    'RotationPred': 'mm_rotssl.RotNet',
    'RotationPredDataPreprocessor': 'SelfSupDataPreprocessor',
    'ClsHead': 'mm_rotssl.RotationHead',
    'RotationWithLabels': None,
    'PackSelfSupInputs': 'PackInputs',
    'SelfSupVisualizer': 'UniversalVisualizer',
}

#: Arguments of transforms that are called otherwise here.
CONFIG_ARGUMENTS = {
    'PackSelfSupInputs': {'key': 'input_key'},
    'RandomResizedCrop': {
        'size': 'scale',
        'scale': 'crop_ratio_range',
        'ratio': 'aspect_ratio_range',
    },
    'RandomCrop': {'size': 'crop_size'},
}

# mmselfsup's own ResNets count the stem as output 0.
_RESNETS = ('ResNet', 'ResNeXt', 'ResNetV1d')


def find_version(meta: Mapping[str, Any]) -> str:
    """Tell which mmselfsup saved a checkpoint.

    Args:
        meta (Mapping[str, Any]): Its ``meta``.

    Returns:
        str: ``'0.x'``, trained by mmcv's runner, or ``'1.x'``, by mmengine's.

    Raises:
        ValueError: If there is no trace of either.
    """
    if 'mmengine_version' in meta:
        return '1.x'
    if {'mmcv_version', 'mmselfsup_version'} & set(meta):
        return '0.x'
    raise ValueError(
        'The checkpoint does not say whether mmselfsup 0.x or 1.x made it '
        '(its meta data have neither "mmcv_version" nor '
        '"mmengine_version"), and their labels differ. Name it: '
        '--from-version 0.x or 1.x (version=... in Python).'
    )


def convert_state_dict(
    state_dict: Mapping[str, torch.Tensor], version: str
) -> dict[str, torch.Tensor]:
    """Rename the weights and put the classifier into our order of labels.

    Args:
        state_dict (Mapping[str, Tensor]): Weights of a ``RotationPred``,
            with or without the prefix ``module.``: those of a ``backbone``
            and ``head.fc_cls.weight`` (4, C), ``head.fc_cls.bias`` (4,).
        version (str): The mmselfsup that trained it, ``'0.x'`` or ``'1.x'``.

    Returns:
        dict[str, Tensor]: Weights of a :class:`RotNet` with the four
        rotations and a :class:`RotationHead`: for any image it gives to
        each angle the probability that the original gave to it.

    Raises:
        ValueError: If these are not the weights of a ``RotationPred``.

    Examples:
        >>> import torch
        >>> theirs = {
        ...     'backbone.conv1.weight': torch.zeros(8, 3, 7, 7),
        ...     'head.fc_cls.weight': torch.arange(4.0).view(4, 1),
        ...     'head.fc_cls.bias': torch.zeros(4),
        ... }
        >>> ours = convert_state_dict(theirs, '1.x')
        >>> ours['head.fc.weight'].flatten().tolist()
        [0.0, 3.0, 2.0, 1.0]
    """
    weights = {
        name.removeprefix('module.'): value
        for name, value in state_dict.items()
    }
    exact = [name for name in CHECKPOINT_KEYS if not name.endswith('*')]
    unknown = [
        name
        for name in weights
        if name not in exact and not name.startswith('backbone.')
    ]
    missing = [name for name in exact if name not in weights]
    if not any(name.startswith('backbone.') for name in weights):
        missing.insert(0, 'backbone.*')
    if unknown or missing:
        problems = ['These are not the weights of a RotationPred.']
        if unknown:
            problems.append(f'Unknown keys: {", ".join(unknown)}.')
        if missing:
            problems.append(f'Missing keys: {", ".join(missing)}.')
        problems.append(
            'Only checkpoints of rotation pre-training itself are converted; '
            'a backbone without its classifier needs no conversion.'
        )
        raise ValueError(' '.join(problems))

    weight, bias = (weights[name] for name in exact)
    if weight.dim() != 2 or len(weight) != 4 or bias.shape != (4,):
        raise ValueError(
            f'{" and ".join(exact)} have the shapes {tuple(weight.shape)} '
            f'and {tuple(bias.shape)}, where a classifier of four rotations '
            'has (4, C) and (4,). Is this the checkpoint of a linear '
            'evaluation? Take that of the pre-training.'
        )
    return {
        CHECKPOINT_KEYS.get(name, name): value[list(LABELS[version])]
        if name in exact
        else value
        for name, value in weights.items()
    }


def convert_checkpoint(
    checkpoint: Mapping[str, Any], version: str | None = None
) -> dict[str, Any]:
    """Make a checkpoint of a :class:`RotNet`.

    Args:
        checkpoint (Mapping[str, Any]): As
            :func:`~mm_rotssl.utils.read_checkpoint` returns it: with a
            ``state_dict``, or the weights themselves.
        version (str, optional): See :func:`convert_state_dict`. Defaults to
            None, what :func:`find_version` says.

    Returns:
        dict[str, Any]: ``state_dict``, see :func:`convert_state_dict`, and
        ``meta``, which says where it is from. The state of the training is
        left behind, so it can be loaded, not resumed.

    Raises:
        ValueError: If these are not the weights of a ``RotationPred``, or
            the version is not given and can't be told.
    """
    state_dict = checkpoint.get('state_dict', checkpoint)
    strangers = [
        str(name)
        for name, value in state_dict.items()
        if not isinstance(value, torch.Tensor)
    ]
    if strangers:
        raise ValueError(
            'These are not the weights of a RotationPred. Not tensors: '
            f'{", ".join(strangers)}.'
        )
    if version is None:
        version = find_version(checkpoint.get('meta') or {})
    return dict(
        meta=dict(converted_from=f'RotationPred of mmselfsup {version}'),
        state_dict=convert_state_dict(state_dict, version),
    )


def convert_config(cfg: Config | dict) -> tuple[Config, list[str]]:
    """Make a config for a :class:`RotNet`.

    Model, data preprocessor and pipelines are translated; ``mmcls.`` falls
    away from all types, as mmpretrain is the default scope. Schedules, data
    and hooks stay as they are.

    Args:
        cfg (Config | dict): A config of mmselfsup 1.x; not changed.

    Returns:
        tuple[Config, list[str]]: The new config; and remarks on parts that
        it keeps but that do not exist in mmpretrain, or that want a look.

    Raises:
        ValueError: If a part of the model has no counterpart here, or the
            config is one of mmselfsup 0.x. It lists all such parts.
    """
    plain: Any = cfg.to_dict() if isinstance(cfg, Config) else deepcopy(cfg)
    if 'data' in plain or 'runner' in plain:
        raise ValueError(
            'This is a config of mmselfsup 0.x (it has "data" or "runner"), '
            "which mmengine can't read. Start from one in configs/rotnet; "
            'the checkpoint can be converted.'
        )
    problems: list[str] = []
    remarks: list[str] = []
    model = plain.pop('model', {})
    preprocessor = plain.pop('data_preprocessor', None)
    plain = _convert_part(plain, '', remarks)
    plain['model'] = _convert_model(model, problems)
    if preprocessor is not None:
        plain['data_preprocessor'] = _convert_preprocessor(
            preprocessor, 'data_preprocessor', problems
        )
    if problems:
        raise ValueError(
            "This config can't be converted:\n  " + '\n  '.join(problems)
        )
    plain['default_scope'] = 'mmpretrain'
    if 'mmselfsup' in str(plain.get('custom_imports')):
        remarks.append(
            'custom_imports names mmselfsup: without it, remove it.'
        )
    if plain.get('load_from'):
        remarks.append(
            f'load_from="{plain["load_from"]}": convert this checkpoint too, '
            'if it is one of mmselfsup.'
        )
    return Config(plain), remarks


def convert_checkpoint_file(
    source: str | Path, target: str | Path, version: str | None = None
) -> None:
    """Write the checkpoint of a :class:`RotNet`.

    Args:
        source (str | Path): Checkpoint of mmselfsup.
        target (str | Path): File to write.
        version (str, optional): See :func:`convert_checkpoint`. Defaults to
            None.

    Raises:
        FileNotFoundError: If there is no ``source``.
        ValueError: If both are one file, or as :func:`convert_checkpoint`.
    """
    _check_target(source, target)
    try:
        checkpoint = convert_checkpoint(read_checkpoint(source), version)
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from error
    write_file(target, checkpoint_bytes(checkpoint))


def convert_config_file(source: str | Path, target: str | Path) -> list[str]:
    """Write the config for a :class:`RotNet`.

    Args:
        source (str | Path): Config of mmselfsup 1.x.
        target (str | Path): File to write.

    Returns:
        list[str]: Remarks, see :func:`convert_config`.

    Raises:
        FileNotFoundError: If there is no ``source``.
        ValueError: If both are one file, or as :func:`convert_config`.
    """
    _check_target(source, target)
    try:
        # what its custom_imports name would need mmselfsup
        theirs = Config.fromfile(source, import_custom_modules=False)
        cfg, remarks = convert_config(theirs)
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from error
    with replacing(target) as temporary:
        cfg.dump(temporary)
    return remarks


def _check_target(source: str | Path, target: str | Path) -> None:
    if Path(source).resolve() == Path(target).resolve():
        raise ValueError(
            f'"{target}" is the input; name another file to write.'
        )


def _strip(name: Any) -> Any:
    """The type without the scopes that are gone."""
    if isinstance(name, str):
        return name.removeprefix('mmselfsup.').removeprefix('mmcls.')
    return name


def _convert_model(model: dict, problems: list[str]) -> dict:
    """Translate ``model``; add to ``problems`` what can't be."""
    kind = _strip(model.get('type'))
    if kind != 'RotationPred':
        problems.append(f'model.type={kind!r}: only "RotationPred" is known.')
        return model
    known = ('type', 'backbone', 'head', 'data_preprocessor', 'init_cfg')
    problems.extend(
        f'model.{key}={value!r}: RotNet has no such setting; remove it.'
        for key, value in model.items()
        if key not in known and value is not None
    )
    converted: dict = dict(type=CONFIG_TYPES['RotationPred'])
    if 'data_preprocessor' in model:
        converted['data_preprocessor'] = _convert_preprocessor(
            model['data_preprocessor'], 'model.data_preprocessor', problems
        )
    converted['backbone'] = _convert_backbone(
        model.get('backbone', {}), problems
    )
    # RotationPred's head pools the maps itself
    converted['neck'] = dict(type='GlobalAveragePooling')
    converted['head'] = _convert_head(model.get('head', {}), problems)
    if model.get('init_cfg') is not None:
        converted['init_cfg'] = model['init_cfg']
    return converted


def _convert_preprocessor(
    preprocessor: dict, where: str, problems: list[str]
) -> dict:
    kind = _strip(preprocessor.get('type'))
    if kind != 'RotationPredDataPreprocessor':
        problems.append(
            f'{where}.type={kind!r}: only "RotationPredDataPreprocessor" is '
            'known.'
        )
    return {
        **preprocessor,
        'type': CONFIG_TYPES['RotationPredDataPreprocessor'],
    }


def _convert_backbone(backbone: dict, problems: list[str]) -> dict:
    kind = backbone.get('type')
    converted = {**backbone, 'type': _strip(kind)}
    if isinstance(kind, str) and kind.startswith('mmcls.'):
        return converted
    if converted['type'] not in _RESNETS:
        problems.append(
            f'model.backbone.type={kind!r}: only {", ".join(_RESNETS)} and '
            'the backbones of mmcls ("mmcls.NAME") are known.'
        )
        return converted
    indices = backbone.get('out_indices', (4,))
    if min(indices) < 1:
        problems.append(
            f'model.backbone.out_indices={indices!r}: the output of the stem '
            '(0) does not exist in mmpretrain; leave it out.'
        )
    converted['out_indices'] = [i - 1 for i in indices]
    # their default, where mmpretrain's is True
    converted.setdefault('zero_init_residual', False)
    return converted


def _convert_head(head: dict, problems: list[str]) -> dict:
    kind = _strip(head.get('type'))
    if kind != 'ClsHead':
        problems.append(f'model.head.type={kind!r}: only "ClsHead" is known.')
        return head
    expected = dict(
        num_classes=(1000, 4),
        with_avg_pool=(False, True),
        vit_backbone=(False, False),
    )
    for key, (default, needed) in expected.items():
        value = head.get(key, default)
        if value != needed:
            problems.append(
                f'model.head.{key}={value!r} (default {default}): only '
                f'{needed} is known.'
            )
    converted = dict(
        type=CONFIG_TYPES['ClsHead'],
        in_channels=head.get('in_channels', 2048),
        # ClsHead's default, where ours is PyTorch's
        init_cfg=head.get(
            'init_cfg', dict(type='Normal', std=0.01, layer='Linear')
        ),
    )
    loss = head.get('loss', dict(type='CrossEntropyLoss'))
    loss = {**loss, 'type': f'mmpretrain.{_strip(loss["type"])}'}
    if loss != dict(type='mmpretrain.CrossEntropyLoss'):
        converted['loss'] = loss
    return converted


def _convert_part(node: Any, where: str, remarks: list[str]) -> Any:
    """Translate all that is not the model, as deep as it is nested."""
    if isinstance(node, (list, tuple)):
        return type(node)(
            _convert_part(value, f'{where}[{i}]', remarks)
            for i, value in enumerate(node)
        )
    if not isinstance(node, dict):
        return node
    converted = {}
    for key, value in node.items():
        place = f'{where}.{key}' if where else str(key)
        if _is_pipeline(str(key), value):
            converted[key] = _convert_pipeline(value, place, remarks)
        else:
            converted[key] = _convert_part(value, place, remarks)
    kind = _strip(node.get('type'))
    if 'type' in node:
        converted['type'] = CONFIG_TYPES.get(kind, kind)
    if where.endswith('dataset') and 'type' in node:
        _remark_misfit(DATASETS, converted, where, remarks)
    elif where.startswith('custom_hooks['):
        _remark_misfit(HOOKS, converted, where, remarks)
    return converted


def _is_pipeline(key: str, value: Any) -> bool:
    return (
        # the last are those in a wrapper such as RandomApply
        (key.endswith('pipeline') or key == 'transforms')
        and isinstance(value, (list, tuple))
        and all(isinstance(part, dict) for part in value)
    )


def _convert_pipeline(
    pipeline: list | tuple, where: str, remarks: list[str]
) -> list:
    converted = []
    for i, transform in enumerate(pipeline):
        kind = _strip(transform['type'])
        if kind == 'RotationWithLabels':
            continue
        names = CONFIG_ARGUMENTS.get(kind, {})
        place = f'{where}[{i}]'
        new = {
            names.get(key, key): value
            for key, value in _convert_part(transform, place, remarks).items()
        }
        if kind == 'PackSelfSupInputs':
            keys = [
                *new.pop('algorithm_keys', ()),
                *new.pop('pseudo_label_keys', ()),
            ]
            # PackInputs packs gt_label and mask by itself
            done = ('rot_label', 'gt_label', 'mask')
            keys = [key for key in keys if key not in done]
            if keys:
                new['algorithm_keys'] = keys
        _remark_misfit(TRANSFORMS, new, place, remarks)
        converted.append(new)
    return converted


def _remark_misfit(
    registry: Registry, part: dict, where: str, remarks: list[str]
) -> None:
    """Remark on a part that mmpretrain does not have or not so."""
    kind = part.get('type')
    build = registry.get(kind) if isinstance(kind, str) else kind
    if build is None:
        remarks.append(
            f'{where}: mmpretrain has no {registry.name} "{kind}"; kept as '
            'it is, replace it.'
        )
        return
    arguments = {key: value for key, value in part.items() if key != 'type'}
    try:
        inspect.signature(build).bind_partial(**arguments)
    except TypeError as error:
        remarks.append(
            f'{where}: {kind} of mmpretrain takes other arguments '
            f'({error}); kept as they are, change them.'
        )
