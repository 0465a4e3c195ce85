import hashlib
import os

import pytest
import torch

from mm_rotssl.utils import fingerprint


@pytest.mark.parametrize(
    'keys', [[], [''], ['a'], ['b/ö.png', '日本', os.fsdecode(b'\xfc')]]
)
def test_the_first_63_bits_of_the_digest(keys):
    content = b'\n'.join(key.encode(errors='surrogateescape') for key in keys)
    bits = bin(int('1' + hashlib.sha256(content).hexdigest(), 16))[3:]
    # the last of them is set, so it is never 0
    assert fingerprint(keys) == int(bits[:62] + '1', 2)
    # as a model keeps it
    assert int(torch.tensor(fingerprint(keys))) == fingerprint(keys)


def test_other_keys_and_another_order():
    keys = ['a', 'b', 'c']
    others = [keys, keys[::-1], keys[:2], [*keys, 'd'], ['a', 'bb', 'c'], []]
    assert len({fingerprint(other) for other in others}) == len(others)
    assert fingerprint(tuple(keys)) == fingerprint(keys)
