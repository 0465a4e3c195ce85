import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import BaseLoop, Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import (
    InputError,
    other_kind,
    preprocessing_of,
    read_facts,
    read_weights,
    stride_style,
    unwrap_model,
)

SCHEME = 'checked://'
# Address -> gives what has been read.
_READ: dict[str, Callable[[], dict[str, Any]]] = {}

# Who normalizes in steps of 255 and rounds it may differ by so much.
_RTOL, _ATOL = 0.02, 0.5


@CheckpointLoader.register_scheme(SCHEME, force=True)
def load_from_checked(address: str, _: Any) -> dict[str, Any]:
    """Hand the engine what was read, so that no file is read twice."""
    return _READ[address]()


class _Wish(NamedTuple):
    """A module whose weights are to come from a file.

    Attributes:
        name (str): Of the module in the model, '' for all of it.
        module (nn.Module): The module.
        path (str): The file.
        content (dict[str, Any]): What it holds.
        prefix (str): Of its names in the file.
        where (str): Who wishes it: a key of the config.
    """

    name: str
    module: nn.Module
    path: str
    content: dict[str, Any]
    prefix: str
    where: str


@HOOKS.register_module()
class PretrainedCheckHook(Hook):
    """See to it that pre-trained weights arrive in the model.

    The engine loads the tensors whose names fit and logs the others, so a
    wrong file, prefix or variant of a network trains from random weights and
    looks like a poor checkpoint. Here each file is read once, without running
    code that it may carry, and what was read is handed to the engine. Before
    the first step

    - each tensor of a module with ``init_cfg=dict(type='Pretrained', ...)``
      must have been loaded, in its shape, finite and of its kind, and be in
      the model bit for bit. What the module itself makes of a file counts,
      such as a position embedding resized to another size of image.
    - With ``load_from`` that holds for the backbone, and for what else of the
      file fits; what does not is logged.
    - The strides and the preprocessing of images must be those of
      pre-training, if the file tells: those of ``mm-rotssl export`` and
      checkpoints of the engine do.
    - What the file has for a part of the model that takes nothing from it,
      such as the last stage in the head of a C4 detector, is an error.
      Modules that start from different files are logged.

    A run that goes on from a checkpoint of its own is left alone.

    Args:
        new (Sequence[str]): Beginnings of the names, in the model, of tensors
            that need not be in a file, or not in their shape; ``*`` stands
            for anything. Defaults to (), none.
        preprocessing (bool): Whether images must be normalized as in
            pre-training, up to 2 % or half a gray level, and have the same
            order of channels. Defaults to True.

    Examples:
        >>> # C4 detectors normalize once more after the last stage, and
        >>> # deformable convolutions have offsets
        >>> hook = dict(
        ...     type='mm_rotssl.PretrainedCheckHook',
        ...     new=['roi_head.shared_head.norm.', 'backbone.*.conv_offset.'],
        ... )
    """

    # after hooks that copy the model or change it
    priority = 'LOWEST'

    def __init__(
        self, new: Sequence[str] = (), preprocessing: bool = True
    ) -> None:
        self.new = (new,) if isinstance(new, str) else tuple(new)
        self.preprocessing = preprocessing
        self._undo: list[Callable[[], Any]] = []
        self._wishes: list[_Wish] = []
        self._source = ''
        # what a file had for a tensor when the module was loaded from it
        self._handed: dict[tuple[str, str], Any] = {}
        self._final: dict[str, torch.Tensor] = {}

    def before_run(self, runner: Runner) -> None:
        """Read the files, and hand them to the engine.

        Args:
            runner (Runner): The runner.

        Raises:
            FileNotFoundError: If a file does not exist.
            InputError: If it is damaged, cannot be read without running code,
                has no name with the prefix, or was trained with another
                preprocessing or other strides.
        """
        # validation and tests alone load weights of their own
        if not isinstance(runner._train_loop, BaseLoop):
            return
        model, cfg = unwrap_model(runner.model), runner.cfg
        if runner._resume:
            goes_on = runner._load_from or find_latest_checkpoint(
                runner.work_dir
            )
            self._start(model, cfg, checked=not goes_on)
        elif runner._load_from and not runner._has_loaded:
            load_from = str(runner._load_from)
            self._start(model, cfg, checked=False)
            content = read_weights(load_from)
            self._hand_over(load_from, content)
            self._add(
                _Wish('', model, load_from, content, '', 'load_from'), cfg
            )
            runner._load_from = SCHEME + load_from
            self._undo.append(lambda: setattr(runner, '_load_from', load_from))
        else:
            self._start(model, cfg, checked=not runner._has_loaded)

    def before_train(self, runner: Runner) -> None:
        """Compare the model with what was read.

        Args:
            runner (Runner): The runner.

        Raises:
            InputError: If tensors are missing, of another shape or kind or
                not finite; all of them are named.
            RuntimeError: If a tensor differs; all of them are named.
        """
        self._finish(unwrap_model(runner.model), runner.logger)

    def check(self, model: nn.Module, cfg: Any) -> None:
        """Initialize a model, and check it as a run does before its start.

        Args:
            model (nn.Module): A new model.
            cfg (Config): Of the run.

        Raises:
            FileNotFoundError: See :meth:`before_run`.
            InputError: See :meth:`before_run` and :meth:`before_train`.
            RuntimeError: See :meth:`before_train`.
        """
        self._start(model, cfg, checked=True)
        cast(Any, model).init_weights()
        self._finish(model, MMLogger.get_current_instance())

    def _start(self, model: nn.Module, cfg: Any, checked: bool) -> None:
        """Put what is read in the place of files, and watch what comes."""
        self._end()
        contents: dict[str, dict[str, Any]] = {}
        for name, module, settings in list(_pretrained_modules(model)):
            path = str(settings['checkpoint'])
            if path not in contents:
                contents[path] = read_weights(path)
                self._hand_over(path, contents[path])
            # the engine takes a prefix with and without the dot
            prefix = settings.get('prefix') or ''
            prefix = prefix and f'{prefix.removesuffix(".")}.'
            where = f'model.{name}.init_cfg' if name else 'model.init_cfg'
            if getattr(module, 'is_init', False):
                # then the engine does not load it again
                MMLogger.get_current_instance().warning(
                    f'{where} is not checked: the weights were initialized '
                    'before the run.'
                )
            elif checked:
                self._add(
                    _Wish(name, module, path, contents[path], prefix, where),
                    cfg,
                )
        for module in model.modules():
            if found := getattr(module, 'init_cfg', None):
                self._undo.append(partial(setattr, module, 'init_cfg', found))
                module.init_cfg = _with_scheme(found)
        for name, module in model.named_modules(remove_duplicate=False):
            handle = module._register_load_state_dict_pre_hook(
                partial(self._note, name, module)
            )
            self._undo.append(handle.remove)

    def _end(self) -> None:
        while self._undo:
            self._undo.pop()()
        self._wishes, self._source = [], ''
        self._handed, self._final = {}, {}

    def _add(self, wish: _Wish, cfg: Any) -> None:
        """Remember what is to arrive, and check what can be checked now."""
        self._wishes.append(wish)
        facts = read_facts(wish.content)
        self._check_strides(wish, facts)
        if self.preprocessing:
            _check_preprocessing(wish, facts, preprocessing_of(cfg))
        names = _weights_of(wish.content)
        if not any(name.startswith(wish.prefix) for name in names):
            # the engine would stop with an assertion
            keys = wish.module.state_dict()
            self._refuse(
                wish, 0, [f'missing: {wish.prefix}{key}' for key in keys]
            )

    def _hand_over(self, path: str, content: dict[str, Any]) -> None:
        def give() -> dict[str, Any]:
            self._source = path
            given = copy.copy(content)
            if isinstance(given.get('state_dict'), dict):
                given['state_dict'] = copy.copy(given['state_dict'])
            return given

        _READ[SCHEME + path] = give
        self._undo.append(partial(_READ.pop, SCHEME + path, None))

    def _note(
        self,
        name: str,
        module: nn.Module,
        state_dict: Mapping[str, Any],
        prefix: str,
        *_: Any,
    ) -> None:
        """Note what a module is about to be loaded with."""
        for key in (*module._parameters, *module._buffers):
            place = f'{name}.{key}' if name else key
            value = state_dict.get(prefix + key)
            if value is not None:
                self._handed[self._source, place] = value
            shape = getattr(getattr(module, key), 'shape', None)
            if isinstance(value, torch.Tensor) and value.shape == shape:
                self._final[place] = value

    def _finish(self, model: nn.Module, logger: MMLogger) -> None:
        if not self._wishes:
            self._end()
            return
        found = model.state_dict()
        expected: dict[str, torch.Tensor] = {}
        for wish in self._wishes:
            expected.update(self._arrived(wish, logger))
        self._check_rest(model, expected)
        lost = [
            name
            for name in expected
            if not torch.equal(
                found[name].cpu(), self._final[name].to(found[name].dtype)
            )
        ]
        if lost:
            raise RuntimeError(
                f'{len(lost)} of {len(expected)} pre-trained tensors are not '
                'in the model: something has initialized them after the file '
                'was loaded.\n  ' + '\n  '.join(lost)
            )
        logger.info(
            f'All {len(expected)} pre-trained tensors are in the model.'
        )
        files: dict[str, list[str]] = {}
        for wish in self._wishes:
            files.setdefault(wish.path, []).append(wish.where)
        if len(files) > 1:
            logger.warning(
                'Parts of the model start from different files: '
                + '; '.join(
                    f'{", ".join(places)} from "{path}"'
                    for path, places in files.items()
                )
            )
        self._end()

    def _arrived(
        self, wish: _Wish, logger: MMLogger
    ) -> dict[str, torch.Tensor]:
        """Tensors of the file by their names in the model."""
        wanted = wish.module.state_dict()
        # a file for all of the model may be that of another task
        needed = ''
        if wish.where == 'load_from' and any(
            key.startswith('backbone.') for key in wanted
        ):
            needed = 'backbone.'
        expected: dict[str, torch.Tensor] = {}
        problems: list[tuple[str, str]] = []
        left: list[tuple[str, str]] = []
        own = {id(value) for value in _weights_of(wish.content).values()}
        for key, value in wanted.items():
            place = f'{wish.name}.{key}' if wish.name else key
            name = f'{wish.prefix}{key}'
            have = self._handed.get((wish.path, place))
            excused = self._is_new(place) or not key.startswith(needed)
            if key.endswith('.num_batches_tracked') and id(have) not in own:
                # PyTorch before 0.4.1 did not count, and nothing reads it;
                # where it is missing, a zero takes its place
                continue
            if have is None:
                problem = f'missing: {name}'
            elif not isinstance(have, torch.Tensor):
                problem = f'no tensor: {name} is a {type(have).__name__}'
            elif have.shape != value.shape:
                problem = (
                    f'of another shape: {name} is {tuple(have.shape)}, not '
                    f'{tuple(value.shape)}'
                )
            elif other_kind(have, value):
                problem = (
                    f'of another kind: {name} is {have.dtype}, not '
                    f'{value.dtype}'
                )
                excused = False
            elif not have.isfinite().all():
                problem, excused = f'not finite: {name}', False
            else:
                expected[place] = have
                continue
            (left if excused else problems).append((place, problem))
        if problems:
            self._refuse(
                wish,
                len(expected),
                [problem for _, problem in problems],
                _suggest([place for place, _ in problems], list(expected)),
            )
        if left and wish.where == 'load_from':
            parts = sorted({place.split('.')[0] for place, _ in left})
            logger.warning(
                f'load_from: {len(expected)} tensors are from "{wish.path}"; '
                f'{len(left)} are not, of {", ".join(parts)}.'
            )
        return expected

    def _refuse(
        self,
        wish: _Wish,
        fit: int,
        problems: list[str],
        new: Sequence[str] = (),
    ) -> None:
        remedy = (
            f' If this network has them anew, and may start them at random, '
            f'give the hook new={list(new)}.'
            if new
            else ''
        )
        names = list(_weights_of(wish.content))[:3]
        raise InputError(
            f'"{wish.path}" does not have what {wish.where} wants of it '
            f'({fit} tensors fit):\n  '
            + '\n  '.join(problems)
            + f'\nIts first names: {", ".join(names)}. '
            'Weights for other libraries are written, and checked, by '
            'mm-rotssl export; they need no prefix, and belong to '
            'model.backbone.init_cfg, not to load_from. Those of a training '
            'checkpoint have the prefix "backbone.". A ResNet from there is '
            f'of type ResNet, not ResNetV1c or another variant.{remedy}'
        )

    def _is_new(self, place: str) -> bool:
        return any(fnmatchcase(place, f'{start}*') for start in self.new)

    def _check_strides(self, wish: _Wish, facts: dict[str, Any]) -> None:
        part = wish.module
        if wish.where == 'load_from':
            part = getattr(part, 'backbone', part)
        before, now = facts.get('style'), stride_style(part)
        if before and now and before != now:
            raise InputError(
                f'"{wish.path}" was trained with style={before!r}, and the '
                f'network that {wish.where} loads it into has style={now!r}: '
                'all tensors would fit, but the strides are in another '
                f'convolution. Give the network style={before!r}.'
            )

    def _check_rest(
        self, model: nn.Module, expected: Mapping[str, Any]
    ) -> None:
        """Refuse to leave out what a file has for another part."""
        for wish in self._wishes:
            taken = wish.module.state_dict()
            rest = {
                name.removeprefix(wish.prefix): value
                for name, value in _weights_of(wish.content).items()
                if name.startswith(wish.prefix)
                and name.removeprefix(wish.prefix) not in taken
            }
            parts: dict[str, list[bool]] = {}
            for place, value in model.state_dict().items():
                # those of other files are logged
                if place in expected or self._is_new(place):
                    continue
                words = place.split('.')
                for i in range(1, len(words)):
                    have = rest.get('.'.join(words[i:]))
                    if getattr(have, 'shape', None) == value.shape:
                        parts.setdefault('.'.join(words[:i]), []).append(
                            value.dim() == 4
                        )
            for part, convolutions in parts.items():
                # normalizations alone may share their names by chance
                if any(convolutions):
                    raise InputError(
                        f'"{wish.path}" has {len(convolutions)} tensors for '
                        f'model.{part}, which takes none of them and would '
                        f'start at random. Give model.{part} the init_cfg '
                        f'of {wish.where}, or, if that is meant, the hook '
                        f"new=['{part}.']."
                    )


