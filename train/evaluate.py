"""A finished model on images it never saw: how close it comes to the target domain, what it keeps, and pictures."""

import hashlib
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cyclegan.faces.align import face_ellipse
from cyclegan.images import encode_jpeg, encode_png, psnr
from cyclegan.model import (
    DIRECTIONS,
    FAILURES_FILE,
    GRID_FILE,
    CycleGAN,
    ModelConfig,
    read_config,
    reverse,
    source,
    target,
    write_config,
)
from cyclegan.runtime import available_precision, make_engine
from train.card import write_card
from train.classifier import ClassifierConfig, cached_classifier
from train.config import TrainConfig
from train.data import load_part, load_split
from train.errors import TrainingError, warn
from train.metrics import KID_SUBSET, KID_SUBSETS, fid, kid, load_features

SPLITS = ("test", "validation")

_CHANGED = 0.1  # a pixel counts as changed when its mean over channels moved by more than this, pixels in [0, 1]
_BATCH = 16  # images translated at once
_SHOWN = 6  # images per direction in the pictures of a card
_FAILURE_COLUMNS = 3  # the page shows failures beside the figures, in half of its width


@dataclass(frozen=True)
class Scores:
    """Figures of one direction over all images of its source domain; pixels in [0, 1]."""

    images: int
    """Images translated."""
    target_images: int
    """Real images of the target domain that they are compared with."""
    kid: float
    """KID x 100 of translations against the target's images."""
    kid_floor: float
    """The same for as many real training images of the target domain: what no model can be expected to beat."""
    kid_copy: float
    """The same for the inputs as they are: what a model that does nothing gets."""
    kid_share: float | None
    """``kid / kid_copy``; None where the inputs are no further from the target than itself."""
    fid: float
    """FID of translations, as ``kid``."""
    fid_floor: float
    """As ``kid_floor``."""
    fid_copy: float
    """As ``kid_copy``."""
    flip_rate: float
    """Share of translations that the attribute classifier assigns to the target domain."""
    cycle_l1: float
    """Mean absolute difference between input and reconstruction."""
    change_l1: float
    """Mean absolute difference between input and translation."""
    changed: float
    """Share of pixels that the translation moved by more than 0.1."""
    changed_outside: float | None
    """The same outside the face (`face_ellipse`); None for drawings, which are not aligned."""
    flip_rate_f32: float | None
    """``flip_rate`` in float32; None where the model runs in nothing else, as for ``psnr_f32``."""
    psnr_f32: float | None
    """Decibels, mean over images: how close translations are to those in float32."""


