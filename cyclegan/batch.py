"""Many photos and videos in one go: files, folders and zips in, a folder or a zip with a manifest out.

One bad file never stops the rest, and whoever stops a batch keeps what is done.
"""

import json
import logging
import lzma
import os
import re
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import av
import numpy as np
from PIL import Image

from cyclegan.errors import BadArchiveError, CycleGANError
from cyclegan.images import MAX_BYTES, load_image, open_file, save_png
from cyclegan.translator import Faces, Translation, Translator
from cyclegan.video import VideoResult, is_video, translate_video
from cyclegan.zoo import provenance

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
MAX_ZIP_FILES = 1000
"""The most files that are taken out of one zip."""
MAX_ZIP_BYTES = 2 * 2**30
"""The most that the files of one zip may take, unpacked."""
MAX_VIDEO_BYTES = 2**30
"""The largest video that is taken out of a zip."""

_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"),
}
_CROPS = ("input", "translation", "reconstruction")
_IN_MEMORY = 8 * 2**20  # files from a zip that are larger are unpacked to the disk
# What Windows does not take in the name of a file; the longest there, in bytes, with room for what is put behind it.
_NOT_IN_NAMES = '<>:"/\\|?*'
LONGEST_NAME = 200
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{i}" for port in ("COM", "LPT") for i in range(1, 10))}


@dataclass(frozen=True, eq=False)
class Source:
    """One file of a batch, opened when its turn comes."""

    name: str
    """What people call it: never a path on a server."""
    open: Callable[[], BinaryIO]
    """Opens it for reading, seekable; raises CycleGANError."""
    path: Path | None = None
    """Where it lies; None in a zip."""


@dataclass(frozen=True)
class Progress:
    """How far a batch is."""

    done: int
    """Files that are finished, well or badly."""
    total: int
    current: str | None
    """The name of the file at work; None when there is none."""
    share: float
    """Of the current file, 0..1."""
    seconds_left: float | None
    """Estimated from the time per file so far; None before the first is done."""


def gather(paths: Sequence[str | os.PathLike[str]], names: Sequence[str] | None = None) -> list[Source]:
    """The files of a batch: a folder stands for the files in it, a zip for those inside, anything else for itself.

    Inside folders and zips only pictures and videos count, going by their names, and no hidden ones; folders in
    folders are not entered. A zip that cannot be read is a source that cannot be opened, so that it is reported like
    any bad file. Nothing is unpacked yet, and never under a name from the zip.

    Args:
        names: what people call the paths, in their order; by default their base names.
    """
    sources: list[Source] = []
    for position, path in enumerate(map(Path, paths)):
        name = names[position] if names else path.name
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and _is_wanted(p.name))
            sources += [Source(_printable(p.name), partial(open_file, p), p) for p in inside]
        elif PurePosixPath(name).suffix.lower() == ".zip" and path.is_file():
            try:
                sources += _inside(path)
            except BadArchiveError as error:
                sources.append(Source(_printable(name), partial(_refuse, error), path))
        else:
            sources.append(Source(_printable(name), partial(open_file, path), path))
    return sources


