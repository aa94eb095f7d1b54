"""Where raw images come from. Every form gives the same: the files of each part, by the name their crop will have.

Two domains that come without test folders are split by a hash of the names, so that an image stays in its part when
others come or go.
"""

import csv
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.crops import FOLDERS, printable
from train.errors import TrainingError, warn

Images = dict[str, dict[str, Path]]
"""Part (``"trainA"``, ...) -> crop name -> file."""

SOURCES = """Give one source:
  --data DIR                    with folders trainA and trainB, and testA and testB if there are any
  --a DIR --b DIR               one folder of images per domain
  --utkface DIR --a QUERY --b QUERY
                                a folder of UTKFace-named files, and who is in each domain
  --csv FILE --images DIR --label COLUMN --image "NAME-{COLUMN}.png" --a VALUE --b VALUE
                                a table with a label column, and how the files of its rows are called"""

QUERIES = (
    'Write what holds, separated by commas: "age 20-29", "gender male", "age 18-32, gender female, race black". '
    "Gender is male or female (or 0, 1); race is white, black, asian, indian or other (or 0 to 4)."
)


@dataclass(frozen=True)
class Source:
    """What the flags of `prepare` say of the raw images; see `SOURCES` for the four forms."""

    data: Path | None = None
    a: str | None = None
    b: str | None = None
    utkface: Path | None = None
    csv: Path | None = None
    images: Path | None = None
    label: str | None = None
    image: str | None = None
    test_share: float = 0.05
    """Share of each domain that becomes testA and testB, where the source has no parts of its own."""

    def given(self) -> dict[str, Any]:
        """What is named at all."""
        return {name: value for name, value in vars(self).items() if name != "test_share" and value is not None}

    def find(self, out: Path) -> Images:
        """List the files per part; crops will go to ``out``, which must not lie where images are looked for.

        Raises TrainingError when flags, folders or tables cannot be used, or a domain has no images.
        """
        if not 0 <= self.test_share < 1:
            raise TrainingError(f"--test-share must be at least 0 and below 1, not {self.test_share}.")
        try:
            found = self._find(out)
            _check_overlap(found)
        except OSError as error:
            raise TrainingError(
                f"{error.filename} cannot be read: {error.strerror}. Change its permissions."
            ) from error
        return {part: found[part] for part in FOLDERS if found.get(part)}

    def _find(self, out: Path) -> Images:
        match self.given():
            case {"data": data, **rest} if not rest:
                found = four_folders(data, out)
            case {"a": a, "b": b, **rest} if not rest:
                found = _split(_files(Path(a), out), _files(Path(b), out), self.test_share)
            case {"utkface": folder, "a": a, "b": b, **rest} if not rest:
                found = _split(*utkface(_files(folder, out), a, b), self.test_share)
            case {"csv": table, "images": images, "label": label, "image": image, "a": a, "b": b, **rest} if not rest:
                found = _split(*labelled(table, images, label, image, a, b), self.test_share)
            case _:
                raise TrainingError(SOURCES)
        for part in FOLDERS[:2]:
            if not found.get(part):
                raise TrainingError(f"There are no files for {part}. {SOURCES}")
        return found


def four_folders(data: Path, out: Path) -> Images:
    """Files of ``data/trainA`` and so on, as they are."""
    return {part: _files(data / part, out, out / part) for part in FOLDERS if (data / part).is_dir()}


