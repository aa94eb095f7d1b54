"""A translator for tests of the page: the real one's interface, faces at fixed places, colours instead of networks."""

import threading
from types import SimpleNamespace

import numpy as np

from cyclegan.errors import UnknownModelError
from cyclegan.faces.align import Template, centred_square
from cyclegan.faces.detect import Face
from cyclegan.model import Domain, ModelConfig, check_direction
from cyclegan.networks import GeneratorConfig
from cyclegan.translator import Result, Translation, choose

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


class FakeZoo:
    def __init__(self, configs, problems):
        self.entries = {c.name: SimpleNamespace(config=c) for c in configs}
        self.problems = problems

    def config(self, name):
        if name not in self.entries:
            raise UnknownModelError(f'There is no model "{name}". Known models: {", ".join(self.entries)}.')
        return self.entries[name].config

    def describe(self):
        configs = [entry.config for entry in self.entries.values()]
        return [{"name": c.name, "title": c.title, "directions": c.directions} for c in configs]


class FakeTranslator:
    """Inverts the colours of two faces at fixed places; photos that are black all over have none.

    `calls` records what was asked, `gate` holds translations back while it is cleared, `fail_with` makes them fail.
    """

    boxes = ((0.1, 0.2, 0.4, 0.7), (0.6, 0.3, 0.8, 0.6))

    def __init__(self, configs=None, problems=None):
        if configs is None:
            configs = [
                config("glasses", "Glasses", "Add glasses", "Remove glasses"),
                config("anime", "Anime", "Turn into a drawing", "Turn into a photo", b_faces="square"),
            ]
        self.zoo = FakeZoo(configs, problems or {})
        self.calls = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail_with = None

    def needs_faces(self, model, direction):
        return self.zoo.config(model).domains[check_direction(direction)[0]].faces == "mtcnn"

    def detect(self, photo):
        height, width = photo.shape[:2]
        scaled = [np.array(box) * (width, height, width, height) for box in self.boxes if photo.any()]
        return [Face(tuple(b.tolist()), np.float32(_LANDMARKS * (b[2:] - b[:2]) + b[:2]), 0.99) for b in scaled]

    def translate(self, photo, model, direction, faces="all", then=(), square=None, found=None):
        needs_faces = self.needs_faces(model, direction)
        assert self.gate.wait(30)
        if self.fail_with:
            raise self.fail_with
        self.calls.append(SimpleNamespace(model=model, direction=direction, faces=faces, square=square))
        if needs_faces:
            found = self.detect(photo) if found is None else found
            targets = [(i, found[i], found[i].box) for i in choose(faces, len(found))]
        else:
            targets = [(0, None, square or centred_square(*photo.shape[:2]))]
        output, translations = photo.copy(), []
        for index, face, box in targets:
            left, top, right, bottom = (round(x) for x in box)
            output[top:bottom, left:right] = 255 - output[top:bottom, left:right]
            crop = np.full((64, 64, 3), photo[top:bottom, left:right].mean(axis=(0, 1)), np.uint8)
            translations.append(Translation(index, face, box, crop, 255 - crop, crop, 0.032))
        return Result(photo, output, translations, 0.01)
