"""Networks and dataloaders as a config describes them, without a runner."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner, set_random_seed
from torch import nn
from torch.utils.data import DataLoader, Subset

from mm_rotssl.engine.hooks.checkpoint_check_hook import check_state_dict
from mm_rotssl.registry import DATASETS, MODELS
from mm_rotssl.utils import read_checkpoint

from .config import read_config

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


def load_network(cfg: Config, checkpoint: str | Path) -> nn.Module:
    """Build the network of a config with the weights of a checkpoint.

    Args:
        cfg (Config): Names the model.
        checkpoint (str | Path): File of the weights; they must fit.

    Returns:
        nn.Module: The network, on the CPU.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it is damaged, or for another network.
    """
    found = read_checkpoint(checkpoint)
    weights = found.get('state_dict', found)
    if cfg.get('data_preprocessor'):
        # as the runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    check_state_dict(model, weights, f'"{checkpoint}"')
    model.load_state_dict(weights)
    return model


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
        dict[str, nn.Module]: 'untrained' and 'trained', in eval mode.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it is damaged, or for another network.
    """
    trained = load_network(cfg, checkpoint)
    set_random_seed(seed)
    untrained = MODELS.build(cfg.model)
    untrained.init_weights()
    return {
        name: model.to(device).eval()
        for name, model in zip(NETWORKS, (untrained, trained), strict=True)
    }


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
        DataLoader: All images, once.
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
    }
    settings.pop('batch_sampler', None)
    return Runner.build_dataloader(settings, seed=seed)
