from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mm_rotssl.engine.hooks.checkpoint_check_hook import check_state_dict
from mm_rotssl.utils import read_checkpoint, unwrap_model


def measured_part(cfg: Config) -> str:
    """Tell whether a config's test or validation is what measures.

    Args:
        cfg (Config): Of a run.

    Returns:
        str: ``'test'`` if the config has ``test_dataloader`` and
        ``test_evaluator``, else ``'val'``.
    """
    # configs for unlabeled images tell how to prepare some, and no metric
    testing = cfg.get('test_dataloader') and cfg.get('test_evaluator')
    return 'test' if testing else 'val'


def measure_checkpoint(
    cfg: Config, checkpoint: str | Path, work_dir: str | Path | None = None
) -> dict[str, float]:
    """Measure a checkpoint with the metrics of its config.

    Args:
        cfg (Config): That the checkpoint was made with. Its
            ``test_evaluator`` is used if it has one, else its
            ``val_evaluator``.
        checkpoint (str | Path): File of the weights; they must fit.
        work_dir (str | Path, optional): Folder of the log. Defaults to None,
            ``test`` beside the checkpoint.

    Returns:
        dict[str, float]: Name of each figure -> value.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it is damaged or for another network, or the config
            names no images to test on.
    """
    part = measured_part(cfg)
    if not cfg.get(f'{part}_dataloader'):
        raise ValueError(
            f'{cfg.filename} names no images to test on: add '
            'val_dataloader, val_cfg and val_evaluator.'
        )
    found = read_checkpoint(checkpoint)
    cfg.work_dir = str(work_dir or Path(checkpoint).parent / 'test')
    # the weights are those of the argument
    cfg.resume, cfg.load_from = False, None
    # nothing is saved; its save_best would look for a folder of checkpoints
    cfg.setdefault('default_hooks', {})['checkpoint'] = None
    runner = Runner.from_cfg(cfg)
    model = unwrap_model(runner.model)
    weights = found.get('state_dict', found)
    check_state_dict(model, weights, f'"{checkpoint}"')
    model.load_state_dict(weights)
    metrics: dict[str, float] = getattr(runner, part)()
    return metrics
