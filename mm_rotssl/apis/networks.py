"""Networks and dataloaders as a config describes them, without a runner."""

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Subset

from mm_rotssl.engine.hooks.checkpoint_check_hook import check_state_dict
from mm_rotssl.models.backbones.torchvision_backbone import HEADS
from mm_rotssl.registry import DATASETS, MODELS
from mm_rotssl.utils import InputError, read_weights

from .config import merge_options, read_config

NETWORKS = ('untrained', 'trained')


def read_labeled_config(
    path: str | Path, options: dict | None = None
) -> Config:
    """Read a config that names labeled images to learn from and to test on.

    Args:
        path (str | Path): The file.
        options (dict, optional): See :func:`read_config`. Defaults to None.

    Returns:
        Config: With ``val_cfg.reference_dataloader`` and ``val_dataloader``.

    Raises:
        ValueError: If a dataset is missing; see also :func:`read_config`.
    """
    cfg = read_config(path, options)
    if not (cfg.get('val_cfg') or {}).get('reference_dataloader'):
        raise ValueError(
            f'{path} names no labeled images to learn from: add '
            "val_cfg=dict(type='mm_rotssl.KNNValLoop', reference_dataloader="
            'dict(...)) with the labeled training part of the data.'
        )
    if not cfg.get('val_dataloader'):
        raise ValueError(
            f'{path} names no labeled images to test on: add '
            'val_dataloader=dict(...) with the labeled test part of the '
            'data.'
        )
    return cfg


def read_network(source: str | Path, options: dict | None = None) -> Config:
    """Read what a network is, and how images are prepared for it.

    Args:
        source (str | Path): A config, see :func:`read_config`, or
            'timm:NAME' or 'torchvision:NAME' for a network of these
            libraries.
        options (dict, optional): See :func:`read_config`. Defaults to None.

    Returns:
        Config: With ``model``, and with ``all_stages``, whether its backbone
        is to give all stages if it gives one, as it does unless ``options``
        say which it gives.

    Raises:
        ValueError: If there is no such network, or timm is missing; see also
            :func:`read_config`.
    """
    library, _, name = str(source).partition(':')
    if library in LIBRARIES:
        cfg = LIBRARIES[library](name)
        merge_options(cfg, options or {})
        return cfg
    cfg = read_config(source, options)
    asked = {f'model.{key}' for key in ('backbone.out_indices', 'backbone')}
    cfg.all_stages = not asked & set(options or ())
    return cfg


def _timm_network(name: str) -> Config:
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError as error:
        raise InputError(
            f'timm:{name} needs the package timm: pip install timm.'
        ) from error
    try:
        settings = resolve_model_data_config(
            timm.create_model(name, pretrained=False)
        )
    except RuntimeError as error:
        raise InputError(
            f'timm:{name}: {error}. timm.list_models() names all.'
        ) from error
    return _network(
        f'timm:{name}',
        dict(
            type='mmpretrain.TIMMBackbone',
            model_name=name,
            features_only=True,
            # it gives maps as (N, C, H, W) whatever the network computes on
            feature_cls='getter',
        ),
        settings['input_size'][1],
        settings['crop_pct'],
        settings['interpolation'],
        settings['mean'],
        settings['std'],
    )


def _torchvision_network(name: str) -> Config:
    from torchvision.models import get_model_weights

    try:
        weights = get_model_weights(name).DEFAULT
    except ValueError as error:
        raise InputError(
            f'torchvision:{name}: {error}. torchvision.models.list_models() '
            'names all.'
        ) from error
    settings: Any = weights.transforms()
    (size,), (resize,) = settings.crop_size, settings.resize_size
    return _network(
        f'torchvision:{name}',
        dict(type='mm_rotssl.TorchvisionBackbone', model_name=name),
        size,
        size / resize,
        settings.interpolation.value,
        settings.mean,
        settings.std,
    )


# prefix of a network's name -> its config
LIBRARIES = {'timm': _timm_network, 'torchvision': _torchvision_network}


def _network(
    name: str,
    backbone: dict[str, Any],
    size: int,
    crop: float,
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> Config:
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='mmpretrain.ImageClassifier',
                backbone=backbone,
                data_preprocessor=dict(
                    mean=[255 * value for value in mean],
                    std=[255 * value for value in std],
                    to_rgb=True,
                ),
            ),
            test_dataloader=dict(
                batch_size=64,
                num_workers=2,
                persistent_workers=False,
                collate_fn=dict(type='default_collate'),
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(
                    type='mm_rotssl.ImageFolder',
                    data_root='',
                    pipeline=[
                        dict(type='mm_rotssl.LoadIntactImage'),
                        dict(
                            type='mmpretrain.ResizeEdge',
                            scale=int(size / crop),
                            edge='short',
                            backend='pillow',
                            interpolation=interpolation,
                        ),
                        dict(type='mmpretrain.CenterCrop', crop_size=size),
                        dict(type='mmpretrain.PackInputs'),
                    ],
                ),
            ),
        ),
        cfg_text=name,
    )


def load_network(cfg: Config, checkpoint: str | Path | None) -> nn.Module:
    """Build the network of a config with the weights of a checkpoint.

    Args:
        cfg (Config): Names the model, see :func:`read_network`.
        checkpoint (str | Path, optional): File of the weights; they must
            fit. None: the weights that timm or torchvision distribute.

    Returns:
        nn.Module: The network, on the CPU.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it is damaged, or for another network, or none is
            given for a network of a config.
    """
    library = cfg.text.partition(':')[0]
    backbone = cfg.model.get('backbone') or {}
    if checkpoint is None:
        if library not in LIBRARIES:
            raise InputError(
                f'{cfg.filename} needs a checkpoint: the file of the weights.'
            )
        try:
            return _build(cfg, backbone={**backbone, 'pretrained': True})
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"The weights of {cfg.text} can't be downloaded: {error}. "
                'Give a file of them.'
            ) from error
    if library == 'timm':
        return _load_timm(cfg, checkpoint)
    found = read_weights(checkpoint)
    weights = found.get('state_dict', found)
    if library == 'torchvision':
        weights = {
            f'backbone.model.{name}': value
            for name, value in weights.items()
            if name.partition('.')[0] not in HEADS
        }
    model = _build(cfg)
    check_state_dict(model, weights, f'"{checkpoint}"')
    model.load_state_dict(weights)
    return model


