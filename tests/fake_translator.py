"""A translator for tests of the page: the real one's interface, faces at fixed places, colours instead of networks."""

import threading
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from cyclegan.faces.align import Template, centred_square
from cyclegan.faces.detect import Face
from cyclegan.model import Domain, ModelConfig, check_direction
from cyclegan.networks import GeneratorConfig
from cyclegan.translator import Result, Translation, choose
from cyclegan.zoo import Entry, Zoo

_LANDMARKS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def config(name: str, title: str, there: str, back: str, b_faces: str = "mtcnn") -> ModelConfig:
    return ModelConfig(
        name=name,
        title=title,
        generator=GeneratorConfig(),
        image_size=64,
        domains={"A": Domain("one"), "B": Domain("other", b_faces)},
        directions={"A2B": there, "B2A": back},
        template=Template(tuple(map(tuple, _LANDMARKS.tolist())), 1.0),
        description=f"Everything about {title.lower()}.",
        license="CC BY-NC 4.0",
    )


FIVE = (
    config("glasses", "Glasses", "Add glasses", "Remove glasses"),
    config("age", "Age", "Make older", "Make younger"),
    config("gender", "Gender", "More feminine", "More masculine"),
    config("ethnicity", "Ethnicity", "Asian features", "European features"),
    config("anime", "Anime", "Turn into a drawing", "Turn into a photo", b_faces="square"),
)


class FakeZoo(Zoo):
    """Models that are only their configs; ``root`` may hold their cards and grids."""

    def __init__(self, configs, problems, root=Path("nowhere")):
        super().__init__(Path("nowhere"))
        for c in configs:
            self.entries[c.name] = Entry(c.name, root / c.name, c, sha256(c.name.encode()).hexdigest())
        self.problems.update(problems)


class FakeTranslator:
    """Inverts the colours of two faces at fixed places; photos that are black all over have none.

    `calls` records what was asked, `gate` holds translations back while it is cleared, and `look` the search for faces;
    `fail_with` makes translations fail.
    """

    boxes = ((0.1, 0.2, 0.4, 0.7), (0.6, 0.3, 0.8, 0.6))

    def __init__(self, configs=None, problems=None, root=Path("nowhere")):
        if configs is None:
            configs = [FIVE[0], FIVE[-1]]
        self.zoo = FakeZoo(configs, problems or {}, root)
        self.calls = []
        self.gate = threading.Event()
        self.gate.set()
        self.look = threading.Event()
        self.look.set()
        self.fail_with = None

    def needs_faces(self, model, direction):
        return self.zoo.config(model).domains[check_direction(direction)[0]].faces == "mtcnn"

    def engine(self, model, direction):
        self.zoo.config(model), check_direction(direction)

    def add_guest(self, folder):
        return self.zoo.add_guest(folder)

    def forget(self, guest):
        self.zoo.remove_guest(guest)

    def detect(self, photo):
        assert self.look.wait(30)
        height, width = photo.shape[:2]
        scaled = [np.array(box) * (width, height, width, height) for box in self.boxes if photo.any()]
        return [Face(tuple(b.tolist()), np.float32(_LANDMARKS * (b[2:] - b[:2]) + b[:2]), 0.99) for b in scaled]

    def tracker(self):
        return SimpleNamespace(track=lambda frame, time: self.detect(frame))

    def translate(self, photo, model, direction, faces="all", then=(), square=None, found=None):
        for name, way in [(model, direction), *then]:
            self.engine(name, way)
        assert self.gate.wait(30)
        if self.fail_with:
            raise self.fail_with
        chain = [(model, direction), *then]
        self.calls.append(SimpleNamespace(model=model, direction=direction, faces=faces, square=square, chain=chain))
        if square is None and self.needs_faces(model, direction):
            found = self.detect(photo) if found is None else found
            targets = [(i, found[i], found[i].box) for i in choose(faces, len(found))]
        else:
            targets = [(0, None, square or centred_square(*photo.shape[:2]))]
        output, translations = photo.copy(), []
        for index, face, box in targets:
            left, top, right, bottom = (round(x) for x in box)
            output[top:bottom, left:right] = 255 - output[top:bottom, left:right]
            crop = np.full((64, 64, 3), photo[top:bottom, left:right].mean(axis=(0, 1)), np.uint8)
            steps = tuple(255 - crop if i % 2 == 0 else crop for i in range(len(chain)))
            translations.append(Translation(index, face, box, crop, 255 - crop, crop, 0.032, steps))
        return Result(photo, output, translations, 0.01)
