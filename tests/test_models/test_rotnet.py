import copy

import numpy as np
import pytest
import torch
from gloo import run_on_two
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch.nn.parallel import DistributedDataParallel

from mm_rotssl.models import RotationHead, RotNet

MODEL = dict(
    backbone=dict(
        type='mm_rotssl.NIN', base_channels=6, out_indices=(0, 1, 2, 3)
    ),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=6),
)


def build(**kwargs):
    torch.manual_seed(0)
    model = RotNet(**{**copy.deepcopy(MODEL), **kwargs})
    model.init_weights()
    return model


def cross_entropy(logits, labels):
    """Equations 2 and 3 of the paper, with its gradient, in float64."""
    logits = np.asarray(logits, np.float64)
    loss, grad = 0.0, np.zeros_like(logits)
    for row, label in enumerate(labels):
        p = np.exp(logits[row] - logits[row].max())
        p /= p.sum()
        loss -= np.log(p[label]) / len(labels)
        grad[row] = p / len(labels)
        grad[row, label] -= 1 / len(labels)
    return loss, grad


def test_head_loss_and_gradient():
    torch.manual_seed(0)
    head = RotationHead(5, 4)
    feat = torch.randn(8, 5, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    out = head.loss((feat,), labels)
    weight = head.fc.weight.detach().double().numpy()
    bias = head.fc.bias.detach().double().numpy()
    logits = feat.detach().double().numpy() @ weight.T + bias
    loss, grad = cross_entropy(logits, labels.tolist())
    assert out['loss'].item() == pytest.approx(loss, rel=1e-6)
    assert out['rotation_accuracy'].item() == pytest.approx(
        100 * np.mean(logits.argmax(1) == labels.numpy())
    )
    out['loss'].backward()
    np.testing.assert_allclose(feat.grad, grad @ weight, atol=1e-6)
    np.testing.assert_allclose(
        head.fc.weight.grad,
        grad.T @ feat.detach().double().numpy(),
        atol=1e-6,
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_head_is_float32_inside(dtype):
    head = RotationHead(2, 4).to(dtype)
    with torch.no_grad():
        head.fc.weight.fill_(100.0)
        head.fc.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    feat = torch.full((3, 2), 200.0, dtype=dtype)
    loss = head.loss((feat,), torch.tensor([0, 1, 2]))['loss']
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_head_shape_error_names_the_key():
    with pytest.raises(ValueError, match=r'model\.head\.in_channels'):
        RotationHead(5)((torch.zeros(2, 6),))
    with pytest.raises(ValueError, match='GlobalAveragePooling'):
        RotationHead(5)((torch.zeros(2, 5, 3, 3),))


def reference_rows(model, images, rotations):
    """Logits of each copy, the copies made with numpy."""
    rows = [
        np.rot90(image, angle // 90, (1, 2)).copy()
        for image in images.numpy()
        for angle in rotations
    ]
    feats = model.backbone(torch.from_numpy(np.stack(rows)))[-1]
    return model.head.fc(feats.mean((2, 3)))


@pytest.mark.parametrize('rotations', [(0, 90, 180, 270), (0, 180), (90, 270)])
def test_loss_and_gradient_of_the_whole(rotations):
    images = torch.randn(3, 3, 16, 16)
    model = build(rotations=rotations)
    out = model(images, mode='loss')

    other = build(rotations=rotations)
    logits = reference_rows(other, images, rotations)
    labels = list(range(len(rotations))) * 3
    loss, grad = cross_entropy(logits.detach(), labels)
    assert out['loss'].item() == pytest.approx(loss, rel=1e-5)

    out['loss'].backward()
    logits.backward(torch.from_numpy(grad).float())
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_all_copies_in_one_forward():
    model = build()
    sizes = []
    model.backbone.register_forward_hook(
        lambda _, inputs, __: sizes.append(len(inputs[0]))
    )
    model(torch.randn(3, 3, 16, 16), mode='loss')
    assert sizes == [12]


def test_labels_never_reach_the_loss():
    images = torch.randn(2, 3, 16, 16)
    losses = []
    for label in (0, 7):
        samples = [DataSample().set_gt_label(label) for _ in range(2)]
        losses.append(build().loss(images, samples)['loss'])
    losses.append(build().loss(images, None)['loss'])
    assert losses[0] == losses[1] == losses[2]


def test_rotation_by_the_dataset():
    images = torch.randn(3, 3, 16, 16)
    labels = [2, 0, 3]
    samples = []
    rotated = []
    for image, label in zip(images, labels, strict=True):
        sample = DataSample().set_gt_label(9)
        sample.set_field(label, 'rotation_label')
        samples.append(sample)
        rotated.append(torch.rot90(image, label, (1, 2)))
    rotated = torch.stack(rotated)
    loss = build(rotated_by_dataset=True).loss(rotated, samples)['loss']
    other = build()
    logits = other.head.fc(other.backbone(rotated)[-1].mean((2, 3)))
    assert loss.item() == pytest.approx(
        cross_entropy(logits.detach(), labels)[0], rel=1e-5
    )
    with pytest.raises(ValueError, match='RandomRotationWithLabel'):
        build(rotated_by_dataset=True).loss(rotated, [DataSample()] * 3)


def test_predict():
    model = build().eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        samples = model(images, [DataSample() for _ in images], 'predict')
        logits = reference_rows(model, images, (0, 90, 180, 270))
        maps = model.backbone(images)
    expected = np.exp(logits.double().numpy())
    expected = (expected / expected.sum(1, keepdims=True)).reshape(3, 4, 4)
    for i, sample in enumerate(samples):
        np.testing.assert_allclose(
            sample.rotation_scores, expected[i], atol=1e-5
        )
        assert len(sample.feats) == 4
        for feat, stage in zip(sample.feats, maps, strict=True):
            torch.testing.assert_close(feat, stage[i].mean((1, 2)))
    assert len(model.predict(images)) == 3


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match='num_rotations=4 does not fit'):
        build(
            rotations=(0, 180),
            head=dict(
                type='mm_rotssl.RotationHead', in_channels=6, num_rotations=4
            ),
        )
    with pytest.raises(ValueError, match='rotations='):
        build(rotations=(0, 91))
    with pytest.raises(ValueError, match='square'):
        build().loss(torch.zeros(1, 3, 16, 8))


@pytest.mark.parametrize(
    ('backbone', 'neck', 'in_channels', 'size'),
    [
        (dict(type='mmpretrain.ResNet', depth=18), True, 512, 32),
        (
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
            False,
            16,
            32,
        ),
        (
            dict(
                type='mmpretrain.TIMMBackbone',
                model_name='resnet18',
                features_only=True,
                out_indices=(3, 4),
            ),
            True,
            512,
            32,
        ),
    ],
)
def test_other_backbones(backbone, neck, in_channels, size):
    if 'TIMM' in backbone['type']:
        pytest.importorskip('timm')
    init_default_scope('mmpretrain')
    model = build(
        backbone=dict(backbone),
        neck=dict(type='mmpretrain.GlobalAveragePooling') if neck else None,
        head=dict(type='mm_rotssl.RotationHead', in_channels=in_channels),
    )
    images = torch.randn(2, 3, size, size)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    first = model(images, mode='loss')['loss']
    for _ in range(4):
        loss = model(images, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model(images, mode='loss')['loss'] < first
    sample = model.eval()(images, mode='predict')[0]
    assert sample.feats[-1].shape == (in_channels,)


def _distributed_gradients(rank):
    model = build().double()
    model.backbone.eval()  # BatchNorm statistics are per process
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    images = torch.randn(
        4, 3, 16, 16, generator=torch.Generator().manual_seed(1)
    ).double()
    loss = wrapped(images[rank::2], None, mode='loss')['loss']
    loss.backward()
    return dict(loss=loss.detach(), grads=[p.grad for p in model.parameters()])


def test_two_processes_equal_one():
    model = build().double()
    model.backbone.eval()
    images = torch.randn(
        4, 3, 16, 16, generator=torch.Generator().manual_seed(1)
    ).double()
    loss = model(images, mode='loss')['loss']
    loss.backward()
    outs = run_on_two(_distributed_gradients)
    assert sum(out['loss'] for out in outs).item() / 2 == pytest.approx(
        loss.item(), rel=1e-6
    )
    for out in outs:
        for ours, single in zip(out['grads'], model.parameters(), strict=True):
            torch.testing.assert_close(ours, single.grad, rtol=1e-5, atol=1e-9)
