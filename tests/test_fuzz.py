"""Damaged and lying picture files, sent to the page as strangers would send them.

``CYCLEGAN_FUZZ=2000 python -m pytest tests/test_fuzz.py -s`` is the full run, with its figures.
"""

import io
import json
import os
import struct
import sys
import time
import zipfile
import zlib
from collections import Counter

import httpx
import numpy as np
import pytest
from helpers import draw_photo
from PIL import Image
from served import ROOT, file_data, page

COUNT = int(os.environ.get("CYCLEGAN_FUZZ", 100))
FULL = "CYCLEGAN_FUZZ" in os.environ
PATIENCE = 5 if FULL else 60  # seconds; tests run on busy machines, too
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Memory is read from /proc.")


def good_files() -> list[bytes]:
    """The same drawn face in every format, and some of their rarer kinds."""
    picture = Image.fromarray(draw_photo((20, 10, 160), width=220, height=180))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [(picture, {"format": format}) for format in FORMATS]
    kinds += [
        (picture, {"format": "JPEG", "exif": exif, "progressive": True}),
        (picture.convert("CMYK"), {"format": "JPEG"}),
        (picture.convert("RGBA"), {"format": "PNG"}),
        (picture.quantize(16), {"format": "PNG", "transparency": 3}),
        (picture.convert("L"), {"format": "TIFF", "compression": "tiff_lzw"}),
        (picture, {"format": "GIF", "save_all": True, "append_images": [picture.rotate(9)]}),
    ]
    files = []
    for image, options in kinds:
        file = io.BytesIO()
        image.save(file, **options)
        files.append(file.getvalue())
    return files


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, len(data))]


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 40))):
        changed[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def lie_in_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Numbers near the start become extreme: sizes, counts, offsets."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(2, min(64, len(data) - 4)))
        number = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 50_000, 0x80000000)[rng.integers(0, 6)]
        changed[at : at + 4] = struct.pack(rng.choice(["<I", ">I"]), number)
    return bytes(changed)


def bomb(data: bytes, rng: np.random.Generator) -> bytes:
    """A PNG of any size, up to the largest that is decoded and far beyond, in a few kilobytes."""
    width, height = ((8000, 8000), (60_000, 1000), (50_000, 50_000), (2**31 - 1, 2**31 - 1), (16, 4_000_000))[
        rng.integers(0, 5)
    ]
    rows = zlib.compress(bytes(min(width * height // 8, 8_000_000)), 9)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def polyglot(data: bytes, rng: np.random.Generator) -> bytes:
    """Two kinds of file in one."""
    zip_file = io.BytesIO()
    with zipfile.ZipFile(zip_file, "w") as archive:
        archive.writestr("../../evil.png", data)
    others = [
        b"%PDF-1.7\n", b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><svg>&e;</svg>",
        b"<html><script>alert(1)</script>", b"#!/bin/sh\nid\n", b"\x80\x04cos\nsystem\n", b"#EXTM3U\nfile:///etc/passwd\n",
        zip_file.getvalue(), b"GIF89a", b"II*\0", b"\0\0\0\x18ftypavif", b"%!PS-Adobe\n(/etc/passwd) run\n",
    ]  # fmt: skip
    other = others[rng.integers(0, len(others))]
    return (other + data, data + other, data[:40] + other + data[40:], other)[rng.integers(0, 4)]


def splice(data: bytes, rng: np.random.Generator) -> bytes:
    """Parts are repeated, taken out or swapped."""
    a, b = sorted(int(x) for x in rng.integers(0, len(data), 2))
    return (data[:a] + data[a:b] * 3 + data[b:], data[:a] + data[b:], data[b:] + data[:b])[rng.integers(0, 3)]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    """The right signature, then anything."""
    return data[: rng.integers(0, 30)] + rng.bytes(int(rng.integers(0, 5000)))


MUTATIONS = (cut, flip_bits, lie_in_header, bomb, polyglot, splice, noise)


def mutated(count: int, seed: int = 0):
    """``count`` files as (name of the mutation, content)."""
    rng = np.random.default_rng(seed)
    files = good_files()
    for number in range(count):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        yield mutation.__name__, mutation(files[rng.integers(0, len(files))], rng)


def test_no_file_harms_the_page(tmp_path):
    outcomes: Counter = Counter()
    slowest, faults = 0.0, 0
    secrets = (str(ROOT), str(tmp_path), "site-packages", "Traceback", "root:x:")
    with page(tmp_path) as served, httpx.Client(base_url=f"{served.url}/gradio_api", timeout=PATIENCE + 60) as api:

        def send(endpoint: str, content: bytes, name: str) -> tuple[bool, str, float]:
            started = time.monotonic()
            path = api.post("/upload", files={"files": (name, content)}).raise_for_status().json()[0]
            data = [file_data(path, name)] + (["glasses", "A2B", "all"] if endpoint == "translate" else [])
            event = api.post(f"/call/{endpoint}", json={"data": data}).raise_for_status().json()["event_id"]
            answer = api.get(f"/call/{endpoint}/{event}").raise_for_status().text
            return "event: complete" in answer, answer.replace(path, ""), time.monotonic() - started

        good = good_files()
        # The page at its ease: everything loaded, every decoder used, the largest picture seen.
        large = io.BytesIO()
        Image.new("RGB", (8000, 8000)).save(large, "JPEG")
        for content in [*good, large.getvalue(), *(content for _, content in mutated(14, seed=1))]:
            for endpoint in ("detect", "translate"):
                send(endpoint, content, "warm.png")
        before = served.memory()

        for number, (kind, content) in enumerate(mutated(COUNT)):
            endpoint = ("detect", "translate")[number // len(MUTATIONS) % 2]
            worked, answer, seconds = send(endpoint, content, f"{kind}.png")
            slowest = max(slowest, seconds)
            outcomes[kind, "read" if worked else "refused"] += 1
            if not worked:
                reason = json.loads(answer.split("data: ", 1)[1].split("\n")[0])
                assert reason["error"], f"mutation {number} ({kind}): no reason was given"
                faults += "Something went wrong" in answer
            assert not [secret for secret in secrets if secret in answer.replace(str(served.temp), "")], answer
        assert served.alive
        assert send("translate", good[0], "good.png")[0]
        after = served.memory()
    if FULL:
        print(f"\n{COUNT} files, slowest {slowest:.2f} s, memory {before:.0f} -> {after:.0f} MB")
        print(*(f"{kind}: {count} {outcome}" for (kind, outcome), count in sorted(outcomes.items())), sep=", ")
    assert slowest < PATIENCE
    assert faults == 0
    assert after <= before * 1.1
    log = served.log.read_text()
    assert "Traceback" not in log, log[-3000:]
