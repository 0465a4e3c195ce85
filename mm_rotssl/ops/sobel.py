import torch
import torch.nn.functional as F


def sobel(images: torch.Tensor) -> torch.Tensor:
    r"""Gradients of an image's gray values.

    Gray is the mean of the channels. With the kernels

    .. math::
        \begin{pmatrix} 1 & 0 & -1 \\ 2 & 0 & -2 \\ 1 & 0 & -1 \end{pmatrix},
        \quad
        \begin{pmatrix} 1 & 2 & 1 \\ 0 & 0 & 0 \\ -1 & -2 & -1 \end{pmatrix}

    it is correlated, with zeros around the image: there the result tells of
    the border and not of the image.

    Source: Caron et al., *Deep Clustering for Unsupervised Learning of
    Visual Features*, ECCV 2018 (https://arxiv.org/abs/1807.05520), section
    4, and the authors' code, where it is a part of the network.

    Args:
        images (Tensor): Normalized images (N, C, H, W), float.

    Returns:
        Tensor: (N, 2, H, W): how gray falls to the right, and downward.

    Examples:
        >>> import torch
        >>> ramp = torch.arange(5.0).expand(1, 3, 5, 5)
        >>> sobel(ramp)[0, :, 2, 2].tolist()
        [-8.0, 0.0]
    """
    falling = torch.tensor([1.0, 0.0, -1.0])
    smooth = torch.tensor([1.0, 2.0, 1.0])
    kernels = torch.stack(
        [torch.outer(smooth, falling), torch.outer(falling, smooth)]
    )
    gray = images.mean(1, keepdim=True)
    return F.conv2d(gray, kernels[:, None].to(gray), padding=1)