def _check_preprocessing(
    wish: _Wish, before: dict[str, Any], now: dict[str, Any]
) -> None:
    differ = []
    for key in ('mean', 'std', 'channels'):
        if key not in before or key not in now:
            continue
        if key == 'channels':
            same = before[key] == now[key]
        else:
            one, other = (torch.tensor(facts[key]) for facts in (before, now))
            same = 1 in (len(one), len(other)) or len(one) == len(other)
            # one value stands for all channels
            same = same and bool(
                ((one - other).abs() <= _ATOL + _RTOL * other.abs()).all()
            )
        if not same:
            differ.append(f'{key}={before[key]} there, {now[key]} here')
    if differ:
        settings = [
            f'{key}={before[key]}' for key in ('mean', 'std') if key in before
        ]
        if 'channels' in before:
            # as files are loaded
            settings.append(f'bgr_to_rgb={before["channels"] == "rgb"}')
        raise InputError(
            f'"{wish.path}" ({wish.where}) was trained on images prepared in '
            f'another way: {"; ".join(differ)}. Set model.data_preprocessor '
            f'to dict({", ".join(settings)}) (to_rgb in mmpretrain); to train '
            'so nevertheless, give PretrainedCheckHook preprocessing=False.'
        )


def _suggest(missing: Sequence[str], there: Sequence[str]) -> list[str]:
    """Beginnings that cover what is missing and nothing that is there."""

    def free(pattern: str) -> bool:
        return not any(fnmatchcase(name, f'{pattern}*') for name in there)

    # nothing fits, so it is the wrong file
    if not there:
        return []
    found: dict[str, None] = {}
    for place in missing:
        if any(fnmatchcase(place, f'{pattern}*') for pattern in found):
            continue
        words = place.split('.')
        starts = ['.'.join(words[:i]) + '.' for i in range(1, len(words))]
        start = next(filter(free, starts), place)
        if len(words) > 3 and start == starts[-1]:
            # the same layer of every block
            anywhere = f'{words[0]}.*.{words[-2]}.'
            start = anywhere if free(anywhere) else start
        found[start] = None
    return list(found)


