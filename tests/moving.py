"""Moving pictures made from one photo, with what is in every frame known: for the tracker and for a browser's camera."""

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
_WALL = (150, 140, 130)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of the film."""

    time: float
    """Seconds since the start."""
    part: str
    """A word of `SCRIPT`."""
    image: np.ndarray
    """uint8 [480, 640, 3]."""
    matrix: np.ndarray
    """From the photo to the frame: float64 [2, 3]."""

    def landmarks(self, of_photo: np.ndarray) -> np.ndarray:
        """Where points of the photo [N, 2] are in this frame."""
        return of_photo @ self.matrix[:, :2].T + self.matrix[:, 2]


def film(photo: np.ndarray, landmarks: np.ndarray, eyes: float = 60.0, script=SCRIPT) -> Iterator[Frame]:
    """The face with these landmarks [5, 2] moves as in ``script``; at rest its eyes are ``eyes`` pixels apart."""
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
                photo, matrix, SIZE, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT, borderValue=_WALL
            )
            if part == "covered":
                reach = round(1.9 * eyes)
                cv2.rectangle(image, (320 - reach, 250 - reach), (320 + reach, 250 + reach), _COVER, -1)
            yield Frame(number / FPS, part, image, matrix)
            number += 1


def write_camera(path: Path, frames: Iterator[Frame]) -> Path:
    """The film as a file that Chromium takes for a camera: JPEG after JPEG."""
    with open(path, "wb") as file:
        for frame in frames:
            file.write(cv2.imencode(".jpg", frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    return path
