from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import (
    InputError,
    newest_checkpoint,
    nonfinite_names,
    other_kind,
    unwrap_model,
)


def check_state_dict(
    model: nn.Module, state_dict: dict, source: str, prefix: str = ''
) -> None:
    """Refuse weights that don't fit a model or are not finite.

    Args:
        model (nn.Module): The model.
        state_dict (dict[str, Tensor]): The weights.
        source (str): Where they are from, for the message.
        prefix (str): Look only at the names that begin so. Defaults to '',
            all of them.

    Raises:
        InputError: If a name is missing, unexpected or of another shape, or a
            tensor has NaN or infinity which has none in the model, whatever
            its name begins with; it lists the first few.
    """
    state_dict = dict(state_dict)
    for place, module in model.named_modules():
        # names of earlier versions, which loading understands
        if hasattr(module, 'upgrade_state_dict'):
            module.upgrade_state_dict(state_dict, place and f'{place}.')
    want = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if name.startswith(prefix)
    }
    have = {
        name: tuple(value.shape)
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    missing = [name for name in want if name not in have]
    unexpected = [name for name in have if name not in want]
    reshaped = [
        f'{name}: {have[name]} in the file, {want[name]} in the model'
        for name in want
        # a memory bank without rows takes on those of the file
        if name in have and have[name] != want[name] and 0 not in want[name]
    ]
    recast = [
        f'{name}: {state_dict[name].dtype} in the file, {value.dtype} in the '
        'model'
        for name, value in model.state_dict().items()
        if name in have and other_kind(state_dict[name], value)
    ]
    problems = [
        f'{len(names)} {what}, such as\n    ' + '\n    '.join(names[:3])
        for what, names in (
            ('missing in the file', missing),
            ('unknown to the model', unexpected),
            ('of another shape', reshaped),
            ('numbers of another kind', recast),
        )
        if names
    ]
    if problems:
        raise InputError(
            f'The checkpoint {source} was made by another architecture than '
            f'the config describes ({len(want)} tensors):\n  '
            + '\n  '.join(problems)
            + '\nUse the config that the checkpoint was trained with (it is '
            'saved beside it in the work directory), or change model.'
        )
    own = model.state_dict()
    diverged = [
        name
        for name in nonfinite_names(state_dict)
        if name in own and not nonfinite_names({name: own[name]})
    ]
    if diverged:
        raise InputError(
            f'The checkpoint {source} is of a run that has diverged: '
            f'{len(diverged)} of its tensors are not finite, such as '
            + ', '.join(diverged[:3])
            + '. Take an earlier one.'
        )


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Stop when a checkpoint does not fit the model, or find a better one.

    The engine loads what fits and logs the rest, so a run with the wrong
    checkpoint goes on from random weights. Here ``--resume`` demands all of
    the model, ``load_from`` the backbone, and both that what is loaded is
    finite. ``--resume`` without a file passes over checkpoints that are
    damaged.
    """

    def before_run(self, runner: Runner) -> None:
        """Choose what to resume from.

        Args:
            runner (Runner): The runner.

        Raises:
            InputError: If there are only damaged checkpoints.
        """
        if runner._resume and runner._load_from is None:
            runner._load_from = newest_checkpoint(runner.work_dir)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes before the weights are used.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read.

        Raises:
            InputError: If the weights don't fit or are not finite.
        """
        model = unwrap_model(runner.model)
        state_dict = checkpoint.get('state_dict', checkpoint)
        check_state_dict(
            model,
            # the engine strips a wrapper's prefix when it loads
            {
                name.removeprefix('module.'): value
                for name, value in state_dict.items()
            },
            f'"{runner._load_from}"' if runner._load_from else 'to resume',
            prefix='' if runner._resume else 'backbone.',
        )
