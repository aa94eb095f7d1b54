"""Raw images to aligned crops, with the same detector and geometry that the app serves with.

``OUT/{trainA,trainB,testA,testB}/NAME.jpg`` holds the crops, ``OUT/prepare.json`` the geometry they were cut with
(`fit` copies it into the model's config, so that training and serving cannot drift apart), ``OUT/rejected.csv``
every image that gave no crop, with the reason.
"""

import csv
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cyclegan.errors import BadImageError
from cyclegan.faces import align
from cyclegan.faces.detect import FaceDetector
from cyclegan.images import MIN_SIDE, load_image
from train.crops import FOLDERS, GEOMETRY_FILE, Crops
from train.errors import TrainingError

TEMPLATES = {
    # Median MTCNN landmarks of UTKFace crops, made symmetric; a little tighter, so that few crops leave their image.
    "tight": align.Template(((0.310, 0.295), (0.690, 0.295), (0.500, 0.520), (0.333, 0.693), (0.667, 0.693)), 0.96),
    # The whole head with its hair.
    "portrait": align.Template(((0.370, 0.471), (0.630, 0.471), (0.500, 0.614), (0.385, 0.740), (0.615, 0.740)), 1.0),
}


@dataclass(frozen=True)
class Geometry:
    """How the crops of a data set are cut; the content of ``prepare.json``."""

    size: int = 128
    """Side of the crops in pixels."""
    template: align.Template = field(default_factory=lambda: TEMPLATES["tight"])
    """Where the landmarks go in the crop."""
    faces: tuple[str, str] = ("mtcnn", "mtcnn")
    """How faces are found in domains A and B: ``"mtcnn"`` or ``"square"`` (the centred square, for drawings)."""

    def __post_init__(self):
        if self.size < MIN_SIDE:
            raise TrainingError(f"Crops must have a side of at least {MIN_SIDE} pixels, not {self.size}.")

    def to_json(self) -> dict:
        """Plain lists and numbers, as ``prepare.json`` holds them."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: dict) -> "Geometry":
        """The inverse of `to_json`."""
        landmarks = tuple((float(x), float(y)) for x, y in data["template"]["landmarks"])
        return cls(data["size"], align.Template(landmarks, data["template"]["scale"]), tuple(data["faces"]))

    @classmethod
    def read(cls, path: Path) -> "Geometry":
        """Read a ``prepare.json``; raises TrainingError when it is damaged."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} is damaged. Delete its folder and run prepare again.") from error


def read_geometry(data: Path) -> Geometry:
    """The geometry that the crops of a folder or a pack were cut with.

    For pictures that `prepare` did not cut it is the whole picture, scaled. Raises TrainingError when it is damaged.
    """
    try:
        found = Crops.open(data).geometry()
        return Geometry.from_json(json.loads(found)) if found is not None else Geometry(faces=("square", "square"))
    except (ValueError, KeyError, TypeError, BadImageError) as error:
        raise TrainingError(f"{GEOMETRY_FILE} of {data} is damaged. Delete {data} and run prepare again.") from error


@dataclass(frozen=True)
class Report:
    """What `prepare` did: crops per folder (present now) and rejected images per reason."""

    crops: dict[str, int]
    rejected: dict[str, int]

    def __str__(self) -> str:
        lines = [f"{folder:8} {count:6} crops" for folder, count in self.crops.items()]
        lines += [f"rejected {count:6} {reason}" for reason, count in sorted(self.rejected.items())]
        return "\n".join(lines)


