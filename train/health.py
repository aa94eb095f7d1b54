"""What goes wrong in a training, noticed and named."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from train.config import TrainConfig
from train.errors import TrainingError, warn

_COLLAPSED = 0.1  # of the variety between translations that there once was
_ALIKE = 0.02  # of the variety between the images themselves
_EARLY = 0.2  # progress until which all translations may still be something grey, or copies
_OVERFITTED = 0.05  # of a verdict from 0 to 1: less may be chance
_COPY = 0.015  # mean absolute change, images in [-1, 1], below which nobody sees a difference


def check_finite(values: Mapping[str, float], pairs: int, run: Path, saved: int) -> None:
    """Raise TrainingError naming the first value that is not a number, and what survives: a state of ``saved`` pairs,
    or none where that is 0."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"The {name} is no longer a number after {pairs} pairs. {_survivor(run, saved)} Start another --run "
                "with a lower --lr or --precision float32."
            )


def check_alive(
    measured: Mapping[str, tuple[float, float]], best: Mapping[str, float], pairs: int, run: Path, saved: int
) -> dict[str, float]:
    """The greatest variety so far of each direction, when translations are still various; else TrainingError.

    ``measured`` has, per direction, (variety, change): the standard deviation between translations of different images
    in units of that between the images, and the mean absolute change in [0, 2]. ``best`` is what this gave before,
    ``saved`` as for `check_finite`.
    """
    for direction, (variety, _) in measured.items():
        once = best.get(direction, 0.0)
        if variety < _COLLAPSED * once:
            raise TrainingError(
                f"The training has collapsed: after {pairs} pairs all translations {direction} look alike (variety "
                f"{variety:.3f}, once {once:.3f}). {_survivor(run, saved)} Start another --run with a lower --lr or a "
                "higher --cycle."
            )
    return {direction: max(best.get(direction, 0.0), variety) for direction, (variety, _) in measured.items()}


def warn_of_standstill(measured: Mapping[str, tuple[float, float]], at: float, masked: bool) -> None:
    """Say so when, well into a training, translations of a direction still equal their inputs, or one another.

    ``measured`` as for `check_alive`; ``masked`` tells whether the generators have a mask, which can close.
    """
    for direction, (variety, change) in measured.items():
        if at <= _EARLY:
            continue
        if change < _COPY:
            cure = "a higher --mask-area" if masked else "a lower --cycle and --identity, or a higher --lr-ratio"
            warn(
                f"Translations {direction} hardly differ from their inputs (by {change:.4f}). If that stays so, start "
                f"another --run with {cure}."
            )
        elif variety < _ALIKE:
            warn(
                f"Translations {direction} all look alike (variety {variety:.3f}). If that stays so, start another "
                "--run with a lower --lr or a higher --cycle."
            )


def warn_of_overfitting(verdicts: Mapping[str, tuple[float, float, float]], at: float, augment: bool) -> None:
    """Say so when, well into a training, a discriminator has overfitted: it tells images it has learnt by heart
    from others more than it tells real images from translations, and what generators learn from it is chance.

    ``verdicts`` has, per domain, its mean score of real images it is trained on, of others, and of translations.
    """
    for letter, (seen, held_out, generated) in verdicts.items():
        if at > _EARLY and seen - held_out > max(_OVERFITTED, held_out - generated):
            cure = "It needs more images." if augment else "Stop, and go on with --augment-from 0."
            warn(
                f"The discriminator of {letter} knows its images by heart: it gives them {seen:.2f}, others of their "
                f"kind {held_out:.2f}, and translations {generated:.2f}. {cure}"
            )


def _survivor(run: Path, saved: int) -> str:
    return f"{run} keeps the state after {saved} pairs." if saved else "No state had been saved yet."


def is_lack_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of the CPU or of the device has run out."""
    # PyTorch has a type of its own for its allocator on CUDA; all else speaks in plain RuntimeErrors.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "out of memory", "_ALLOC_FAILED", "std::bad_alloc")
    )


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
