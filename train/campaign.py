"""All models of the project, one after the other, within a budget of time; the same call again goes on."""

import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cyclegan.model import CONFIG_FILE, PICTURE_FILES, WEIGHTS_FILE, read_config
from train import recipes
from train.card import write_card
from train.config import About, TrainConfig, as_of_now
from train.errors import TrainingError, warn
from train.evaluate import evaluate, save_evaluation
from train.loop import fit, taken
from train.state import STATE_FILE

_RESEARCH = "Non-commercial research use only, inherited from the training photographs ({})."
_UTKFACE = _RESEARCH.format("UTKFace")
_STEREOTYPES = "It renders the averages of its training data, stereotypes included, and says nothing about a person."
_FILES = (WEIGHTS_FILE, *PICTURE_FILES, CONFIG_FILE)  # beside the card; the last makes it a model


@dataclass(frozen=True)
class Task:
    """One model of the campaign."""

    about: About
    share: float
    """Of the time."""
    redraw: bool = False
    """Everything changes, shapes too: without mask and skip, by generators at full resolution, whose large areas show
    no grid; colours are held by cycles and at first by identity loss. Discriminators, which soon tell drawings from
    photographs, learn little faster than generators."""
    keep_outside: float = 0.0
    """As in `TrainConfig`."""
    augment_from: float = 1.0
    """As in `TrainConfig`: for domains of under 3,000 images, which discriminators know by heart half through."""

    def config(self, recipe: str, hours: float, batch: int | None = None) -> TrainConfig:
        """The recipe as this task needs it, with another batch if one is given; raises TrainingError for one that
        cannot be that."""
        config = recipes.recipe(recipe)
        config = replace(config, hours=hours, epochs=None, batch=batch or config.batch)
        config = replace(config, keep_outside=self.keep_outside, augment_from=self.augment_from)
        G, D = config.generator, config.discriminator
        if self.redraw:
            G, D = replace(G, unshuffle=1, mask=False, skip=False), replace(D, unshuffle=2)
            config = replace(config, mask_area=0.0, identity=1.0, identity_end=0.0, cycle=10.0, lr_ratio=1.5)
        return replace(config, generator=G, discriminator=D)

    def flags(self) -> list[str]:
        """What `config` does to a recipe, as options of `fit`."""
        words = ["--keep-outside", f"{self.keep_outside:g}"] if self.keep_outside else []
        words += ["--augment-from", f"{self.augment_from:g}"] if self.augment_from < 1 else []
        if self.redraw:
            words += ["--unshuffle", "1", "--D-unshuffle", "2", "--no-mask", "--no-skip", "--mask-area", "0"]
            words += ["--identity", "1", "--identity-end", "0", "--cycle", "10", "--lr-ratio", "1.5"]
        return words


def _task(
    name: str, title: str, a: str, b: str, there: str, back: str, words: str, terms: str, share: float, **how: Any
) -> Task:
    return Task(About(name, title, (a, b), (there, back), words, terms), share, **how)


TASKS = {
    task.about.name: task
    for task in (
        _task(
            "glasses", "Glasses", "no glasses", "glasses", "Add glasses", "Remove glasses",
            "Puts glasses on a face or takes them off. Trained on tightly cropped photographs of faces.",
            _RESEARCH.format("UTKFace, All-Age-Faces"), share=0.2,
        ),
        _task(
            "gender", "Gender", "male", "female", "Male to female", "Female to male",
            f"Makes a face more like those labelled female or male in its data. {_STEREOTYPES}", _UTKFACE, share=0.2,
            keep_outside=0.5,
        ),
        _task(
            "anime", "Anime", "photo", "anime", "Photo to anime", "Anime to photo",
            "Redraws a portrait in the style of visual-novel characters, and drawings as portraits.",
            _RESEARCH.format("All-Age-Faces, Labeled Faces in the Wild, visual-novel drawings"),
            share=0.2, redraw=True,
        ),
        _task(
            "age", "Age", "young", "old", "Make older", "Make younger",
            "Makes a face look like those aged 57 to 90, or 18 to 32, in its data.", _UTKFACE, share=0.2,
            keep_outside=3.0, augment_from=0.5,
        ),
        _task(
            "ethnicity", "Ethnicity", "white", "black", "White to black", "Black to white",
            f"Makes a face more like those labelled black or white in its data. {_STEREOTYPES}", _UTKFACE, share=0.2,
            keep_outside=0.5,
        ),
    )
}  # fmt: skip