@dataclass(frozen=True)
class Pictures:
    """What became of the images of one direction."""

    images: np.ndarray
    """uint8 [N, 3, S, S, 3]: input, translation, reconstruction."""
    conviction: np.ndarray
    """float [N]: the classifier's score of the translation, above 0 where it takes it for the target domain."""

    def spread(self, count: int) -> np.ndarray:
        """At most ``count`` of the images, evenly spread."""
        return self.images[np.linspace(0, len(self.images) - 1, min(count, len(self.images))).astype(int)]

    def least_convincing(self, count: int) -> np.ndarray:
        """At most ``count`` of the images, the one that the classifier is furthest from believing first."""
        return self.images[np.argsort(self.conviction, kind="stable")[:count]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a model, and how."""

    split: str
    """``"test"`` or ``"validation"``: the images below."""
    features: str
    """The network in whose features KID and FID are measured."""
    kid_subset: int
    """Images per subset of KID's estimate."""
    kid_subsets: int
    """Subsets that it is the mean of."""
    classifier_accuracy: float
    """Balanced accuracy of the attribute classifier on the real images of both domains."""
    directions: dict[str, Scores]
    """By direction."""
    model: ModelConfig
    """The model as it was then."""

    def to_json(self) -> dict[str, Any]:
        """Plain values without the model, directions beside the rest, as ``config.json`` and ``--json`` hold them."""
        values = asdict(self)
        del values["model"]
        return values | values.pop("directions")


def evaluate(
    checkpoint: Path, data: Path, device: str, split: str = "test", features: str = "auto"
) -> tuple[Evaluation, dict[str, Pictures]]:
    """Measure both directions as the app would compute them, in the precision of the model's config.

    ``split`` is ``"test"`` (testA and testB of ``data``, a folder or a pack) or ``"validation"``, the training images
    that this model's training set aside: choose settings on these. Returns the figures, and the pictures by direction.
    Keeps the attribute classifier beside the data. Warns of test images that are among those for training.
    Raises TrainingError for missing or empty parts and features that cannot be had, BadCheckpointError for the model.
    """
    model = CycleGAN.from_pretrained(checkpoint)
    size = model.config.image_size
    network = load_features(features, device)
    validation = model.config.training.get("recipe", {}).get("validation", TrainConfig.validation)
    classifier = cached_classifier(data, validation, ClassifierConfig(), device)

    real, described, floor = {}, {}, {}
    for letter in "AB":
        train, held_out = load_split(data, letter, size, validation)
        real[letter] = load_part(data, f"test{letter}", size, size)[0] if split == "test" else held_out
        if len(real[letter]) < 2:
            raise TrainingError(
                f"Under 2 images of train{letter} are set aside for validation. It needs 20 or more, of which the "
                f"training that made the model sets aside a tenth, and at most {validation} (--validation)."
            )
        if split == "test":
            _warn_of_known(letter, real[letter], np.concatenate([train, held_out]))
        described[letter] = network(real[letter])
        floor[letter] = train
    counts = {letter: len(images) for letter, images in real.items()}
    for letter, other in ("AB", "BA"):
        order = np.random.default_rng(0).permutation(len(floor[letter]))
        floor[letter] = network(floor[letter][order[: counts[other]]])  # as many as there are translations

    precision = available_precision(model.config.precision) if device == "cpu" else "f32"
    scores, pictures = {}, {}
    for direction in DIRECTIONS:
        start, end = source(direction), target(direction)
        fake = _translate(model, direction, real[start], device, precision)
        rec = _translate(model, reverse(direction), fake, device, precision)
        exact = None if precision == "f32" else _translate(model, direction, real[start], device, "f32")
        believed = classifier.scores(fake) * (1 if end == "B" else -1)
        pictures[direction] = Pictures(np.stack([real[start], fake, rec], axis=1), believed)
        of_fake = network(fake)
        distances = {
            f"{name}{suffix}": round(measure(of, described[end]), 4)
            for name, measure in (("kid", kid), ("fid", fid))
            for suffix, of in (("", of_fake), ("_floor", floor[end]), ("_copy", described[start]))
        }
        apart = distances["kid_copy"] > max(distances["kid_floor"], 0)

        drawn = model.config.domains[start].faces == "square"
        scores[direction] = Scores(
            images=counts[start],
            target_images=counts[end],
            **distances,
            kid_share=round(distances["kid"] / distances["kid_copy"], 4) if apart else None,
            flip_rate=round(float((believed > 0).mean()), 4),
            flip_rate_f32=None if exact is None else round(float((classifier.is_B(exact) == (end == "B")).mean()), 4),
            psnr_f32=None if exact is None else round(float(np.mean([*map(psnr, fake, exact)])), 1),
            **_changes(pictures[direction].images, None if drawn else face_ellipse(model.config.template, size)),
        )
    return (
        Evaluation(
            split=split,
            features=network.name,
            kid_subset=min(KID_SUBSET, *counts.values(), *map(len, floor.values())),
            kid_subsets=KID_SUBSETS,
            classifier_accuracy=round(classifier.accuracy(real["A"], real["B"]), 4),
            directions=scores,
            model=model.config,
        ),
        pictures,
    )


def _warn_of_known(letter: str, test: np.ndarray, train: np.ndarray) -> None:
    seen = {hashlib.sha256(image).digest() for image in train}
    if known := sum(hashlib.sha256(image).digest() in seen for image in test):
        warn(
            f"{known} of {len(test)} pictures of test{letter} are among those of train{letter}, too: the figures "
            "flatter the model. Keep them apart."
        )


def _translate(model: CycleGAN, direction: str, images: np.ndarray, device: str, precision: str) -> np.ndarray:
    """uint8 [N, S, S, 3] -> the same shape."""
    calibration = model.config.calibration.get(direction)
    generator, size = model.generator(direction), images.shape[1]
    engine = make_engine(generator, size, device, precision=precision, calibration=calibration)
    starts = tqdm(range(0, len(images), _BATCH), desc=direction, unit="batch", leave=False)
    return np.concatenate([engine(images[start : start + _BATCH]) for start in starts])


def _changes(pictures: np.ndarray, face: np.ndarray | None) -> dict[str, Any]:
    """What became of the inputs; ``face`` is bool [S, S]."""
    cycle, change, moved = [], [], []
    for real, fake, rec in (triple.astype(np.float32) / 255 for triple in pictures):
        difference = np.abs(fake - real)
        cycle.append(np.abs(rec - real).mean())
        change.append(difference.mean())
        moved.append(difference.mean(-1) > _CHANGED)
    changed = np.mean(moved, axis=0)
    outside = None if face is None or face.all() else round(float(changed[~face].mean()), 4)
    return {
        "cycle_l1": round(float(np.mean(cycle)), 4),
        "change_l1": round(float(np.mean(change)), 4),
        "changed": round(float(changed.mean()), 4),
        "changed_outside": outside,
    }


def panel(
    pictures: dict[str, Pictures], count: int, columns: int = 4, publishable: bool = False, failures: bool = False
) -> np.ndarray:
    """Evenly spread images, or with ``failures`` the least convincing, as one picture, A2B above B2A: uint8 [H, W, 3].

    Each cell shows input, translation and reconstruction from left to right; with ``publishable`` the translation only,
    for data whose terms forbid to publish it, as a good reconstruction is nearly the input.
    """
    halves = []
    for direction in DIRECTIONS:
        of = pictures[direction]
        chosen = of.least_convincing(count) if failures else of.spread(count)
        shown = chosen[:, 1:2] if publishable else chosen
        cells = [np.concatenate(list(pictured), axis=1) for pictured in shown]
        cells = [np.pad(cell, ((2, 2), (4, 4), (0, 0)), constant_values=255) for cell in cells]
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
        rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
        halves.append(np.concatenate(rows, axis=0))
    gap = np.full((12, halves[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], axis=0)


def check_saving(split: str) -> None:
    """Raise TrainingError for a split whose figures are not saved."""
    if split != "test":
        raise TrainingError("Only figures of test images are saved: settings may have been chosen on the others.")


def save_evaluation(folder: Path, evaluation: Evaluation, pictures: dict[str, Pictures] | None = None) -> ModelConfig:
    """Write the figures into ``config.json`` of a model folder and into its card; returns the new config.

    ``pictures`` are put beside them for the card to show: translations of a few images evenly spread, and of those that
    convince the classifier least; inputs and reconstructions, which may be nearly the inputs, never.
    Raises TrainingError for figures of validation images, on which settings may have been chosen, for a model that has
    been trained on since it was measured, and where the folder cannot be written.
    """
    check_saving(evaluation.split)
    config = read_config(folder)
    if config.training != evaluation.model.training:
        raise TrainingError(f"{folder} has been trained on since it was measured. Measure it again.")
    config = replace(config, metrics=evaluation.to_json())
    files = {}
    if pictures:
        files[GRID_FILE] = encode_png(panel(pictures, _SHOWN, _SHOWN, publishable=True))
        files[FAILURES_FILE] = encode_jpeg(panel(pictures, _SHOWN, _FAILURE_COLUMNS, publishable=True, failures=True))
    try:
        for name, content in files.items():
            partial = folder / f".{name}.partial"
            partial.write_bytes(content)
            os.replace(partial, folder / name)
        write_config(folder, config)  # after the pictures: a model with figures is done
        write_card(folder)
    except OSError as error:
        raise TrainingError(f"The figures cannot be written to {folder}: {error.strerror}.") from error
    return config
