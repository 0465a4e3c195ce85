"""Exemplar-CNN as a whole; two processes are in test_exemplar_head.py."""

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.engine import RowSGD
from mm_rotssl.evaluation import knn_classify
from mm_rotssl.models import DeformationDataPreprocessor, ExemplarCNN

CONFIG = (
    Path(__file__).parents[2]
    / 'configs/exemplar_cnn/exemplar-cnn_32c5-32c5-128f_1xb128-15e_digits.py'
)
COUNTER = itertools.count()
POOL = dict(type='mmpretrain.GlobalAveragePooling')
MODEL = dict(
    backbone=dict(
        type='mm_rotssl.ExemplarNet',
        arch='4c3-5c3-6f',
        input_size=8,
        dropout=0.0,
        out_indices=(0, 1, 2),
    ),
    neck=POOL,
    head=dict(type='mm_rotssl.ExemplarHead', in_channels=6, num_exemplars=9),
)
LABELS = (4, 0, 8, 4)


def build(**kwargs):
    torch.manual_seed(0)
    init_default_scope('mmpretrain')
    model = ExemplarCNN(**{**copy.deepcopy(MODEL), **kwargs})
    model.init_weights()
    return model


def batch(labels=LABELS, size=8):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(len(labels), 3, size, size, generator=generator)
    samples = []
    for label in labels:
        samples.append(DataSample())
        samples[-1].set_field(label, 'exemplar_label')
    return images, samples


def cross_entropy(logits, labels):
    """Equations 1 to 3 of the paper, with the gradient, in float64."""
    loss, grad = 0.0, np.zeros_like(logits)
    for row, label in enumerate(labels):
        total = sum(math.exp(logit) for logit in logits[row])
        loss -= math.log(math.exp(logits[row, label]) / total) / len(labels)
        for c, logit in enumerate(logits[row]):
            grad[row, c] = math.exp(logit) / total - (c == label)
    return loss, grad / len(labels)


def test_loss_and_gradient_of_the_whole():
    images, samples = batch()
    model = build()
    out = model(images, samples, mode='loss')
    out['loss'].backward()

    other = build()
    # means over the places of the last stage, whatever comes before it
    logits = other.head.fc(other.backbone(images)[-1].mean((2, 3)))
    loss, grad = cross_entropy(logits.detach().double().numpy(), LABELS)
    assert out['loss'].item() == pytest.approx(loss, rel=1e-6)
    logits.backward(torch.from_numpy(grad).float())
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


