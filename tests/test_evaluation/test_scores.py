import pytest
import torch

from mm_rotssl.evaluation import accuracy


def test_accuracy_of_images_and_of_classes():
    labels = torch.tensor([0, 0, 0, 0, 1, 2, 2])
    guessed = torch.tensor([0, 0, 0, 1, 0, 2, 2])
    assert accuracy(guessed, labels, False) == pytest.approx(500 / 7)
    assert accuracy(guessed, labels, True) == pytest.approx(
        100 * (0.75 + 0 + 1) / 3
    )
