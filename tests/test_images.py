"""Every file below is made here, byte by byte or by Pillow; the messages are what a person reads."""

import io
import os
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

from cyclegan import images
from cyclegan.errors import BadImageError
from cyclegan.images import check_image, encode_png, load_image, psnr, save_png, to_image, to_images, to_tensor

DAMAGED = "{} is cut off or damaged. Save it again and try once more."
NOT_AN_IMAGE = "{} is not an image we can read. Use a JPEG, PNG, WebP, GIF, BMP or TIFF file."

# Four colours, one per quadrant: any flip or turn is seen.
QUADRANTS = np.zeros((32, 48, 3), np.uint8)
QUADRANTS[:16, :24] = (200, 30, 30)
QUADRANTS[:16, 24:] = (30, 200, 30)
QUADRANTS[16:, :24] = (30, 30, 200)
QUADRANTS[16:, 24:] = (220, 220, 60)


def noise(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(picture: Image.Image | np.ndarray, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, format, **options)
    return file.getvalue()


def message(source, name: str | None = None) -> str:
    with pytest.raises(BadImageError) as caught:
        load_image(source, name)
    return str(caught.value)


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, transparency: bytes = b"") -> bytes:
    """A PNG by hand, for the kinds that Pillow does not write; ``rows`` start with a filter byte each."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"tRNS", transparency) if transparency else b"")
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- what is accepted


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_a_lossless_file_gives_its_exact_pixels(format):
    loaded = load_image(encoded(noise(), format))
    assert loaded.dtype == np.uint8 and loaded.flags.writeable and loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, noise())


@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("AVIF", {"quality": 95}), ("WEBP", {"lossless": True})],
)
def test_a_lossy_file_gives_nearly_its_pixels(format, options):
    loaded = load_image(encoded(QUADRANTS, format, **options))
    assert loaded.shape == QUADRANTS.shape
    assert np.abs(loaded.astype(int) - QUADRANTS).mean() < 4


def test_path_bytes_and_open_file_are_the_same(tmp_path):
    path = tmp_path / "photo.png"
    data = encoded(noise())
    path.write_bytes(data)
    for source in (path, str(path), data, io.BytesIO(data), path.open("rb")):
        np.testing.assert_array_equal(load_image(source), noise())


def test_the_extension_does_not_matter(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(noise(), "BMP"))
    np.testing.assert_array_equal(load_image(path), noise())


def test_a_multi_picture_jpeg_gives_the_first():
    data = encoded(QUADRANTS, "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32))], quality=95)
    assert np.abs(load_image(data).astype(int) - QUADRANTS).mean() < 4


@pytest.mark.parametrize(("format", "tolerance"), [("GIF", 0), ("PNG", 0), ("WEBP", 8), ("TIFF", 0)])
def test_an_animation_gives_its_first_frame(format, tolerance):
    first, second = Image.new("RGB", (32, 24), (250, 10, 10)), Image.new("RGB", (32, 24), (10, 10, 250))
    data = encoded(first, format, save_all=True, append_images=[second, first])
    assert Image.open(io.BytesIO(data)).n_frames > 1
    assert np.abs(load_image(data).astype(int) - (250, 10, 10)).max() <= tolerance


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_rgba_is_laid_over_white(format):
    rgba = np.zeros((20, 30, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:, 10:20, 3] = 128
    rgba[:, 20:, 3] = 255
    loaded = load_image(encoded(rgba, format, **({"lossless": True, "exact": True} if format == "WEBP" else {})))
    assert loaded[0, 0].tolist() == [255, 255, 255]
    assert np.abs(loaded[0, 15].astype(int) - (227, 127, 127)).max() <= 1
    assert loaded[0, 25].tolist() == [200, 0, 0]


def test_grey_with_alpha_is_laid_over_white():
    grey = np.full((20, 30, 2), 100, np.uint8)
    grey[:, :15, 1] = 0
    grey[:, 15:, 1] = 255
    loaded = load_image(encoded(Image.fromarray(grey, "LA")))
    assert loaded[0, 0].tolist() == [255] * 3 and loaded[0, 20].tolist() == [100] * 3


def test_a_transparent_palette_entry_is_white():
    indices = np.zeros((20, 30), np.uint8)
    indices[:, 15:] = 1
    picture = Image.fromarray(indices, "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    loaded = load_image(encoded(picture))
    assert loaded[0, 0].tolist() == [10, 20, 30] and loaded[0, 20].tolist() == [40, 50, 60]
    for format in ("PNG", "GIF"):
        loaded = load_image(encoded(picture, format, transparency=0))
        assert loaded[0, 0].tolist() == [255] * 3 and loaded[0, 20].tolist() == [40, 50, 60]


def test_half_transparent_palette_entries_are_blended():
    picture = Image.new("P", (20, 20), 0)
    picture.putpalette([200, 0, 0])
    loaded = load_image(encoded(picture, transparency=bytes([128])))
    assert np.abs(loaded[0, 0].astype(int) - (227, 127, 127)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_black_and_white_become_rgb(mode):
    picture = Image.fromarray(np.tile(np.array([0, 255], np.uint8).repeat(16), (20, 1))).convert(mode)
    loaded = load_image(encoded(picture))
    assert loaded.shape == (20, 32, 3)
    assert loaded[0, 0].tolist() == [0] * 3 and loaded[0, 31].tolist() == [255] * 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_a_16_bit_gradient_keeps_its_range(format, byte_order):
    gradient = np.tile(np.linspace(0, 65535, 256), (20, 1)).astype(np.uint16)
    # Pillow has no big-endian fromarray for 16 bits in every version, so the mode is named.
    mode = "I;16" if byte_order == "<u2" else "I;16B"
    picture = Image.frombytes(mode, (256, 20), gradient.astype(byte_order).tobytes())
    loaded = load_image(encoded(picture, format))
    np.testing.assert_array_equal(loaded, np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (20, 1, 3)))


def test_all_16_bit_values_are_rounded():
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    loaded = load_image(encoded(samples))
    np.testing.assert_array_equal(loaded[..., 0], np.round(samples / 257))


def test_a_transparent_16_bit_grey_is_white():
    row = b"\0" + np.array([1000] * 8 + [1001] * 8, ">u2").tobytes()
    data = png(16, 20, 16, 0, row * 20, transparency=struct.pack(">H", 1000))
    assert load_image(data)[0, :, 0].tolist() == [255] * 8 + [4] * 8


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.int32, 65535), (np.int32, 255), (np.float32, 1), (np.float32, 255), (np.float32, 65535)]
)
def test_32_bit_grey_is_scaled_and_not_clipped(dtype, top):
    gradient = np.tile(np.linspace(0, top, 256), (20, 1)).astype(dtype)
    loaded = load_image(encoded(gradient, "TIFF"))
    assert np.abs(loaded[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize(("low", "high"), [(-500, 500), (0, 10**9), (-1e30, 1e30)])
def test_unusual_grey_ranges_are_stretched(low, high):
    gradient = np.tile(np.linspace(low, high, 256), (20, 1)).astype(np.float32)
    gradient[3, 7] = np.nan
    loaded = load_image(encoded(gradient, "TIFF"))
    assert np.abs(loaded[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_a_grey_file_of_one_negative_value_is_black():
    assert load_image(encoded(np.full((20, 20), -5, np.int32), "TIFF")).max() == 0


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_is_scaled(channels):
    row = np.zeros((16, channels), ">u2")
    row[:, 0], row[:, 2], row[:, 3:] = 65535, 32768, 65535
    data = png(16, 20, 16, 2 if channels == 3 else 6, (b"\0" + row.tobytes()) * 20)
    assert load_image(data)[5, 5].tolist() == [255, 0, 128]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)])
def test_cmyk_keeps_its_colours(format, colour):
    """Pillow writes CMYK JPEGs inverted with an Adobe marker, as Photoshop does."""
    data = encoded(Image.new("RGB", (32, 32), colour).convert("CMYK"), format)
    assert format == "TIFF" or b"Adobe" in data
    assert np.abs(load_image(data).astype(int) - colour).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_every_exif_orientation_is_applied(orientation, format):
    # How the stored picture must be turned, from the definition of the tag: where its first row and column belong.
    stored = {
        1: QUADRANTS,
        2: QUADRANTS[:, ::-1],
        3: QUADRANTS[::-1, ::-1],
        4: QUADRANTS[::-1],
        5: QUADRANTS.transpose(1, 0, 2),
        6: QUADRANTS.transpose(1, 0, 2)[::-1],
        7: QUADRANTS[::-1, ::-1].transpose(1, 0, 2),
        8: QUADRANTS.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {} if format in ("PNG", "TIFF") else {"quality": 95}
    loaded = load_image(encoded(np.ascontiguousarray(stored), format, exif=exif, **quality))
    assert loaded.shape == QUADRANTS.shape
    assert np.abs(loaded.astype(int) - QUADRANTS).mean() < 4


CUT_OFF_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("exif", [CUT_OFF_EXIF, b"Exif\0\0not a TIFF header"], ids=["cut off", "foreign"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_unparsable_exif_does_not_spoil_a_good_picture(exif, format):
    loaded = load_image(encoded(QUADRANTS, format, quality=95, exif=exif))
    assert np.abs(loaded.astype(int) - QUADRANTS).mean() < 4


def test_no_warning_with_a_server_path_is_printed():
    """In a fresh interpreter, because pytest replaces the filters of warnings."""
    photo = encoded(QUADRANTS, "JPEG", exif=CUT_OFF_EXIF)
    code = "import sys; from cyclegan.images import load_image; load_image(sys.stdin.buffer)"
    done = subprocess.run([sys.executable, "-c", code], input=photo, capture_output=True, check=True)
    assert done.stderr == b""


def xyz_profile() -> bytes:
    """A valid profile that is not sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()


