import numpy as np
import pytest
import torch
from mmpretrain.models import ClsDataPreprocessor, SelfSupDataPreprocessor

from mm_rotssl.models import MultiChannelDataPreprocessor
from mm_rotssl.visualization import shown_image, shown_settings, to_rgb


def test_images_are_shown_in_their_colors():
    red = torch.zeros(3, 4, 4, dtype=torch.uint8)
    red[2] = 200  # BGR
    data = [dict(inputs=red)]
    shown = shown_image(data, 0, dict(bgr_to_rgb=True))
    assert shown.shape == (4, 4, 3)
    assert shown[0, 0].tolist() == [200, 0, 0]
    for settings in (dict(bgr_to_rgb=False), None):
        assert shown_image(data, 0, settings)[0, 0].tolist() == [0, 0, 200]


def test_gray_images_are_shown():
    gray = torch.arange(6, dtype=torch.uint8).view(1, 2, 3)
    shown = shown_image([dict(inputs=gray)], 0, None)
    assert shown[1, 2].tolist() == [5, 5, 5]
    assert shown.shape == (2, 3, 3)


def test_of_many_channels_three_are_shown():
    many = torch.arange(5, dtype=torch.uint8)[:, None, None] * 50
    data = [dict(inputs=many.expand(5, 2, 2))]
    shown = shown_image(data, 0, None)
    assert shown.shape == (2, 2, 3)
    assert shown[0, 0].tolist() == [0, 50, 100]
    shown = shown_image(data, 0, dict(rgb_channels=(4, 1, 0), mean=[1] * 5))
    assert shown[0, 0].tolist() == [200, 50, 0]
    two = shown_image([dict(inputs=many[:2])], 0, None)
    assert two[0, 0].tolist() == [0, 0, 0]


def test_other_values_are_brought_to_eight_bits():
    values = torch.tensor([-2.0, 0, 2, 9]).view(4, 1, 1)
    data = [dict(inputs=values)]
    settings = dict(mean=[0.0, 0, 0, 9], std=[1.0, 1, 2, 1])
    assert shown_image(data, 0, settings)[0, 0].tolist() == [0, 128, 191]
    # as the preprocessor, which exchanges channels before it normalizes
    rgb = dict(inputs=torch.tensor([2.0, 0, -2]).view(3, 1, 1))
    settings = dict(mean=[0.0, 0, 2], std=[1.0, 1, 1], bgr_to_rgb=True)
    assert shown_image([rgb], 0, settings)[0, 0].tolist() == [0, 128, 128]
    gray = dict(inputs=torch.tensor([[[1.0, 3.0]]]))
    assert shown_image([gray], 0, None)[0, :, 0].tolist() == [0, 255]
    settings = dict(mean=[2.0], std=[1.0])
    assert shown_image([gray], 0, settings)[0, :, 0].tolist() == [64, 191]


def test_what_was_not_measured_is_dark():
    values = np.array([[[2.0], [np.nan], [4.0], [np.inf]]])
    assert to_rgb(values, None)[0, :, 0].tolist() == [128, 0, 255, 0]


def test_statistics_of_other_channels_are_not_taken():
    """A gray image is normalized to three channels."""
    gray = np.array([[[2.0], [4.0]]])
    settings = dict(mean=[1.0, 2, 3], std=[1.0, 1, 1])
    assert to_rgb(gray, settings)[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ('built', 'settings', 'channels'),
    [
        (SelfSupDataPreprocessor, dict(bgr_to_rgb=True), 3),
        (
            SelfSupDataPreprocessor,
            dict(mean=[1.0, 2, 3], std=[2.0, 2, 2], bgr_to_rgb=True),
            3,
        ),
        (
            ClsDataPreprocessor,
            dict(mean=[1.0, 2, 3], std=[2.0, 2, 2], to_rgb=True),
            3,
        ),
        (SelfSupDataPreprocessor, {}, 3),
        (
            MultiChannelDataPreprocessor,
            dict(mean=[1.0] * 5, std=[2.0] * 5, rgb_channels=(4, 1, 0)),
            5,
        ),
    ],
)
def test_a_preprocessor_tells_its_settings(built, settings, channels):
    rng = np.random.default_rng(0)
    read = shown_settings(built(**settings))
    for pixels in (
        rng.integers(0, 256, (4, 4, channels)).astype(np.uint8),
        rng.normal(size=(4, 4, channels)),
    ):
        want = to_rgb(pixels, settings)
        assert np.array_equal(to_rgb(pixels, read), want)
