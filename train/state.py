"""Two artefacts, two names: the training state (to resume) and the snapshot (a model folder, to translate with)."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from cyclegan.model import replace_durably
from train.errors import TrainingError
from train.health import is_lack_of_memory

STATE_FILE = "state.pt"


def save_state(run: Path, state: dict) -> None:
    """Write ``run/state.pt`` atomically: a kill, a power cut or a full disk leaves the previous state intact.

    Raises TrainingError when it cannot be written.
    """
    partial = run / f".{STATE_FILE}.partial"
    try:
        torch.save(state, partial)
        replace_durably(partial, run / STATE_FILE)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        with suppress(OSError):  # of a disk that can only be read by now
            partial.unlink()
        raise TrainingError(
            f"The training state cannot be written to {run}: {error}. The previous state is intact."
        ) from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that may not be written, into a TrainingError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{folder} cannot be written: {error}. The last training state is intact.") from error


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Keep ``run`` to this process, until it ends in whatever way; raises TrainingError while another has it."""
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError(f"Another process trains in {run}. Wait for it, or choose another --run.") from error
    try:
        yield
    finally:
        lock.release()


def load_state(run: Path, device: torch.device) -> dict | None:
    """Read ``run/state.pt``, or None when the run has not saved one.

    Raises TrainingError when it is damaged or may not be read, and what says that memory has run out.
    """
    path = run / STATE_FILE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}. Change its permissions.") from error
    except Exception as error:  # damaged archives raise nearly anything
        if is_lack_of_memory(error):
            raise
        raise TrainingError(f"{path} is damaged. Restore it from a copy, or delete it to start anew.") from error