def swapped_profile() -> bytes:
    """sRGB with its red and blue primaries exchanged, so that its use cannot be missed."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")


def test_an_embedded_profile_is_converted_to_srgb():
    picture = Image.new("RGB", (32, 32), (255, 0, 0))
    loaded = load_image(encoded(picture, icc_profile=swapped_profile()))
    assert np.abs(loaded.astype(int) - (0, 0, 255)).max() <= 2


def profile_by_hand(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2: a header of 128 bytes, the table of tags, the tags."""
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, 128 + 4 + 12 * len(tags) + len(body), len(content))
        body += content
    white = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    header = struct.pack(
        ">I4sI4s4s4s12s4s", 132 + len(table) - 4 + len(body), b"", 0x02400000, kind, space, connection, b"", b"acsp"
    )
    return header.ljust(68, b"\0") + white.ljust(60, b"\0") + table + body


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_converted(mode):
    linear = profile_by_hand(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"curv" + bytes(8)})
    loaded = load_image(encoded(Image.new("L", (20, 20), 128).convert(mode), icc_profile=linear))
    assert np.abs(loaded.astype(int) - 188).max() <= 1  # half the light is 188 in sRGB


def test_a_cmyk_profile_is_converted():
    """A press on which all inks together are black and anything else is one orange: L* 65, a* 45, b* 65."""
    ramp = bytes(range(256))
    lut = struct.pack(">4sI4B9i", b"mft1", 0, 4, 3, 2, 0, *(65536 * (i in (0, 4, 8)) for i in range(9)))
    orange = lut + ramp * 4 + bytes([166, 128 + 45, 128 + 65]) * 15 + bytes([0, 128, 128]) + ramp * 3
    press = profile_by_hand(b"prtr", b"CMYK", b"Lab ", {b"A2B0": orange})
    loaded = load_image(encoded(Image.new("CMYK", (20, 20), (255, 0, 0, 0)), "JPEG", icc_profile=press))
    assert np.abs(loaded.astype(int) - (244, 121, 34)).max() <= 3