def test_without_neck():
    """A backbone that gives a vector."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 6))
    images, samples = batch()
    model = build(backbone=Listed(backbone), neck=None)
    loss = model(images, samples, mode='loss')['loss']
    logits = model.head.fc(backbone(images)).detach().double().numpy()
    assert loss.item() == pytest.approx(
        cross_entropy(logits, LABELS)[0], rel=1e-6
    )


class Listed(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return (self.inner(x),)


@pytest.mark.parametrize('num_sampled', [None, 3])
def test_no_other_label_reaches_the_loss(num_sampled):
    head = dict(MODEL['head'], num_sampled=num_sampled)
    losses = []
    for label in (None, 0, 7):
        images, samples = batch()
        for sample in samples:
            if label is not None:
                sample.set_gt_label(label)
                sample.set_field(label, 'sample_idx')
        model = build(head=head)
        torch.manual_seed(1)
        losses.append(model.loss(images, samples)['loss'])
    assert losses[0] == losses[1] == losses[2]
    model = build(head=head)
    torch.manual_seed(1)
    images, samples = batch((4, 0, 8, 5))
    assert model.loss(images, samples)['loss'] != losses[0]


@pytest.mark.parametrize('num_sampled', [None, 3])
def test_labels_that_do_not_fit(num_sampled):
    model = build(head=dict(MODEL['head'], num_sampled=num_sampled))
    images, samples = batch()
    del samples[2].exemplar_label
    samples[2].set_gt_label(1)
    for none in (samples, None, []):
        with pytest.raises(
            ValueError, match=r'algorithm_keys=.*exemplar_label'
        ):
            model(images, none, mode='loss')
    for label in (9, 1000):
        images, samples = batch((0, label, 3, 2))
        with pytest.raises(
            IndexError,
            match=rf'exemplar_label={label}, and model\.head\.num_exemplars=9',
        ):
            model.loss(images, samples)


def test_predict():
    model = build(backbone=dict(MODEL['backbone'], dropout=0.5)).eval()
    images, samples = batch()
    with torch.no_grad():
        found = model(images, samples, mode='predict')
        maps = [stage.double().numpy() for stage in model.backbone(images)]
    assert all(a is b for a, b in zip(found, samples, strict=True))
    for i, sample in enumerate(found):
        assert len(sample.feats) == 3
        assert sample.exemplar_label == LABELS[i]
        for feat, stage in zip(sample.feats, maps, strict=True):
            np.testing.assert_allclose(feat, stage[i].mean((1, 2)), atol=1e-6)
    new = model.predict(images)
    assert len(new) == 4
    assert torch.equal(new[3].feats[1], found[3].feats[1])
    # and what the engine calls, with what the dataset gives
    data = dict(inputs=images, data_samples=[DataSample() for _ in images])
    stepped = model.val_step(data)
    assert torch.equal(stepped[2].feats[0], found[2].feats[0])
    for stage, (out,) in zip(
        maps, zip(model(images, mode='tensor'), strict=True), strict=True
    ):
        np.testing.assert_allclose(out.detach(), stage, atol=1e-6)


def test_preprocessor_by_default():
    for settings in (None, dict(mean=[3.0], std=[2.0])):
        model = build(data_preprocessor=settings)
        assert type(model.data_preprocessor) is DeformationDataPreprocessor
    # 8 of the 32 pixels, moved by a pixel: no resampling, but normalization
    model = build(data_preprocessor=dict(patch_size=8, mean=[3.0], std=[2.0]))
    windows = torch.randint(256, (2, 3, 12, 12), dtype=torch.uint8)
    _, samples = batch((1, 2))
    for sample in samples:
        numbers = np.array([8, 0, 7, 0, 8, 6], np.float32)
        sample.set_field(numbers, 'deformation')
    seen = []
    model.backbone.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    data = dict(inputs=windows, data_samples=samples)
    data = model.data_preprocessor(data, True)
    model(**data, mode='loss')
    want = (windows[:, :, 2:10, 3:11].numpy() - 3.0) / 2
    np.testing.assert_allclose(seen[0], want, atol=1e-3)


BACKBONES = {
    'resnet': (dict(type='mmpretrain.ResNet', depth=18), POOL, 512),
    'transformer': (
        dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(
                embed_dims=16,
                num_layers=2,
                num_heads=2,
                feedforward_channels=32,
            ),
            img_size=32,
            patch_size=8,
        ),
        None,
        16,
    ),
}


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('num_sampled', [None, 4])
def test_other_backbones(name, num_sampled):
    backbone, neck, in_channels = BACKBONES[name]
    model = build(
        backbone=copy.deepcopy(backbone),
        neck=neck,
        head=dict(
            type='mm_rotssl.ExemplarHead',
            in_channels=in_channels,
            num_exemplars=6,
            num_sampled=num_sampled,
        ),
    )
    images, samples = batch((5, 0), 32)
    optimizer = RowSGD(model.parameters(), 0.05)

    def entropy():
        """Of all classes, whatever the training has seen."""
        feats = model.extract_feat(images)
        logits = model.head(model.neck(feats) if neck else feats)
        logits = logits.detach().double().numpy()
        return cross_entropy(logits, (5, 0))[0]

    first = entropy()
    for _ in range(4):
        loss = model(images, samples, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert entropy() < 0.8 * first
    sample = model.eval()(images, mode='predict')[0]
    assert sample.feats[-1].shape == (in_channels,)


# Runs of the engine, with the config of the digits.


@pytest.fixture(autouse=True, scope='module')
def _no_pretty_text():
    """Formatting the config, for the log, would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'pretty_text', '')
        yield