def campaign(
    names: list[str],
    recipe: str,
    data: Path,
    runs: Path,
    out: Path,
    hours: float,
    device: str,
    batch: int | None = None,
) -> None:
    """Train with one recipe, measure and put into ``out`` each named model, in this order.

    ``data`` holds NAME.tar, a pack, or NAME, a folder of crops, per model; ``runs`` the run directories. Each model
    gets its share of ``hours``, to which measuring it is added; one that is done already is passed over, an interrupted
    one goes on, as does one that has more time now. ``batch`` takes the place of the recipe's. A model folder appears
    in ``out`` only once it is trained and measured; what people wrote into its card stays, as does what they set in a
    model that has not been trained on. Raises TrainingError, before anything is trained, for an unknown name, missing
    data or a model in ``out`` that is not of these ``runs``, and as `fit` and `evaluate` do.
    """
    if unknown := [name for name in names if name not in TASKS]:
        raise TrainingError(f"There is no task {unknown[0]}. Known ones: {', '.join(TASKS)}.")
    sources = {name: _crops(data, name) for name in names}
    for name in names:
        if (out / name / CONFIG_FILE).exists() and not (runs / name / STATE_FILE).exists():
            raise taken(out / name, runs / name, "--out")
    total = sum(TASKS[name].share for name in names)
    configs = {name: TASKS[name].config(recipe, hours * TASKS[name].share / total, batch) for name in names}
    for name, config in configs.items():
        task, run = TASKS[name], runs / name
        model = run / "model"
        command = _fit_command(task, config, recipe, sources[name], run, out / name)
        if not _is_done(model, config):
            fit(config, sources[name], run, model, replace(task.about, command=command), device)
            measured, pictures = evaluate(model, sources[name], device)
            save_evaluation(model, measured, pictures)
        if not _is_shipped(model, out / name):
            _ship(model, out / name)


def _is_done(model: Path, config: TrainConfig) -> bool:
    """Whether a model has been trained with these settings for this long, measured and pictured."""
    if not all((model / file).exists() for file in _FILES):
        return False
    found = read_config(model)
    then, now = as_of_now(found.training["recipe"]), config.to_json()
    alike = all(then[name] == now[name] for name in now if name not in ("hours", "compile"))  # fit may not compile
    return bool(found.metrics) and alike and (then["hours"] or 0) >= now["hours"]


def _is_shipped(model: Path, folder: Path) -> bool:
    """Whether a folder has this model, whatever has been measured or set there since."""
    return (folder / CONFIG_FILE).exists() and read_config(folder).training == read_config(model).training


def _fit_command(task: Task, config: TrainConfig, recipe: str, data: Path, run: Path, model: Path) -> str:
    """What trains this model alone; the model card gives it to whoever wants to go on."""
    about = task.about
    words = ["python", "-m", "train", "fit", "--recipe", recipe, "--data", str(data), "--run", str(run), "--model"]
    words += [str(model), "--hours", f"{config.hours:g}", *task.flags()]
    words += ["--batch", str(config.batch)] if config.batch != recipes.recipe(recipe).batch else []
    words += ["--title", about.title, "--domains", *about.domains, "--directions", *about.directions]
    words += ["--description", about.description, "--license", about.license]
    return shlex.join(words)


def _crops(data: Path, name: str) -> Path:
    for path in (data / f"{name}.tar", data / name):
        if path.exists():
            return path
    raise TrainingError(f"There is neither {data / name}.tar nor a folder {data / name}. Make it with prepare --pack.")


def _ship(model: Path, folder: Path) -> None:
    """Copy a finished model, keeping what people wrote into the card that was there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in _FILES:
            shutil.copyfile(model / file, folder / file)
        write_card(folder)
    except OSError as error:
        warn(f"{folder} could not be written ({error.strerror}); the finished model stays in {model}.")