def find_images(data: Path | None, a: Path | None, b: Path | None, test_share: float) -> dict[str, dict[str, Path]]:
    """List the raw files per folder (crop name -> path).

    They come from ``data`` with trainA, trainB[, testA, testB], or from two folders ``a`` and ``b``. Two folders are
    split by a hash of the file name, so that an image stays in its part when others come or go.
    Raises TrainingError when a folder is missing or empty.
    """
    found: dict[str, dict[str, Path]] = {}
    if data is not None:
        for folder in FOLDERS:
            if (data / folder).is_dir():
                found[folder] = _files(data / folder)
    elif a is not None and b is not None:
        for letter, directory in (("A", a), ("B", b)):
            if not directory.is_dir():
                raise TrainingError(f"There is no folder {directory}.")
            for name, path in _files(directory).items():
                is_test = zlib.crc32(os.fsencode(name)) % 10_000 < test_share * 10_000
                found.setdefault(("test" if is_test else "train") + letter, {})[name] = path
    for folder in FOLDERS[:2]:
        if not found.get(folder):
            raise TrainingError(
                f"There are no files for {folder}. Give --data DIR with folders trainA and trainB (testA and testB "
                "optional), or --a DIR --b DIR with one folder of images per domain."
            )
    return {folder: found[folder] for folder in FOLDERS if folder in found}


def _files(directory: Path) -> dict[str, Path]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    named = [(path.relative_to(directory).parts, path) for path in paths]
    # Subfolders become part of the name, so that equal names in two of them stay two crops.
    return {"__".join(parts): path for parts, path in named if not any(part.startswith(".") for part in parts)}


def cut(photo: np.ndarray, geometry: Geometry, detector: FaceDetector | None) -> np.ndarray | None:
    """The training crop of a photo, uint8 [size, size, 3], or None when it shows no face.

    Without a detector it is the centred square, as for drawings.
    """
    if detector is None:
        matrix = align.square_to_crop(align.centred_square(*photo.shape[:2]), geometry.size)
    else:
        faces = detector.detect(photo)
        if not faces:
            return None
        matrix = align.photo_to_crop(faces[0].landmarks, geometry.template, geometry.size)
    return align.crop(photo, matrix, geometry.size)


def prepare(images: dict[str, dict[str, Path]], out: Path, geometry: Geometry, device: str = "cpu") -> Report:
    """Cut every image not yet done; safe to stop at any moment and to run again.

    Raises TrainingError when ``out`` holds crops of another geometry or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _claim(out / "prepare.json", geometry)
        rejected = _read_rejected(out / "rejected.csv")
        with open(out / "rejected.csv", "a", newline="", encoding="utf-8", errors="surrogateescape") as log:
            for folder, name, reason in _cut_all(images, out, geometry, device, rejected):
                rejected[folder, name] = reason
                csv.writer(log).writerow((folder, name, reason))
                log.flush()
    except OSError as error:
        raise TrainingError(f"The crops cannot be written to {out}: {error.strerror}.") from error
    crops = {folder: sum(1 for _ in (out / folder).glob("*.jpg")) for folder in images}
    return Report(crops, dict(Counter(rejected.values())))


def _cut_all(
    images: dict[str, dict[str, Path]],
    out: Path,
    geometry: Geometry,
    device: str,
    rejected: dict[tuple[str, str], str],
) -> Iterable[tuple[str, str, str]]:
    """Write the missing crops; yield (folder, name, reason) for each image that gives none."""
    detector = FaceDetector(device) if "mtcnn" in geometry.faces else None
    work = [(folder, name, path) for folder, paths in images.items() for name, path in paths.items()]
    for folder, name, path in tqdm(work, unit="image", desc="prepare", smoothing=0.02):
        target = out / folder / f"{name}.jpg"
        if target.exists() or (folder, name) in rejected:
            continue
        try:
            how = geometry.faces[folder.endswith("B")]
            crop = cut(load_image(path), geometry, detector if how == "mtcnn" else None)
        except BadImageError:
            yield folder, name, "not a readable image"
            continue
        if crop is None:
            yield folder, name, "no face found"
            continue
        target.parent.mkdir(exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        Image.fromarray(crop).save(partial, "JPEG", quality=95, subsampling=0)
        os.replace(partial, target)  # a crop exists whole or not at all


def _claim(path: Path, geometry: Geometry) -> None:
    if path.exists():
        if Geometry.read(path) != geometry:
            raise TrainingError(f"{path.parent} holds crops cut with other settings. Choose another --out.")
    else:
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(geometry.to_json(), indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)


def _read_rejected(path: Path) -> dict[tuple[str, str], str]:
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as rows:
        return {(row[0], row[1]): row[2] for row in csv.reader(rows) if len(row) == 3}
