"""Every registered name is built from every default scope."""

import subprocess
import sys

import mmpretrain.registry
import pytest
from mmengine import registry as root

import mm_rotssl.registry

# Arguments of those parts that can't be built without.
PROGRAM = """
import inspect, sys, torch
from mmengine.registry import init_default_scope, MODELS as ROOT
from mmengine import registry as root
import mm_rotssl.registry as ours

scope = sys.argv[1]
if scope != 'none':
    init_default_scope(scope)

head = dict(type='mm_rotssl.RotationHead', in_channels=6)
backbone = dict(type='mm_rotssl.NIN', base_channels=6)
instance_head = dict(type='mm_rotssl.InstanceDiscriminationHead',
                     in_channels=3)
arguments = dict(
    RotationHead=dict(in_channels=4),
    InstanceDiscriminationHead=dict(in_channels=4),
    DecouplingNeck=dict(in_channels=4),
    RotationFeatureDecoupling=dict(
        backbone=backbone, head=dict(type='mm_rotssl.RotationHead'),
        instance_head=instance_head, rotation_channels=3),
    RotNet=dict(backbone=backbone, head=head),
    ESSL=dict(
        algorithm=dict(
            type='mm_rotssl.ExemplarCNN', backbone=backbone,
            head=dict(type='mm_rotssl.ExemplarHead', in_channels=6,
            num_exemplars=3)),
        head=head),
    ExemplarHead=dict(in_channels=4, num_exemplars=3),
    ExemplarCNN=dict(
        backbone=dict(type='mm_rotssl.ExemplarNet', arch='6c3'),
        head=dict(type='mm_rotssl.ExemplarHead', in_channels=6,
        num_exemplars=3)),
    ExemplarDataset=dict(
        dataset=dict(type='mm_rotssl.Digits', size=48),
        seed_patches=dict(num_exemplars=2), pipeline=[]),
    STL10=dict(lazy_init=True),
    SelfClassifierNeck=dict(in_channels=6),
    SelfClassifierHead=dict(in_channels=4),
    SelfClassifier=dict(
        backbone=backbone,
        neck=dict(type='mm_rotssl.SelfClassifierNeck', in_channels=6),
        head=dict(type='mm_rotssl.SelfClassifierHead', in_channels=128),
        queue=dict(type='mm_rotssl.NearestNeighborQueue', length=5)),
    MultiLinearHead=dict(in_channels=[4], num_classes=3),
    LatentCrossCorrelationHead=dict(
        in_channels=4, loss=dict(type='mmpretrain.CrossCorrelationLoss')
    ),
    SimCLR=dict(
        backbone=backbone,
        data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor')),
    SwAVLoss=dict(feat_dim=4),
    LARC=dict(params=[torch.nn.Parameter(torch.zeros(2))], lr=0.1),
    RowSGD=dict(params=[torch.nn.Parameter(torch.zeros(2))], lr=0.1),
    NINConvNeck=dict(in_channels=4),
    AlexNetBN=dict(input_size=67),
    Digits=dict(pipeline=[]),
    NPID=dict(backbone=backbone, head=dict(in_channels=6)),
    PseudoLabelHead=dict(in_channels=4, num_classes=3),
    PseudoLabel=dict(
        backbone=backbone,
        head=dict(type='mm_rotssl.PseudoLabelHead', in_channels=6,
        num_classes=3),
        labeler=dict(type='mm_rotssl.KMeansLabeler')),
    ScanHead=dict(in_channels=4, num_classes=3),
    SCAN=dict(backbone=backbone, head=dict(
        type='mm_rotssl.ScanHead', in_channels=6, num_classes=3)),
    SelfLabel=dict(backbone=backbone, head=dict(
        type='mm_rotssl.ScanHead', in_channels=6, num_classes=3)),
    NeighborPairs=None,  # needs a file
    ImageFolder=dict(data_root=sys.argv[2], pipeline=[]),
    RandomResizedCropFlip=dict(scale=8),
    StackedDataset=dict(datasets=dict(a=dict(type='mm_rotssl.Digits'))),
    MultiTask=dict(backbone=backbone, tasks=dict(
        rotation=dict(type='mm_rotssl.RotNet', head=head))),
    TaskWeightHook=dict(task='rotation', end_iter=1),
    KNNValLoop=None,  # needs a runner
    KNNTestLoop=None,
    TorchvisionBackbone=dict(model_name='resnet18'),
)
# by name first: nothing has been imported but the registries
root.MODELS.build(dict(arguments['RotNet'], type='mm_rotssl.RotNet'))
# as soon as a model is built, checkpoints are read safely
from mmengine.runner.checkpoint import CheckpointLoader
for scheme, loader in CheckpointLoader._schemes.items():
    assert hasattr(loader, '__wrapped__'), scheme
built = []
for kind in ours.__all__:
    registry = getattr(ours, kind)
    registry.import_from_location()
    assert registry.scope == 'mm_rotssl', registry
    assert len(registry), kind
    for name in registry.module_dict:
        kwargs = arguments.get(name, {})
        if kwargs is None:
            assert getattr(root, kind).get(f'mm_rotssl.{name}')
        else:
            cfg = dict(kwargs, type=f'mm_rotssl.{name}')
            getattr(root, kind).build(cfg)
        built.append(name)
print(*built)
"""


@pytest.mark.parametrize(
    'scope',
    [
        # that of mmpretrain is the one of most other tests
        'none',
        pytest.param('mmdet', marks=pytest.mark.downstream),
        pytest.param('mmseg', marks=pytest.mark.downstream),
    ],
)
def test_every_name_from_every_scope(scope, tmp_path):
    if scope in ('mmdet', 'mmseg'):
        pytest.importorskip(scope)
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 4, 3), np.uint8))
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, scope, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = done.stdout.split()
    assert {
        'RotNet',
        'RotationFeatureDecoupling',
        'ExemplarCNN',
        'ExemplarDataset',
        'NIN',
        'Digits',
        'KNNAccuracy',
        'KNNValLoop',
        'RowSGD',
        'SelfClassifier',
        'LatentCrossCorrelationHead',
        'SimCLR',
        'SwAVLoss',
        'UniformPriorCrossEntropy',
        'NearestNeighborQueue',
        'ClusteringMetric',
        'LARC',
        'MultiTask',
        'StackedDataset',
        'TaskWeightHook',
    } <= set(names)


def test_names_of_upstream():
    """Each has a test that it gives upstream's result on one process.

    CheckpointHook: ``test_files_are_those_of_the_engine``;
    LatentCrossCorrelationHead: ``test_equals_the_host``; PackInputs:
    ``test_as_mmpretrains``; SimCLR: ``test_loss_and_gradient``; SwAVLoss:
    ``test_without_a_queue`` and ``test_with_the_host_queue``.
    """
    shared = set()
    for kind in mm_rotssl.registry.__all__:
        nodes = [
            getattr(package, kind)
            for package in (mm_rotssl.registry, mmpretrain.registry, root)
        ]
        for node in nodes:
            node.import_from_location()
        # mmcv registers its transforms in the root
        ours, *theirs = (set(node.module_dict) for node in nodes)
        assert theirs[0] | theirs[1], kind
        shared |= ours & (theirs[0] | theirs[1])
    assert shared == {
        'CheckpointHook',
        *('LatentCrossCorrelationHead', 'PackInputs', 'SimCLR', 'SwAVLoss'),
    }