class Batch:
    """One batch and what became of it. Iterate over `run`; `stop` may be called from another thread."""

    def __init__(
        self,
        translator: Translator,
        sources: Sequence[Source],
        out: str | os.PathLike[str],
        chain: Sequence[tuple[str, str]],
        faces: Faces = "all",
        crops: bool = False,
        max_seconds: float | None = None,
        max_bytes: int | None = None,
    ):
        """
        Args:
            out: folder for the results; made where it is missing.
            chain: (model, direction) pairs, applied in order.
            faces: as in `Translator.translate`.
            crops: also write the input, translation and reconstruction of every face of a photo.
            max_seconds: longer videos are refused.
            max_bytes: once the results take more, the files that are left are not begun.

        Raises UnknownModelError, UnknownDirectionError and BadCheckpointError: a wrong name is one error, not one per
        file.
        """
        self.translator, self.sources, self.out = translator, list(sources), Path(out)
        self.chain, self.faces, self.crops = list(chain), faces, crops
        self.max_seconds, self.max_bytes = max_seconds, max_bytes
        for name, direction in self.chain:
            translator.engine(name, direction)
        self.text = provenance(translator.zoo, self.chain)
        self._inputs = {source.path.resolve() for source in self.sources if source.path is not None}
        self.rows: list[dict[str, Any]] = []
        """One per finished file, in order: photo, size, faces, output, seconds; or photo and error."""
        self._bytes = 0
        self._stems: set[str] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End `run` before the next file, or inside a video at its next frame."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def run(self) -> Iterator[Progress]:
        """Translate file after file; progress comes before each, after each, and at every frame of a video.

        Errors of a file go into its row. At the end the manifest is written. Only earlier results are overwritten.
        Raises CycleGANError where the folder cannot be written to, or holds another program's manifest.
        """
        started = time.perf_counter()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(error) from error
        manifest = self.out / MANIFEST
        if manifest.exists() and not _is_manifest(manifest):
            raise CycleGANError(f"{self.out} holds a {MANIFEST} of something else. Choose another folder with --out.")

        def progress(source: Source | None, share: float = 0.0) -> Progress:
            done, total = len(self.rows), len(self.sources)
            spent, work = time.perf_counter() - started, done + share
            left = spent / work * (total - work) if work > 0 else None
            return Progress(done, total, source.name if source else None, share, left)

        for source in self.sources:
            yield progress(source)
            if self.stopped:
                break
            row: dict[str, Any] = {"photo": source.name}
            try:
                for share in self._translate(source, row):
                    yield progress(source, share)
            except CycleGANError as error:
                row = {"photo": source.name, "error": str(error)}
            except Exception:  # a fault of ours must not cost the files that follow
                log.exception("A file of a batch failed.")
                row = {"photo": source.name, "error": "Something went wrong on our side."}
            self.rows.append(row)
            yield progress(None)
        self._write_manifest()

    def manifest(self) -> dict[str, Any]:
        """What was done with which model, as plain values: the content of ``manifest.json``."""
        zoo = self.translator.zoo
        steps = [(zoo.entry(name), direction) for name, direction in self.chain]
        return {
            "comment": "AI-generated",
            "steps": [
                {
                    "model": entry.config.name,
                    "revision": entry.revision,
                    "direction": direction,
                    "label": entry.config.directions[direction],
                }
                for entry, direction in steps
            ],
            "stopped": self.stopped,
            "files": self.rows,
            "not_started": [source.name for source in self.sources[len(self.rows) :]],
        }

    def _translate(self, source: Source, row: dict[str, Any]) -> Iterator[float]:
        started = time.perf_counter()
        if self.max_bytes is not None and self._bytes > self.max_bytes:
            raise CycleGANError(f"Left out: the results of one batch may take {self.max_bytes // 2**20} MB.")
        with source.open() as file:
            head = file.read(64)
            file.seek(0)
            if is_video(head):
                yield from self._translate_video(source, file, row)
            else:
                self._translate_photo(source, file, row)
        row["seconds"] = round(time.perf_counter() - started, 3)

    def _translate_photo(self, source: Source, file: BinaryIO, row: dict[str, Any]) -> None:
        (model, direction), *then = self.chain
        # Without a name of its own the message reads well beside the name of the file.
        result = self.translator.translate(load_image(file, name=""), model, direction, self.faces, then)
        stem = self._stem(source)
        name = f"{stem}.png"
        self._save(self._target(name), result.output, self.text)
        row["size"] = [result.photo.shape[1], result.photo.shape[0]]
        row["faces"] = [self._face(each, stem) for each in result.translations]
        row["output"] = name

    def _face(self, each: Translation, stem: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "box": _rounded(each.box),
            "landmarks": each.face.landmarks.astype(float).round(1).tolist() if each.face else None,
            "score": round(float(each.face.score), 4) if each.face else None,
            "cycle_l1": round(each.cycle_l1, 4),
        }
        if self.crops:
            row["files"] = {kind: f"{stem}.face{each.index + 1}.{kind}.png" for kind in _CROPS}
            for kind, name in row["files"].items():
                text = {"Software": self.text["Software"]} if kind == "input" else self.text
                self._save(self._target(name), getattr(each, kind), text)
        return row

    def _translate_video(self, source: Source, file: BinaryIO, row: dict[str, Any]) -> Iterator[float]:
        name = f"{self._stem(source)}.mp4"
        output = self._target(name)
        video = VideoResult()
        tracker = self.translator.tracker()
        try:
            yield from translate_video(
                file, output, self.translator, tracker, self.chain, self.faces, self.max_seconds, lambda: self.stopped,
                video,
            )  # fmt: skip
        except OSError as error:
            raise _not_writable(error) from error
        self._bytes += output.stat().st_size
        row["size"], row["output"] = list(video.size), name
        row["frames"], row["frames_with_faces"] = video.frames, video.frames_with_faces
        row["boxes"] = [
            {"time": time, "boxes": [_rounded(box) for box in boxes]} for time, boxes in video.boxes.items()
        ]
        row["cycle_l1"], row["sound"], row["stopped"] = round(video.cycle_l1, 4), video.sound, video.stopped

    def _stem(self, source: Source) -> str:
        """A name for the results that no other file of the batch has, on any system."""
        # ".face" marks the pictures of single faces, and is left to them.
        stem = re.sub(r"\.(?=face)", "-", file_name(PurePosixPath(source.name).stem), flags=re.IGNORECASE)
        wanted, number = stem, 1
        while wanted.casefold() in self._stems:
            number += 1
            wanted = f"{stem}-{number}"
        self._stems.add(wanted.casefold())
        return wanted

    def _target(self, name: str) -> Path:
        """The path of a result. Raises CycleGANError where a file lies that is not an earlier result."""
        target = self.out / name
        if target.resolve() in self._inputs or (target.exists() and not _is_result(target)):
            raise CycleGANError(f"The result would overwrite {name}. Choose another folder with --out.")
        return target

    def _save(self, path: Path, image: np.ndarray, text: dict[str, str]) -> None:
        try:
            save_png(path, image, text)
        except OSError as error:
            raise _not_writable(error) from error
        self._bytes += path.stat().st_size

    def _write_manifest(self) -> None:
        text = json.dumps(self.manifest(), indent=1, ensure_ascii=False) + "\n"
        try:
            (self.out / MANIFEST).write_text(text, encoding="utf-8")
        except OSError as error:
            raise _not_writable(error) from error


