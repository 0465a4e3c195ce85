import ast
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


def parse_config_text(text: str) -> dict[str, Any]:
    """Read the text of a config without running it.

    Args:
        text (str): As a checkpoint holds it in ``meta['cfg']``: values of
            plain types, in calls of ``dict`` and displays.

    Returns:
        dict[str, Any]: Its settings, other expressions as text; none if it is
        no config.

    Examples:
        >>> parse_config_text('model = dict(mean=[1.0, 2.0], f=print)')
        {'model': {'mean': [1.0, 2.0], 'f': 'print'}}
    """
    try:
        statements = ast.parse(text).body
        return {
            statement.targets[0].id: _value(statement.value)
            for statement in statements
            if isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        # whatever a stranger's text may lead to
        return {}


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.Call):
        found = {str(k.arg): _value(k.value) for k in node.keywords}
        # names that are no identifiers come in a display
        for argument in node.args:
            inner = _value(argument)
            found |= inner if isinstance(inner, dict) else {}
        return found
    if isinstance(node, ast.Dict):
        return {
            _value(key): _value(child)
            for key, child in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        }
    if isinstance(node, ast.List):
        return [_value(child) for child in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(child) for child in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
