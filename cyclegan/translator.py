"""`Translator`: photo in, translated faces out. Everything a page, a script or an API needs."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyclegan.errors import BadImageError, NoFaceError
from cyclegan.faces import align
from cyclegan.faces.align import Box, Change
from cyclegan.faces.detect import Face, FaceDetector
from cyclegan.faces.track import LIVE_SIDE, FaceTracker
from cyclegan.images import check_image
from cyclegan.model import ModelConfig, check_direction, reverse, source, target
from cyclegan.runtime import Engine, make_engine, resolve_device
from cyclegan.zoo import Zoo

Faces = str | int | Sequence[int]
"""Which faces to translate: ``"all"``, ``"largest"``, a position in `Translator.detect`'s list, or several."""

MAX_GUESTS = 12
"""How many guests there can be at a time: memory is shared by all visitors."""

_MOST_IN_VIDEO = 8  # faces that are followed

NO_FACE = "No face was found in this photo. Try one where the face is larger, brighter or turned to the camera."


@dataclass(frozen=True, eq=False)
class Translation:
    """One face, or one drawing, translated."""

    index: int
    """Position in the list of `Translator.detect`, from 0."""
    face: Face | None
    """The face, or None for a part of the picture chosen by hand, or a drawing."""
    box: Box
    """Upright box around the crop in the photo."""
    input: np.ndarray
    """The crop the model saw: uint8 [S, S, 3]."""
    translation: np.ndarray
    """What it made of it, after the last step: uint8 [S, S, 3]."""
    reconstruction: np.ndarray
    """The way back from the translation: uint8 [S, S, 3]."""
    cycle_l1: float
    """Mean absolute difference of input and reconstruction, pixels in [0, 1]."""
    steps: tuple[np.ndarray, ...] = ()
    """What each model of a chain made of it, in order: uint8 [S, S, 3] each; the last is ``translation``."""


@dataclass(frozen=True, eq=False)
class Result:
    """A photo with its translations."""

    photo: np.ndarray
    """The photo as given: uint8 [H, W, 3]."""
    output: np.ndarray
    """The photo with the translated faces in it: uint8 [H, W, 3]."""
    translations: list[Translation]
    """One per face, in the order asked for."""
    seconds: float
    """Wall-clock time of the call."""


@dataclass(frozen=True, eq=False)
class _Step:
    """One model applied to one face."""

    config: ModelConfig
    way_back: Engine
    change: Change