def test_the_srgb_profile_changes_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    loaded = load_image(encoded(noise(), icc_profile=profile))
    assert np.abs(loaded.astype(int) - noise()).max() <= 1


@pytest.mark.parametrize("profile", [b"junk", swapped_profile()[:200], xyz_profile()])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
def test_a_useless_profile_is_ignored(profile, mode):
    picture = Image.fromarray(QUADRANTS).convert(mode)
    plain = load_image(encoded(picture, "TIFF"))
    np.testing.assert_array_equal(load_image(encoded(picture, "TIFF", icc_profile=profile)), plain)


# ---------------------------------------------------------------- what is refused, and how


@pytest.mark.parametrize(
    "content", [b"Dear diary, ...", b"BM is how this text begins, as bitmaps do", bytes(500), b"%PDF-1.7"]
)
def test_not_an_image(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert message(path) == NOT_AN_IMAGE.format("notes.txt")
    assert message(content) == NOT_AN_IMAGE.format("The file")
    assert message(content, name="/srv/upload/tmp123/notes.png") == NOT_AN_IMAGE.format("notes.png")
    assert message(content, name="C:\\Users\\me\\notes.png") == NOT_AN_IMAGE.format("notes.png")
    assert message(content, name="a\x1b[31m\nb.png") == NOT_AN_IMAGE.format("a?[31m?b.png")


def test_formats_off_the_list_are_not_handed_to_their_decoders():
    picture = Image.fromarray(noise())
    for format in ("PPM", "TGA", "ICO", "PCX", "EPS", "PDF"):
        assert message(encoded(picture, format), "x") == NOT_AN_IMAGE.format("x")


@pytest.mark.parametrize(
    "content",
    [
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        '<?xml version="1.0"?>\n<!-- Inkscape --><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN">\n<svg/>',
        '\n <SVG width="10"/>',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_svg(tmp_path, content, encoding):
    path = tmp_path / "logo.png"
    path.write_bytes(content.encode(encoding))
    assert message(path) == "logo.png is an SVG drawing. Save it as PNG or JPEG and try again."


def test_a_page_with_an_svg_in_it_is_not_an_svg():
    page = b"<!doctype html><html><body><svg></svg></body></html>"
    assert message(page, "page.html") == NOT_AN_IMAGE.format("page.html")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "BMP"])
def test_a_truncated_file(tmp_path, format, share):
    data = encoded(noise(100, 120), format)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data[: max(int(len(data) * share), 40)])
    assert message(path) == DAMAGED.format("photo.jpg")
    assert message(path.read_bytes()) == DAMAGED.format("The image")


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"quality": 30, "subsampling": 2}, {"exif": b"Exif\0\0" + bytes(80)}]
)
def test_a_truncated_jpeg_of_any_kind(options):
    data = encoded(noise(100, 120), "JPEG", **options)
    for cut in range(4, len(data) - 300, 97):
        assert message(data[:cut], "photo.jpg") == DAMAGED.format("photo.jpg")


