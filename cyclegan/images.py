"""The pixel contract: any image file -> RGB uint8 [H, W, 3] <-> float32 [B, 3, H, W] in [-1, 1].

Files come from strangers, so `load_image` trusts nothing but the content: the format is recognised by its
signature, size limits are checked before a pixel is decoded, and whatever goes wrong becomes a `BadImageError`.
Every function is safe to call from many threads and changes no setting of Pillow.
"""

import io
import os
import re
import stat
import warnings
from typing import BinaryIO

import numpy as np
import torch

# The plugin modules are imported because importing one is what adds its format to `Image.OPEN`.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageCms,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)
from torch import Tensor

from cyclegan.errors import BadImageError, BadSizeError

MAX_PIXELS = 64_000_000
"""The most pixels (width times height) that are decoded."""
MIN_SIDE = 16
"""The least width and height in pixels."""
MAX_BYTES = 64 * 2**20
"""The largest file that is read."""

# Each signature is long enough to be proof: a file that matches and cannot be opened is a damaged one.
_SIGNATURES = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "AVIF": re.compile(rb"....ftyp(?:....){0,16}?avi[fs]", re.DOTALL),
    # "BM" alone starts many a text file; the size of the header that follows is one of these seven.
    "BMP": re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
}

# Pillow warns of odd metadata, which harms no pixel, and a warning prints the path of the installation.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_EXIF_ORIENTATION = 0x0112
# Orientation tag -> what turns the stored picture upright; 1 is upright already.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: str | os.PathLike[str] | bytes | BinaryIO, name: str | None = None) -> np.ndarray:
    """Decode an image file into an upright RGB picture: uint8 [H, W, 3], values 0..255, sRGB.

    Orientation from EXIF is applied, transparency is laid over white, 16-bit samples are scaled to 8, and an
    animation gives its first frame. PNG, JPEG (and MPO), WebP, GIF, BMP, TIFF and AVIF are read.

    Args:
        source: a path, the bytes of a file, or a binary file open for reading.
        name: what messages call the file; by default the base name of the path, if there is one.

    Raises:
        BadImageError: missing, unreadable, not an image, damaged, or (BadSizeError) too small or too large. The
            message names the file without its folder.
    """
    called = _shown_name(source, name)
    data = _read(source, called)
    picture = _open(data, called)
    _check_size(*picture.size, called)
    try:
        picture.load()
        rgb = _upright(_to_rgb(picture), picture)
    except Exception as error:  # on damaged data Pillow raises nearly anything: OSError, SyntaxError, struct.error, ...
        raise _damaged(called) from error
    return np.array(rgb)


def open_file(path: str | os.PathLike[str], name: str | None = None) -> BinaryIO:
    """Open a file for reading, if it is one. ``name`` is what messages call it. Raises BadImageError."""
    called = name or "The file"
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise BadImageError(f"{called} is a folder. Choose an image file.")
        if not stat.S_ISREG(kind):  # reading a pipe or a device could wait for ever
            raise _unreadable(name)
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImageError(f"{called} was not found. Check the name and try again.") from error
    except PermissionError as error:
        raise BadImageError(f"{called} may not be read. Change its permissions and try again.") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise _out_of_reach(called) from error


def check_image(image: np.ndarray) -> np.ndarray:
    """Check a picture that was decoded elsewhere: uint8 [H, W, 3] within the limits of `load_image`.

    Returns the same pixels, contiguous in memory. Raises BadImageError.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise BadImageError(
            "The image is not an RGB picture with 8 bits per colour. Save it as PNG or JPEG and try again."
        )
    _check_size(image.shape[1], image.shape[0], None)
    return np.ascontiguousarray(image)


def to_tensor(image: np.ndarray | Tensor) -> Tensor:
    """uint8 [H, W, 3] or [B, H, W, 3], values 0..255 -> float32 [B, 3, H, W] in [-1, 1], B = 1 for one picture.

    A tensor stays on its device. Raises ValueError for any other shape or type.
    """
    # torch.tensor copies: torch.from_numpy would share memory, and warns of read-only arrays.
    x = torch.tensor(np.ascontiguousarray(image)) if isinstance(image, np.ndarray) else image
    if x.dtype != torch.uint8 or x.ndim not in (3, 4) or x.shape[-1] != 3:
        raise ValueError(f"expected uint8 [H, W, 3] or [B, H, W, 3], got {x.dtype} {list(x.shape)}.")
    x = x[None] if x.ndim == 3 else x
    x = x.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return x.div_(127.5).sub_(1)


def to_images(x: Tensor) -> np.ndarray:
    """Float [B, 3, H, W] in [-1, 1] on any device -> uint8 [B, H, W, 3], values 0..255, rounded.

    Values out of range are clamped. The exact inverse of `to_tensor`. Raises ValueError for any other shape.
    """
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"expected [B, 3, H, W], got {list(x.shape)}.")
    pixels = x.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_image(x: Tensor) -> np.ndarray:
    """Float [1, 3, H, W] or [3, H, W] in [-1, 1] -> uint8 [H, W, 3]; ``to_image(to_tensor(i)) == i`` exactly.

    Raises ValueError for any other shape.
    """
    batch = x[None] if x.ndim == 3 else x
    if batch.ndim != 4 or batch.shape[0] != 1:
        raise ValueError(f"expected [1, 3, H, W] or [3, H, W], got {list(x.shape)}.")
    return to_images(batch)[0]


def encode_png(image: np.ndarray, text: dict[str, str] | None = None) -> bytes:
    """A PNG file of a uint8 [H, W, 3] picture, with ``text`` as its text chunks (key -> value)."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def encode_jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    """A JPEG file of a uint8 [H, W, 3] picture: for what is seen for a moment."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


