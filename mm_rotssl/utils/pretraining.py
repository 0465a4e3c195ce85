"""What weights do not tell about how they were trained.

Two networks may agree in every name and shape and still be others: a ResNet
has its strides in the first or in the second convolution of a block, and
images come as BGR or RGB, and normalized or not.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .config import algorithm_settings, parse_config_text

# Key of the `_metadata` that PyTorch keeps with a state dict, and of those of
# a .safetensors file. Whoever loads the tensors passes it over.
KEY = 'mm_rotssl'


def preprocessing_of(cfg: Any) -> dict[str, Any]:
    """Say how a config prepares images for the network.

    Args:
        cfg (Config): Of pre-training or of a task.

    Returns:
        dict[str, Any]: ``mean`` and ``std`` (list[float], of pixels between
        0 and 255, 0 and 1 where nothing is normalized) and ``channels``
        ('rgb' or 'bgr', what the network sees), as far as the config says so.
    """
    settings = algorithm_settings(cfg).get('data_preprocessor')
    while settings and 'mean' not in settings:
        if not isinstance(settings.get('data_preprocessor'), Mapping):
            break
        settings = settings['data_preprocessor']
    loader = cfg.get('train_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    dataset = _first_dataset(dataset)
    steps = [_name(step) for step in dataset.get('pipeline') or ()]
    if not settings or 'Normalize' in steps:
        return {}
    mean, std = settings.get('mean'), settings.get('std')
    found: dict[str, Any] = dict(
        mean=[0.0] if mean is None else [float(v) for v in mean],
        std=[1.0] if std is None else [float(v) for v in std],
    )
    swaps = any(
        settings.get(key) for key in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr')
    )
    if _name(dataset).startswith(('CIFAR', 'STL10')):
        found['channels'] = 'bgr' if swaps else 'rgb'
    elif swaps and not settings.get('rgb_to_bgr'):
        found['channels'] = 'rgb'
    elif not swaps and any(step.startswith('Load') for step in steps[:1]):
        found['channels'] = 'bgr'
    return found


def stride_style(network: nn.Module) -> str | None:
    """Say in which convolution a residual network has its strides.

    Args:
        network (nn.Module): The network, or a part of it.

    Returns:
        str | None: 'pytorch' (the 3x3 one) or 'caffe' (the first 1x1 one);
        None if there is no bottleneck block with a stride.
    """
    for block in network.modules():
        parts = [getattr(block, f'conv{i}', None) for i in (1, 2, 3)]
        first, second = (getattr(part, 'stride', 1) for part in parts[:2])
        if None not in parts and (first, second) != ((1, 1), (1, 1)):
            return 'caffe' if second == (1, 1) else 'pytorch'
    return None


def attach_facts(
    weights: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> 'OrderedDict[str, torch.Tensor]':
    """Add to weights how they were trained, where every library loads them.

    Args:
        weights (Mapping[str, Tensor]): By their names.
        facts (Mapping[str, Any]): Plain values.

    Returns:
        OrderedDict[str, Tensor]: The same tensors under the same names.
    """
    attached = OrderedDict(weights)
    attached._metadata = {KEY: dict(facts)}  # type: ignore[attr-defined]
    return attached


def read_facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Read how weights were trained.

    Args:
        content (Mapping[str, Any]): Of a file that :func:`export_backbone`
            wrote, or of a checkpoint of the engine, which holds its config.

    Returns:
        dict[str, Any]: ``style`` and what :func:`preprocessing_of` gives, as
        far as the file tells; nothing of a foreign file.
    """
    weights = content.get('state_dict', content)
    found = getattr(weights, '_metadata', None) or {}
    meta = content.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    try:
        if KEY in found:
            facts = dict(found[KEY])
            for key in ('mean', 'std'):
                if key in facts:
                    facts[key] = [float(value) for value in facts[key]]
            return facts
        if not isinstance(text, str):
            return {}
        cfg = parse_config_text(text)
        facts = preprocessing_of(cfg)
        backbone = algorithm_settings(cfg).get('backbone') or {}
        # without a bottleneck there are no such styles
        if 'ResNe' in _name(backbone) and backbone.get('depth', 0) >= 50:
            facts['style'] = backbone.get('style', 'pytorch')
    except (TypeError, ValueError, AttributeError):
        # not a config, so it tells nothing
        return {}
    return facts


def from_safetensors(path: Path) -> 'OrderedDict[str, torch.Tensor]':
    """Read a ``.safetensors`` file.

    Args:
        path (Path): The file.

    Returns:
        OrderedDict[str, Tensor]: The tensors, with how they were trained.

    Raises:
        ValueError: If it is damaged, or the package is missing.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ValueError(
            f'"{path}" needs the package safetensors, which cannot be '
            f'imported here ({error}). Install it: pip install safetensors'
        ) from error
    try:
        with safe_open(path, 'pt') as file:
            facts = json.loads((file.metadata() or {}).get(KEY, '{}'))
            return attach_facts(
                {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
                facts,
            )
    except Exception as error:
        # a file of another kind raises whatever its bytes happen to mean
        raise ValueError(f'"{path}" is damaged: {error}') from error


def _name(settings: Any) -> str:
    """The bare name of what a part of a config is to be built of."""
    kind = settings.get('type', '') if isinstance(settings, Mapping) else ''
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]


def _first_dataset(settings: Any) -> Mapping[str, Any]:
    """The dataset inside of those that wrap or join others."""
    while isinstance(settings, Mapping):
        inner = settings.get('dataset') or settings.get('datasets')
        # several have names of their own
        if isinstance(inner, Mapping) and 'datasets' in settings:
            inner = list(inner.values())
        if isinstance(inner, (list, tuple)) and inner:
            inner = inner[0]
        if not isinstance(inner, Mapping):
            return settings
        settings = inner
    return {}
