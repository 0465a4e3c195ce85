"""Extract and use as many features as ImageNet has, in little memory.

    python benchmarks/large_features.py --out work_dirs/large

1.28 million vectors of 2,048 numbers are 10.5 GB. They are extracted with a
stand-in for a network (one convolution of random weights) from a stand-in for
images (8 x 8 pixels of two kinds, told apart by a faint shade), then used as
the reference set of kNN and of a linear probe. Memory of the process is
limited; what files are mapped to does not count, for the system takes it back
at will. Written are the peak of its own memory and the seconds of each part.
"""

import argparse
import json
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measure import machine
from mmengine.dataset import default_collate
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mm_rotssl.evaluation.feature_store import FeatureStore
from mm_rotssl.evaluation.features import Features
from mm_rotssl.evaluation.functional import (
    accuracy,
    knn_classify,
    linear_probe,
)
from mm_rotssl.evaluation.report import write_summary

SIDE = 8


class Images(Dataset):
    """Random images, made when asked for."""

    pipeline: list = []

    def __init__(self, count: int, first: int = 0) -> None:
        self.count = count
        self.first = first

    def __len__(self) -> int:
        """Number of images."""
        return self.count

    def get_data_info(self, index: int) -> dict[str, Any]:
        """What the store asks for: which image it is."""
        return dict(img=torch.tensor([self.first + index]).numpy())

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An image as a pipeline gives it."""
        number = self.first + index
        generator = torch.Generator().manual_seed(number)
        image = torch.rand(3, SIDE, SIDE, generator=generator) * 200
        image[0] += 20 * (number % 2)
        sample = DataSample().set_gt_label(number % 2)
        sample.set_field(index, 'sample_idx', field_type='metainfo')
        return dict(inputs=image.byte(), data_samples=sample)


class Network(nn.Module):
    """One convolution in place of a backbone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Conv2d(3, channels, SIDE)
        self.data_preprocessor = SelfSupDataPreprocessor(
            mean=[100.0] * 3, std=[60.0] * 3
        )

    def forward(self, inputs: torch.Tensor, mode: str) -> tuple:
        """The only stage."""
        assert mode == 'tensor'
        return (self.backbone(inputs).relu(),)


def own_memory() -> int:
    """Bytes of the process that no file stands behind."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('RssAnon'):
            return 1024 * int(line.split()[1])
    raise SystemExit('/proc/self/status names no RssAnon: Linux is needed.')


@contextmanager
def watched(found: dict[str, Any], name: str) -> Iterator[None]:
    """Note the seconds and the peak of memory."""
    ended = threading.Event()
    peak = [0]

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], own_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.monotonic()
    yield
    ended.set()
    thread.join()
    found[name] = dict(
        seconds=round(time.monotonic() - start, 1),
        peak_gb=round(peak[0] / 1e9, 2),
    )
    print(name, json.dumps(found[name]), flush=True)


def main() -> None:
    """Extract, classify, write."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--images', type=int, default=1_281_167)
    parser.add_argument('--channels', type=int, default=2048)
    parser.add_argument('--queries', type=int, default=1000)
    parser.add_argument('--limit-gb', type=float, default=4)
    args = parser.parse_args()
    limit = int(args.limit_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    found: dict[str, Any] = {}
    store = FeatureStore(args.out / 'cache')
    model: Any = Network(args.channels)
    reference, test = (
        DataLoader(
            Images(count, first), batch_size=256, collate_fn=default_collate
        )
        for first, count in ((0, args.images), (args.images, args.queries))
    )
    with watched(found, 'start'):
        time.sleep(0.2)
    with watched(found, 'extraction'):
        feats = Features.extract(model, reference, test, store=store)
    with watched(found, 'again, from the disk'):
        feats = Features.extract(model, reference, test, store=store)
    with watched(found, 'kNN, k = 200'):
        scores = knn_classify(
            feats.reference[0], feats.reference_labels, feats.test[0], 200
        )
        found_classes = scores.argmax(1)
    found['kNN accuracy'] = accuracy(found_classes, feats.test_labels)
    with watched(found, 'linear probe, C = 1e-6'):
        found_classes = linear_probe(
            feats.reference[0], feats.reference_labels, feats.test[0], 1e-6
        )
    found['linear accuracy'] = accuracy(found_classes, feats.test_labels)
    write_summary(
        args.out / 'large_features.json',
        machine=machine(),
        images=args.images,
        channels=args.channels,
        queries=args.queries,
        limit_gb=args.limit_gb,
        bytes_on_disk=4 * args.images * args.channels,
        found=found,
    )


if __name__ == '__main__':
    main()