def test_a_damaged_png_checksum():
    data = bytearray(encoded(noise()))
    data[data.index(b"IDAT") + 50] ^= 0xFF
    assert message(bytes(data), "photo.png") == DAMAGED.format("photo.png")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (15, 400), (400, 15)])
def test_too_small(tmp_path, width, height):
    path = tmp_path / "dot.png"
    Image.new("RGB", (width, height)).save(path)
    assert message(path) == f"dot.png is {width} x {height} pixels; at least 16 x 16 are needed."
    assert message(path.read_bytes()) == f"The image is {width} x {height} pixels; at least 16 x 16 are needed."


def test_the_smallest_size_is_accepted():
    assert load_image(encoded(noise(16, 16))).shape == (16, 16, 3)


def huge_png(width: int, height: int) -> bytes:
    """1 bit per pixel and all black: a few kilobytes whatever the size."""
    pack = zlib.compressobj()
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    empty = png(width, height, 1, 0, b"")
    at = empty.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return empty[:at] + chunk + empty[-12:]


@pytest.fixture
def no_decoding(monkeypatch):
    from PIL import ImageFile

    def load(self):
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


@pytest.mark.filterwarnings("error")
def test_too_large_is_refused_before_decoding(tmp_path, no_decoding):
    path = tmp_path / "big.png"
    path.write_bytes(huge_png(12000, 9000))
    expected = "big.png is 12000 x 9000 pixels; at most 64 megapixels are accepted. Make it smaller and try again."
    assert message(path) == expected


@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_named_with_its_size(no_decoding):
    bomb = png(100_000, 100_000, 8, 6, b"")
    assert message(bomb) == (
        "The image is 100000 x 100000 pixels; at most 64 megapixels are accepted. Make it smaller and try again."
    )


def test_the_limit_itself_is_accepted(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 50)
    assert load_image(encoded(noise(40, 50))).shape == (40, 50, 3)
    assert message(encoded(noise(40, 51)), "a.png").startswith("a.png is 51 x 40 pixels; at most ")


