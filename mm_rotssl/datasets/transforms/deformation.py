import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mm_rotssl.ops import deform_patches
from mm_rotssl.registry import TRANSFORMS

Numbers = Sequence[float] | None

# draws of a geometry until one stays within the image
MAX_ATTEMPTS = 100
# 'paper': the ranges of the text; 'released': those of the authors' code.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    'paper': dict(
        translation=0.2,
        scale=(0.7, 1.4),
        rotation=20.0,
        pca_contrast=(0.5, 2.0),
        power=(0.25, 4.0),
        multiply=(0.7, 1.4),
        add=0.1,
        hue=0.1,
    ),
    'released': dict(
        translation=0.25,
        scale=(math.sqrt(0.5), math.sqrt(2)),
        rotation=20.0,
        # the strongest component, gray, changes least
        pca_contrast=(0.5, 1.0, 1.0),
        power=(0.25, 4.0),
        multiply=(math.sqrt(0.5), math.sqrt(2)),
        add=0.1,
        hue=0.1,
    ),
}


@TRANSFORMS.register_module()
class RandomDeformation(BaseTransform):
    """Draw a deformation of Exemplar-CNN, and cut the patch that it shows.

    The patch around the middle of the image is translated, scaled and rotated,
    then its colors are changed. It is sampled out of the image around it:
    deformations that reach out of the image are drawn anew, as the authors'
    code drops them, so nothing is ever filled. After ``MAX_ATTEMPTS`` of this
    module the patch is left where it is.

    Every setting replaces that of the preset. A range of one value, such as
    ``rotation=0``, ``scale=(1, 1)``, switches that part off, as the paper's
    ablation of the types of transformations does; ``recolor=False`` leaves
    the colors as they are.

    **Required Keys:**

    - img
    - valid (optional): see :class:`ExemplarDataset`
    - deformation_seed (optional): see :class:`ExemplarDataset`

    **Modified Keys:**

    - img (unless ``on_device``)
    - img_shape (unless ``on_device``)

    **Added Keys:**

    - deformation (if ``on_device``)

    Source: Dosovitskiy et al., *Discriminative Unsupervised Feature Learning
    with Exemplar Convolutional Neural Networks*, NIPS 2014
    (https://arxiv.org/abs/1406.6909), section 2.1, and the authors' code.
    Where the paper gives a range of factors only, they are drawn
    log-uniformly, as in the code. There is no flip and no blur.

    Args:
        preset (str): 'released' or 'paper', see ``PRESETS`` of this module.
            Defaults to 'released'.
        patch_size (int): Side P of the patch in pixels, of the image and
            of the result. Defaults to 32.
        translation (float, optional): Largest shift along each axis, as a
            fraction of the scaled patch's side; uniform.
        scale (Sequence[float], optional): Range of the magnification,
            uniform: the patch shows a square of side P / scale.
        rotation (float, optional): Largest angle in degrees, either way;
            uniform.
        pca_contrast (Sequence[float], optional): Factor of each principal
            component of the color, the strongest first. Two numbers: range,
            log-uniform. Three: standard deviations, for each component, of
            the factor's base-2 logarithm, which is Gaussian.
        power (Sequence[float], optional): Range of the exponent of value and
            saturation, log-uniform, drawn for each.
        multiply (Sequence[float], optional): Range of the factor of both,
            log-uniform, drawn for each.
        add (float, optional): Largest summand of both, uniform, either
            sign.
        hue (float, optional): Largest change of the hue, of which 1 is the
            full circle; uniform, either sign.
        recolor (bool): Change the colors. Defaults to True.
        on_device (bool): Only draw the numbers: the image stays as it is,
            and
            :class:`DeformationDataPreprocessor` deforms the batch, many
            times as fast as image by image. Defaults to False.
        bgr (bool): The image's channels are blue, green, red, as OpenCV
            reads them; has no effect with ``on_device``. Defaults to True.

    Raises:
        ValueError: If the preset is unknown or a setting out of range.
    """

    def __init__(
        self,
        preset: str = 'released',
        patch_size: int = 32,
        translation: float | None = None,
        scale: Numbers = None,
        rotation: float | None = None,
        pca_contrast: Numbers = None,
        power: Numbers = None,
        multiply: Numbers = None,
        add: float | None = None,
        hue: float | None = None,
        recolor: bool = True,
        on_device: bool = False,
        bgr: bool = True,
    ) -> None:
        if preset not in PRESETS:
            raise ValueError(
                f"preset='{preset}' of RandomDeformation: one of "
                f'{", ".join(map(repr, PRESETS))}.'
            )
        given: dict[str, Any] = dict(
            translation=translation,
            scale=scale,
            rotation=rotation,
            pca_contrast=pca_contrast,
            power=power,
            multiply=multiply,
            add=add,
            hue=hue,
        )
        self.settings: dict[str, Any] = {
            name: PRESETS[preset][name] if value is None else value
            for name, value in given.items()
        }
        self._check()
        if patch_size < 1:
            raise ValueError(
                f'patch_size={patch_size} of RandomDeformation must be '
                'positive.'
            )
        self.patch_size = patch_size
        self.recolor = recolor
        self.on_device = on_device
        self.bgr = bgr

    def _check(self) -> None:
        for name, value in self.settings.items():
            if name in ('translation', 'rotation', 'add', 'hue'):
                good = value >= 0
                want = 'not be negative'
            elif name == 'pca_contrast' and len(value) == 3:
                good = min(value) >= 0
                want = 'hold no negative standard deviation'
            else:
                good = len(value) == 2 and 0 < value[0] <= value[1]
                want = 'be a range (low, high) of positive numbers'
                if name == 'pca_contrast':
                    want += ', or three standard deviations'
            if not good:
                raise ValueError(
                    f'{name}={value} of RandomDeformation must {want}.'
                )

    @property
    def window_size(self) -> int:
        """Side in pixels of a square that holds all deformed patches."""
        settings = self.settings
        angle = math.radians(min(settings['rotation'], 45))
        reach = (math.cos(angle) + math.sin(angle)) / 2
        reach += settings['translation']
        # bilinear sampling reads half a pixel to either side
        side = 2 * reach * self.patch_size / settings['scale'][0] + 1
        side = max(side, self.patch_size)
        # odd if and only if the patch is, so that both have the same center
        return self.patch_size + 2 * math.ceil((side - self.patch_size) / 2)

    def _geometry(
        self, rng: Any, width: int, height: int, valid: Sequence[float]
    ) -> list[float]:
        """Draw the matrix of :func:`deform_patches`, row by row."""
        settings = self.settings
        size = self.patch_size
        low, high = settings['scale']
        left, top, right, bottom = valid
        for _ in range(MAX_ATTEMPTS):
            drawn = rng.random(4).tolist()
            side = size / (low + drawn[0] * (high - low))
            angle = math.radians((2 * drawn[1] - 1) * settings['rotation'])
            shift = settings['translation'] * side
            x = width / 2 + (2 * drawn[2] - 1) * shift
            y = height / 2 + (2 * drawn[3] - 1) * shift
            cos, sin = side * math.cos(angle), side * math.sin(angle)
            reach = (abs(cos) + abs(sin)) / 2
            # bilinear sampling reads half a pixel to either side
            if (
                x - reach >= left + 0.5
                and x + reach <= right - 0.5
                and y - reach >= top + 0.5
                and y + reach <= bottom - 0.5
            ):
                return [cos, sin, x, -sin, cos, y]
        return [size, 0, width / 2, 0, size, height / 2]

    def _color(self, rng: Any) -> list[float]:
        """Draw the numbers of :func:`deform_patches` for the colors."""
        settings = self.settings

        def log_uniform(bounds: Sequence[float], share: float) -> float:
            return bounds[0] * (bounds[1] / bounds[0]) ** share

        contrast = settings['pca_contrast']
        if len(contrast) == 3:
            normal = rng.standard_normal(3).tolist()
            numbers = [
                2 ** (std * x) for std, x in zip(contrast, normal, strict=True)
            ]
        else:
            numbers = [
                log_uniform(contrast, x) for x in rng.random(3).tolist()
            ]
        drawn = rng.random(7).tolist()
        for power, factor, summand in (drawn[:3], drawn[3:6]):
            numbers += [
                log_uniform(settings['power'], power),
                log_uniform(settings['multiply'], factor),
                (2 * summand - 1) * settings['add'],
            ]
        return [*numbers, (2 * drawn[6] - 1) * settings['hue']]

    def transform(self, results: dict) -> dict:
        """Draw the numbers, and deform unless ``on_device`` is set.

        Args:
            results (dict): With ``img``, uint8 (H, W, 3), at least as large
                as the patch. Optional: ``valid``, the part of it (left, top,
                right, bottom) that may be seen; ``deformation_seed``, whole
                numbers that determine what is drawn.

        Returns:
            dict: With ``img``, the patch, uint8 (P, P, 3); or with
            ``deformation``, float32 (6,) or (16,), see
            :func:`deform_patches`.

        Raises:
            ValueError: If the image is smaller than the patch.
        """
        img = results['img']
        height, width = img.shape[:2]
        valid = results.get('valid', (0, 0, width, height))
        if min(height, width) < self.patch_size:
            raise ValueError(
                f'RandomDeformation(patch_size={self.patch_size}) was handed '
                f'an image of {width}x{height} pixels. Enlarge the image '
                'or set a smaller patch_size.'
            )
        seed = results.get('deformation_seed')
        rng: Any = np.random if seed is None else np.random.default_rng(seed)
        numbers = self._geometry(rng, width, height, valid)
        if self.recolor:
            numbers += self._color(rng)
        deformation = np.array(numbers, np.float32)
        if self.on_device:
            results['deformation'] = deformation
            return results
        if self.bgr:
            img = img[..., ::-1]
        planes = np.ascontiguousarray(img.transpose(2, 0, 1))
        patch = deform_patches(
            torch.from_numpy(planes)[None],
            torch.from_numpy(deformation)[None],
            self.patch_size,
        )[0]
        if img.dtype == np.uint8:
            patch = patch.round_().byte()
        img = patch.numpy().transpose(1, 2, 0)
        if self.bgr:
            img = img[..., ::-1]
        results['img'] = np.ascontiguousarray(img)
        results['img_shape'] = img.shape[:2]
        return results

    def __repr__(self) -> str:
        settings = ', '.join(f'{k}={v}' for k, v in self.settings.items())
        return (
            f'{type(self).__name__}(patch_size={self.patch_size}, {settings}, '
            f'recolor={self.recolor}, on_device={self.on_device}, '
            f'bgr={self.bgr})'
        )
