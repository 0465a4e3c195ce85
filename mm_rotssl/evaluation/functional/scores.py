import torch


def accuracy(
    predicted: torch.Tensor, labels: torch.Tensor, by_class: bool = False
) -> float:
    """Share of images whose class is predicted, in percent.

    Args:
        predicted (Tensor): Predicted classes, int64 (N,).
        labels (Tensor): True classes, int64 (N,), on the same device.
        by_class (bool): Average over the classes that occur, so that each
            counts the same however many images it has. Defaults to False,
            over the images.

    Returns:
        float: From 0 to 100.

    Examples:
        >>> import torch
        >>> labels = torch.tensor([0, 0, 0, 1])
        >>> accuracy(torch.tensor([0, 0, 0, 0]), labels)
        75.0
        >>> accuracy(torch.tensor([0, 0, 0, 0]), labels, by_class=True)
        50.0
    """
    hits = (predicted == labels).double()
    if by_class:
        hits = torch.stack(
            [hits[labels == label].mean() for label in labels.unique()]
        )
    return 100 * hits.mean().item()
