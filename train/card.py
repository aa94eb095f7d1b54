"""The model card: the README.md of a model folder, as the Hugging Face Hub shows it.

What follows from ``config.json`` stands between ``<!-- generated: NAME -->`` and ``<!-- end -->`` and is written anew
each time; everything else is written once, belongs to whoever knows the model, and is kept.
"""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

from cyclegan.model import CARD_FILE, DIRECTIONS, FAILURES_FILE, GRID_FILE, ModelConfig, read_config
from cyclegan.networks import Generator, count_macs, count_parameters
from train import recipes
from train.errors import warn

_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n)(?:(?!<!-- generated:).)*?(<!-- end -->)", re.DOTALL)

# Rows of the table: name, key, format; {...} is filled in from the other metrics.
_FIGURES = (
    ("images", "images", "{:d}"),
    ("images of the target domain", "target_images", "{:d}"),
    ("KID x 100 ({features}, {kid_subsets} subsets of {kid_subset})", "kid", "{:.2f}"),
    ("KID floor: real against real", "kid_floor", "{:.2f}"),
    ("KID ceiling: identity copy", "kid_copy", "{:.2f}"),
    ("KID as a share of the identity copy's", "kid_share", "{:.1%}"),
    ("FID ({features}, N = images)", "fid", "{:.2f}"),
    ("FID floor: real against real", "fid_floor", "{:.2f}"),
    ("FID ceiling: identity copy", "fid_copy", "{:.2f}"),
    ("flip rate (classifier right on {classifier_accuracy:.1%} of real images)", "flip_rate", "{:.1%}"),
    ("cycle L1", "cycle_l1", "{:.4f}"),
    ("change L1", "change_l1", "{:.4f}"),
    ("pixels changed", "changed", "{:.1%}"),
    ("pixels changed outside the face", "changed_outside", "{:.1%}"),
    ("flip rate in float32, where it runs in less", "flip_rate_f32", "{:.1%}"),
    ("PSNR against float32, dB", "psnr_f32", "{:.1f}"),
)


def write_card(folder: Path) -> None:
    """Write the card of a model folder, or refresh the generated blocks of the one that is there.

    A card that has lost blocks is refreshed without them, one in another encoding than UTF-8 is left alone, and that is
    said. Raises BadCheckpointError when there is no
    sound ``config.json``, OSError when the card cannot be read or written.
    """
    config = read_config(folder)
    card = folder / CARD_FILE
    blocks = {
        "sample": _sample(folder),
        "figures": _figures(config),
        "failures": _failures(folder),
        "training": _training(config, folder),
    }
    try:
        text = card.read_text(encoding="utf-8") if card.exists() else _new_card(config)
    except UnicodeDecodeError:
        return warn(f"{card} is kept as it is: it is not in UTF-8, as the Hub wants it. Save it as UTF-8.")
    if missing := {name for name, block in blocks.items() if block} - {found[2] for found in _BLOCK.finditer(text)}:
        names = ", ".join(f"<!-- generated: {name} -->" for name in sorted(missing))
        warn(f"{card} is kept as it is where its generated parts are missing ({names}, each up to <!-- end -->).")
    text = _BLOCK.sub(lambda block: block[1] + blocks.get(block[2], "") + block[3], text)
    partial = folder / f".{CARD_FILE}.partial"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, card)