class Translator:
    """Detect, align, translate, paste. Holds no state of its users; threads may share it."""

    def __init__(self, zoo: Zoo, device: str = "auto", engine: str = "auto", detector: FaceDetector | None = None):
        """``device`` is auto, cuda, mps or cpu (DeviceError); ``engine`` as in `runtime.make_engine`."""
        self.zoo = zoo
        self.device = resolve_device(device)
        self._engine = engine
        self._detector = detector
        self._engines: dict[tuple[str, str], Engine] = {}
        self._lock = threading.Lock()

    def needs_faces(self, model: str, direction: str) -> bool:
        """Whether a direction starts from photographs, in which faces have to be found."""
        return self.zoo.config(model).domains[source(direction)].faces == "mtcnn"

    def engine(self, model: str, direction: str) -> Engine:
        """The engine of a direction, made on first use. Raises UnknownModelError, BadCheckpointError."""
        key = (model, check_direction(direction))
        config = self.zoo.config(model)
        if engine := self._engines.get(key):  # without waiting for another that is being made
            return engine
        with self._lock:
            if key not in self._engines:
                generator = self.zoo.load(model).generator(direction)
                self._engines[key] = make_engine(
                    generator,
                    config.image_size,
                    self.device,
                    self._engine,
                    config.precision,
                    config.calibration.get(direction),
                    keep=model in self.zoo.entries,  # a guest leaves nothing behind
                )
            return self._engines[key]

    def add_guest(self, folder: Path) -> str:
        """Take a guest into the zoo; where there are too many, the one that was added first makes room.

        Whoever reloads the page leaves guests behind, which nobody can use any more. Raises as `Zoo.add_guest`.
        """
        name = self.zoo.add_guest(folder)
        for oldest in self.zoo.guests[:-MAX_GUESTS]:
            self.forget(oldest)
        return name

    def forget(self, guest: str) -> None:
        """Remove a guest from the zoo, and its engines."""
        self.zoo.remove_guest(guest)
        with self._lock:
            for key in [key for key in self._engines if key[0] == guest]:
                del self._engines[key]

    def detect(self, photo: np.ndarray) -> list[Face]:
        """The faces of a photo (uint8 [H, W, 3]), largest first; may be empty."""
        photo = check_image(photo)
        if self._detector is None:  # else without waiting for an engine that is being made
            with self._lock:
                if self._detector is None:
                    self._detector = FaceDetector("cuda" if self.device == "cuda" else "cpu")
        return self._detector.detect(photo)

    def tracker(self) -> FaceTracker:
        """Follows the faces of one video, whose frames are shown to it in order."""
        device = "cuda" if self.device == "cuda" else "cpu"
        return FaceTracker(FaceDetector(device, long_side=LIVE_SIDE), most=_MOST_IN_VIDEO)

    def translate(
        self,
        photo: np.ndarray,
        model: str,
        direction: str,
        faces: Faces = "all",
        then: Sequence[tuple[str, str]] = (),
        square: Box | None = None,
        found: Sequence[Face] | None = None,
    ) -> Result:
        """Translate the faces of a photo and paste them back.

        Args:
            photo: uint8 [H, W, 3], RGB.
            model, direction: a name of the zoo, and A2B or B2A.
            faces: which faces, for directions that start from photographs.
            then: further (model, direction) pairs, each applied to the result of the one before.
            square: the part to translate, chosen by hand instead of by the detector, at least a pixel wide. If None,
                directions that start from drawings take the centred square.
            found: faces already detected in this photo.

        Raises NoFaceError, BadImageError, UnknownModelError, UnknownDirectionError, BadCheckpointError.
        """
        started = time.perf_counter()
        photo = check_image(photo)
        chain = [(model, direction), *then]
        for name, way in chain:
            self.engine(name, way)  # an unknown link is refused before any work is done
        if square is not None and not 1 <= square[2] - square[0] < np.inf:
            raise BadImageError("The part of the picture to translate is empty. Choose a larger one.")
        chosen: list[tuple[int, Face | None]] = [(0, None)]
        if square is None and self.needs_faces(model, direction):
            found = self.detect(photo) if found is None else list(found)
            chosen = [(index, found[index]) for index in choose(faces, len(found))]

        changes, translations = [], []
        for index, face in chosen:  # each in the photo as it was, whatever becomes of its neighbours
            steps, translation = self._translate_one(photo, index, face, square, chain)
            changes.append([step.change for step in steps])
            translations.append(translation)
        return Result(photo, align.paste_all(photo, changes), translations, time.perf_counter() - started)

    def retouch(self, frame: np.ndarray, model: str, direction: str, faces: Sequence[Face]) -> np.ndarray:
        """The frame (uint8 [H, W, 3]) with these faces translated, as a new picture.

        For moving pictures: without the way back, half the work of `translate`. Raises as `engine` does.
        """
        config, engine = self.zoo.config(model), self.engine(model, direction)
        changes = []
        for face in faces:
            matrix = align.photo_to_crop(face.landmarks, config.template, config.image_size)
            before = align.crop(frame, matrix, config.image_size)
            changes.append([Change(before, engine(before[None])[0], matrix, _keeps_detail(config))])
        return align.paste_all(frame, changes)

    def _translate_one(
        self, photo: np.ndarray, index: int, face: Face | None, square: Box | None, chain: list[tuple[str, str]]
    ) -> tuple[list[_Step], Translation]:
        steps: list[_Step] = []
        aligned_by, is_new = face, False
        for name, direction in chain:
            config = self.zoo.config(name)
            size = config.image_size
            if steps:  # the photo so far, which only a further step needs
                made = steps[-1].change
                photo = align.paste(photo, made.before, made.after, made.matrix, made.detail)
            wants, gives = (config.domains[of(direction)].faces for of in (source, target))
            if is_new and wants == "mtcnn":
                aligned_by = self._face_within(photo, steps[-1].change)
            if aligned_by is not None and wants == "mtcnn":
                matrix = align.photo_to_crop(aligned_by.landmarks, config.template, size)
            elif steps:  # a drawing made by the step before lies where that step put it
                matrix = align.resized(steps[-1].change.matrix, size / steps[-1].config.image_size)
            else:
                matrix = align.square_to_crop(square or align.centred_square(*photo.shape[:2]), size)
            before = align.crop(photo, matrix, size)
            after = self.engine(name, direction)(before[None])[0]
            change = Change(before, after, matrix, _keeps_detail(config))
            steps.append(_Step(config, self.engine(name, reverse(direction)), change))
            is_new = aligned_by is None and (wants, gives) == ("square", "mtcnn")  # the face of somebody drawn
        first, last = steps[0].change, steps[-1].change
        reconstruction = _way_back(steps)
        return steps, Translation(
            index=index,
            face=face,
            box=align.bounding_box(first.matrix, len(first.before)),
            input=first.before,
            translation=last.after,
            reconstruction=reconstruction,
            cycle_l1=float(np.abs(first.before.astype(np.float32) - reconstruction).mean() / 255),
            steps=tuple(step.change.after for step in steps),
        )

    def _face_within(self, photo: np.ndarray, change: Change) -> Face | None:
        """The largest face whose middle lies in a crop of the photo, if one is found there."""
        for face in self.detect(photo):
            middle = change.matrix[:, :2] @ face.landmarks.mean(0) + change.matrix[:, 2]
            if (0 <= middle).all() and (middle < len(change.after)).all():
                return face
        return None


def _keeps_detail(config: ModelConfig) -> bool:
    """Between photographs a face keeps its own detail; a drawing has none of the photo's."""
    return all(domain.faces == "mtcnn" for domain in config.domains.values())


def _way_back(steps: list[_Step]) -> np.ndarray:
    """Undo the steps, last first, from the final translation to a reconstruction of the first input."""
    back = steps[-1].way_back(steps[-1].change.after[None])[0]
    for step, later in zip(reversed(steps[:-1]), reversed(steps[1:]), strict=True):
        between = align.compose(align.invert(step.change.matrix), later.change.matrix)
        undone = align.paste(step.change.after, back, back, between, detail=False)
        back = step.way_back(undone[None])[0]
    return back


def choose(faces: Faces, count: int) -> list[int]:
    """Positions of the faces asked for among ``count``, largest first; raises NoFaceError."""
    if count == 0:
        raise NoFaceError(NO_FACE)
    if faces == "all":
        return list(range(count))
    if faces == "largest":
        return [0]
    try:
        wanted = [int(faces)] if isinstance(faces, (int, str)) else [int(face) for face in faces]
    except (TypeError, ValueError):
        raise NoFaceError(f'"{faces}" is not a choice of faces. Use all, largest or a number.') from None
    for index in wanted:
        if not 0 <= index < count:
            only = "only 1 face was" if count == 1 else f"only {count} faces were"
            raise NoFaceError(f"There is no face {index + 1} in this photo: {only} found.")
    return wanted
