from types import SimpleNamespace

import torch
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.evaluation import fine_tune
from mm_rotssl.evaluation.protocols import fine_tuning
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


class Reads(list):
    """Notes which images are read."""

    def __init__(self, items):
        super().__init__(items)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def test_many_images_are_read_when_their_turn_comes(monkeypatch):
    torch.manual_seed(0)
    model = Model()
    test = make_loader([1, 0])
    chosen = torch.tensor([5, 3, 1, 0])
    tuned_networks = []
    for most in (4, 3):
        monkeypatch.setattr(fine_tuning, 'MOST_KEPT', most)
        items = Reads(make_loader([0, 1, 1, 0, 0, 1], wrong=(0,)).dataset)
        reference = DataLoader(items, batch_size=2, collate_fn=collate)
        monkeypatch.setattr(
            fine_tuning,
            'fine_tune',
            lambda *args: (
                tuned_networks.append(fine_tune(*args)) or tuned_networks[-1]
            ),
        )
        fine_tuned_classes(
            model, reference, test, chosen, num_classes=2, seed=1
        )
        # once, or in each of the 30 epochs
        assert len(items.read) == (4 if most == 4 else 30 * 4)
        assert set(items.read) == {5, 3, 1, 0}
    # it makes no difference
    for first, second in zip(
        *(tuned.parameters() for tuned in tuned_networks), strict=True
    ):
        assert torch.equal(first, second)