def _load_timm(cfg: Config, checkpoint: str | Path) -> nn.Module:
    import timm

    found = read_weights(checkpoint)
    weights = found.get('state_dict', found)
    name = cfg.model.backbone.model_name
    whole: Any = timm.create_model(name, pretrained=False, num_classes=0)
    heads = whole.pretrained_cfg['classifier']
    heads = (heads,) if isinstance(heads, str) else tuple(heads or ())
    weights = {
        key: value
        for key, value in weights.items()
        if not key.startswith(tuple(f'{head}.' for head in heads))
    }
    check_state_dict(whole, weights, f'"{checkpoint}"')
    with tempfile.TemporaryDirectory() as folder:
        # timm itself knows how weights get into the stages; it is handed
        # what was read, not the file
        file = Path(folder) / 'weights.safetensors'
        save_file({k: v.contiguous() for k, v in weights.items()}, file)
        backbone = dict(
            cfg.model.backbone,
            pretrained=True,
            pretrained_cfg_overlay=dict(file=str(file)),
        )
        return _build(cfg, backbone=backbone)


def _build(cfg: Config, **changes: Any) -> Any:
    if cfg.get('data_preprocessor'):
        # as the runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    scope = cfg.get('default_scope', 'mmpretrain')
    with DefaultScope.overwrite_default_scope(scope):
        model: Any = MODELS.build({**cfg.model, **changes})
    if cfg.get('all_stages'):
        give_all_stages(model.backbone)
    return model


def give_all_stages(backbone: Any) -> None:
    """Let a backbone that gives a single stage give those before, too.

    The last of its outputs, which heads and necks look at, stays the same. A
    stage whose output would be normalized by a layer of its own, which was
    never trained, is given as it is.

    Args:
        backbone (nn.Module): With ``out_indices``, else nothing is changed.
    """
    indices = getattr(backbone, 'out_indices', ())
    indices = (indices,) if isinstance(indices, int) else tuple(indices)
    if len(indices) != 1 or indices[0] < 1:
        return
    (last,) = indices
    if f'norm{last}' in dict(backbone.named_children()):
        for i in range(last):
            if not hasattr(backbone, f'norm{i}'):
                backbone.add_module(f'norm{i}', nn.Identity())
    backbone.out_indices = tuple(range(last + 1))


def build_untrained(cfg: Config, seed: int) -> nn.Module:
    """Build the network of a config as it is before training.

    Args:
        cfg (Config): Names the model; weights that it starts from
            (``init_cfg`` of type 'Pretrained') are left out.
        seed (int): Of the initialization.

    Returns:
        nn.Module: The network, on the CPU.
    """
    cfg = copy.deepcopy(cfg)
    _drop_pretrained(cfg.model)
    set_random_seed(seed)
    model = _build(cfg)
    model.init_weights()
    return model


def _drop_pretrained(node: Any) -> None:
    if isinstance(node, dict):
        start = node.get('init_cfg')
        starts = start if isinstance(start, (list, tuple)) else [start]
        kinds = [one.get('type') for one in starts if isinstance(one, dict)]
        if 'Pretrained' in kinds:
            del node['init_cfg']
        if node.get('pretrained'):
            node['pretrained'] = None
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            _drop_pretrained(child)


def build_networks(
    cfg: Config, checkpoint: str | Path, seed: int, device: str
) -> dict[str, nn.Module]:
    """Build a network twice, with and without trained weights.

    Args:
        cfg (Config): Names the model.
        checkpoint (str | Path): File of the weights; they must fit.
        seed (int): Of the untrained network.
        device (str): Where to put them.

    Returns:
        dict[str, nn.Module]: 'untrained' and 'trained'.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it is damaged, or for another network.
    """
    # in this order: what is wrong with the checkpoint is noticed first
    trained = load_network(cfg, checkpoint)
    found = {}
    for name, model in zip(
        NETWORKS, (build_untrained(cfg, seed), trained), strict=True
    ):
        model.to(device)
        # mmpretrain's backbones do not return themselves
        model.eval()
        found[name] = model
    return found


def build_ordered_dataloader(
    settings: dict, limit: int | None = None, seed: int = 0
) -> DataLoader:
    """Build a dataloader that keeps the order of the dataset.

    Args:
        settings (dict): Of the dataloader.
        limit (int, optional): Use only so many images, drawn at random.
            Defaults to None, all.
        seed (int): Of the draw. Defaults to 0.

    Returns:
        DataLoader: All images, once. It has no more processes than this
        machine has cores.
    """
    dataset = DATASETS.build(settings['dataset'])
    if limit is not None and limit < len(dataset):
        chosen = np.random.default_rng(seed).permutation(len(dataset))
        dataset = Subset(dataset, sorted(chosen[:limit].tolist()))
    settings = {
        **settings,
        'dataset': dataset,
        'sampler': dict(type='DefaultSampler', shuffle=False),
        'drop_last': False,
        # more would only take the cores from each other
        'num_workers': min(settings.get('num_workers', 0), joblib.cpu_count()),
    }
    settings.pop('batch_sampler', None)
    return Runner.build_dataloader(settings, seed=seed)