def _weights_of(content: Mapping[str, Any]) -> dict[str, Any]:
    weights = content.get('state_dict', content)
    return {
        str(name).removeprefix('module.'): value
        for name, value in weights.items()
    }


def is_pretrained(settings: Any) -> bool:
    """Tell whether an ``init_cfg`` reads a file.

    Args:
        settings (Any): One initialization, or what stands in its place.

    Returns:
        bool: False for other initializations, and for none.
    """
    return isinstance(settings, dict) and settings.get('type') in (
        'Pretrained',
        PretrainedInit,
    )


def _pretrained_modules(
    model: nn.Module,
) -> Iterator[tuple[str, nn.Module, dict]]:
    """Name, module and settings of each ``init_cfg`` with a file."""
    for name, module in model.named_modules():
        found = getattr(module, 'init_cfg', None) or ()
        for settings in [found] if isinstance(found, dict) else found:
            if is_pretrained(settings):
                yield name, module, settings


def _with_scheme(found: Any) -> Any:
    """The settings of an initialization, with what was read for a file."""
    if not isinstance(found, dict):
        return [_with_scheme(settings) for settings in found]
    if not is_pretrained(found):
        return found
    changed = copy.copy(found)
    changed['checkpoint'] = SCHEME + str(found['checkpoint'])
    return changed
