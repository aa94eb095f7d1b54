"""Moving pictures made from one photo, and what is in every frame: for the tracker and for a browser's camera."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SIZE = (640, 480)
"""Width and height of every frame."""
FPS = 20

# Seconds, and what happens in them. Every part ends where it began, so that the film can run in a circle.
SCRIPT = (
    ("rest", 1.0), ("pan", 3.0), ("zoom", 3.0), ("roll", 3.0), ("rest", 0.5), ("covered", 1.0), ("rest", 1.5),
    ("leave", 0.6), ("away", 1.0), ("return", 0.6), ("rest", 1.0),
)  # fmt: skip
_COVER = (90, 110, 70)
WALL = (150, 140, 130)
_BLOCK, _BITS = 16, 10  # the number of a frame is written along its upper edge, black and white


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of the film."""

    time: float
    """Seconds since the start."""
    part: str
    """A word of `SCRIPT`."""
    image: np.ndarray
    """uint8 [480, 640, 3]."""
    landmarks: np.ndarray
    """Where those of the face are: float64 [5, 2]."""


def film(
    photo: np.ndarray, landmarks: np.ndarray, eyes: float = 60.0, script=SCRIPT, wall=WALL, numbered: bool = False
) -> Iterator[Frame]:
    """The face with these landmarks [5, 2] moves as in ``script``; at rest its eyes are ``eyes`` pixels apart.

    ``wall`` is the colour around the photo; ``numbered`` frames can be told apart by `number_of`, and have the wall's
    colour in their upper right corner.
    """
    centre = landmarks.mean(0)
    size = eyes / np.hypot(*(landmarks[1] - landmarks[0]))
    number = 0
    for part, seconds in script:
        count = round(seconds * FPS)
        for i in range(count):
            once = np.sin(2 * np.pi * i / count)  # there, back, and to the other side
            across, down, zoom, roll = 320.0, 250.0, 1.0, 0.0
            if part == "pan":
                across, down = 320 + 110 * once, 250 + 40 * np.sin(4 * np.pi * i / count)
            elif part == "zoom":
                zoom = 1.4 ** np.sin(np.pi * i / count)
            elif part == "roll":
                roll = 25 * once
            elif part in ("leave", "return"):
                done = i / count
                across = 320 + 520 * (done if part == "leave" else 1 - done)
            elif part == "away":
                across = 10_000
            matrix = cv2.getRotationMatrix2D(centre.tolist(), roll, size * zoom)
            matrix[:, 2] += (across, down) - centre
            image = cv2.warpAffine(
                photo, matrix, SIZE, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT, borderValue=wall
            )
            if part == "covered":
                reach = round(1.9 * eyes)
                cv2.rectangle(image, (320 - reach, 250 - reach), (320 + reach, 250 + reach), _COVER, -1)
            if numbered:
                for bit in range(_BITS):
                    image[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = 255 * (number >> bit & 1)
                image[: 2 * _BLOCK, -2 * _BLOCK :] = wall
            yield Frame(number / FPS, part, image, landmarks @ matrix[:, :2].T + matrix[:, 2])
            number += 1


def number_of(image: np.ndarray) -> int:
    """The number of a frame of a numbered film, whatever its size: uint8 [H, W, 3]."""
    block = _BLOCK * image.shape[1] / SIZE[0]
    return sum((image[int(block / 2), int((bit + 0.5) * block)].mean() > 127) << bit for bit in range(_BITS))


def write_camera(path: Path, frames: Iterator[Frame]) -> Path:
    """The film as a file that Chromium takes for a camera: JPEG after JPEG."""
    with open(path, "wb") as file:
        for frame in frames:
            file.write(cv2.imencode(".jpg", frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    return path