def test_a_file_of_too_many_bytes_is_not_read_to_its_end(tmp_path, monkeypatch):
    path = tmp_path / "big.tiff"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # sparse: takes no space
    expected = "{} is larger than 64 MB. Make it smaller and try again."
    assert message(path) == expected.format("big.tiff")

    with monkeypatch.context() as patch:
        patch.setattr(images, "MAX_BYTES", 2**20)
        tracemalloc.start()
        assert message(path) == "big.tiff is larger than 1 MB. Make it smaller and try again."
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 * 2**20

    class Endless(io.RawIOBase):
        def read(self, size=-1):
            assert 0 < size <= images.MAX_BYTES + 1
            return bytes(size)

    assert message(Endless()) == expected.format("The file")


def test_missing_empty_and_folder(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "holiday").mkdir()
    assert message(tmp_path / "none.jpg") == "none.jpg was not found. Check the name and try again."
    assert message(tmp_path / "empty.jpg" / "x.jpg") == "x.jpg was not found. Check the name and try again."
    assert message(tmp_path / "empty.jpg") == "empty.jpg is empty. Choose another file."
    assert message(b"") == "The file is empty. Choose another file."
    assert message(tmp_path / "holiday") == "holiday is a folder. Choose an image file."
    assert message(f"{tmp_path}/holiday/") == "holiday is a folder. Choose an image file."
    assert message("/srv/a\0b.jpg") == "a?b.jpg could not be read. Choose another file."
    assert message("/srv/" + "x" * 5000) == "x" * 5000 + " could not be read. Choose another file."


def test_permission_denied(tmp_path, monkeypatch):
    path = tmp_path / "private.jpg"
    path.write_bytes(encoded(noise()))

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    # Not chmod: whoever runs this as root may read everything.
    monkeypatch.setattr("builtins.open", refuse)
    assert message(path) == "private.jpg may not be read. Change its permissions and try again."


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert message(tmp_path / "pipe.png") == NOT_AN_IMAGE.format("pipe.png")


def test_a_closed_or_failing_file():
    file = io.BytesIO(encoded(noise()))
    file.close()
    assert message(file) == "The file could not be read. Choose another file."


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "BMP"])
@pytest.mark.parametrize("seed", range(4))
# Pillow warns of odd metadata; that is for a log, not a failure.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_flipped_bits_give_a_picture_or_a_clear_answer(tmp_path, format, seed, capfd):
    rng = random.Random(f"{format} {seed}")
    exif = {} if format in ("GIF", "BMP") else {"exif": Image.Exif()}
    if exif:
        exif["exif"][0x0112] = 6
    whole = encoded(noise(48, 64), format, **exif)
    path = tmp_path / "photo.jpg"
    for _ in range(40):
        data = bytearray(whole)
        # Half of the flips go to the first bytes, where the structure is.
        for _ in range(rng.choice([1, 2, 8, 32])):
            data[rng.randrange(len(data) if rng.random() < 0.5 else min(200, len(data)))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            loaded = load_image(path)
        except BadImageError as error:
            assert str(error).startswith("photo.jpg ") and "/" not in str(error)
        else:
            assert loaded.dtype == np.uint8 and loaded.ndim == 3 and loaded.shape[2] == 3
            assert min(loaded.shape[:2]) >= images.MIN_SIDE
    assert capfd.readouterr().err == ""  # libtiff and others like to print


def test_other_settings_of_pillow_are_left_alone():
    from PIL import ImageFile

    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    load_image(encoded(noise()))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before == (89478485, False)


def test_many_threads_at_once():
    files = [encoded(noise(seed=seed), format) for seed in range(4) for format in ("PNG", "TIFF", "BMP")]
    wrong = []

    def work(index: int):
        for _ in range(5):
            if not np.array_equal(load_image(files[index]), noise(seed=index // 3)):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(files))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---------------------------------------------------------------- arrays and tensors


def test_check_image_returns_the_same_pixels():
    flipped = noise()[:, ::-1]
    checked = check_image(flipped)
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, flipped)


@pytest.mark.parametrize(
    "image",
    [noise().astype(np.float32), noise()[..., 0], np.zeros((20, 20, 4), np.uint8), noise()[None], "x", None, [[1]]],
)
def test_check_image_refuses_other_arrays(image):
    with pytest.raises(BadImageError) as caught:
        check_image(image)
    assert str(caught.value) == (
        "The image is not an RGB picture with 8 bits per colour. Save it as PNG or JPEG and try again."
    )


def test_check_image_has_the_size_limits_of_files():
    with pytest.raises(BadImageError, match=r"^The image is 20 x 3 pixels; at least 16 x 16 are needed\.$"):
        check_image(noise(3, 20))
    huge = np.broadcast_to(np.zeros(3, np.uint8), (9000, 12000, 3))  # takes no memory
    with pytest.raises(BadImageError, match=r"^The image is 12000 x 9000 pixels; at most 64 megapixels are accepted\."):
        check_image(huge)


pictures = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda hw: arrays(np.uint8, (*hw, 3)))


@given(pictures)
def test_round_trip_of_an_array_is_exact(image):
    x = to_tensor(image)
    assert x.shape == (1, 3, *image.shape[:2]) and x.dtype == torch.float32 and x.is_contiguous()
    np.testing.assert_array_equal(to_image(x), image)
    np.testing.assert_array_equal(to_image(x[0]), image)
    np.testing.assert_array_equal(to_image(to_tensor(torch.tensor(image))), image)


def devices() -> list[str]:
    return ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()


@pytest.mark.parametrize("device", devices())
def test_round_trip_of_a_batch_is_exact_for_all_256_values(device):
    batch = np.arange(256, dtype=np.uint8)[None, None, :, None].repeat(2, 0).repeat(3, 3).copy()
    batch[1] = batch[1, :, ::-1]
    x = to_tensor(torch.tensor(batch).to(device))
    assert x.device.type == device and x.shape == (2, 3, 1, 256)
    np.testing.assert_array_equal(to_images(x), batch)
    np.testing.assert_array_equal(to_images(to_tensor(batch)), batch)


def test_the_ends_of_the_range_and_the_order_of_channels():
    x = to_tensor(np.array([[[0, 255, 51]]], np.uint8))
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))


