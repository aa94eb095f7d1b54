"""Models for one visit: from the Hub or from a visitor's disk, checked before they are taken in.

Everything here comes from strangers. Only the three files of a model folder are read, each under a size limit and
never as a pickle; `Zoo.add_guest` then checks the weights against the config as strictly as it does for our own.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub

from cyclegan.errors import BadCheckpointError
from cyclegan.model import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE

MAX_WEIGHTS = 64 * 2**20
"""Bytes of the largest weights that are taken: the paper's network in half precision has 46 million."""
MAX_TEXT = 256 * 2**10
"""Bytes of the largest config or card."""

_LIMITS = {CONFIG_FILE: MAX_TEXT, WEIGHTS_FILE: MAX_WEIGHTS, CARD_FILE: MAX_TEXT}
_REPO_ID = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)


@contextmanager
def from_hub(repo_id: str, revision: str | None = None) -> Iterator[Path]:
    """Fetch a model into a folder that lasts as long as the context.

    Sizes are checked before anything is fetched, and no token of this machine is used: what is private stays so.
    Raises BadCheckpointError.
    """
    if not _REPO_ID.fullmatch(repo_id):
        raise BadCheckpointError("This is not a model on the Hub. Its name has the form owner/model.")
    try:
        info = huggingface_hub.HfApi(token=False).model_info(
            repo_id, revision=revision or None, files_metadata=True, timeout=20
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    except Exception as error:  # besides OSError, anything of whichever HTTP library the Hub client uses
        raise _unreachable(repo_id) from error
    with _folder(repo_id.split("/")[1]) as folder:
        for name in _checked(sizes):
            try:
                huggingface_hub.hf_hub_download(repo_id, name, revision=info.sha, local_dir=folder, token=False)
            except Exception as error:
                raise _unreachable(repo_id) from error
        yield folder


@contextmanager
def from_files(files: Iterable[tuple[str, Path]]) -> Iterator[Path]:
    """Copy the files of a model, as (name, path), into a folder that lasts as long as the context.

    Raises BadCheckpointError for any file that does not belong to a model, and for missing or too large ones.
    """
    found = {Path(name).name: path for name, path in files}
    with _folder("uploaded") as folder:
        for name in _checked({name: path.stat().st_size for name, path in found.items()}, strict=True):
            shutil.copyfile(found[name], folder / name)
        yield folder


def _checked(sizes: dict[str, int], strict: bool = False) -> list[str]:
    """The files to take, given name -> bytes of those there are."""
    if strict and (foreign := sorted(set(sizes) - set(_LIMITS))):
        raise BadCheckpointError(
            f"{foreign[0]} does not belong to a model. Choose {CONFIG_FILE}, {WEIGHTS_FILE} and {CARD_FILE}; "
            "weights are read as safetensors only."
        )
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in sizes:
            raise BadCheckpointError(f"The model has no {name}.")
    wanted = [name for name in _LIMITS if name in sizes]
    for name in wanted:
        if sizes[name] > _LIMITS[name]:
            limit = _LIMITS[name] / 2**20
            raise BadCheckpointError(f"{name} is too large: at most {limit:g} MB are accepted.")
    return wanted


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A folder of this name, which messages show."""
    with tempfile.TemporaryDirectory(prefix="cyclegan-guest-") as parent:
        folder = Path(parent) / name
        folder.mkdir()
        yield folder


def _unreachable(repo_id: str) -> BadCheckpointError:
    return BadCheckpointError(
        f'The model "{repo_id}" could not be had from the Hub. It may not exist or not be public, or the Hub cannot be '
        "reached from here."
    )
