from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from mmpretrain.models.utils import CosineEMA

from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import InputError, parse_config_text

# How far a scheduler has come; all else of its state are settings.
_PROGRESS = {
    '_global_step',
    '_last_value',
    'best',
    'cooldown_counter',
    'last_step',
    'num_bad_epochs',
    'verbose',
}


def _class_name(kind: Any) -> str:
    return kind.split('.')[-1] if isinstance(kind, str) else kind.__name__


def _settings(scheduler: dict[str, Any]) -> dict[str, Any]:
    """What a scheduler's state says beside how far it has come."""
    return {k: v for k, v in scheduler.items() if k not in _PROGRESS}


def _say(message: str) -> None:
    print_log(message, 'current')


@HOOKS.register_module()
class ResumeSettingsHook(Hook):
    """Let a resumed run obey its config.

    A checkpoint brings back, with the state of the training, settings of the
    run that it is from: the schedule of the learning rate with its end, the
    optimizer's weight decay and momentum, the step at which an epoch of the
    old batch size ended, the seed. The engine puts them in the place of what
    the config says now, without a word. Here the config has precedence:

    - A schedule that differs, in any of its settings, in the learning rate
      that it starts from or in the length of an epoch, is computed afresh:
      the rates are those of a run that had it from the first step.
    - The optimizer's other settings are those of the config.
    - Where an epoch has another number of steps than before (another batch
      size, other images, another number of processes), the steps of the
      epochs done are counted anew, for schedules of the rate and of
      ``CosineEMA``.
    - A configured seed is used from here on.
    - Where ``save_best`` names another figure, the best one so far is
      forgotten.
    - Without ``EMAHook`` the weights that were trained go on, not their
      average, which such a checkpoint has in their place.

    What cannot be obeyed is refused. A run that is resumed with the settings
    that it had goes on exactly as if it had not been stopped.
    """

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Change what the engine is about to take from a checkpoint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict[str, Any]): What was read; changed in place.

        Raises:
            InputError: If a setting cannot be obeyed by a resumed run.
        """
        if not runner._resume:
            return
        meta = checkpoint.get('meta') or {}
        if not {'epoch', 'iter'} <= meta.keys():
            raise InputError(
                f'The checkpoint "{runner._load_from}" holds weights, but not '
                'how far a run has come. Leave out --resume and begin from '
                'the weights with --cfg-options '
                f'load_from={runner._load_from}.'
            )
        old = parse_config_text(meta.get('cfg') or '')
        seed = runner._randomness_cfg.get('seed')
        if seed is not None and meta.get('seed') not in (None, seed):
            _say(f'randomness.seed={seed} from here on, {meta["seed"]} before')
            meta['seed'] = seed
        self._obey_ema(runner, checkpoint)
        self._obey_best(runner, checkpoint, old)
        self._obey_length(runner, checkpoint, old)
        # several optimizers are left to the engine, which lets each have
        # schedulers of its own
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and not isinstance(
            wrapper, OptimWrapperDict
        ):
            self._obey_optimizer(runner, checkpoint, old)

    @staticmethod
    def _obey_ema(runner: Runner, checkpoint: dict[str, Any]) -> None:
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            return
        trained = {
            name.removeprefix('module.'): value
            for name, value in checkpoint.pop('ema_state_dict', {}).items()
            if name.startswith('module.')
        }
        if trained:
            checkpoint['state_dict'].update(trained)
            _say(
                'No EMAHook: going on from the weights that were trained, '
                'without the average of the checkpoint'
            )

    @staticmethod
    def _obey_best(
        runner: Runner, checkpoint: dict[str, Any], old: dict[str, Any]
    ) -> None:
        now, before = (
            (part.get('default_hooks') or {}).get('checkpoint') or {}
            for part in (runner.cfg, old)
        )
        if before and any(
            now.get(key) != before.get(key) for key in ('save_best', 'rule')
        ):
            # the best of another figure, which this one may never reach
            info = checkpoint.get('message_hub', {}).get('runtime_info', {})
            for key in [key for key in info if key.startswith('best_')]:
                del info[key]

    @staticmethod
    def _obey_length(
        runner: Runner, checkpoint: dict[str, Any], old: dict[str, Any]
    ) -> None:
        meta = checkpoint['meta']
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        unit = 'max_iters' if by_iter else 'max_epochs'
        other = 'max_epochs' if by_iter else 'max_iters'
        before = old.get('train_cfg') or {}
        if other in before and unit not in before:
            raise InputError(
                f'train_cfg.{unit}: the checkpoint is from a run with '
                f'{other}={before[other]}, and its place in one with {unit} '
                f'is unknown. Set {other}, or begin from its weights with '
                f'--cfg-options load_from={runner._load_from}, without '
                '--resume.'
            )
        done = meta['iter' if by_iter else 'epoch']
        last = getattr(runner, unit)
        if done > last:
            raise InputError(
                f'train_cfg.{unit}={last}: the checkpoint has '
                f'{done} behind it. Set at least as many, or resume from an '
                'earlier checkpoint.'
            )
        if by_iter:
            return
        steps = len(runner.train_dataloader)
        saving = (old.get('default_hooks') or {}).get('checkpoint') or {}
        within = 0 if saving.get('by_epoch', True) else steps - 1
        if 0 <= meta['iter'] - done * steps <= within:
            return
        ratio = done * steps / meta['iter'] if meta['iter'] else 1.0
        _say(
            f'An epoch has {steps} steps now, and had others before: the '
            f'{done} epochs behind count as {done * steps} steps, not '
            f'{meta["iter"]}'
        )
        meta['iter'] = done * steps
        for name, module in runner.model.named_modules():
            # its momentum follows its own count over all steps of the run
            if isinstance(module, CosineEMA):
                key = f'{name.removeprefix("module.")}.steps'
                state_dict = checkpoint['state_dict']
                state_dict[key] = (state_dict[key] * ratio).round().long()

    def _obey_optimizer(
        self, runner: Runner, checkpoint: dict[str, Any], old: dict[str, Any]
    ) -> None:
        saved = checkpoint.get('optimizer')
        if saved is None:
            _say(
                'The checkpoint has no state of the optimizer: it begins anew'
            )
        else:
            self._check_optimizer(runner, saved, old)
        groups = runner.optim_wrapper.param_groups
        saved_groups = []
        if saved is not None:
            saved_groups += saved['param_groups']
            if 'base_param_settings' in saved:
                # the rate of no parameter, which the engine logs
                saved_groups.append(saved['base_param_settings'])
        if runner.param_schedulers:
            checkpoint['param_schedulers'] = self._obey_schedule(
                runner, checkpoint, saved_groups
            )
        changed = {}
        for group, before in zip(groups, saved_groups, strict=False):
            for key in group.keys() & before.keys() - {'params'}:
                if before[key] != group[key]:
                    changed[key] = f'{group[key]} (checkpoint: {before[key]})'
            parameters = before['params']
            before.clear()
            before.update(group, params=parameters)
        if changed:
            _say(
                'Of the config, not of the checkpoint: '
                + ', '.join(f'{key}={changed[key]}' for key in sorted(changed))
            )

    @staticmethod
    def _check_optimizer(
        runner: Runner, saved: dict[str, Any], old: dict[str, Any]
    ) -> None:
        remedy = (
            'Leave it as it was, or begin from the weights with '
            f'--cfg-options load_from={runner._load_from}, without --resume.'
        )
        now = runner.cfg.get('optim_wrapper') or {}
        before = old.get('optim_wrapper') or {}
        old_kind = (before.get('optimizer') or {}).get('type')
        kind = type(runner.optim_wrapper.optimizer).__name__
        if old_kind and _class_name(old_kind) not in (
            kind,
            _class_name((now.get('optimizer') or {}).get('type', kind)),
        ):
            raise InputError(
                f'optim_wrapper.optimizer.type={kind}: the checkpoint has '
                f'the state of {old_kind}. {remedy}'
            )
        groups = runner.optim_wrapper.optimizer.param_groups
        sizes, old_sizes = (
            [len(group['params']) for group in part]
            for part in (groups, saved['param_groups'])
        )
        if sizes != old_sizes:
            raise InputError(
                'optim_wrapper.paramwise_cfg: the optimizer has '
                f'{len(sizes)} groups of {sum(sizes)} parameters, the '
                f'checkpoint {len(old_sizes)} of {sum(old_sizes)}, of other '
                f'sizes. {remedy}'
            )
        for key in ('amsgrad', 'centered'):
            if groups[0].get(key) and not saved['param_groups'][0].get(key):
                raise InputError(
                    f'optim_wrapper.optimizer.{key}=True: the checkpoint '
                    f'lacks the state that it needs. {remedy}'
                )
        if before and now.get('loss_scale') != before.get('loss_scale'):
            saved.pop('loss_scaler', None)

    @staticmethod
    def _obey_schedule(
        runner: Runner,
        checkpoint: dict[str, Any],
        saved_groups: list[dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Bring the schedulers and what they set to where the run is."""
        schedulers = runner.param_schedulers
        groups = runner.optim_wrapper.param_groups
        epoch, step = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
        saved = checkpoint.get('param_schedulers') or []
        same = len(saved) == len(schedulers) and all(
            _settings(scheduler.state_dict()) == _settings(state)
            and state['_global_step']
            == (epoch if scheduler.by_epoch else step)
            for scheduler, state in zip(schedulers, saved, strict=True)
        )
        # kept by schedulers that don't remember what they started from
        names = {f'initial_{s.param_name}' for s in schedulers}
        same = same and all(
            group.get(name) == before.get(name)
            for group, before in zip(groups, saved_groups, strict=False)
            for name in names
        )
        if same:
            for scheduler, state in zip(schedulers, saved, strict=True):
                scheduler.load_state_dict(state)
                name = scheduler.param_name
                for group, before in zip(groups, saved_groups, strict=False):
                    group[name] = before[name]
                    if name == 'momentum' and 'betas' in group:
                        group['betas'] = (before[name], group['betas'][1])
            return saved
        if any(getattr(s, 'need_val_args', False) for s in schedulers):
            raise InputError(
                'param_scheduler: it differs from that of the checkpoint, or '
                'starts from another rate, and what ReduceOnPlateau makes of '
                'it depends on figures of the past. Leave it as it was, or '
                'begin from the weights with --cfg-options '
                f'load_from={runner._load_from}, without --resume.'
            )
        # else a scheduler complains that nothing was trained before it steps
        runner.optim_wrapper._global_step = 0
        # a run of iterations is one long epoch
        steps = len(runner.train_dataloader) if epoch else step
        by_epoch = [s for s in schedulers if s.by_epoch]
        by_step = [s for s in schedulers if not s.by_epoch]
        for behind in range(epoch + 1):
            for scheduler in by_epoch if behind else ():
                scheduler.step()
            for _ in range(
                min(steps, step - behind * steps) if by_step else 0
            ):
                for scheduler in by_step:
                    scheduler.step()
        if saved:
            _say(
                'param_scheduler differs from that of the checkpoint and is '
                'computed afresh'
            )
        return [scheduler.state_dict() for scheduler in schedulers]