def pack(folder: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Put the results of a batch into a zip file, as they are: PNG and MP4 files do not get smaller."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(Path(folder).iterdir()):
            archive.write(path, path.name)


def _is_result(path: Path) -> bool:
    """Whether a file says that it was made here."""
    try:
        if path.suffix == ".mp4":
            with av.open(str(path), metadata_errors="replace") as video:
                return "Software: cyclegan" in video.metadata.get("comment", "")
        with Image.open(path) as picture:
            return picture.info.get("Software") == "cyclegan"
    except (OSError, ValueError, SyntaxError, av.FFmpegError):  # not even a picture
        return False


def _is_manifest(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["comment"] == "AI-generated" and "files" in content
    except (OSError, ValueError, KeyError, TypeError):
        return False


def file_name(words: str) -> str:
    """Words from a stranger as a file name without suffix that every system takes: ``"photo"`` if nothing is left."""
    name = "".join("_" if c in _NOT_IN_NAMES or not c.isprintable() else c for c in words)
    name = shortened(name, LONGEST_NAME).strip(" .")
    return f"_{name}" if name.upper() in _DEVICES else name or "photo"


def shortened(words: str, size: int) -> str:
    """The beginning of words that takes at most ``size`` bytes in UTF-8."""
    return words.encode(errors="ignore")[:size].decode(errors="ignore")


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(float(v), 1) for v in box]


def _not_writable(error: OSError) -> CycleGANError:
    return CycleGANError(f"The results cannot be written: {error.strerror}.")


def _is_wanted(name: str) -> bool:
    """Whether a file inside a folder or a zip belongs to the batch, going by its name."""
    path = PurePosixPath(name)
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.parts[0] != "__MACOSX"


def _refuse(error: BadArchiveError) -> BinaryIO:
    raise error


def _inside(path: Path) -> list[Source]:
    """The photos and videos in a zip. Raises BadArchiveError."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BadArchiveError("The zip file is cut off or damaged. Make it again and try once more.") from error
    # Some programs on Windows write its backslashes, which the format forbids.
    names = {member: member.filename.replace("\\", "/") for member in archive.infolist() if not member.is_dir()}
    members = [member for member, name in names.items() if _is_wanted(name)]
    if not members:
        raise BadArchiveError("There are no photos or videos in this zip file.")
    if len(members) > MAX_ZIP_FILES:
        raise BadArchiveError(f"There are {len(members)} files in this zip; at most {MAX_ZIP_FILES} are taken.")
    if sum(m.file_size for m in members) > MAX_ZIP_BYTES:
        raise BadArchiveError(f"Unpacked, this zip would take more than {MAX_ZIP_BYTES // 2**30} GB. Split it.")
    return [Source(_printable(names[m]), _Unpack(archive, m)) for m in members]


class _Unpack:
    """Opens a file of a zip. What its header says of its size is not believed."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo):
        self.archive, self.member = archive, member

    def __call__(self) -> BinaryIO:
        unpacked = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))
        try:
            self._unpack(unpacked)
        except BaseException:
            unpacked.close()
            raise
        unpacked.seek(0)
        return unpacked

    def _unpack(self, target: BinaryIO) -> None:
        try:
            with self.archive.open(self.member) as packed:
                head = packed.read(64)
                limit = MAX_VIDEO_BYTES if is_video(head) else MAX_BYTES
                target.write(head)
                while block := packed.read(2**20):
                    target.write(block)
                    if target.tell() > limit:
                        raise BadArchiveError(f"Unpacked, the file is larger than {limit // 2**20} MB.")
        except NotImplementedError as error:  # a RuntimeError, too
            raise BadArchiveError(
                "The zip file is compressed in a way that cannot be read here. Make it with the usual one, Deflate."
            ) from error
        except RuntimeError as error:  # what zipfile raises where it needs a password
            raise BadArchiveError("The zip file is encrypted. Make one without a password.") from error
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise BadArchiveError("This file of the zip is damaged. Make the zip again and try once more.") from error


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)
