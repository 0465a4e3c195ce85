import hashlib
from collections.abc import Sequence


def fingerprint(keys: Sequence[str]) -> int:
    """Tell other keys, or another order of them, by one number.

    Args:
        keys (Sequence[str]): For instance names of images, see
            :func:`mm_rotssl.datasets.image_keys`.

    Returns:
        int: Of 63 bits and never 0, so that a buffer of int64 holds it and 0
        can stand for none.

    Examples:
        >>> fingerprint(['a.png', 'b.png']) == fingerprint(['b.png', 'a.png'])
        False
    """
    text = '\n'.join(keys).encode(errors='surrogateescape')
    digest = hashlib.sha256(text).digest()
    return int.from_bytes(digest[:8], 'big') >> 1 | 1
