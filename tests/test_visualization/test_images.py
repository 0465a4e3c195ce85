import torch

from mm_rotssl.visualization import shown_image


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
