"""Registries of the package.

Each node is a direct child of MMEngine's root and knows where its modules
live, so ``type='mm_rotssl.RotNet'`` resolves from any default scope
(mmpretrain, mmdet, mmseg or none) without ``custom_imports``.

A name that mmengine, mmcv or mmpretrain registers too promises the same
result on one process: such a part is only faster, or right where upstream's
is not, as on several processes. A part that does anything else has a name of
its own.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

__all__ = [
    'DATASETS',
    'HOOKS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIMIZERS',
    'TRANSFORMS',
]

MODELS = Registry(
    'model', parent=MMENGINE_MODELS, locations=['mm_rotssl.models']
)
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, locations=['mm_rotssl.datasets']
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    locations=['mm_rotssl.datasets.transforms'],
)
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, locations=['mm_rotssl.engine.hooks']
)
LOOPS = Registry(
    'loop', parent=MMENGINE_LOOPS, locations=['mm_rotssl.engine.runner']
)
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    locations=['mm_rotssl.evaluation.metrics'],
)
OPTIMIZERS = Registry(
    'optimizer',
    parent=MMENGINE_OPTIMIZERS,
    locations=['mm_rotssl.engine.optimizers'],
)