def build_runner(folder, epochs=1, validate=False, resume=None, **settings):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(folder),
            'experiment_name': f'test_exemplar_cnn_{next(COUNTER)}',
            'model.backbone.arch': '4c5-5c5-6f',
            'model.head.in_channels': 6,
            'model.head.num_exemplars': 24,
            'train_cfg.max_epochs': epochs,
            'param_scheduler.T_max': 3,
            'train_dataloader.batch_size': 16,
            'train_dataloader.num_workers': 0,
            'train_dataloader.dataset.dataset.indices': 60,
            'train_dataloader.dataset.seed_patches.num_exemplars': 24,
            'train_dataloader.dataset.num_deformations': 2,
            'val_dataloader.dataset.indices': 40,
            'val_cfg.reference_dataloader.dataset.indices': 50,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            'log_level': 'ERROR',
            **settings,
        }
    )
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if resume is not None:
        cfg.resume = True
        cfg.load_from = str(resume)
    return Runner.from_cfg(cfg)


MODES = {
    'all': {},
    'sampled': {
        'model.head.num_sampled': 5,
        'optim_wrapper.optimizer.type': 'mm_rotssl.RowSGD',
        'optim_wrapper.optimizer.lr': 0.02,
        'optim_wrapper.optimizer.momentum': 0.9,
        'optim_wrapper.paramwise_cfg': dict(
            custom_keys={'head.fc': dict(lr_mult=10.0)}
        ),
    },
}


@pytest.mark.parametrize('mode', MODES)
def test_resumed_equals_uninterrupted(tmp_path, mode):
    settings = MODES[mode]
    # no seed is set: the resumed run must take it from the checkpoint
    whole = build_runner(tmp_path / 'whole', 3, **settings)
    whole.train()
    checkpoint = tmp_path / 'whole' / 'epoch_1.pth'
    torch.manual_seed(0)
    resumed = build_runner(
        tmp_path / 'resumed', 3, resume=checkpoint, **settings
    )
    resumed.train()
    assert resumed.iter == whole.iter == 9
    assert resumed.seed == whole.seed
    want, got = (runner.model.state_dict() for runner in (whole, resumed))
    saved = torch.load(checkpoint, weights_only=False)['state_dict']
    for name, value in want.items():
        assert torch.equal(value, got[name]), name
        # of which the checkpoint held another; the exemplars are the same
        same = torch.equal(value, saved[name])
        assert same == (name == 'head.fingerprint'), name
    want, got = (
        runner.optim_wrapper.state_dict() for runner in (whole, resumed)
    )
    assert want['param_groups'] == got['param_groups']
    assert want['state'].keys() == got['state'].keys()
    for key, state in want['state'].items():
        for name, value in state.items():
            assert torch.equal(value, got['state'][key][name])


def test_knn_accuracy(tmp_path):
    runner = build_runner(
        tmp_path,
        validate=True,
        val_evaluator=[dict(type='mm_rotssl.KNNAccuracy', k=3)],
    )
    metrics = runner.val()

    def features(dataloader):
        feats, labels = [], []
        for data in dataloader:
            data = runner.model.data_preprocessor(data)
            maps = runner.model.backbone(data['inputs'])
            feats.append([stage.mean((2, 3)) for stage in maps])
            labels += [int(sample.gt_label) for sample in data['data_samples']]
        return [torch.cat(f) for f in zip(*feats, strict=True)], torch.tensor(
            labels
        )

    with torch.no_grad():
        bank, bank_labels = features(runner.val_loop.reference_dataloader)
        queries, labels = features(runner.val_dataloader)
    assert (len(bank_labels), len(labels)) == (50, 40)
    for stage in range(3):
        scores = knn_classify(bank[stage], bank_labels, queries[stage], 3)
        accuracy = 100 * (scores.argmax(1) == labels).float().mean()
        assert metrics[f'knn/stage{stage + 1}'] == pytest.approx(
            accuracy.item()
        )
