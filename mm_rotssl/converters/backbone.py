"""A backbone's weights in the form that other libraries read."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from mmengine.config import Config
from torch import nn

from mm_rotssl.registry import MODELS
from mm_rotssl.utils import (
    algorithm_settings,
    attach_facts,
    checkpoint_bytes,
    other_kind,
    preprocessing_of,
    read_weights,
    replacing,
    stride_style,
)

from .libraries import (
    HINTS,
    SAFETENSORS_HINTS,
    SOURCES,
    TARGETS,
    describe_blocks,
    describe_images,
)

SUFFIXES = ('.pth', '.safetensors')

#: Largest difference of features, relative to the largest value.
TOLERANCE = 1e-5

# The ResNet that all of these libraries have.
_PLAIN: dict[str, Any] = dict(
    style='pytorch',
    deep_stem=False,
    avg_down=False,
    stem_channels=64,
    base_channels=64,
    num_stages=4,
    strides=(1, 2, 2, 2),
    dilations=(1, 1, 1, 1),
)
_STAGES = ('layer1', 'layer2', 'layer3', 'layer4')
_INSTALL = {
    'mmdet': 'pip install "mm-rotssl[transfer]"',
    'mmseg': 'pip install "mm-rotssl[transfer]"',
}


class Export(NamedTuple):
    """What :func:`export_backbone` has written.

    Attributes:
        tensors (int): Number of tensors, all of which matched.
        difference (float): Largest difference of the features, relative to
            the largest value of their stage.
        preprocessor (dict): What the backbone expects of images, as far as
            the config says so: ``mean``, ``std``, ``to_rgb``, ``bgr_to_rgb``.
        hint (str): How the library reads the file, to be copied.
    """

    tensors: int
    difference: float
    preprocessor: dict[str, Any]
    hint: str


def to_detectron2(name: str) -> str:
    """Name a tensor of a ResNet as detectron2 does.

    Args:
        name (str): Name in torchvision, mmpretrain, mmdet, mmseg and timm.

    Returns:
        str: The same tensor's name in detectron2.

    Examples:
        >>> to_detectron2('bn1.weight')
        'stem.conv1.norm.weight'
        >>> to_detectron2('layer1.0.downsample.0.weight')
        'res2.0.shortcut.weight'
    """
    name = re.sub(r'\bbn(\d)\.', r'conv\1.norm.', name)
    name = name.replace('downsample.0.', 'shortcut.')
    name = name.replace('downsample.1.', 'shortcut.norm.')
    stage = re.match(r'layer(\d)\.(.+)', name)
    # what they call res1 is the stem
    return f'res{int(stage[1]) + 1}.{stage[2]}' if stage else f'stem.{name}'


def from_detectron2(name: str) -> str:
    """Undo :func:`to_detectron2`.

    Args:
        name (str): Name in detectron2.

    Returns:
        str: The same tensor's name in torchvision and the others.

    Examples:
        >>> from_detectron2('res5.1.conv2.norm.bias')
        'layer4.1.bn2.bias'
    """
    stage = re.match(r'res(\d)\.(.+)', name)
    name = (
        f'layer{int(stage[1]) - 1}.{stage[2]}'
        if stage
        else name.removeprefix('stem.')
    )
    name = re.sub(r'\bconv(\d)\.norm\.', r'bn\1.', name)
    name = name.replace('shortcut.norm.', 'downsample.1.')
    return name.replace('shortcut.', 'downsample.0.')


def export_backbone(
    cfg: Config,
    checkpoint: str | Path,
    target: str,
    out: str | Path,
    source: str = 'mm_rotssl',
    size: int = 64,
) -> Export:
    """Write the backbone of a checkpoint for use in another library.

    The file is written under another name, read again and loaded into the
    other library's own network; only if that gives the same features it takes
    its place. What was there before is kept otherwise. detectron2's network
    is not built: the names are converted back instead.

    Args:
        cfg (Config): Names the ``model.backbone`` of the checkpoint.
        checkpoint (str | Path): The weights, ``.pth`` or ``.safetensors``.
        target (str): One of ``TARGETS``.
        out (str | Path): File to write, ``.pth`` or ``.safetensors``. It
            holds the tensors without a prefix; a ``.pth`` for detectron2
            holds them as ``model``, with what makes it find their places.
            Beside them stands how images were prepared and where the strides
            are, for :class:`~mm_rotssl.engine.PretrainedCheckHook`.
        source (str): Who named the weights: 'mm_rotssl' (mmpretrain and
            mmselfsup do it alike: those of the backbone begin with
            ``backbone.`` or ``module.backbone.``) or 'torchvision' (a bare
            ResNet, whose ``fc`` is left out). Defaults to 'mm_rotssl'.
        size (int): Side, in pixels, of the image on which features are
            compared. Defaults to 64.

    Returns:
        Export: What matched.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If a library is not known, the checkpoint does not fit the
            config or is not finite, the other library lacks such a network
            or is not installed, or names, shapes or features differ; all
            that differ are listed.
    """
    out = Path(out)
    for name, value, known in (
        ('target', target, TARGETS),
        ('source', source, SOURCES),
    ):
        if value not in known:
            raise ValueError(f'{name}={value!r}: one of {", ".join(known)}.')
    if out.suffix not in SUFFIXES:
        raise ValueError(
            f'"{out}" must end in {" or ".join(SUFFIXES)}, which decides how '
            'it is written.'
        )
    if out.resolve() == Path(checkpoint).resolve():
        raise ValueError(f'"{out}" is the input; name another file to write.')
    if out.suffix == '.safetensors':
        _import('safetensors.torch', f'A file {out.suffix}')
    backbone = _build_backbone(cfg)
    depth = (
        cast(int, backbone.depth)
        if type(backbone) is MODELS.get('mmpretrain.ResNet')
        else None
    )
    if target != 'mmpretrain' or source == 'torchvision':
        _check_plain(backbone, target if target != 'mmpretrain' else source)
    network = (
        _build_backbone(cfg)
        if target in ('mmpretrain', 'detectron2')
        else _build_network(target, backbone)
    )

    weights = _read_backbone(checkpoint, source)
    wanted = backbone.state_dict()
    for name, value in wanted.items():
        # PyTorch before 0.4.1 did not count, and nothing here reads it
        if name.endswith('.num_batches_tracked'):
            weights.setdefault(name, value)
    _check_names(
        wanted,
        weights,
        f'The backbone of "{checkpoint}" is not that of the config. Use the '
        'config that it was trained with',
    )
    backbone.load_state_dict(weights)

    if target == 'detectron2':
        weights = {to_detectron2(k): v for k, v in weights.items()}
    facts = preprocessing_of(cfg)
    if style := stride_style(backbone):
        facts['style'] = style
    weights = attach_facts(weights, facts)
    with replacing(out) as temporary:
        _write_weights(temporary, weights, target)
        written = _read_weights(temporary)
        if target == 'detectron2':
            written = {from_detectron2(k): v for k, v in written.items()}
        _check_names(
            network.state_dict(), written, f'{target} would not take the file'
        )
        network.load_state_dict(written)
        difference = _compare(backbone, network, target, size)
    settings = algorithm_settings(cfg).get('data_preprocessor', {})
    hints = SAFETENSORS_HINTS if out.suffix == '.safetensors' else HINTS
    return Export(
        tensors=len(written),
        difference=difference,
        preprocessor={
            name: settings[name]
            for name in ('mean', 'std', 'to_rgb', 'bgr_to_rgb')
            if name in settings
        },
        hint=hints[target].format(
            out=str(out.resolve()),
            depth=depth,
            config=cfg.filename or 'your config',
            blocks=describe_blocks(depth),
            images=describe_images(target, facts),
        ),
    )


def _import(package: str, use: str) -> Any:
    try:
        return import_module(package)
    except (ImportError, AssertionError) as error:
        raise _missing(package, use, error) from error


def _missing(package: str, use: str, error: Exception) -> ValueError:
    name = package.split('.')[0]
    return ValueError(
        f'{use} needs the package {name}, which cannot be imported here '
        f'({error}). Install it: {_INSTALL.get(name, f"pip install {name}")}'
    )


def _build_backbone(cfg: Config) -> nn.Module:
    settings = algorithm_settings(cfg).get('backbone')
    if not settings:
        raise ValueError('The config names no model.backbone.')
    try:
        return MODELS.build(settings)
    except Exception as error:
        # whatever a constructor thinks of its arguments
        raise ValueError(
            f'model.backbone of the config cannot be built: {error}'
        ) from error


def _check_plain(backbone: nn.Module, library: str) -> None:
    """Refuse what is not the ResNet that the libraries share."""
    remedy = '. Only --to mmpretrain takes any backbone.'
    if type(backbone) is not MODELS.get('mmpretrain.ResNet'):
        raise ValueError(
            f'The backbone {type(backbone).__name__} of the config is not '
            f'the ResNet of {library}, whose layers are others{remedy}'
        )
    for name, value in _PLAIN.items():
        found = getattr(backbone, name)
        found = tuple(found) if isinstance(value, tuple) else found
        if found != value:
            raise ValueError(
                f'model.backbone of the config has {name}={found!r}, and the '
                f'ResNet of {library} {name}={value!r}{remedy}'
            )


def _build_network(library: str, backbone: nn.Module) -> nn.Module:
    """Build the ResNet of another library, without a classifier."""
    depth = backbone.depth
    use = f'--to {library}'
    if library in ('mmdet', 'mmseg'):
        registry = _import(f'{library}.registry', use).MODELS
        try:
            # only now their networks are imported
            network = registry.build(
                dict(type=f'{library}.ResNet', depth=depth)
            )
        except (ImportError, AssertionError) as error:
            raise _missing(library, use, error) from error
    elif library == 'timm':
        network = _import('timm', use).create_model(
            f'resnet{depth}', num_classes=0
        )
    else:
        models = _import('torchvision.models', use)
        network = getattr(models, f'resnet{depth}')()
        network.fc = nn.Identity()
    return network


def _read_weights(path: str | Path) -> dict[str, Any]:
    """Read a file of weights, whatever they are wrapped in."""
    found = read_weights(path)
    for key in ('state_dict', 'model'):
        if isinstance(found.get(key), dict):
            return found[key]
    return found


def _write_weights(path: Path, weights: Any, target: str) -> None:
    if path.suffix == '.safetensors':
        library = _import('safetensors.torch', f'A file {path.suffix}')
        # texts only
        facts = {k: json.dumps(v) for k, v in weights._metadata.items()}
        path.write_bytes(library.save(weights, {'format': 'pt', **facts}))
    elif target == 'detectron2':
        # by the ends of their names, it finds the places in its own models
        content = dict(model=weights, matching_heuristics=True)
        path.write_bytes(checkpoint_bytes(content))
    else:
        path.write_bytes(checkpoint_bytes(weights))


def _read_backbone(path: str | Path, source: str) -> dict[str, torch.Tensor]:
    """Read the backbone's tensors, each in memory of its own."""
    found = {
        str(name).removeprefix('module.'): value
        for name, value in _read_weights(path).items()
    }
    if source == 'torchvision':
        found = {k: v for k, v in found.items() if not k.startswith('fc.')}
    else:
        prefix = 'backbone.'
        found = {
            name.removeprefix(prefix): value
            for name, value in found.items()
            if name.startswith(prefix)
        }
        if not found:
            raise ValueError(
                f'No tensor of "{path}" has a name that begins with '
                f'"{prefix}" or "module.{prefix}". If these are the weights '
                'of a bare ResNet, say --from torchvision.'
            )
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f'{name} of "{path}" is a {type(value).__name__}, not a '
                'tensor.'
            )
        if not value.isfinite().all():
            raise ValueError(
                f'{name} of "{path}" is not finite: it holds NaN or Inf. The '
                'training has diverged; take an earlier checkpoint.'
            )
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in found.items()
    }


