from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mm_rotssl.models.heads import ExemplarHead
from mm_rotssl.registry import HOOKS


@HOOKS.register_module()
class NumSeedsCheckHook(Hook):
    """Compare the classes of an :class:`ExemplarHead` with the seeds.

    The classifier is as large as the config says, before the data set is
    read; classes without a seed would go unnoticed.
    """

    def before_run(self, runner: Runner) -> None:
        """Compare.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If they differ.
        """
        # validation and tests alone need no training set
        if not isinstance(runner._train_loop, BaseLoop):
            return
        metainfo = getattr(runner.train_dataloader.dataset, 'metainfo', {})
        seeds = metainfo.get('num_seeds')
        for name, module in runner.model.named_modules():
            if isinstance(module, ExemplarHead) and seeds != module.num_seeds:
                raise ValueError(
                    f'The training set has {seeds} seeds, and model.'
                    f'{name.removeprefix("module.")}.num_seeds='
                    f'{module.num_seeds}. Set it to {seeds}.'
                    if seeds
                    else 'The training set has no seeds. Use '
                    "dict(type='mm_rotssl.ExemplarDataset', ...)."
                )
