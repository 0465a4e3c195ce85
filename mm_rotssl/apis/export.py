from pathlib import Path

from mmengine.registry import init_default_scope

from mm_rotssl.converters.backbone import Export, export_backbone

from .config import read_config


def export(
    config: str | Path,
    checkpoint: str | Path,
    target: str,
    out: str | Path,
    source: str = 'mm_rotssl',
    size: int = 64,
    cfg_options: dict | None = None,
) -> Export:
    """Write the backbone of a checkpoint for use in another library.

    Args:
        config (str | Path): Names the ``model.backbone`` of the checkpoint,
            see :func:`read_config`.
        checkpoint (str | Path): The weights, ``.pth`` or ``.safetensors``.
        target (str): The library, see :func:`export_backbone`.
        out (str | Path): File to write, ``.pth`` or ``.safetensors``.
        source (str): Who named the weights, 'mm_rotssl' or 'torchvision'.
            Defaults to 'mm_rotssl'.
        size (int): Side, in pixels, of the image on which features are
            compared. Defaults to 64.
        cfg_options (dict, optional): Replace settings of the config. Defaults
            to None.

    Returns:
        Export: What matched, and how the library reads the file.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: See :func:`export_backbone`. Nothing is written then.
    """
    cfg = read_config(config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return export_backbone(cfg, checkpoint, target, out, source, size)
