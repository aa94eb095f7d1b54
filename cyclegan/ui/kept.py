"""What the server remembers of a visit: photos and answers. Pixels lie in files that go within the hour."""

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from cyclegan.errors import BadImageError
from cyclegan.faces.detect import Face
from cyclegan.images import encode_png, load_image
from cyclegan.translator import Result
from cyclegan.ui.components import Upload, store
from cyclegan.ui.draw import preview
from cyclegan.ui.results import Chain, cards, file_name, thumbnail, title_of
from cyclegan.zoo import Zoo, provenance

GONE = "This photo is no longer on the server: it keeps them for an hour, or until it restarts. Choose it again."


@dataclass(frozen=True, eq=False)
class Photo:
    """A visitor's photo. The pixels stay in the file: memory is shared by all."""

    path: str | None
    name: str | None
    size: tuple[int, int]
    """width, height"""
    preview: bytes
    faces: list[Face]

    @classmethod
    def of(cls, upload: Upload, faces: list[Face]) -> "Photo":
        """The photo of an upload, with the faces found in it."""
        height, width = upload.pixels.shape[:2]
        return cls(upload.path, upload.name, (width, height), preview(upload.pixels), faces)

    def pixels(self) -> np.ndarray:
        """The photo itself: uint8 [H, W, 3]. Raises BadImageError once its file has been deleted."""
        if not (self.path and Path(self.path).exists()):
            raise BadImageError(GONE)
        return load_image(self.path, self.name)


@dataclass(frozen=True, eq=False)
class Answer:
    """A translation of a photo: only the part that changed, and what the page says about it."""

    photo: Photo
    chain: Chain
    title: str
    """What was done, for people: ``"Glasses: Add glasses"``."""
    patch: str
    """Path of a PNG: the part of the result that holds every change."""
    corner: tuple[int, int]
    """Left and top of that part in the photo."""
    cards: str
    """Path of an HTML file: `results.cards`."""
    thumbnail: str
    """A data URL: the first face after the last step."""
    cycle_l1: float
    """Of the first face."""
    text: dict[str, str]
    """Text chunks for PNG files."""

    @classmethod
    def of(cls, photo: Photo, result: Result, zoo: Zoo, chain: Chain, component: gr.components.Component) -> "Answer":
        """Store what is needed to show a result again, among the files of ``component``."""
        text = provenance(zoo, chain)
        left, top, right, bottom = _changed(result)
        first = result.translations[0]
        return cls(
            photo=photo,
            chain=chain,
            title=title_of(zoo, chain),
            patch=store(component, encode_png(result.output[top:bottom, left:right], text), "patch.png"),
            corner=(left, top),
            cards=store(component, cards(result, zoo, chain, text).encode(), "cards.html"),
            thumbnail=thumbnail(first.translation),
            cycle_l1=first.cycle_l1,
            text=text,
        )

    def is_there(self) -> bool:
        """Whether its files have not been deleted yet."""
        return Path(self.patch).exists()

    def picture(self, strength: float = 1.0) -> np.ndarray:
        """The whole photo with the translation blended in: uint8 [H, W, 3]. No model runs.

        ``strength`` from 0, the photo as it was, to 1, the translation. Raises BadImageError once the files are gone.
        """
        picture = self.photo.pixels()
        if not self.is_there():
            raise BadImageError(GONE)
        with Image.open(self.patch) as file:  # ours, and as small as the change: no photo, which has a least size
            after = np.asarray(file.convert("RGB"))
        left, top = self.corner
        part = picture[top : top + after.shape[0], left : left + after.shape[1]]
        part[:] = np.rint(part + strength * (after.astype(np.float32) - part)).astype(np.uint8)
        return picture

    def file(self, strength: float = 1.0) -> tuple[bytes, str]:
        """The picture as a PNG file that says how it was made, and a name for it."""
        text = self.text if strength == 1 else {**self.text, "Strength": f"{strength:.0%}"}
        return encode_png(self.picture(strength), text), file_name(self.photo.name, self.title)

    def words(self) -> str:
        """The HTML of its cards. Raises BadImageError once they are gone."""
        if not Path(self.cards).exists():
            raise BadImageError(GONE)
        return Path(self.cards).read_text(encoding="utf-8")


def zipped(answers: Iterable[Answer], strength: float) -> bytes:
    """A zip with the picture of each answer."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, answer in enumerate(answers, 1):
            data, name = answer.file(strength)
            archive.writestr(f"{number:02} {name}", data)  # two models may use the same words for a direction
    return file.getvalue()


def _changed(result: Result) -> tuple[int, int, int, int]:
    """The smallest part of the photo that holds every change; one pixel where there is none."""
    changed = (result.photo != result.output).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if not rows.size:
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