def utkface(files: dict[str, Path], a: str, b: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Files of each domain, out of ones named ``[age]_[gender]_[race]_[date].jpg``, by queries such as "age 20-29".

    Raises TrainingError for a query that cannot be read or that matches nothing. Files of other names are counted on
    stderr.
    """
    people, strange = {}, []
    for name, path in files.items():
        if match := re.match(r"(\d{1,3})_([01])_([0-4])_", path.name):
            people[name] = dict(zip(("age", "gender", "race"), map(int, match.groups()), strict=True))
        else:
            strange.append(path.name)
    if strange:
        warn(
            f"{len(strange)} of {len(files)} files are not named [age]_[gender]_[race]_[date].jpg and were left out, "
            f"the first: {printable(strange[0])}"
        )
    domains = []
    for query in (a, b):
        matches = parse_query(query)
        domains.append({name: files[name] for name, person in people.items() if matches(person)})
        if not domains[-1]:
            raise TrainingError(f'None of {len(people)} UTKFace-named files matches "{query}". {QUERIES}')
    return domains[0], domains[1]


_COLUMN = r"\{([^{}]*)\}"
_WORDS = {
    "gender": ("male", "female"),
    "race": ("white", "black", "asian", "indian", "other"),
}


def parse_query(query: str) -> Callable[[dict[str, int]], bool]:
    """Whether a person (age, gender and race in UTKFace's numbers) fits, for a query as `QUERIES` describes it.

    Raises TrainingError when it cannot be read.
    """
    allowed: dict[str, range] = {}
    for term in query.lower().split(","):
        attribute, _, value = " ".join(term.split()).partition(" ")
        if attribute in allowed or not (values := _values(attribute, value)):
            raise TrainingError(f'The query "{query}" cannot be read. {QUERIES}')
        allowed[attribute] = values
    return lambda person: all(person[attribute] in values for attribute, values in allowed.items())


def _values(attribute: str, value: str) -> range | None:
    if attribute == "age" and (ages := re.fullmatch(r"(\d{1,3})(?: ?- ?(\d{1,3}))?", value)):
        return range(int(ages[1]), int(ages[2] or ages[1]) + 1)  # empty when the first is the greater
    words = _WORDS.get(attribute, ())
    number = words.index(value) if value in words else int(value) if re.fullmatch(r"\d", value) else len(words)
    return range(number, number + 1) if number < len(words) else None


def labelled(
    table: Path, images: Path, label: str, image: str, a: str, b: str
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Files of each domain: those whose row in a CSV file has the value ``a`` or ``b`` in column ``label``.

    ``image`` makes a row's file name below ``images``: columns stand in braces, as in ``face-{id}.png``.
    Raises TrainingError for columns, values or files that are not there; single missing files are counted on stderr.
    """
    rows = _read_table(table, {label, *re.findall(_COLUMN, image)})
    values = Counter(row[label] for row in rows)
    if len(values) < 2:
        raise TrainingError(f'All rows of {table} have the same "{label}". Two domains need two values.')
    domains: tuple[dict[str, Path], dict[str, Path]] = ({}, {})
    missing = []
    for value, domain in zip((a, b), domains, strict=True):
        if value not in values:
            common = ", ".join(f"{known} ({count})" for known, count in values.most_common(10))
            raise TrainingError(f'No row of {table} has "{label}" {value}. Its values are: {printable(common)}.')
        for row in (row for row in rows if row[label] == value):
            name = Path(_fill(image, row))
            # A table may come from anywhere; what it names is looked for in --images and nowhere else.
            if name.is_absolute() or ".." in name.parts or not (images / name).is_file():
                missing.append(name)
            else:
                domain["__".join(name.parts)] = images / name
    if missing and not any(domains):
        raise TrainingError(
            f"None of the {len(missing)} files named in {table} is there; the first would be "
            f"{printable(str(images / missing[0]))}. Check --images and --image."
        )
    if missing:
        count = f"{len(missing)} of {values[a] + values[b]}"
        warn(f"{count} files named in {table} are missing, the first: {printable(str(missing[0]))}")
    return domains


def _fill(image: str, row: dict[str, str]) -> str:
    return re.sub(_COLUMN, lambda column: row[column[1]], image)


def _read_table(table: Path, columns: set[str]) -> list[dict[str, str]]:
    """The rows of a CSV file, reduced to the columns that matter."""
    try:
        with open(table, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            known = reader.fieldnames or []
            if absent := sorted(columns.difference(known)):
                shown = ", ".join(known[:8]) + (f", ... ({len(known)} in all)" if len(known) > 8 else "")
                raise TrainingError(f"{table} has no column {', '.join(absent)}. Its columns are: {shown}.")
            return [{column: (row[column] or "").strip() for column in columns} for row in reader]
    except OSError as error:
        raise TrainingError(f"{table} cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise TrainingError(f"{table} is not a table of comma-separated values: {error}.") from error


def _files(folder: Path, out: Path, *written: Path) -> dict[str, Path]:
    """Every file below a folder but hidden ones, by name; subfolders become part of it, so that names stay different.

    Raises TrainingError for a folder that is missing, or may not be read, or that crops would be written into.
    """
    if not folder.is_dir():
        raise TrainingError(f"There is no folder {folder}.")
    inside = [path for path in (out, *written) if path.resolve().is_relative_to(folder.resolve())]
    if inside:
        raise TrainingError(
            f"The crops would go to {inside[0]}, which lies in {folder}, where images are looked for: the next run "
            "would take them for images. Choose another --out."
        )
    files: dict[str, Path] = {}
    for path in (path for path in sorted(_walk(folder)) if path.is_file()):
        name = "__".join(path.relative_to(folder).parts)
        if name in files:
            raise TrainingError(f"{path} and {files[name]} would become the same crop. Rename one of them.")
        files[name] = path
    return files


def _walk(folder: Path) -> Iterable[Path]:
    def refuse(error: OSError) -> None:
        raise TrainingError(f"{error.filename} cannot be read: {error.strerror}. Change its permissions.") from error

    seen = {_identity(folder)}  # links may lead in circles
    for directory, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in folders if not _is_known(Path(directory, name), seen)]
        yield from (Path(directory, name) for name in files if not name.startswith("."))


def _split(a: dict[str, Path], b: dict[str, Path], test_share: float) -> Images:
    found: Images = {}
    for letter, files in (("A", a), ("B", b)):
        for name, path in files.items():
            is_test = zlib.crc32(os.fsencode(name)) % 10_000 < test_share * 10_000
            found.setdefault(("test" if is_test else "train") + letter, {})[name] = path
    return found


def _check_overlap(found: Images) -> None:
    """Refuse two domains of the same files; count those that are in both."""
    A, B = (
        {_identity(path) for part in (f"train{letter}", f"test{letter}") for path in found.get(part, {}).values()}
        for letter in "AB"
    )
    if A == B:
        raise TrainingError("A and B are the same files. Give each domain its own.")
    if shared := len(A & B):
        warn(f"{shared} files are in both domains. Say more narrowly what A and B are, or they will look alike.")


def _is_known(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a file or folder is among those seen, as which it counts from now on."""
    identity = _identity(path)
    known = identity in seen
    seen.add(identity)
    return known


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
