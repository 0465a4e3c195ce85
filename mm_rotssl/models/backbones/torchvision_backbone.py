from typing import Any

import torch
from mmengine.model import BaseModule
from torch import nn
from torchvision.models import get_model

from mm_rotssl.registry import MODELS

# the classifier, by its name in torchvision's networks
HEADS = ('fc', 'classifier', 'heads')


@MODELS.register_module()
class TorchvisionBackbone(BaseModule):
    """A network of torchvision that gives the outputs of its stages.

    Stages are ``layer1`` to ``layer4`` of ResNets and their relatives;
    of networks with ``features``, the last layer at each size of the map;
    of vision transformers, the tokens behind each block. The classifier is
    left out.

    Args:
        model_name (str): Such as 'resnet50', see
            `torchvision.models.list_models`.
        pretrained (bool): Download torchvision's default weights. Defaults
            to False.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If there is no such network, or no stages are known of
            it.
    """

    def __init__(
        self,
        model_name: str,
        pretrained: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        model: Any = get_model(
            model_name, weights='DEFAULT' if pretrained else None
        )
        for head in HEADS:
            if hasattr(model, head):
                setattr(model, head, nn.Identity())
        self.model = model
        if hasattr(model, 'layer4'):
            self._stages = [getattr(model, f'layer{i}') for i in range(1, 5)]
        elif hasattr(model, 'encoder'):
            self._stages = list(model.encoder.layers)
        elif isinstance(getattr(model, 'features', None), nn.Sequential):
            self._stages = _last_at_each_size(model)
        else:
            self._stages = []
        if not self._stages or hasattr(model, 'permute'):
            raise ValueError(
                f'The stages of torchvision\'s "{model_name}" are not known. '
                'timm has most networks: use timm:NAME.'
            )

    def init_weights(self) -> None:
        """Keep what torchvision has initialized or loaded."""
        self._is_init = True

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the network.

        Args:
            inputs (Tensor): Images (N, 3, H, W), float.

        Returns:
            tuple[Tensor, ...]: Of each stage the map (N, C, H, W) or the
            tokens (N, L, C).
        """
        outputs, _ = _run(self.model, self._stages, inputs)
        return tuple(outputs)


def _run(
    model: nn.Module, layers: list[nn.Module], inputs: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What some layers give, and the whole."""
    outputs: list[torch.Tensor] = []

    def keep(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        outputs.append(output)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        return outputs, model(inputs)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _last_at_each_size(model: Any) -> list[nn.Module]:
    """Of the layers of ``features``, the last one at each map's size."""
    layers = list(model.features)
    training = model.training
    outputs, _ = _run(model.eval(), layers, torch.zeros(1, 3, 224, 224))
    model.train(training)
    by_size = {
        tuple(output.shape[2:]): layer
        for layer, output in zip(layers, outputs, strict=True)
    }
    return list(by_size.values())
