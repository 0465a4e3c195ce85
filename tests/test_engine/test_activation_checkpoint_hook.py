import pytest
import torch
from tiny_run import TinyModel, build_runner
from torch import nn

from mm_rotssl.utils import InputError


def train(folder, hooks, **settings):
    torch.manual_seed(0)
    model = TinyModel()
    model.backbone.append(nn.Dropout(0.5))
    calls = []
    model.backbone[0].register_forward_hook(lambda *_: calls.append(1))
    runner = build_runner(folder, hooks, model, **settings)
    torch.manual_seed(1)
    runner.train()
    return model.state_dict(), len(calls)


@pytest.mark.parametrize('names', ['backbone', ['backbone', 'head']])
def test_nothing_changes_but_memory(tmp_path, names):
    hooks = ['GradientCheckHook', 'ActivationCheckpointHook']
    want, calls = train(tmp_path / 'plain', hooks)
    setting = dict(activation_checkpointing=names)
    # where a config has keys that the runner has no argument for
    found, again = train(tmp_path / 'saving', hooks, cfg=setting)
    # computed again
    assert again == 2 * calls
    # weights, and the counts and means of normalization
    assert found.keys() == want.keys()
    for name, value in want.items():
        assert torch.equal(found[name], value), name


def test_the_engine_alone_trains_no_backbone(tmp_path):
    """What the hook is for; if this fails the engine has learned it."""
    setting = dict(activation_checkpointing=['backbone'])
    with pytest.raises(InputError, match='None of the 4 parameters'):
        train(tmp_path, ['GradientCheckHook'], cfg=setting)
