"""Pictures about a photo: a small copy of it, outlines on that copy, and heat maps of differences."""

import io
from collections.abc import Collection, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

PREVIEW_SIDE = 1024
"""Longest side of the copies shown in the page, small photos included; translating uses the photo itself."""

HEAT_RANGE = 0.4
"""Difference, with pixels in 0..1, at which the colours of a heat map end."""

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels."""

_CHOSEN, _OTHER, _HALO, _INK = (94, 234, 212), (255, 255, 255), (15, 23, 32), (15, 23, 32)


def preview(photo: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> a JPEG whose longer side is PREVIEW_SIDE: light enough to keep for each visitor."""
    scale = preview_scale(photo.shape[1], photo.shape[0])
    size = [max(1, round(side * scale)) for side in (photo.shape[1], photo.shape[0])]
    return _encoded(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC, reducing_gap=2))


def preview_scale(width: int, height: int) -> float:
    """Pixels of the preview per pixel of the photo."""
    return PREVIEW_SIDE / max(width, height)


def outlined(jpeg: bytes, boxes: Sequence[Box], chosen: Collection[int], numbered: bool = True) -> bytes:
    """The preview with each box outlined, and numbered from 1; ``chosen`` ones (from 0) stand out. A JPEG.

    Boxes are in pixels of the preview.
    """
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    line = 4
    font = ImageFont.load_default(32)
    # The chosen come last, to lie on top where faces overlap.
    for i in sorted(range(len(boxes)), key=lambda i: i in chosen):
        colour = _CHOSEN if i in chosen else _OTHER
        left, top, right, bottom = boxes[i]
        # A dark line under the light one: visible on any photo.
        _frame(draw, (left, top, right, bottom), _HALO, line + 2)
        _frame(draw, (left + 1, top + 1, right - 1, bottom - 1), colour, line if i in chosen else max(1, line // 2))
        if numbered:
            _badge(draw, str(i + 1), left, top, colour, font, picture.size)
    return _encoded(picture)


def heat_map(one: np.ndarray, other: np.ndarray) -> bytes:
    """Where two pictures (uint8 [H, W, 3]) differ, averaged over colours: from black, no difference, to light yellow,
    HEAT_RANGE or more. A JPEG."""
    difference = np.abs(one.astype(np.float32) - other).mean(axis=2) / 255
    level = np.clip(difference / HEAT_RANGE * 255, 0, 255).astype(np.uint8)
    return jpeg(cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB))


def jpeg(picture: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> a JPEG."""
    return _encoded(Image.fromarray(picture))


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _frame(draw: ImageDraw.ImageDraw, box: Box, colour: tuple, width: int) -> None:
    left, top, right, bottom = box
    if right - left > 2 * width and bottom - top > 2 * width:
        draw.rounded_rectangle(box, radius=3 * width, outline=colour, width=width)


def _badge(draw, text: str, left: float, top: float, colour: tuple, font, size: tuple[int, int]) -> None:
    """A number on a tab above the box, or inside it where the photo ends."""
    x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font)
    pad = (y1 - y0) * 0.45
    width, height = max(x1 - x0, y1 - y0) + 2 * pad, y1 - y0 + 2 * pad
    left = min(max(left, 0), size[0] - width)
    top = min(max(top - height - 2, 0), size[1] - height)
    draw.rounded_rectangle((left, top, left + width, top + height), radius=pad, fill=colour, outline=_HALO)
    draw.text((left + width / 2 - (x0 + x1) / 2, top + pad - y0), text, fill=_INK, font=font)


def square_box(width: int, height: int, size: float, across: float, down: float) -> Box:
    """The square a visitor chose in a photo of this size, always inside it.

    Args:
        size: side in percent of the photo's shorter side.
        across, down: where it lies, in percent of the room there is; 50, 50 is the centre.
    """
    side = min(width, height) * size / 100
    left, top = (width - side) * across / 100, (height - side) * down / 100
    return left, top, left + side, top + side


def square_around(width: int, height: int, size: float, x: float, y: float) -> tuple[int, int]:
    """The ``across`` and ``down`` that centre the square on a point, as far as the photo allows."""
    side = min(width, height) * size / 100

    def percent(at: float, room: float) -> int:
        return round(100 * min(max((at - side / 2) / room, 0), 1)) if room >= 1 else 50

    return percent(x, width - side), percent(y, height - side)
