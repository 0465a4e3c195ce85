from types import SimpleNamespace

import torch
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.evaluation.protocols.fine_tuning import fine_tuned_classes


def collate(items):
    inputs, labels = zip(*items, strict=True)
    return dict(
        inputs=torch.stack(inputs),
        data_samples=[SimpleNamespace(gt_label=label) for label in labels],
    )


def make_loader(labels, wrong=()):
    """Images whose brightness tells the class."""
    items = [
        (torch.full((3, 4, 4), 2.0 * label - 1), label ^ (i in wrong))
        for i, label in enumerate(labels)
    ]
    return DataLoader(items, batch_size=2, collate_fn=collate)


class Backbone(nn.Module):
    """Two stages, of which the last one is tuned."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 2, 1)
        self.second = nn.Conv2d(2, 4, 1)

    def forward(self, inputs):
        first = self.first(inputs)
        return first, self.second(first)


class Model(nn.Module):
    """An algorithm, as far as it is looked at."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()

    def data_preprocessor(self, batch, _):
        return batch

    def forward(self, inputs, mode):
        assert mode == 'tensor'
        return self.backbone(inputs)


def test_learns_from_the_chosen():
    torch.manual_seed(0)
    model = Model()
    before = [p.clone() for p in model.parameters()]
    reference = make_loader([0, 1, 1, 0, 0, 1], wrong=(0, 1))
    test = make_loader([1, 0, 0, 1, 1])
    settings = dict(num_classes=2, seed=0)
    # those that are labeled wrong are not used
    chosen = torch.tensor([2, 3, 4, 5])
    found = fine_tuned_classes(model, reference, test, chosen, **settings)
    assert found.tolist() == [1, 0, 0, 1, 1]
    found = fine_tuned_classes(
        model, reference, test, torch.tensor([0, 1]), **settings
    )
    assert found.tolist() == [0, 1, 1, 0, 0]
    # a copy was trained
    for now, then in zip(model.parameters(), before, strict=True):
        assert torch.equal(now, then)
