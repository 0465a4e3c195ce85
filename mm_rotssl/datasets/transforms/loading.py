import re

import mmcv
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio

from mm_rotssl.registry import TRANSFORMS


class BrokenImageError(OSError):
    """A file that should be an image can't be read as one.

    It takes the whole message and nothing else, so that a dataloader can
    raise it again in the main process.

    Args:
        message (str): The file and what is wrong with it.
    """


# A marker that ends a scan: within it 0xff is followed by 0x00 or is part of a
# restart marker, and before a marker 0xff may be repeated.
_JPEG_MARKER = re.compile(rb'\xff[^\x00\xff\xd0-\xd7]')
_JPEG_END = b'\xff\xd9'


def _truncated(content: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end.

    OpenCV, depending on its version, fills the missing part with gray. Data
    after the end, such as the video of a motion photo, is ignored.
    """
    if content.startswith(b'\x89PNG'):
        return content.rfind(b'IEND') < 0
    # Most intact files end with the end marker. So does one that was cut
    # after the thumbnail in its header; it has no scan and fails to decode.
    if not content.startswith(b'\xff\xd8') or content.endswith(_JPEG_END):
        return False
    position = 2
    while match := _JPEG_MARKER.search(content, position):
        if match[0] == _JPEG_END:
            return False
        start = match.end()
        # skip the segment, and with it any thumbnail it holds
        position = start + int.from_bytes(content[start : start + 2], 'big')
    return True


@TRANSFORMS.register_module()
class LoadIntactImage(LoadImageFromFile):
    """Load an image, or raise :class:`BrokenImageError`.

    MMCV's ``LoadImageFromFile`` loads a truncated JPEG with its missing part
    in gray, and stops the run with an ``AssertionError`` at a file that is no
    image. Here both raise an error that :class:`ImageFolder` counts and
    skips.

    **Required Keys:**

    - img_path

    **Added Keys:**

    - img
    - img_shape
    - ori_shape

    With the default ``color_type='color'`` gray, palette, 16-bit and
    transparent images become 8-bit BGR; 16-bit values lose their low byte
    and transparency is dropped. A camera's orientation tag is obeyed, so
    portraits are upright.

    Args:
        to_float32 (bool): Return float32 instead of uint8. Defaults to
            False.
        color_type (str): ``flag`` of :func:`mmcv.imfrombytes`. Defaults to
            'color'.
        imdecode_backend (str): ``backend`` of :func:`mmcv.imfrombytes`.
            Defaults to 'cv2'.
        backend_args (dict, optional): Arguments of the file backend, see
            :func:`mmengine.fileio.get`. Defaults to None. MMCV's deprecated
            ``file_client_args`` and its ``ignore_empty``, which
            :class:`ImageFolder` replaces, are not accepted.

    Raises:
        BrokenImageError: When applied, if the file is missing, empty,
            truncated or no image.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        *,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(
            to_float32=to_float32,
            color_type=color_type,
            imdecode_backend=imdecode_backend,
            backend_args=backend_args,
        )

    def transform(self, results: dict) -> dict | None:
        """Load the image.

        Args:
            results (dict): With ``img_path``.

        Returns:
            dict: With ``img``, uint8 (H, W, 3) in BGR order by default.
        """
        path = results['img_path']
        try:
            content = fileio.get(path, backend_args=self.backend_args)
        except OSError as error:
            raise BrokenImageError(f'{path}: {error}') from error
        if not content:
            raise BrokenImageError(f'{path}: the file is empty')
        if _truncated(content):
            raise BrokenImageError(f'{path}: the file is truncated')
        try:
            img = mmcv.imfrombytes(
                content, flag=self.color_type, backend=self.imdecode_backend
            )
        except Exception as error:
            # decoders raise types of their own: cv2.error, PIL's, ...
            raise BrokenImageError(f'{path}: {error}') from error
        if img is None:
            raise BrokenImageError(f'{path}: the content is no known image')
        if self.to_float32:
            img = img.astype('float32')
        results['img'] = img
        results['img_shape'] = img.shape[:2]
        results['ori_shape'] = img.shape[:2]
        return results
