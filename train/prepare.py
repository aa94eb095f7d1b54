"""Raw images to aligned crops, with the same detector and geometry that the app serves with.

``OUT/{trainA,trainB,testA,testB}/NAME.jpg`` holds the crops, ``OUT/prepare.json`` the geometry they were cut with
(`fit` copies it into the model's config, so that training and serving cannot drift apart), ``OUT/rejected.csv``
every image that gave no crop, with the reason.
"""

import csv
import errno
import io
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from cyclegan.errors import BadImageError, BadSizeError
from cyclegan.faces import align
from cyclegan.faces.detect import FaceDetector
from cyclegan.images import MIN_SIDE, load_image
from train.crops import FOLDERS, GEOMETRY_FILE, Crops, printable
from train.errors import TrainingError
from train.sources import Images

TEMPLATES = {
    # Median MTCNN landmarks of UTKFace crops, made symmetric; a little tighter, so that few crops leave their image.
    "tight": align.Template(((0.310, 0.295), (0.690, 0.295), (0.500, 0.520), (0.333, 0.693), (0.667, 0.693)), 0.96),
    # The whole head with its hair.
    "portrait": align.Template(((0.370, 0.471), (0.630, 0.471), (0.500, 0.614), (0.385, 0.740), (0.615, 0.740)), 1.0),
}
FACES = ("mtcnn", "square")

UNREADABLE, FORBIDDEN, NO_FACE = "not a readable image", "no permission to read it", "no face found"
LONG_NAME, BAD_SIZE = "its name is too long", "too small or too large"

_REJECTED_FILE = "rejected.csv"
_IMAGES_PER_PROCESS = 100  # below that, starting one takes longer than it saves


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
        if len(self.faces) != 2 or not set(self.faces) <= set(FACES):
            raise TrainingError(f"Faces are found by {' or '.join(FACES)} in each domain, not {self.faces}.")

    def to_json(self) -> dict:
        """Plain lists and numbers, as ``prepare.json`` holds them."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: dict) -> "Geometry":
        """The inverse of `to_json`."""
        landmarks = tuple((float(x), float(y)) for x, y in data["template"]["landmarks"])
        return cls(data["size"], align.Template(landmarks, data["template"]["scale"]), tuple(data["faces"]))


def read_geometry(data: Path) -> Geometry:
    """The geometry that the crops of a folder or a pack were cut with.

    For pictures that `prepare` did not cut it is the whole picture, scaled. Raises TrainingError when it is damaged or
    may not be read.
    """
    found = Crops.open(data)
    try:
        content = found.geometry()
        return Geometry.from_json(json.loads(content)) if content is not None else Geometry(faces=("square", "square"))
    except BadImageError as error:
        raise TrainingError(f"{GEOMETRY_FILE} of {data} cannot be read. Change its permissions.") from error
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, TrainingError) as error:
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


def prepare(images: Images, out: Path, geometry: Geometry, device: str = "cpu", workers: int = 1) -> Report:
    """Cut every image not yet done; safe to stop at any moment and to run again.

    Up to ``workers`` processes read files and look for faces; this one alone writes. Raises TrainingError when ``out``
    holds crops of another geometry or of other images, or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _check_present(images, out)
        _claim(out, geometry)
        # Only the search for a face is worth remembering: a file that could not be read may have been repaired since.
        rejected = {key: reason for key, reason in _read_rejected(out).items() if reason == NO_FACE}
        _write_whole(out / _REJECTED_FILE, _rows(rejected))
        results = _cut_missing(images, out, geometry, device, workers, rejected)
        with closing(results), open(out / _REJECTED_FILE, "ab") as log:
            for folder, name, result in results:
                if isinstance(result, bytes):
                    (out / folder).mkdir(exist_ok=True)
                    result = _write_crop(out / folder / f"{name}.jpg", result)
                if result:
                    rejected[folder, name] = result
                    log.write(_rows({(folder, name): result}))
                    log.flush()
    except OSError as error:
        raise TrainingError(f"The crops cannot be written to {out}: {error.strerror}.") from error
    crops = {folder: sum(1 for _ in (out / folder).glob("*.jpg")) for folder in images}
    return Report(crops, dict(Counter(rejected.values())))


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Cutting, by one process or several. --------------------------------------------------------------------------------


