from typing import Optional

import mmcv
from mmcv.transforms import LoadImageFromFile as MMCV_LoadImageFromFile
from mmengine import fileio

from mm_rotssl.registry import TRANSFORMS


class BrokenImageError(OSError):
    """A file that should be a picture can't be read as one.

    Args:
        path (str): The file.
        reason (str): What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f'{path}: {reason}')
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple:
        # survives the way from a worker to the main process
        return type(self), (self.path, self.reason)


def _truncated(content: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end, which OpenCV fills in grey."""
    if content.startswith(b'\xff\xd8'):
        # The last scan must be closed; a thumbnail in the header has an
        # end-of-image marker of its own, but before that scan.
        return content.rfind(b'\xff\xd9') < content.rfind(b'\xff\xda')
    if content.startswith(b'\x89PNG'):
        return b'IEND' not in content[-64:]
    return False


@TRANSFORMS.register_module()
class LoadImageFromFile(MMCV_LoadImageFromFile):
    """Load a picture, or raise :class:`BrokenImageError`.

    MMCV's loader hands on a truncated JPEG with its missing part in grey
    and stops the run with an ``AssertionError`` at a file that is no
    picture. This one tells both in a way that :class:`ImageFolder` counts
    and skips.

    **Required Keys:**

    - img_path

    **Added Keys:**

    - img
    - img_shape
    - ori_shape

    With the default ``color_type='color'`` grey, palette, 16-bit and
    transparent pictures become 8-bit BGR; 16-bit values lose their low byte
    and transparency is dropped. A camera's orientation tag is obeyed, so
    portraits are upright.

    Args:
        **kwargs: As for :class:`mmcv.transforms.LoadImageFromFile`, but for
            ``ignore_empty``, which :class:`ImageFolder` replaces.

    Raises:
        BrokenImageError: When applied, if the file is missing, empty,
            truncated or no picture.
    """

    def transform(self, results: dict) -> Optional[dict]:
        """Load the picture.

        Args:
            results (dict): With ``img_path``.

        Returns:
            dict: With ``img``, uint8 (H, W, 3) in BGR order by default.
        """
        path = results['img_path']
        try:
            content = fileio.get(path, backend_args=self.backend_args)
        except OSError as error:
            raise BrokenImageError(path, str(error)) from error
        if not content:
            raise BrokenImageError(path, 'the file is empty')
        if _truncated(content):
            raise BrokenImageError(path, 'the file is truncated')
        try:
            img = mmcv.imfrombytes(
                content, flag=self.color_type, backend=self.imdecode_backend
            )
        except Exception as error:
            # decoders raise types of their own: cv2.error, PIL's, ...
            raise BrokenImageError(path, str(error)) from error
        if img is None:
            raise BrokenImageError(path, 'the content is no known image')
        if self.to_float32:
            img = img.astype('float32')
        results['img'] = img
        results['img_shape'] = img.shape[:2]
        results['ori_shape'] = img.shape[:2]
        return results
