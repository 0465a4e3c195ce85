"""Two processes with half a batch each train as one with the whole batch."""

import copy
import functools
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import WORLD_SIZE, run_on_two
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmpretrain.models.heads import LatentCrossCorrelationHead as HostHead
from mmpretrain.structures import DataSample
from test_all_configs import CONFIGS, narrow, read_only
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from mm_rotssl.models import (
    InstanceDiscriminationHead,
    PseudoLabel,
    SelfClassifierHead,
)
from mm_rotssl.registry import MODELS

BATCH = 8
STEPS = 2
# Backbones and necks work on an image at a time, once batch normalization is
# held. Configs that are alike in the rest have one test.
# Their losses are in float32; others can be in float64, where nothing gets
# lost in a gradient that is small beside its terms.
IN_FLOAT32 = (InstanceDiscriminationHead, SelfClassifierHead)
ALONE = ('backbone', 'neck', 'predictor', 'data_preprocessor', 'init_cfg')
# The small ones, and one with a queue.
TRIED = {
    path.stem: path
    for path in CONFIGS
    if 'digits' in path.stem
    or path.stem == 'self-classifier_resnet18_1xb512-larc-coslr-200e_cifar10'
}
BARLOW = 'barlowtwins_nin-w24_1xb128-20e_digits'
UPSTREAM = 'upstream'
GATHERING = (
    BARLOW,
    'simclr_nin-w24_1xb128-20e_digits',
    'swav_nin-w24_1xb128-20e_digits',
)


def parts(node, path=''):
    """Types of a model's parts, by their place."""
    if isinstance(node, dict):
        if 'type' in node:
            yield path, str(node['type'])
        for key, child in node.items():
            if key not in ALONE:
                yield from parts(child, f'{path}.{key}')


def kind(path):
    return frozenset(parts(read_only(path).model))


def settings(model):
    """Of a model that is small, draws nothing and uses what it has."""
    model = copy.deepcopy(model)
    if 'tasks' not in model:
        narrow(model)
    for task in (model, *model.get('tasks', {}).values()):
        if task.get('type') == 'mm_rotssl.RotationFeatureDecoupling':
            # the weights of noisy labels from the start, and no few images
            task.noise_start_epoch = 0
            task.instance_head.memory = dict(length=3 * BATCH)
        if task.get('type') == 'mm_rotssl.SelfLabel':
            # or nothing would be learned
            task.threshold = 0.0
        if task.get('type') == 'mm_rotssl.NPID':
            task.head.memory = dict(length=3 * BATCH)
        if 'queue' in task:
            # full after a step
            task.queue.length = BATCH
    return model.to_dict()


def hold_norm(model):
    """Normalize each image by itself where it would be among a batch."""
    for name, module in model.named_modules():
        # in the head it is a part of the loss
        if isinstance(module, _BatchNorm) and not name.endswith('head.bn'):
            module.forward = functools.partial(
                F.group_norm,
                num_groups=1,
                weight=module.weight,
                bias=module.bias,
            )


def build(model):
    torch.manual_seed(0)
    # of a memory bank
    np.random.seed(0)
    init_default_scope('mmpretrain')
    # BYOL's momentum depends on it
    MessageHub.get_current_instance().update_info('max_iters', 10)
    model = MODELS.build(model)
    model.train()
    hold_norm(model)
    if type(model.head) is HostHead:
        # as if each process normalized by the whole batch
        model.head.bn.eval()
    single = False
    for module in model.modules():
        if isinstance(module, PseudoLabel):
            # as RelabelHook would have labeled the images
            names = [str(i) for i in range(3 * BATCH)]
            for bank in (module.bank, *module.memories):
                bank.bind_dataset(names)
            module.bank.labels.copy_(torch.arange(len(names)) % 5)
            module.bank.stamp.zero_()
        if isinstance(module, _DropoutNd):
            module.eval()
        single = isinstance(module, IN_FLOAT32) or single
    return model if single else model.double()


def data_of(model, step):
    """A batch, as the model takes it, and how to take a part of it."""
    generator = torch.Generator().manual_seed(step)

    dtype = next(model.parameters()).dtype

    def images():
        shape = (BATCH, 3, 32, 32)
        return torch.randn(shape, generator=generator).to(dtype)

    def samples():
        return [
            DataSample(
                exemplar_label=i,
                rotation_noise=np.linspace(0, i / BATCH, 4),
                metainfo=dict(sample_idx=BATCH * step + i),
            )
            for i in range(BATCH)
        ]

    def inputs(kind):
        single = (
            *('RotNet', 'RotationFeatureDecoupling', 'ExemplarCNN'),
            'NPID',
        )
        if kind in single:
            return images()
        # two views, and a small crop where it is rotated or local
        more = kind in ('ESSL', 'SelfClassifier')
        return [images() for _ in range(2 + more)]

    tasks = model.tasks if type(model).__name__ == 'MultiTask' else {'': model}
    return {
        name: (inputs(type(task).__name__), samples())
        for name, task in tasks.items()
    }


