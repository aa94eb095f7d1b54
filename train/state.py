"""Two artefacts, two names: the training state (to resume) and the snapshot (a model folder, to translate with)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from train.errors import TrainingError

STATE_FILE = "state.pt"


def save_state(run: Path, state: dict) -> None:
    """Write ``run/state.pt`` atomically: a kill or a full disk leaves the previous state intact.

    Raises TrainingError when it cannot be written.
    """
    partial = run / f".{STATE_FILE}.partial"
    try:
        torch.save(state, partial)
        os.replace(partial, run / STATE_FILE)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        partial.unlink(missing_ok=True)
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


def load_state(run: Path, device: torch.device) -> dict | None:
    """Read ``run/state.pt``, or None when the run has not saved one. Raises TrainingError when it is damaged."""
    path = run / STATE_FILE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged archives raise nearly anything
        raise TrainingError(f"{path} is damaged. Restore it from a copy, or delete it to start anew.") from error
