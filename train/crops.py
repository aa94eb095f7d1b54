"""Images ready to train on: a folder of folders, or a pack, one tar file that travels.

Both hold ``trainA/NAME``, ``trainB/NAME``, optionally ``testA`` and ``testB``, and ``prepare.json`` where `prepare` cut
the images. A pack is an uncompressed tar of JPEG files. It may come from anywhere, so that nothing in it is ever
written to disk: its members are looked up by name, and read into memory within the limits of any other image.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from cyclegan.errors import BadImageError
from cyclegan.images import MAX_BYTES, load_image
from train.errors import TrainingError, warn

FOLDERS = ("trainA", "trainB", "testA", "testB")
GEOMETRY_FILE = "prepare.json"

# With full colour resolution a lower quality costs less, in bytes and in mean error, than the other way round.
_QUALITY = 85
_MAX_FILES = 500_000
_MEMBER = re.compile(rf"(?:\./)?(?:(?P<part>{'|'.join(FOLDERS)})/(?P<name>[^/.][^/]*)|{re.escape(GEOMETRY_FILE)})")


@dataclass(frozen=True)
class _Span:
    """Where the bytes of a file are."""

    path: Path
    start: int = 0
    size: int = MAX_BYTES + 1  # more than `load_image` accepts


@dataclass(frozen=True)
class Crops:
    """The files of a data set by part (``"trainA"``, ...) and name; safe to read from many threads."""

    data: Path
    """The folder or pack."""
    _spans: dict[str, dict[str, _Span]]
    _geometry: _Span | None

    @classmethod
    def open(cls, data: Path) -> "Crops":
        """List a folder or a pack. Raises TrainingError when it cannot be read; a part that is missing is none."""
        try:
            if data.suffix == ".tar" and not data.exists():
                raise TrainingError(f"There is no file {data}. Make it with: python -m train prepare --help")
            return _open_pack(data) if data.is_file() else _open_folder(data)
        except OSError as error:
            raise TrainingError(
                f"{error.filename or data} cannot be read: {error.strerror}. Change its permissions."
            ) from error

    def __contains__(self, part: str) -> bool:
        return part in self._spans

    def names(self, part: str) -> list[str]:
        """File names of a part, sorted; raises TrainingError when there is no such part."""
        if part not in self:
            what = f"{self.data} holds no {part}" if self.data.is_file() else f"There is no folder {self.data / part}"
            raise TrainingError(f"{what}. Make it with: python -m train prepare --help")
        return sorted(self._spans[part])

    def read(self, part: str, name: str) -> bytes:
        """The content of one file; raises BadImageError."""
        return _read(self._spans[part][name])

    def geometry(self) -> bytes | None:
        """The content of ``prepare.json``, or None; raises BadImageError."""
        return _read(self._geometry) if self._geometry else None


def _read(span: _Span) -> bytes:
    try:
        with open(span.path, "rb") as file:
            file.seek(span.start)
            return file.read(min(span.size, MAX_BYTES + 1))
    except OSError as error:
        raise BadImageError(f"{span.path.name} cannot be read: {error.strerror}.") from error


def _open_folder(data: Path) -> Crops:
    spans = {}
    for part in FOLDERS:
        if (data / part).is_dir():
            with os.scandir(data / part) as entries:
                files = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
            spans[part] = {name: _Span(data / part / name) for name in files}
    geometry = data / GEOMETRY_FILE
    return Crops(data, spans, _Span(geometry) if geometry.exists() else None)


def _open_pack(data: Path) -> Crops:
    spans: dict[str, dict[str, _Span]] = {}
    geometry = None
    for path, span in _members(data):
        match _MEMBER.fullmatch(path):
            case re.Match() as found if found["part"]:
                spans.setdefault(found["part"], {})[found["name"]] = span
            case re.Match():
                geometry = span
    return Crops(data, spans, geometry)


def _members(data: Path) -> Iterator[tuple[str, _Span]]:
    """Plain files of a tar; folders are passed over, and whatever else no pack has is an error."""
    try:
        with tarfile.open(data, "r:", encoding="utf-8", errors="surrogateescape") as archive:
            for count, member in enumerate(archive):
                if count == _MAX_FILES:
                    raise TrainingError(f"{data} holds more than {_MAX_FILES:,} files.")
                if member.size < 0:  # reading on would go backwards
                    raise tarfile.ReadError
                is_plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
                if not (is_plain or member.isdir()) or member.name.startswith("/") or ".." in member.name.split("/"):
                    raise TrainingError(
                        f"{data} holds {printable(member.name)}, which is no plain file inside it. A pack holds "
                        "nothing else: get it from its maker again."
                    )
                if is_plain:
                    yield member.name, _Span(data, member.offset_data, member.size)
            end = _read(_Span(data, archive.offset, tarfile.BLOCKSIZE))
        # tarfile takes damage and a missing rest for the end, which is a block of zeros.
        whole = end == bytes(tarfile.BLOCKSIZE)
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError, BadImageError):
        whole = False
    if not whole:
        raise TrainingError(
            f"{data} is not a pack, or is cut off or damaged. Copy it again, or make it with: "
            "python -m train prepare --out CROPS --pack FILE.tar"
        )


@dataclass(frozen=True)
class Packed:
    """What `write_pack` wrote: crops per part and bytes in all."""

    file: Path
    crops: dict[str, int]
    size: int

    def __str__(self) -> str:
        count = sum(self.crops.values())
        return f"{self.file}: {count} crops, {self.size / 1e6:.1f} MB, {self.size / max(count, 1) / 1e3:.1f} kB a crop"


def write_pack(folder: Path, file: Path) -> Packed:
    """Write the crops that `prepare` left in ``folder`` to one tar; equal crops give equal bytes.

    The file appears whole or not at all. Files that are no images are left out, with a warning. Raises TrainingError
    when there are no crops, or the file cannot be written.
    """
    crops = Crops.open(folder)
    geometry = crops.geometry()
    if geometry is None or "trainA" not in crops or "trainB" not in crops:
        raise TrainingError(f"There are no crops in {folder} to pack. Name their source too: --data, --a and --b, ...")
    partial = file.with_name(f".{file.name}.partial")
    counts, unreadable = {}, []
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(
            partial, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as archive:
            _add(archive, GEOMETRY_FILE, geometry)
            for part in (part for part in FOLDERS if part in crops):
                names = crops.names(part)
                for name in tqdm(names, desc=f"pack {part}", unit="image", leave=False):
                    try:
                        _add(archive, f"{part}/{name}", _encode(crops.read(part, name)))
                    except BadImageError:
                        unreadable.append(f"{part}/{name}")
                counts[part] = len(names) - sum(path.startswith(f"{part}/") for path in unreadable)
        os.replace(partial, file)
        size = file.stat().st_size
    except OSError as error:
        raise TrainingError(f"The pack cannot be written to {file}: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    warn_unreadable(folder.name, unreadable)
    return Packed(file, counts, size)


def warn_unreadable(where: str, names: list[str]) -> None:
    """Count files that were left out, and name the first."""
    if names:
        files = "1 file" if len(names) == 1 else f"{len(names)} files"
        warn(f"{where}: {files} left out as unreadable, the first: {printable(names[0])}")


def printable(name: str) -> str:
    """A file name that may be shown on a terminal, whoever chose it."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _encode(data: bytes) -> bytes:
    jpeg = io.BytesIO()
    Image.fromarray(load_image(data)).save(jpeg, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return jpeg.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no owner, no time
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
