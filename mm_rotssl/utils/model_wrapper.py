from typing import Any

from mmengine.model import is_model_wrapper


def unwrap_model(model: Any) -> Any:
    """Take a model out of what distributes it over processes.

    Args:
        model (nn.Module): Of a runner.

    Returns:
        nn.Module: The model itself.
    """
    return model.module if is_model_wrapper(model) else model
