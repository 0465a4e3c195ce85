"""A run of a moment, for tests of what happens around the network."""

import itertools

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

COUNTER = itertools.count()


class TinyModel(BaseModel):
    """A backbone with normalization, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()
        )
        self.head = nn.Linear(4, 1)

    def loss(self, inputs):
        return dict(loss=self.head(self.backbone(inputs)).square().mean())

    def forward(self, inputs, mode='tensor'):
        return self.loss(inputs)


def build_runner(folder, hooks=(), model=None, epochs=3, **settings):
    """Two steps an epoch, a checkpoint after each."""
    data = [dict(inputs=row) for row in torch.rand(4, 3)]
    checkpoint = dict(type='mm_rotssl.CheckpointHook', interval=1)
    checkpoint.update(settings.pop('checkpoint', {}))
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    wrapper.update(settings.pop('optim_wrapper', {}))
    return Runner(
        TinyModel() if model is None else model,
        str(folder),
        train_dataloader=DataLoader(data, 2),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=wrapper,
        default_hooks=dict(checkpoint=checkpoint),
        custom_hooks=[dict(type=f'mm_rotssl.{name}') for name in hooks],
        default_scope='mmpretrain',
        experiment_name=f'tiny_run_{next(COUNTER)}',
        log_level='WARNING',
        **settings,
    )