def figures(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (name, A2B, B2A) of the metrics that are there, as people read them; a dash for a figure that is None."""
    given = {"features": "?", "kid_subset": 0, "kid_subsets": 0, "classifier_accuracy": 0.0} | metrics
    by_direction = [metrics.get(direction, {}) for direction in DIRECTIONS]
    rows = []
    for name, key, form in _FIGURES:
        if any(key in scores for scores in by_direction):
            values = [scores.get(key) for scores in by_direction]
            A2B, B2A = ("-" if value is None else form.format(value) for value in values)
            rows.append((name.format(**given), A2B, B2A))
    return rows


def _new_card(config: ModelConfig) -> str:
    """A card without the content of its generated blocks."""
    faces = any(domain.faces == "mtcnn" for domain in config.domains.values())
    A, B = (domain.label for domain in config.domains.values())
    paragraphs = [
        f"""---
license: other
license_name: terms-of-the-training-data
library_name: cyclegan-faces
pipeline_tag: image-to-image
tags: [image-to-image, cyclegan, unpaired{", faces" if faces else ""}]
---
# {config.title}""",
        config.description,
        f"""{config.directions["A2B"]} (`A2B`, from "{A}" to "{B}") or {config.directions["B2A"].lower()} (`B2A`):
a [CycleGAN](https://arxiv.org/abs/1703.10593) of two generators for {"aligned face " if faces else ""}crops of
{config.image_size} x {config.image_size} pixels.""",
        f"""```
python -m cyclegan translate photo.jpg --model {config.name} --direction A2B
```""",
        "<!-- generated: sample -->\n<!-- end -->",
        "## Figures",
        "<!-- generated: figures -->\n<!-- end -->",
        "## Limitations",
        "<!-- generated: failures -->\n<!-- end -->",
        """Not written down yet. Draw a panel with
`python -m train evaluate --checkpoint MODEL --data CROPS --panel panel.png`, look for inputs that come back unchanged,
casts of colour, patterns, smeared eyes and people the data has few of, and say here what is seen.""",
        "## Intended use",
        """For trying unpaired translation, for teaching and for research. What it paints is generated from the habits
of its training images, stereotypes among them; it says nothing of how a person looks or would look.""",
        "## Out of scope",
        """Not for identifying people, not for classifying or judging them, not for documents or evidence, and not for
deceiving anyone: say that a picture is generated where it is shown.""",
        "## Data and licence",
        f"""{config.license or "The terms of the training images are not stated."}

The weights inherit the terms of the images they were trained on.""",
        "## Training",
        "<!-- generated: training -->\n<!-- end -->",
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def _sample(folder: Path) -> str:
    return f"![Translations]({GRID_FILE})\n" if (folder / GRID_FILE).exists() else ""


def _failures(folder: Path) -> str:
    if not (folder / FAILURES_FILE).exists():
        return ""
    return f"""![Where it fails]({FAILURES_FILE})

Translations of those test images that convince the classifier least, the worst first. Above A2B, below B2A.
"""


def _figures(config: ModelConfig) -> str:
    rows = figures(config.metrics)
    if not rows:
        return "Not measured yet: `python -m train evaluate --checkpoint MODEL --data CROPS --save` writes them here.\n"
    headings = [f"{config.directions[direction]} ({direction})" for direction in DIRECTIONS]
    table = [f"| | {' | '.join(headings)} |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    notes = [
        "By `python -m train evaluate` on test images that the training never saw and nothing was chosen on. Pixels in "
        "[0, 1]; one counts as changed when its mean over the colours moved by more than 0.1."
    ]
    if config.metrics.get("features") == "O-Net":
        notes.append(
            "KID and FID are measured in the features of O-Net, the last network of the face detector MTCNN, not in "
            "Inception's: they compare with each other, not with published figures."
        )
    return "\n".join(table) + "\n\n" + "\n".join(notes) + "\n"


def _training(config: ModelConfig, folder: Path) -> str:
    trained, generator = config.training, Generator(config.generator)
    size = f"{count_parameters(generator) / 1e6:.2f} M weights"
    macs = count_macs(config.generator, config.image_size, config.image_size) / 1e9
    lines = [f"Each generator has {size} and takes {macs:.2f} GMAC at {config.image_size} pixels."]
    settings, command = trained.get("recipe", {}), shlex.split(trained.get("command", ""))
    if "pairs" in trained and "hours" in trained and settings:
        batch = settings.get("batch", 1)
        reduce = config.generator.reduce
        stages = settings.get("stages", [[config.image_size, 0]])
        sizes = " then ".join(str(stage[0] // reduce) for stage in stages)
        name = f"recipe `{_recipe(command)}`, " if command else ""
        lines.append(
            f"Trained on {trained['pairs']:,} pairs ({trained['pairs'] // batch:,} steps of {batch}) in "
            f"{trained['hours']:.2f} hours: {name}{sizes} pixels"
            f"{f', enlarged over {config.image_size}' if reduce > 1 else ''}, seed {settings.get('seed')}. "
            "All settings are in `config.json`."
        )
    for part in trained.get("earlier", []):
        settings_then = ", ".join(f"`{name}` {json.dumps(value)}" for name, value in part["settings"].items())
        lines.append(f"Until {part['until']:,} pairs it had {settings_then}.")
    if "started_from" in trained:
        lines.append(f"It began with the weights of `{trained['started_from']}`.")
    if "teacher" in trained:
        lines.append(f"It was taught by `{trained['teacher']}`, and by data.")
    text = " ".join(lines) + "\n"
    if command:
        text += f"\n```\n{shlex.join(command)}\n```\n"
        grey = settings.get("generator", {}).get("channels") == 1  # its model is in colour, and no start for it
        if not grey and (again := _continued(command)):
            text += "\nThe same command continues a run whose directory is still there. From these weights alone:\n"
            text += f"\n```\n{again}\n```\n"
    return text


def _recipe(command: list[str]) -> str:
    default = "student" if "distill" in command[:4] else recipes.DEFAULT
    return _option(command, "--recipe") or default


def _option(command: list[str], name: str) -> str | None:
    """The value of an option, given as ``--name value`` or ``--name=value``."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _without(command: list[str], *names: str) -> list[str]:
    """A command without these options and their values."""
    kept, skip = [], False
    for word in command:
        if not skip and word.partition("=")[0] not in names:
            kept.append(word)
        skip = not skip and word in names
    return kept


def _continued(command: list[str]) -> str | None:
    """The command that goes on from the finished model, with a run directory and a model folder of its own."""
    run = _option(command, "--run")
    if run is None:
        return None
    model = _option(command, "--model")
    words = _without(command, "--run", "--model", "--init", "--teacher", "--recipe", "--distill")
    if "distill" in words[:4]:  # there is no teacher any more
        words[words.index("distill")] = "fit"
        words += ["--distill", "0"]
    words += ["--recipe", _recipe(command), "--run", f"{run}-continued"]
    words += ["--model", f"{model}-continued", "--init", model] if model else ["--init", f"{run}/model"]
    return shlex.join(words)
