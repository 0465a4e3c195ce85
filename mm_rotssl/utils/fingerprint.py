import hashlib
from collections.abc import Sequence


def fingerprint(names: Sequence[str]) -> int:
    """Sum up names and their order in one number.

    Args:
        names (Sequence[str]): Any strings.

    Returns:
        int: 63 bits of their SHA-256, never 0.

    Examples:
        >>> fingerprint(['a', 'b']) == fingerprint(['b', 'a'])
        False
    """
    content = '\n'.join(names).encode(errors='surrogateescape')
    digest = hashlib.sha256(content).digest()
    return int.from_bytes(digest[:8], 'big') >> 1 | 1