def save_png(path: str | os.PathLike[str], image: np.ndarray, text: dict[str, str] | None = None) -> None:
    """Write `encode_png` to a file. Raises OSError where that is not possible."""
    data = encode_png(image, text)
    with open(path, "wb") as file:
        file.write(data)


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures of one shape, in decibels; 99 if they are equal."""
    error = np.mean((image.astype(np.float64) - reference) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def _shown_name(source: object, name: str | None) -> str | None:
    """The base name to use in messages, or None for data without a name."""
    if name is None and not isinstance(source, bytes):
        # A file opened by number has that number as its name.
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    if not isinstance(name, str):
        return None
    # Browsers on Windows send backslashes. Control characters would reach a terminal.
    base = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return "".join(c if c.isprintable() else "?" for c in base) or None


def _read(source: str | os.PathLike[str] | bytes | BinaryIO, called: str | None) -> bytes:
    """The content of the file, of 1 to MAX_BYTES bytes."""
    file_called = called or "The file"
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str | os.PathLike):
        with open_file(source, called) as file:
            return _read(file, called)
    else:
        try:
            data = source.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a closed file
            raise _out_of_reach(file_called) from error
    if not data:
        raise BadImageError(f"{file_called} is empty. Choose another file.")
    if len(data) > MAX_BYTES:
        limit = MAX_BYTES // 2**20
        raise BadImageError(f"{file_called} is larger than {limit} MB. Make it smaller and try again.")
    return data


def _open(data: bytes, called: str | None) -> Image.Image:
    """Recognise the format and read the header only."""
    format = next((format for format, signature in _SIGNATURES.items() if signature.match(data)), None)
    if format is None and _is_svg(data):
        raise BadImageError(f"{called or 'The file'} is an SVG drawing. Save it as PNG or JPEG and try again.")
    if format is None:
        raise _unreadable(called)
    try:
        # Image.open would do the same, then compare the size with Pillow's own limit and raise or warn without
        # saying what the size is; ours is checked by the caller.
        return Image.OPEN[format][0](io.BytesIO(data), "")
    except Exception as error:  # see load_image
        raise _damaged(called) from error


def _is_svg(data: bytes) -> bool:
    # Without zero bytes and byte order mark, UTF-16 reads like ASCII.
    head = data[:16384].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()
    before, svg, _ = head.partition(b"<svg")
    return bool(svg) and head.startswith(b"<") and b"html" not in before


def _check_size(width: int, height: int, called: str | None) -> None:
    size = f"{called or 'The image'} is {width} x {height} pixels"
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise BadSizeError(f"{size}; at most {limit} megapixels are accepted. Make it smaller and try again.")
    if min(width, height) < MIN_SIDE:
        raise BadSizeError(f"{size}; at least {MIN_SIDE} x {MIN_SIDE} are needed.")


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode -> "RGB" in sRGB, transparency over white."""
    flat = _flatten(picture)
    profile = picture.info.get("icc_profile")
    if profile:
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(flat, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            # Phones and editors embed broken profiles, or ones for another colour space. Viewers then show the
            # plain values, so a photo that looks right there is not refused here.
            pass
    return flat.convert("RGB")


def _flatten(picture: Image.Image) -> Image.Image:
    """Any mode -> "L", "RGB" or "CMYK", the three that colour profiles are made for."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        samples = np.asarray(picture)
        grey = _scale_to_8_bits(samples)
        clear = picture.info.get("transparency")
        if isinstance(clear, int):
            grey[samples == clear] = 255
        return Image.fromarray(grey)
    is_grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        layer = picture.convert("LA" if is_grey else "RGBA")
        paper = Image.new("L" if is_grey else "RGB", picture.size, "white")
        paper.paste(layer, mask=layer)
        return paper
    return picture.convert("L" if is_grey else "CMYK" if picture.mode == "CMYK" else "RGB")


def _scale_to_8_bits(samples: np.ndarray) -> np.ndarray:
    """Grey samples of 16 or 32 bits or floats, [H, W] -> uint8 [H, W], scaled and never clipped."""
    if samples.dtype.kind == "u":
        return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    # 32-bit files do not say which value is white: take the smallest usual one that clips nothing, else the range.
    values = np.where(np.isfinite(samples), samples, 0).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    whites = [white for white in ((1, 255, 65535) if samples.dtype.kind == "f" else (255, 65535)) if high <= white]
    if low >= 0 and whites:
        low, high = 0.0, float(whites[0])
    return ((values - low) * (255 / max(high - low, 1e-12))).round().clip(0, 255).astype(np.uint8)


def _upright(rgb: Image.Image, picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of the loaded ``picture`` to its pixels."""
    try:
        orientation = picture.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # EXIF data that cannot be parsed says nothing of the pixels, which are fine
        return rgb
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return rgb if method is None else rgb.transpose(method)


def _out_of_reach(called: str) -> BadImageError:
    return BadImageError(f"{called} could not be read. Choose another file.")


def _unreadable(called: str | None) -> BadImageError:
    return BadImageError(
        f"{called or 'The file'} is not an image we can read. Use a JPEG, PNG, WebP, GIF, BMP or TIFF file."
    )


def _damaged(called: str | None) -> BadImageError:
    return BadImageError(f"{called or 'The image'} is cut off or damaged. Save it again and try once more.")