def _check_names(
    wanted: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
    message: str,
) -> None:
    """Refuse other names, shapes or kinds, and list all of them."""
    problems = [
        *(f'missing: {name}' for name in wanted if name not in found),
        *(f'unexpected: {name}' for name in found if name not in wanted),
        *(
            f'of another shape: {name} is {tuple(found[name].shape)}, not '
            f'{tuple(value.shape)}'
            for name, value in wanted.items()
            if name in found and found[name].shape != value.shape
        ),
        *(
            f'of another kind: {name} is {found[name].dtype}, not '
            f'{value.dtype}'
            for name, value in wanted.items()
            if name in found and other_kind(found[name], value)
        ),
    ]
    if problems:
        raise ValueError(f'{message}:\n  ' + '\n  '.join(problems))


def _tensors(outputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, (tuple, list)):
        for output in outputs:
            yield from _tensors(output)


@torch.no_grad()
def _features(
    network: nn.Module, image: torch.Tensor, outputs: bool
) -> dict[str, torch.Tensor]:
    """Outputs of the stages, in their order, and of the network if asked."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        # a network may go on working in place
        return lambda _, __, value: found.update({name: value.clone()})

    # which returns nothing where a network has overridden `train`
    network.eval()
    handles = [
        child.register_forward_hook(keep(name))
        for name, child in network.named_children()
        if name in _STAGES
    ]
    # what masked image modeling calls a mask may be absent
    arguments = [
        None
        for parameter in inspect.signature(network.forward).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    try:
        # some draw which patches they mask, and the next one draws the same
        with torch.random.fork_rng(devices=[]):
            given = network(image, *arguments[1:])
    finally:
        for handle in handles:
            handle.remove()
    if outputs:
        for number, value in enumerate(_tensors(given)):
            found[f'output {number}'] = value
    return found


def _compare(
    backbone: nn.Module, network: nn.Module, target: str, size: int
) -> float:
    """Compare features on an image of noise.

    Returns:
        float: Their largest difference, relative to the largest value.

    Raises:
        ValueError: If it is too large; it names the first such stage.
    """
    convolution = next(p for p in backbone.parameters() if p.dim() == 4)
    image = torch.randn(
        (1, convolution.shape[1], size, size),
        generator=torch.Generator().manual_seed(0),
    )
    # the other libraries' networks have pooled theirs
    outputs = type(backbone) is type(network)
    try:
        before = _features(backbone, image, outputs)
    except Exception as error:
        raise ValueError(
            f'The backbone takes no image of {size} x {size} pixels; name '
            f'the side of those it was made for with --size. ({error})'
        ) from error
    after = _features(network, image, outputs)
    worst = 0.0
    for name, value in before.items():
        other = after[name]
        if other.shape != value.shape:
            raise ValueError(
                f'The features of {name} in {target} have the shape '
                f'{tuple(other.shape)}, not {tuple(value.shape)}.'
            )
        largest = value.double().abs().max().clamp(min=1e-30)
        difference = float((other.double() - value).abs().max() / largest)
        # NaN is not within it either
        if not difference <= TOLERANCE:
            raise ValueError(
                f'The features of {name} in {target} differ by '
                f'{difference:.1e} of the largest value, more than '
                f'{TOLERANCE:.0e}.'
            )
        worst = max(worst, difference)
    return worst
