from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Subset

from mm_rotssl.datasets import sample_names
from mm_rotssl.models import MemoryBank
from mm_rotssl.utils import InputError, fingerprint

from ..feature_store import EMBEDDING
from ..functional import accuracy, knn_classify
from ..measurement import Measurement, Metric
from ..subject import Subject
from .base import Protocol


@dataclass(frozen=True)
class BankKNN(Protocol):
    """Let the rows of a memory bank vote, the paper's way.

    Source: Wu et al., *Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination*, CVPR 2018, section 3.4, and the authors' code:
    the features of the training images are the rows of the bank, means over
    the views of the last epochs, those of the test images the embeddings. (At
    the end of a run on CIFAR-10 that code embeds the training images anew:
    that is the protocol ``knn`` on the embedding.)

    Args:
        k (int): Number of neighbors. Defaults to 200.
        temperature (float): Of the votes, see `vote`: that of the training,
            0.07 on ImageNet, 0.1 on CIFAR-10. Defaults to 0.07.
    """

    k: int = 200
    temperature: float = 0.07

    name = 'bank-knn'
    title = 'Nearest neighbors in the memory bank'
    about = (
        'As kNN, with the rows of the memory bank in place of the features of '
        'the images to learn from, and the embeddings of the test images '
        '(Wu et al., CVPR 2018, section 3.4). The images to learn from must '
        'be those that the network was trained on, all of them. Networks '
        'without a bank, such as untrained ones, are left out.'
    )
    labeled = True
    quick = False
    metrics = {
        'accuracy': Metric(
            'Accuracy', 'Accuracy on the test images.', '%', 'higher'
        )
    }

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: Of the embedding.

        Raises:
            InputError: If there is no bank, or it has other images than the
                reference set.
        """
        assert subject.reference is not None
        banks = [
            module
            for module in subject.model.modules()
            if isinstance(module, MemoryBank) and len(module)
        ]
        feats = subject.features
        if len(banks) != 1 or EMBEDDING not in feats.stages:
            raise InputError(
                f'{self.name} needs the memory bank of a trained NPID; this '
                f'network has {len(banks) or "none"}.'
            )
        (bank,) = banks
        dataset: Any = subject.reference.dataset
        if (
            isinstance(dataset, Subset)
            or len(dataset) != len(bank)
            or int(bank.fingerprint) != fingerprint(sample_names(dataset))
        ):
            raise InputError(
                f'{self.name} needs the training images as images to learn '
                f'from: the memory bank knows {len(bank)}, and there are '
                f'{len(dataset)}, or others. Name the folder that was trained '
                'on with --labeled, without --max-reference.'
            )
        labels = torch.tensor(
            [
                int(dataset.get_data_info(place)['gt_label'])
                for place in range(len(dataset))
            ]
        )
        queries = feats.test[feats.stages.index(EMBEDDING)]
        rows = bank.rows(
            torch.arange(len(bank), device=bank.fingerprint.device)
        )
        scores = knn_classify(
            rows.cpu(),
            labels,
            queries,
            min(self.k, len(rows)),
            self.temperature,
        )
        right = scores.argmax(1) == feats.test_labels
        yield Measurement(
            'accuracy',
            EMBEDDING,
            [accuracy(scores.argmax(1), feats.test_labels)],
            feats.chance,
            right.float().numpy(),
        )
