"""A finished model on images it never saw: cycle error, how much it changes, and pictures to look at."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cyclegan.model import DIRECTIONS, CycleGAN, reverse, source
from cyclegan.runtime import make_engine
from train.data import load_folder

_CHANGED = 0.1  # a pixel counts as changed when its mean over channels moved by more than this, pixels in [0, 1]


@dataclass(frozen=True)
class Scores:
    """Figures of one direction over all its test images; pixels in [0, 1]."""

    images: int
    """Test images."""
    cycle_l1: float
    """Mean absolute difference between input and reconstruction."""
    change_l1: float
    """Mean absolute difference between input and translation."""
    changed: float
    """Share of pixels that the translation moved by more than 0.1."""


def evaluate(checkpoint: Path, data: Path, device: str) -> tuple[dict[str, Scores], dict[str, np.ndarray]]:
    """Score both directions on ``data/testA`` and ``data/testB``, as the app would compute them.

    Returns scores and pictures per direction; pictures are uint8 [N, 3, S, S, 3]: input, translation, reconstruction.
    Raises TrainingError for a missing or empty test folder, BadCheckpointError for the model.
    """
    model = CycleGAN.from_pretrained(checkpoint)
    size = model.config.image_size
    scores, pictures = {}, {}
    for direction in DIRECTIONS:
        real, names = load_folder(data / f"test{source(direction)}", size)
        there = make_engine(model.generator(direction), size, device)
        back = make_engine(model.generator(reverse(direction)), size, device)
        triples = []
        for batch in tqdm(_batches(real), desc=direction, unit="image", leave=False):
            fake = there(batch)
            triples.append(np.stack([batch, fake, back(fake)], axis=1))
        pictures[direction] = np.concatenate(triples)
        scores[direction] = _score(pictures[direction])
    return scores, pictures


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), 16):
        yield images[start : start + 16]


def _score(pictures: np.ndarray) -> Scores:
    real, fake, rec = (pictures[:, i].astype(np.float32) / 255 for i in range(3))
    return Scores(
        images=len(pictures),
        cycle_l1=round(float(np.abs(rec - real).mean()), 4),
        change_l1=round(float(np.abs(fake - real).mean()), 4),
        changed=round(float((np.abs(fake - real).mean(-1) > _CHANGED).mean()), 4),
    )


def panel(pictures: dict[str, np.ndarray], count: int, columns: int = 4, inputs: bool = True) -> np.ndarray:
    """Evenly spread test images as one picture, A2B above B2A: uint8 [H, W, 3].

    Each cell shows input, translation and reconstruction from left to right. Without ``inputs`` it shows the last two
    only, for data whose terms forbid to publish it: the reconstruction stands for the input.
    """
    halves = []
    for direction in DIRECTIONS:
        every = pictures[direction][:, 0 if inputs else 1 :]
        chosen = every[np.linspace(0, len(every) - 1, min(count, len(every))).astype(int)]
        cells = [np.concatenate(list(triple), axis=1) for triple in chosen]
        cells = [np.pad(cell, ((2, 2), (4, 4), (0, 0)), constant_values=255) for cell in cells]
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
        rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
        halves.append(np.concatenate(rows, axis=0))
    gap = np.full((12, halves[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], axis=0)


def to_json(scores: dict[str, Scores]) -> dict[str, dict]:
    """Scores as plain values, as ``config.json`` and ``--json`` hold them."""
    return {direction: asdict(each) for direction, each in scores.items()}