def arguments(data, part):
    found = {
        name: dict(
            inputs=[view[part] for view in inputs]
            if isinstance(inputs, list)
            else inputs[part],
            data_samples=samples[part],
        )
        for name, (inputs, samples) in data.items()
    }
    return found.get('', dict(inputs=found))


def train(model, rank=None):
    """Losses and gradients of some steps."""
    wrapped, part, randint = model, slice(None), torch.randint
    if rank is not None:
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        part = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)

    def shared_randint(high, shape, **kwargs):
        """What one process draws for all images, for those of this one."""
        drawn = randint(high, (BATCH, *shape[1:]), **kwargs)
        return drawn[part]

    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    optimizer = torch.optim.SGD(parameters.values(), 1e-3)
    steps = []
    torch.randint = shared_randint
    try:
        for step in range(STEPS):
            torch.manual_seed(step)
            losses = wrapped(
                **arguments(data_of(model, step), part), mode='loss'
            )
            optimizer.zero_grad()
            loss = model.parse_losses(losses)[0]
            loss.backward()
            grads = {
                name: parameter.grad.clone()
                for name, parameter in parameters.items()
            }
            optimizer.step()
            steps.append(dict(loss=loss.detach(), grads=grads))
    finally:
        torch.randint = randint
    return steps


def unequal_batches(rank, model):
    data = data_of(model, 0)
    try:
        model(**arguments(data, slice(2 + rank)), mode='loss')
    except ValueError as error:
        return str(error)


def train_all(rank, models):
    found = {}
    for name, model in models.items():
        found[name] = train(build(model), rank)
        if rank:
            # they are the same on both
            for step in found[name]:
                del step['grads']
    found['errors'] = {
        name: unequal_batches(rank, build(models[name])) for name in GATHERING
    }
    return found


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def models():
    found = {
        name: settings(read_only(path).model) for name, path in TRIED.items()
    }
    found[UPSTREAM] = copy.deepcopy(found[BARLOW])
    found[UPSTREAM]['head']['type'] = 'LatentCrossCorrelationHead'
    return found


@pytest.fixture(scope='module')
def ranks(models):
    return run_on_two(train_all, models)


def compare(whole, ranks, name, factor=1.0):
    """Mean losses and gradients with those of one process."""
    for step, want in enumerate(whole):
        losses = [found[name][step]['loss'] for found in ranks]
        torch.testing.assert_close(
            sum(losses) / WORLD_SIZE, want['loss'], rtol=1e-5, atol=1e-6
        )
        found = ranks[0][name][step]['grads']
        assert list(found) == list(want['grads'])
        largest = max(grad.norm() for grad in want['grads'].values())
        assert largest > 0
        for key, grad in want['grads'].items():
            error = (found[key] - factor * grad).norm()
            assert error <= 1e-4 * grad.norm() + 1e-6 * largest, (step, key)


@pytest.mark.parametrize('name', TRIED)
def test_two_processes_equal_one(name, models, ranks):
    compare(train(build(models[name])), ranks, name)


def test_upstreams_barlow_twins(models, ranks):
    """Half the gradient. When this fails, upstream is mended.

    Beside it, each process would normalize by its own batch.
    """
    compare(train(build(models[UPSTREAM]))[:1], ranks, UPSTREAM, 0.5)


@pytest.mark.parametrize('name', GATHERING)
def test_batches_of_different_sizes(name, ranks):
    """An error on both, so that none waits for the other."""
    for found in ranks:
        assert re.fullmatch(
            r'The processes have batches of \[2, 3\] images, and \w+ needs '
            r'them alike\. Set train_dataloader\.drop_last=True\.',
            found['errors'][name],
        )


def test_each_config_is_of_a_kind_that_is_tried():
    tried = {kind(path) for path in TRIED.values()}
    for path in CONFIGS:
        # those that train on labels are mmpretrain's
        if read_only(path).model.type != 'ImageClassifier':
            assert kind(path) in tried, path.stem
