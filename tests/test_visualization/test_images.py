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
