"""What goes wrong in a training, noticed and named."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from train.config import TrainConfig
from train.errors import TrainingError, warn

_COLLAPSED = 0.1  # of the variety between translations that there once was
_COPY = 0.015  # mean absolute change, images in [-1, 1], below which nobody sees a difference


def check_finite(values: Mapping[str, float], pairs: int, run: Path) -> None:
    """Raise TrainingError naming the first value that is not a number, and what survives."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"The {name} is no longer a number after {pairs} pairs. {run} keeps the last good state. "
                "Start another --run with a lower --lr or --precision float32."
            )


def check_alive(measured: Mapping[str, tuple[float, float]], best: float, pairs: int, run: Path) -> float:
    """The greatest variety so far, when translations are still various; else TrainingError.

    ``measured`` has, per direction, (variety, change): the standard deviation between translations of different images
    in units of that between the images, and the mean absolute change in [0, 2]. ``best`` is what this gave before.
    """
    least, direction = min((variety, direction) for direction, (variety, _) in measured.items())
    if least < _COLLAPSED * best:
        raise TrainingError(
            f"The training has collapsed: after {pairs} pairs all translations {direction} look alike (variety "
            f"{least:.3f}, once {best:.3f}). {run} keeps the last good state. Start another --run with a lower --lr or "
            "a higher --cycle."
        )
    return max(best, least)


def warn_of_copying(measured: Mapping[str, tuple[float, float]], at: float) -> None:
    """Say so when, well into a training, translations still equal their inputs."""
    for direction, (_, change) in measured.items():
        if at > 0.2 and change < _COPY:
            warn(
                f"Translations {direction} hardly differ from their inputs (by {change:.4f}). Lower --cycle and "
                "--identity, or raise --lr-ratio."
            )


def is_lack_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of the CPU or of the device has run out."""
    # PyTorch has a type of its own for the device's memory; of the CPU's it speaks in a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@contextmanager
def naming_memory(config: TrainConfig) -> Iterator[None]:
    """Turn a lack of memory into a TrainingError that names the settings to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        raise TrainingError(
            f"Memory ran out at a batch of {config.batch} and {config.image_size} pixels. Lower --batch, raise "
            "--accumulate, or lower --size or --filters."
        ) from error
