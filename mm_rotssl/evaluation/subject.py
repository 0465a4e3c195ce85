"""What a protocol measures."""

from functools import cached_property

import torch
from mmengine.model import BaseModel
from torch.utils.data import DataLoader

from .feature_store import FeatureStore, Report, choose_images
from .features import Features
from .variants import Variant


class Subject:
    """A network, and the images that it is measured on.

    Args:
        model (BaseModel): A self-supervised algorithm or an image classifier
            of mmpretrain, in eval mode on its device.
        store (FeatureStore): Keeps its features.
        images (DataLoader): Any images, in a fixed order; whether they have
            labels is of no account.
        reference (DataLoader, optional): Labeled images to learn from.
            Defaults to None.
        test (DataLoader, optional): Labeled images to test on. Defaults to
            None.
        test_to_reference (Tensor, optional): See `match_labels`, by which
            labels of the test images become those of the reference set.
            Defaults to None, they are the same.
        seed (int): Of whatever is drawn; the same for all networks that are
            compared. Defaults to 0.
        report (Callable, optional): Is told what is being done. Defaults to
            None.
    """

    def __init__(
        self,
        model: BaseModel,
        store: FeatureStore,
        images: DataLoader,
        reference: DataLoader | None = None,
        test: DataLoader | None = None,
        test_to_reference: torch.Tensor | None = None,
        seed: int = 0,
        report: Report | None = None,
    ) -> None:
        self.model = model
        self.store = store
        self.images = images
        self.reference = reference
        self.test = test
        self.test_to_reference = test_to_reference
        self.seed = seed
        self.report = report

    def image_features(
        self, variant: Variant | None = None, max_images: int | None = None
    ) -> dict[str, torch.Tensor]:
        """Features of the images, labeled or not.

        Args:
            variant (Variant, optional): Other versions of each image.
                Defaults to None, the image itself.
            max_images (int, optional): Take only so many images, drawn at
                random, in their order. Defaults to None, all.

        Returns:
            dict[str, Tensor]: Name of a stage -> features (N * copies, C),
            float32, mapped from the disk; the versions of an image are
            neighbors.
        """
        images = choose_images(self.images, max_images, self.seed)
        return self.store.extract(
            self.model, images, variant, report=self.report
        ).stages

    @cached_property
    def features(self) -> Features:
        """Features of the labeled images, by stage.

        Raises:
            ValueError: If an image has no label.
        """
        assert self.reference is not None
        assert self.test is not None
        return Features.extract(
            self.model,
            self.reference,
            self.test,
            self.test_to_reference,
            self.store,
            embedding=True,
            report=self.report,
        )
