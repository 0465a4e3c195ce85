import logging
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.image.io import imread_flags
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.logging import print_log

from mm_rotssl.registry import TRANSFORMS

from ..image_bytes import (
    find_damage,
    is_tiff,
    is_truncated,
    read_orientation,
    read_size,
)

# of an image that needs 0.8 GB in 8-bit color
MAX_PIXELS = 2**28
# of the orientation tag: quarter turns counter-clockwise, after mirroring
# left to right or not
TURNS = {
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}


class BrokenImageError(OSError):
    """A file that should be an image can't be read as one.

    It takes the whole message and nothing else, so that a dataloader can
    raise it again in the main process.

    Args:
        message (str): The file and what is wrong with it.
    """


@TRANSFORMS.register_module()
class LoadIntactImage(LoadImageFromFile):
    """Load an image, or raise :class:`BrokenImageError`.

    MMCV's ``LoadImageFromFile`` loads a truncated JPEG with its missing part
    in gray, and stops the run with an ``AssertionError`` at a file that is no
    image. Here both raise an error that :class:`ImageFolder` counts and
    skips. So do damages that can be told at once, see
    :func:`mm_rotssl.datasets.image_bytes.find_damage`; ``mm-rotssl
    check-images`` looks more closely.

    **Required Keys:**

    - img_path

    **Added Keys:**

    - img
    - img_shape
    - ori_shape

    With the default ``color_type='color'`` gray, palette, 16-bit and
    transparent images become 8-bit BGR; 16-bit values lose their low byte
    and transparency is dropped. A camera's orientation tag is obeyed, so
    portraits are upright, with every backend and with ``'unchanged'``, too,
    where MMCV ignores it; ``'color_ignore_orientation'`` and
    ``'grayscale_ignore_orientation'`` ignore it.

    With ``color_type='unchanged'`` the image has the channels and the type
    of the file, up to four channels; ``imdecode_backend='tifffile'`` reads
    TIFF files of any number. ``to_float32=True`` keeps their values.

    Args:
        to_float32 (bool): Return float32 instead of uint8; values of files
            of real numbers are left as they are. Defaults to False.
        color_type (str): ``flag`` of :func:`mmcv.imfrombytes`. Defaults to
            'color'.
        imdecode_backend (str): ``backend`` of :func:`mmcv.imfrombytes`.
            Defaults to 'cv2'.
        bit_depth (int, optional): How many of the 16 bits of 16-bit files
            are in use, 9 to 16, such as 12 for many medical and scientific
            cameras: 2 ** bit_depth becomes 256. Defaults to None: 16, with
            one warning if an image needs fewer; with 'unchanged' values are
            left as they are.
        max_pixels (int): Width times height of the largest image that is
            decoded: a small file may hold one that fills the memory.
            Defaults to 2 ** 28, which is 16,384 x 16,384.
        channel_order (str): 'bgr', or 'rgb' as datasets in memory have it,
            for a network that was trained on such. Defaults to 'bgr'.
        backend_args (dict, optional): Arguments of the file backend, see
            :func:`mmengine.fileio.get`. Defaults to None. MMCV's deprecated
            ``file_client_args`` and its ``ignore_empty``, which
            :class:`ImageFolder` replaces, are not accepted.

    Raises:
        ValueError: If ``bit_depth`` is out of range, or given for a backend
            that reduces to 8 bits itself, or there is no such
            ``channel_order``.
        BrokenImageError: When applied, if the file is missing, empty,
            truncated, damaged, too large or no image, or does not suit the
            settings.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        *,
        bit_depth: int | None = None,
        max_pixels: int = MAX_PIXELS,
        channel_order: str = 'bgr',
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(
            to_float32=to_float32,
            color_type=color_type,
            imdecode_backend=imdecode_backend,
            backend_args=backend_args,
        )
        if bit_depth is not None and not 9 <= bit_depth <= 16:
            raise ValueError(
                f'bit_depth={bit_depth} of LoadIntactImage: 9 to 16.'
            )
        if bit_depth is not None and imdecode_backend not in (
            'cv2',
            'tifffile',
        ):
            raise ValueError(
                f'bit_depth={bit_depth} of LoadIntactImage: '
                f"imdecode_backend='{imdecode_backend}' knows 8 bits only. "
                "Take 'cv2' or 'tifffile'."
            )
        if channel_order not in ('bgr', 'rgb'):
            raise ValueError(
                f"channel_order='{channel_order}' of LoadIntactImage: 'bgr' "
                "or 'rgb'."
            )
        self.channel_order = channel_order
        self.bit_depth = bit_depth
        self.max_pixels = max_pixels
        # in shared memory: a dataloader's workers warn once together
        self._warned = torch.zeros(1, dtype=torch.bool).share_memory_()

    def transform(self, results: dict) -> dict | None:
        """Load the image.

        Args:
            results (dict): With ``img_path``; without, but with ``img``, it
                is left as it is.

        Returns:
            dict: With ``img``, uint8 (H, W, 3) in BGR order by default.
        """
        if 'img' in results and 'img_path' not in results:
            # mmpretrain's FeatureExtractor has loaded it, and takes out of
            # the pipeline what is called LoadImageFromFile only
            return results
        path = results['img_path']
        try:
            content = fileio.get(path, backend_args=self.backend_args)
        except OSError as error:
            raise BrokenImageError(f'{path}: {error}') from error
        if not content:
            raise BrokenImageError(f'{path}: the file is empty')
        if is_truncated(content):
            raise BrokenImageError(f'{path}: the file is truncated')
        damage = find_damage(content)
        if damage is not None:
            raise BrokenImageError(
                f'{path}: the file is damaged, zeros in place of its data '
                f'begin at byte {damage}'
            )
        width, height = read_size(content) or (0, 0)
        if width * height > self.max_pixels:
            raise BrokenImageError(
                f'{path}: {width}x{height} pixels are more than '
                f'max_pixels={self.max_pixels} of LoadIntactImage'
            )
        try:
            img = self._decode(content)
        except Exception as error:
            # decoders raise types of their own: cv2.error, PIL's, ...
            raise BrokenImageError(f'{path}: {error}') from error
        if img is None:
            raise BrokenImageError(f'{path}: the content is no known image')
        if self._ignores_orientation(content):
            img = _upright(img, read_orientation(content))
        img = self._reduce(img, path)
        if self.channel_order == 'rgb' and img.shape[2:] == (3,):
            img = np.ascontiguousarray(img[..., ::-1])
        if self.to_float32:
            img = img.astype('float32')
        results['img'] = img
        results['img_shape'] = img.shape[:2]
        results['ori_shape'] = img.shape[:2]
        return results

    def _decode(self, content: bytes) -> np.ndarray | None:
        flag: Any = self.color_type
        if self.imdecode_backend != 'cv2' or flag == 'unchanged':
            img: np.ndarray | None = mmcv.imfrombytes(
                content, flag=flag, backend=self.imdecode_backend
            )
            return img
        # with all the bits that there are
        flag = imread_flags[flag] | cv2.IMREAD_ANYDEPTH
        img = mmcv.imfrombytes(content, flag=flag, backend='cv2')
        if img is None and is_tiff(content):
            # of real numbers or 32 bits, which OpenCV does not convert
            img = mmcv.imfrombytes(content, flag='unchanged', backend='cv2')
            if img is not None and self.color_type.startswith('color'):
                img = np.repeat(np.atleast_3d(img), 3, 2)[..., :3]
        return img

    def _ignores_orientation(self, content: bytes) -> bool:
        """Whether the decoder does, although it was not asked to."""
        if self.imdecode_backend in ('cv2', 'pillow'):
            # both obey a TIFF's tag whatever they are asked for
            return self.color_type == 'unchanged' and not is_tiff(content)
        return not self.color_type.endswith('_ignore_orientation')

    def _reduce(self, img: np.ndarray, path: str) -> np.ndarray:
        """Bring 16-bit values to 8 bits."""
        if img.dtype == np.uint8 or img.dtype == bool:
            return img
        if img.dtype == np.uint16:
            if self.bit_depth is not None:
                highest = int(img.max())
                if highest >> self.bit_depth:
                    raise BrokenImageError(
                        f'{path}: a value of {highest} needs more than the '
                        f'{self.bit_depth} bits that bit_depth of '
                        'LoadIntactImage allows'
                    )
                return (img >> (self.bit_depth - 8)).astype(np.uint8)
            if self.color_type == 'unchanged':
                return img
            self._warn_if_dark(img, path)
            return (img >> 8).astype(np.uint8)
        if not self.to_float32:
            raise BrokenImageError(
                f'{path}: the pixels are {img.dtype} numbers from '
                f'{img.min():g} to {img.max():g}, not 8 or 16 bits: set '
                'to_float32=True of LoadIntactImage, and mean and std of '
                'data_preprocessor in their unit'
            )
        return img

    def _warn_if_dark(self, img: np.ndarray, path: str) -> None:
        if self._warned:
            return
        bits = int(img.max()).bit_length()
        # another worker may have warned in the meantime
        if 8 < bits <= 12 and not self._warned:
            self._warned[0] = True
            print_log(
                f'{path} has 16 bits a value and uses {bits} of them, so that '
                'it is read as nearly black. If that holds for all images, '
                f'set bit_depth={bits} of LoadIntactImage. (Said once.)',
                'current',
                logging.WARNING,
            )


def _upright(img: np.ndarray, orientation: int) -> np.ndarray:
    """Obey an orientation tag; unknown ones are ignored, as OpenCV does."""
    mirrored, turns = TURNS.get(orientation, (False, 0))
    if mirrored:
        img = img[:, ::-1]
    return np.ascontiguousarray(np.rot90(img, turns))
