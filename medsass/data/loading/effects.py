"""The changes of a view of an image, as DALI operators that run on the CPU and on the GPU; `augment` draws their numbers."""

from typing import Any

from medsass.data.dali import import_dali
from medsass.data.loading import augment
from medsass.data.loading.augment import View


class Effects:
    """What makes a view of decoded images. parameters: the view's `augment.parameters`, one row an image, as a DALI
    node; None where the view is not augmented. colours: False where they are changed behind DALI.
    """

    def __init__(self, view: View, depth: int, parameters: Any, colours: bool = True) -> None:
        self._fn, self._types = import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")
        self.view, self.depth, self.parameters, self.colours = view, depth, parameters, colours
        self.columns = augment.columns(view, depth)
        whole = [0.0, 0.0], [1.0, 1.0]
        self._region = (self._range("region", 0, 2), self._range("region", 2, 4)) if self.columns else whole

    def resize(self, images: Any, **options: Any) -> Any:
        """Images or masks of any size -> the view's region of them, at the view's size."""
        (begin, end), size = self._region, [self.view.size, self.view.size]
        return self._fn.resize(images, roi_start=begin, roi_end=end, roi_relative=True, size=size, **options)

    def change(self, images: Any) -> Any:
        """What else happens to the view's pixels, (size, size, 3) uint8 or (size, size, 1) uint16."""
        colour = self._colour if self.depth == 8 else self._colour_gray
        for stage in range(2):
            if self.colours and f"colour{stage}" in self.columns:
                images = colour(images, f"colour{stage}")
            if f"matrix{stage}" in self.columns:
                images = self._warp(images, f"matrix{stage}")
        if "sigma" in self.columns:
            images = self._fn.gaussian_blur(images, sigma=self._number("sigma"))
        if "solarize" in self.columns:
            flip = self._fn.cast(self._number("solarize"), dtype=self._types.UINT8)
            images = images ^ ((images >= 128) * flip)  # x ^ 255 is 255 - x
        return images

    def _range(self, name: str, start: int, stop: int) -> Any:
        first = self.columns[name].start
        return self.parameters[first + start : first + stop]

    def _number(self, name: str, index: int = 0) -> Any:
        return self.parameters[self.columns[name].start + index]

    def _colour(self, images: Any, name: str) -> Any:
        """All in one matrix product."""
        brightness, contrast, saturation, hue = (self._number(name, index) for index in range(4))
        return self._fn.color_twist(images, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)

    def _colour_gray(self, images: Any, name: str) -> Any:
        """Brightness and contrast in 16 bit, which DALI's colour operators refuse. Contrast is scaled about the image's
        own mean: microscopes use a small part of 16 bits, and about their middle all of it would go to black.
        """
        brightness, contrast = self._number(name, 0), self._number(name, 1)
        mean = self._fn.reductions.mean(images)
        return self._fn.cast(brightness * (mean + contrast * (images - mean)), dtype=self._types.UINT16)

    def _warp(self, images: Any, name: str) -> Any:
        matrix = self._fn.reshape(self._range(name, 0, 9), shape=[3, 3])
        return self._fn.experimental.warp_perspective(images, matrix=matrix, inverse_map=False, fill_value=0)
