"""Pictures to try: the files of ``cyclegan/examples/``, searched and translated once for all visitors."""

import html
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2

from cyclegan.faces.align import Box
from cyclegan.images import load_image
from cyclegan.translator import Faces, Result, Translator
from cyclegan.ui.components import Upload
from cyclegan.ui.kept import Photo
from cyclegan.ui.results import Chain, thumbnail

FOLDER = Path(__file__).resolve().parents[1] / "examples"

_THUMB = 128  # side in pixels, for screens of two pixels per point
_REMEMBERED = 48  # results, of about 2 MB each


@dataclass(frozen=True)
class Example:
    """A picture that may be shown to anyone."""

    path: Path

    @property
    def words(self) -> str:
        """What it shows: its file name in words."""
        return self.path.stem.replace("-", " ").capitalize()


class Examples:
    """The examples of a folder. Nothing is read before somebody chooses one, but for the thumbnails."""

    def __init__(self, translator: Translator, folder: Path = FOLDER):
        self.all = [Example(path) for path in sorted(folder.glob("*.jpg"))]
        self._translator = translator
        # Examples are the same for everybody, so that their results may be, too.
        self._remembered = lru_cache(_REMEMBERED)(self._translate)
        self._photo = lru_cache(len(self.all) or 1)(self._read)

    def photo(self, index: int) -> Photo:
        """An example as if it had been uploaded."""
        return self._photo(index)

    def translate(self, photo: Photo, chain: Chain, faces: Faces, square: Box | None) -> Result | None:
        """The result for a photo that is an example, remembered from the last time; None for any other photo."""
        if not any(photo.path == str(example.path) for example in self.all):
            return None
        return self._remembered(photo.path, chain, faces, square)

    def html(self) -> str:
        """A row of buttons, each with its number in ``data-index``."""
        tiles = "".join(
            f'<li><button type="button" data-index="{i}" aria-label="Try: {html.escape(example.words)}">'
            f'<img src="{_thumb(example.path)}" alt=""></button></li>'
            for i, example in enumerate(self.all)
        )
        return f'<p>Or try one of these</p><ul class="strip">{tiles}</ul>'

    def _read(self, index: int) -> Photo:
        path = self.all[index].path
        pixels = load_image(path)
        return Photo.of(Upload(str(path), path.name, pixels), self._translator.detect(pixels))

    def _translate(self, path: str, chain: Chain, faces: Faces, square: Box | None) -> Result:
        (model, direction), *then = chain
        return self._translator.translate(load_image(path), model, direction, faces, then, square)


def _thumb(path: Path) -> str:
    picture = load_image(path)
    side = min(picture.shape[:2])
    left, top = (picture.shape[1] - side) // 2, 0  # heads are at the top
    square = picture[top : top + side, left : left + side]
    return thumbnail(cv2.resize(square, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA))
