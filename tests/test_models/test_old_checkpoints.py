"""Weights that were saved before 0.1.0, under the names of that time.

``before_0_1.pth`` holds, of each model below, the weights, drawn at random,
and what that code made of two images of noise.
"""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_state_dict

from mm_rotssl.engine.hooks.checkpoint_check_hook import check_state_dict
from mm_rotssl.registry import MODELS

FILE = Path(__file__).parents[1] / 'checkpoints/before_0_1.pth'
BACKBONE = dict(type='mm_rotssl.NIN', num_stages=3, base_channels=6)
POOLING = dict(type='mmpretrain.GlobalAveragePooling')
HEAD = dict(type='mm_rotssl.RotationHead', in_channels=6)
CONTRASTIVE = dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'))
SIZES = dict(in_channels=6, hid_channels=8, out_channels=4)

ROTATION = dict(type='mm_rotssl.RotNet', neck=POOLING, head=HEAD)
EXEMPLAR = dict(
    type='mm_rotssl.ExemplarCNN',
    neck=POOLING,
    head=dict(type='mm_rotssl.ExemplarHead', in_channels=6, num_exemplars=5),
)
DECOUPLING = dict(
    type='mm_rotssl.RotationFeatureDecoupling',
    neck=dict(type='mm_rotssl.DecouplingNeck', in_channels=6, out_channels=8),
    rotation_channels=4,
    head=dict(type='mm_rotssl.RotationHead'),
    instance_head=dict(
        type='mm_rotssl.InstanceDiscriminationHead',
        in_channels=4,
        num_negatives=2,
        memory=dict(length=7, feat_dim=5),
    ),
)
CLASSIFIER = dict(
    type='mm_rotssl.SelfClassifier',
    neck=dict(type='mm_rotssl.SelfClassifierNeck', **SIZES),
    head=dict(
        type='mm_rotssl.SelfClassifierHead', in_channels=4, num_classes=(3,)
    ),
    queue=dict(type='mm_rotssl.NearestNeighborQueue', length=4, dim=4),
)
SIMCLR = dict(
    type='mm_rotssl.SimCLR',
    neck=dict(type='NonLinearNeck', num_layers=2, with_avg_pool=True, **SIZES),
    head=CONTRASTIVE,
)
MOCO = dict(
    type='MoCo',
    queue_len=8,
    feat_dim=4,
    neck=dict(type='MoCoV2Neck', with_avg_pool=True, **SIZES),
    head=CONTRASTIVE,
)


def essl(algorithm, **head):
    return dict(
        type='mm_rotssl.ESSL',
        algorithm=dict(algorithm, backbone=BACKBONE),
        neck=POOLING,
        head=dict(HEAD, **head),
    )


SETTINGS = dict(
    rotnet=dict(ROTATION, backbone=BACKBONE),
    essl_simclr=essl(SIMCLR, hid_channels=7),
    essl_moco=essl(MOCO),
    essl_self_classifier=essl(CLASSIFIER),
    exemplar_cnn=dict(EXEMPLAR, backbone=BACKBONE),
    decoupling=dict(DECOUPLING, backbone=BACKBONE),
    self_classifier=dict(CLASSIFIER, backbone=BACKBONE),
    multi_task=dict(
        type='mm_rotssl.MultiTask',
        backbone=BACKBONE,
        tasks=dict(
            rotation=ROTATION, exemplar=EXEMPLAR, decoupling=DECOUPLING
        ),
    ),
)


@pytest.fixture(scope='module')
def saved():
    return torch.load(FILE, weights_only=True)


def test_all_models_are_looked_at(saved):
    assert list(saved['models']) == list(SETTINGS)


@pytest.mark.parametrize('by_engine', [False, True])
@pytest.mark.parametrize('name', SETTINGS)
def test_weights_arrive(saved, name, by_engine):
    """Strictly, with the engine's function and with PyTorch's."""
    old = saved['models'][name]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(copy.deepcopy(SETTINGS[name]))
    weights = dict(old['state_dict'])
    check_state_dict(model, weights, FILE.name)
    if by_engine:
        load_state_dict(model, weights, strict=True)
    else:
        model.load_state_dict(weights)
    # what was given is as it was
    assert weights.keys() == old['state_dict'].keys()
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model(saved['images'])[-1], old['feats'], rtol=1e-4, atol=1e-5
        )
        samples = model.predict(saved['images'])
    for key, scores in old['scores'].items():
        found = torch.stack([sample.get(key) for sample in samples])
        torch.testing.assert_close(found, scores, rtol=1e-4, atol=1e-5)
    # every number of the file is in the model
    found = sum(v.double().sum() for v in model.state_dict().values())
    want = sum(v.double().sum() for v in old['state_dict'].values())
    assert float(found) == pytest.approx(float(want), rel=1e-12)
