from typing import Any

from mmengine.config import Config


def algorithm_settings(cfg: Config) -> dict[str, Any]:
    """Find the settings of the algorithm that has the backbone.

    Args:
        cfg (Config): Names a ``model``, which may be wrapped around the
            algorithm as :class:`~mm_rotssl.models.ESSL` is.

    Returns:
        dict[str, Any]: The algorithm's, with a ``data_preprocessor`` if there
        is one anywhere.
    """
    model = dict(cfg.get('model') or {})
    inner = model.get('algorithm') or {}
    places = (inner, model, cfg)
    found = {**model, **inner}
    for place in places:
        if place.get('data_preprocessor'):
            found['data_preprocessor'] = place['data_preprocessor']
            break
    return found