def _cut_missing(
    images: Images, out: Path, geometry: Geometry, device: str, workers: int, rejected: dict[tuple[str, str], str]
) -> Generator[tuple[str, str, bytes | str], None, None]:
    """Yield (folder, name, crop as JPEG or why there is none) for each image that has not been dealt with."""
    every = [(folder, name, path) for folder, paths in images.items() for name, path in paths.items()]
    done = {folder: set(os.listdir(out / folder)) if (out / folder).is_dir() else set() for folder in images}
    work = [
        (folder, name, (path, geometry.faces[folder.endswith("B")]))
        for folder, name, path in every
        if (folder, name) not in rejected and f"{name}.jpg" not in done[folder]
    ]
    job = partial(_cut_file, geometry=geometry, device=device)
    files = [file for _, _, file in work]
    workers = min(workers, -(-len(files) // _IMAGES_PER_PROCESS))
    with tqdm(total=len(every), initial=len(every) - len(work), unit="image", desc="prepare", smoothing=0.02) as bar:
        with closing(_in_processes(job, files, workers) if workers > 1 else (job(file) for file in files)) as results:
            for (folder, name, _), result in zip(work, results, strict=True):
                yield folder, name, result
                bar.update()


def _cut_file(file: tuple[Path, str], geometry: Geometry, device: str) -> bytes | str:
    """The crop of a file, given with how its face is found, as JPEG; or why there is none."""
    path, how = file
    try:
        photo = load_image(path)
    except BadSizeError:
        return BAD_SIZE
    except BadImageError as error:
        return FORBIDDEN if isinstance(error.__cause__, PermissionError) else UNREADABLE
    crop = cut(photo, geometry, _detector(device) if how == "mtcnn" else None)
    if crop is None:
        return NO_FACE
    jpeg = io.BytesIO()
    Image.fromarray(crop).save(jpeg, "JPEG", quality=95, subsampling=0)
    return jpeg.getvalue()


@lru_cache(maxsize=1)
def _detector(device: str) -> FaceDetector:
    return FaceDetector(device)


def _in_processes(
    job: Callable[[tuple[Path, str]], bytes | str], files: list[tuple[Path, str]], workers: int
) -> Generator[bytes | str, None, None]:
    # Not forked: PyTorch's threads and CUDA do not survive that.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    try:
        yield from pool.map(job, files)
    except BrokenProcessPool as error:
        raise TrainingError(
            "A process that looked for faces was ended by the system, mostly for lack of memory. Lower --workers and "
            "run the same command again: it continues."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Left alone, because its parent was killed, a worker would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_crop(path: Path, content: bytes) -> str:
    """Why the crop cannot have that name; empty when it was written."""
    try:
        _write_whole(path, content)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return LONG_NAME
    return ""


# What lies in OUT. --------------------------------------------------------------------------------------------------


def _claim(out: Path, geometry: Geometry) -> None:
    if not (out / GEOMETRY_FILE).exists():
        _write_whole(out / GEOMETRY_FILE, (json.dumps(geometry.to_json(), indent=1) + "\n").encode())
    elif read_geometry(out) != geometry:
        raise TrainingError(f"{out} holds crops cut with other settings. Choose another --out.")


def _check_present(images: Images, out: Path) -> None:
    """Refuse crops of images that are not among these: with another division, test images would be trained on."""
    others = [
        f"{folder}/{path.name}"
        for folder in FOLDERS
        for path in sorted((out / folder).glob("*.jpg"))
        if path.name.removesuffix(".jpg") not in images.get(folder, {})
    ]
    if others:
        raise TrainingError(
            f"{out} holds {len(others)} crops that these images do not give, the first: {printable(others[0])}. Delete "
            "them, or choose another --out."
        )


def _read_rejected(out: Path) -> dict[tuple[str, str], str]:
    """(folder, name) -> reason; a last line that was cut off does not count."""
    if not (out / _REJECTED_FILE).exists():
        return {}
    with open(out / _REJECTED_FILE, newline="", encoding="utf-8", errors="surrogateescape") as rows:
        return {(row[0], row[1]): row[2] for row in csv.reader(rows) if len(row) == 3}


def _rows(rejected: dict[tuple[str, str], str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows((*key, reason) for key, reason in rejected.items())
    return text.getvalue().encode("utf-8", "surrogateescape")


def _write_whole(path: Path, content: bytes) -> None:
    """A file exists whole or not at all."""
    partial_file = path.with_name(f".{path.name}.partial")
    partial_file.write_bytes(content)
    os.replace(partial_file, path)