def test_out_of_range_is_clamped_and_values_are_rounded():
    x = torch.tensor([-9.0, -1.001, 1.001, 9.0, 100.4 / 127.5 - 1, 100.6 / 127.5 - 1]).expand(1, 3, 1, 6)
    assert to_image(x)[0, :, 0].tolist() == [0, 0, 255, 255, 100, 101]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_and_tensors_with_gradients(dtype):
    x = torch.zeros(1, 3, 2, 2, dtype=dtype, requires_grad=True)
    assert to_image(x).max() == 128


def test_the_input_is_not_changed():
    image, x = noise(), torch.rand(1, 3, 4, 4)
    kept_image, kept_x = image.copy(), x.clone()
    to_tensor(image), to_image(x)
    assert np.array_equal(image, kept_image) and torch.equal(x, kept_x)


@pytest.mark.filterwarnings("error")
def test_read_only_and_flipped_arrays_are_fine():
    image = noise()
    image.flags.writeable = False
    np.testing.assert_array_equal(to_image(to_tensor(image)), image)
    np.testing.assert_array_equal(to_image(to_tensor(image[:, ::-1])), image[:, ::-1])


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), torch.zeros(3, 4, 4, dtype=torch.uint8)]
)
def test_to_tensor_refuses_other_shapes(image):
    with pytest.raises(ValueError, match="expected uint8"):
        to_tensor(image)


def test_to_image_refuses_other_shapes():
    for x in (torch.zeros(2, 3, 4, 4), torch.zeros(4, 4), torch.zeros(1, 4, 4, 4)):
        with pytest.raises(ValueError, match="expected"):
            to_image(x)
    with pytest.raises(ValueError, match="expected"):
        to_images(torch.zeros(3, 4, 4))


def test_png_with_text(tmp_path):
    text = {"Title": "Remove glasses", "Comment": "généré 生成"}
    save_png(tmp_path / "face.png", noise(), text)
    assert (tmp_path / "face.png").read_bytes() == encode_png(noise(), text)
    np.testing.assert_array_equal(load_image(tmp_path / "face.png"), noise())
    with Image.open(tmp_path / "face.png") as picture:
        assert dict(picture.text) == text
    with Image.open(io.BytesIO(encode_png(noise()))) as picture:
        assert not picture.text


def test_psnr():
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(grey, grey) == 99
    assert psnr(grey + 10, grey) == pytest.approx(20 * np.log10(25.5))
