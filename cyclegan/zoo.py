"""Which models exist: the folders of ``checkpoints/``, read on start, loaded on first use."""

import hashlib
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cyclegan.errors import BadCheckpointError, UnknownModelError
from cyclegan.model import (
    DIRECTIONS,
    WEIGHTS_FILE,
    CycleGAN,
    ModelConfig,
    changed_since,
    damaged_weights,
    foreign_weights,
    read_config,
)
from cyclegan.networks import Generator, count_macs, count_parameters

_GUEST = "guest-"
CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
MAX_GUEST_MACS = 80e9
"""Multiply-accumulates per face of the heaviest guest: half as many again as the paper's network at 256 pixels."""


@dataclass(frozen=True)
class Entry:
    """A model folder whose config is sound; its weights may not have been read yet."""

    name: str
    folder: Path
    config: ModelConfig
    sha256: str
    """Hash of ``model.safetensors`` in hexadecimal."""

    @property
    def revision(self) -> str:
        """The first 12 digits of the hash: enough to tell one version of a model from another."""
        return self.sha256[:12]


class Zoo:
    """The models of one folder, the best first. One that cannot be used is named in `problems` and stops no other.

    Reads configs and hashes at once and weights on first use; threads may share it.
    """

    def __init__(self, root: Path = CHECKPOINTS):
        self.root = Path(root)
        self.entries: dict[str, Entry] = {}
        self.problems: dict[str, str] = {}
        self._guests: dict[str, Entry] = {}
        self._loaded: dict[str, CycleGAN] = {}
        self._lock = threading.Lock()
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        for folder in folders:
            if folder.is_dir() and not folder.name.startswith("."):
                try:
                    self.entries[folder.name] = _read_entry(folder)
                except BadCheckpointError as error:
                    self.problems[folder.name] = str(error)
        self.entries = dict(sorted(self.entries.items(), key=lambda item: _rank(item[1])))

    def entry(self, name: str) -> Entry:
        """The entry of this name; raises UnknownModelError, or BadCheckpointError for a folder with a problem."""
        if name in self.problems:
            raise BadCheckpointError(self.problems[name])
        entry = self.entries.get(name) or self._guests.get(name)
        if entry is None:
            if name.startswith(_GUEST):
                raise UnknownModelError("The model that you added had to make room for others. Add it again.")
            known = ", ".join(self.entries) or "none"
            raise UnknownModelError(f'There is no model "{name}". Known models: {known}.')
        return entry

    def config(self, name: str) -> ModelConfig:
        """The config of a model; raises as `entry` does."""
        return self.entry(name).config

    def load(self, name: str) -> CycleGAN:
        """The model of this name with its weights, in evaluation mode on the CPU.

        Raises as `entry` does, and BadCheckpointError where the folder has changed since it was listed: half of it
        would be the old model, and the revision in pictures wrong.
        """
        entry = self.entry(name)
        with self._lock:
            if name not in self._loaded:
                model = CycleGAN.from_folder(entry.folder, sha256=entry.sha256)
                if model.config != entry.config:
                    raise changed_since(name)
                self._loaded[name] = model
            return self._loaded[name]

    def add_guest(self, folder: Path) -> str:
        """Take in a model that `entries` does not list, under a name that cannot be guessed, which is returned.

        Its weights are read at once; the folder may go. Raises BadCheckpointError, also for a model too heavy to be
        served.
        """
        entry = _read_entry(folder)
        macs = describe(entry)["macs"]
        if macs > MAX_GUEST_MACS:
            raise BadCheckpointError(
                f'The model "{folder.name}" takes {macs / 1e9:.0f} GMAC per face; at most {MAX_GUEST_MACS / 1e9:.0f} '
                "are accepted."
            )
        model = CycleGAN.from_folder(folder, sha256=entry.sha256)
        name = f"{_GUEST}{secrets.token_hex(8)}"
        with self._lock:
            self._guests[name], self._loaded[name] = entry, model
        return name

    @property
    def guests(self) -> list[str]:
        """The names of all guests, the one added first at the front."""
        return list(self._guests)

    def remove_guest(self, name: str) -> None:
        """Forget a guest; the models of `entries` stay."""
        with self._lock:
            if self._guests.pop(name, None):
                del self._loaded[name]

    def describe(self) -> list[dict[str, Any]]:
        """A row per model as plain values: name, title, domains, directions, image_size, parameters, macs, ..."""
        return [describe(entry) for entry in self.entries.values()]


def provenance(zoo: Zoo, chain: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What made a picture, for its text chunks: models, their revisions and directions, in the order of ``chain``.

    Raises as `Zoo.entry` does.
    """
    entries = [zoo.entry(name) for name, _ in chain]
    return {
        "Comment": "AI-generated",
        "Software": "cyclegan",
        "Model": ", ".join(entry.config.name for entry in entries),
        "Revision": ", ".join(entry.revision for entry in entries),
        "Direction": ", ".join(
            f"{direction} ({entry.config.directions[direction]})"
            for entry, (_, direction) in zip(entries, chain, strict=True)
        ),
    }


def _rank(entry: Entry) -> tuple[float, float, str]:
    """Sorts models by how many faces of ten they change as asked, then by how few pixels they change for that.

    The worse direction counts; what was not measured comes last, by name. Flip rates differ by a few hundredths from
    one sample of images to the next, and the first model is the one that the page offers.
    """
    directions = [entry.config.metrics.get(direction) for direction in DIRECTIONS]

    def figures(name: str, missing: float) -> list[float]:
        values = [measured.get(name) if isinstance(measured, dict) else None for measured in directions]
        return [value if isinstance(value, int | float) and isfinite(value) else missing for value in values]

    return -floor(10 * min(figures("flip_rate", -1.0))), max(figures("changed", 1.0)), entry.name


def _read_entry(folder: Path) -> Entry:
    config = read_config(folder)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise BadCheckpointError(f'The model "{folder.name}" has no {WEIGHTS_FILE}.')
    _check_weights(weights, config)
    return Entry(folder.name, folder, config, hashlib.sha256(weights.read_bytes()).hexdigest())


def _check_weights(path: Path, config: ModelConfig) -> None:
    """Compare the file's header with the network's shapes, without reading the weights: fast enough for every start."""
    name = path.parent.name
    with torch.device("meta"):
        expected = {key: list(value.shape) for key, value in CycleGAN(config).state_dict().items()}
    try:
        with safe_open(path, "pt") as file:
            found = {key: file.get_slice(key).get_shape() for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise damaged_weights(name) from error
    if found != expected:
        raise foreign_weights(name)


def describe(entry: Entry) -> dict[str, Any]:
    """The row of one model in `Zoo.describe`."""
    config = entry.config
    with torch.device("meta"):
        generator = Generator(config.generator)
    return {
        "name": entry.name,
        "title": config.title,
        "description": config.description,
        "domains": {letter: domain.label for letter, domain in config.domains.items()},
        "directions": dict(config.directions),
        "image_size": config.image_size,
        "parameters": count_parameters(generator),
        "macs": count_macs(config.generator, config.image_size, config.image_size),
        "sha256": entry.sha256,
        "license": config.license,
        "metrics": dict(config.metrics),
    }
