"""The command line of training: ``python -m train prepare | fit | distill | evaluate | push | campaign | bench``."""

import argparse
import json
import re
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path

from cyclegan.errors import CycleGANError
from train.config import PRECISIONS, About, TrainConfig
from train.errors import TrainingError, as_text

EXAMPLE = """
from two folders of photographs to a model in the page:

  python -m train prepare --a photos/without --b photos/with --out crops/glasses
  python -m train fit --data crops/glasses --run runs/glasses --model checkpoints/glasses --hours 3 \\
      --domains "no glasses" "glasses" --directions "Add glasses" "Remove glasses"
  python app.py                      # the model is in the page from the first snapshot on
"""

_CONTINUES = "The same command continues from what was saved."


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with the reason on stderr, 2 for wrong usage."""
    parser = _parser()
    args = parser.parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    try:
        args.run_command(args)
    except CycleGANError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Stopped. {args.after_stop}".rstrip(), file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        from train.health import is_lack_of_memory

        if not is_lack_of_memory(error):
            raise
        print("Memory ran out. Close other programs, or use fewer or smaller pictures.", file=sys.stderr)
        return 1
    return 0


class _Command(argparse.ArgumentParser):
    """A command whose options are whole words: the card repeats them, and finds the recipe there."""

    def __init__(self, **settings):
        super().__init__(**settings, allow_abbrev=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(after_stop="")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)
    _add_prepare(commands)
    _add_fit(commands)
    _add_distill(commands)
    _add_evaluate(commands)
    _add_campaign(commands)
    _add_bench(commands)
    _add_push(commands)
    return parser


def _add_prepare(commands) -> None:
    from train.prepare import FACES, TEMPLATES

    command = commands.add_parser(
        "prepare",
        help="raw images to aligned crops",
        description="Find the largest face of every image, cut and align it as the app will, write it to OUT. "
        "Run again to continue. Images without a usable face are counted and listed in OUT/rejected.csv.",
        epilog="""examples:
  python -m train prepare --a photos/without --b photos/with --out crops/glasses --size 128
  python -m train prepare --data photos --faces mtcnn square --template portrait --out crops/anime
  python -m train prepare --utkface UTKFace --a "age 20-29" --b "age 50-59" --out crops/age --pack age.tar
  python -m train prepare --csv train.csv --label glasses --images faces --image "face-{id}.png" --a 0 --b 1 \\
      --out crops/kaggle
  python -m train prepare --out crops/glasses --pack glasses.tar
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--data", type=Path, help="folder with trainA, trainB and, optionally, testA, testB")
    command.add_argument("--a", metavar="A", help="domain A: its folder, its people (--utkface) or its label (--csv)")
    command.add_argument("--b", metavar="B", help="domain B, likewise")
    command.add_argument("--utkface", type=Path, metavar="DIR", help="UTKFace: [age]_[gender]_[race]_[date].jpg files")
    command.add_argument("--csv", type=Path, metavar="FILE", help="table with one row per image")
    command.add_argument("--label", metavar="COLUMN", help="column of --csv that tells A from B")
    command.add_argument("--images", type=Path, metavar="DIR", help="where the images of --csv are")
    command.add_argument("--image", metavar="NAME", help='what a row\'s image is called: "face-{id}.png"')
    command.add_argument("--test-share", type=float, default=0.05, help="share kept for testing, without --data (0.05)")
    command.add_argument("--out", type=Path, required=True, help="where the crops go")
    command.add_argument("--pack", type=Path, metavar="FILE", help="then write the crops to one .tar, which fit reads")
    command.add_argument("--size", type=int, default=128, help="side of the crops in pixels (128)")
    command.add_argument("--template", choices=TEMPLATES, default="tight", help="face only, or the head with its hair")
    command.add_argument(
        "--faces",
        nargs=2,
        choices=FACES,
        default=("mtcnn", "mtcnn"),
        metavar=("A", "B"),
        help='how faces are found in each domain: "mtcnn" for photographs, "square" (the centre) for drawings',
    )
    command.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"), help="where to find faces (cpu)")
    command.add_argument("--workers", type=_positive, help="processes that look for faces (one per core; 1 on a GPU)")
    command.set_defaults(run_command=_prepare, after_stop=_CONTINUES)


def _prepare(args: argparse.Namespace) -> None:
    from cyclegan.runtime import resolve_device
    from train.crops import write_pack
    from train.prepare import TEMPLATES, Geometry, cores, prepare
    from train.sources import Source

    source = Source(**{field.name: getattr(args, field.name) for field in fields(Source)})
    if source.given() or not args.pack:
        images = source.find(args.out)
        geometry = Geometry(args.size, TEMPLATES[args.template], tuple(args.faces))
        device = resolve_device(args.device)
        workers = args.workers or (cores() if device == "cpu" else 1)
        print(prepare(images, args.out, geometry, device, workers))
    if args.pack:
        print(write_pack(args.out, args.pack))


def _add_fit(commands) -> None:
    command = commands.add_parser(
        "fit",
        help="crops to a model",
        description="Train on OUT of prepare, on its pack, or on any four folders of pictures. The same command again "
        "continues; snapshots appear in --model. On several processes or machines: accelerate launch -m train fit ...",
        epilog="""examples:
  python -m train fit --data crops/glasses --run runs/glasses --model checkpoints/glasses --hours 3 \\
      --domains "no glasses" "glasses" --directions "Add glasses" "Remove glasses"
  python -m train fit --recipe any-two-folders --data horse2zebra --run runs/horse2zebra --epochs 100 --blocks 6
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_places(command)
    command.add_argument("--init", type=Path, help="model folder of the same shape, or without skip, to start from")
    _add_recipe(command)
    _add_settings(command)
    command.set_defaults(run_command=_fit, after_stop=_CONTINUES)


def _add_recipe(command: argparse.ArgumentParser) -> None:
    from train import recipes

    command.add_argument("--recipe", default=recipes.DEFAULT, choices=recipes.RECIPES, help="named settings (face)")


def _add_settings(command: argparse.ArgumentParser) -> None:
    """What overrides a recipe."""
    for name, kind in _TRAIN_FLAGS.items():
        command.add_argument(f"--{name.replace('_', '-')}", type=kind, help=_doc("TrainConfig", name))
    command.add_argument("--precision", choices=PRECISIONS, help=_doc("TrainConfig", "precision"))
    command.add_argument("--compile", action=argparse.BooleanOptionalAction, help=_doc("TrainConfig", "compile"))
    command.add_argument("--flip", action=argparse.BooleanOptionalAction, help=_doc("TrainConfig", "flip"))
    command.add_argument("--size", type=int, help="image side in pixels, without stages")
    command.add_argument(
        "--stages",
        nargs="+",
        type=_stage,
        metavar="SIZE:START",
        help="image sides and the progress in [0, 1) at which each begins: 64:0 96:0.5 128:0.8",
    )
    command.add_argument("--height", type=int, help="image height in pixels, without stages (with --width)")
    command.add_argument("--width", type=int, help="image width in pixels")
    command.add_argument("--channels", type=int, choices=(1, 3), help="1 to train on grey images")
    for name, kind in _GENERATOR_FLAGS.items():
        flag = f"--{name.replace('_', '-')}"
        command.add_argument(flag, type=kind, help=_doc("GeneratorConfig", name))
    for name in _GENERATOR_SWITCHES:
        command.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=_doc("GeneratorConfig", name))
    for name, kind in _DISCRIMINATOR_FLAGS.items():
        command.add_argument(f"--D-{name}", type=kind, help=_doc("DiscriminatorConfig", name))
    on_or_off = argparse.BooleanOptionalAction
    command.add_argument("--dilated", action=on_or_off, help=_doc("DiscriminatorConfig", "dilated"))
    command.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")


# Fields of TrainConfig that have a flag of their name.
_TRAIN_FLAGS = {
    "pairs": int,
    "epochs": float,
    "hours": float,
    "start_epoch": float,
    "batch": int,
    "accumulate": int,
    "lr": float,
    "lr_ratio": float,
    "only": str,
    "cycle": float,
    "cycle_size": int,
    "identity": float,
    "identity_end": float,
    "distill": float,
    "mask_area": float,
    "keep_outside": float,
    "r1": float,
    "noise": float,
    "augment_from": float,
    "buffer": int,
    "discriminator_steps": int,
    "decay_from": float,
    "ema_halflife": int,
    "validation": int,
    "seed": int,
    "log_every": int,
    "save_every": int,
}
# Of GeneratorConfig and, with a D before them, of DiscriminatorConfig; those that need no --no- form.
_GENERATOR_FLAGS = {
    "filters": int, "blocks": int, "stem": int, "kernel": int, "upsample": str, "norm": str, "dropout": float,
    "unshuffle": int, "skip_pool": int, "reduce": int,
}  # fmt: skip
_GENERATOR_SWITCHES = ("mask", "skip", "detail", "separable")
_DISCRIMINATOR_FLAGS = {"filters": int, "layers": int, "norm": str, "scales": int, "unshuffle": int}


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _stage(text: str) -> tuple[int, float]:
    size, _, start = text.partition(":")
    return int(size), float(start or 0)


def _add_places(command: argparse.ArgumentParser) -> None:
    """What `fit` and `distill` ask alike: where things are, what the model is called, and where to compute."""
    from cyclegan.runtime import DEVICES

    command.add_argument("--data", type=Path, required=True, help="crops: a folder of prepare, or its pack (.tar)")
    command.add_argument("--run", type=Path, required=True, help="run directory: training state, samples, logs")
    command.add_argument("--model", type=Path, help="model folder to write, ready for the app (RUN/model)")
    command.add_argument("--title", help="the model's name for people (the folder's name)")
    command.add_argument("--domains", nargs=2, default=("A", "B"), metavar=("A", "B"), help="what A and B show")
    command.add_argument(
        "--directions", nargs=2, metavar=("A2B", "B2A"), help='what each direction does: "Add glasses" "Remove glasses"'
    )
    command.add_argument("--description", default="", help="one or two sentences for the page")
    command.add_argument("--license", default="", help="terms of the weights, as the data demands")
    command.add_argument("--device", default="auto", choices=DEVICES, help="where to train (auto)")


def _doc(config: str, name: str) -> str:
    """The first sentence of a config field's docstring, so that help and code cannot disagree."""
    import ast
    import inspect
    from itertools import pairwise

    from cyclegan.networks import GeneratorConfig
    from train.config import DiscriminatorConfig, TrainConfig

    classes = {each.__name__: each for each in (GeneratorConfig, DiscriminatorConfig, TrainConfig)}
    (definition,) = ast.parse(inspect.getsource(classes[config])).body
    for pair in pairwise(ast.iter_child_nodes(definition)):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                if field == name:
                    sentence = re.split(r"(?<!et al)\. ", text)[0].rstrip(".")
                    return " ".join(sentence.replace("``", "").replace("%", "%%").split())
    raise KeyError(name)


def resolve(args: argparse.Namespace) -> TrainConfig:
    """The settings of a recipe with the command line's overrides; raises TrainingError for impossible ones."""
    from train import recipes

    config = recipes.recipe(args.recipe)
    given = {name: getattr(args, name) for name in (*_TRAIN_FLAGS, "precision", "compile", "flip")}
    given = {name: value for name, value in given.items() if value is not None}
    if args.identity is not None and args.identity_end is None:
        constant = config.identity == config.identity_end > 0
        given["identity_end"] = args.identity if constant else min(config.identity_end, args.identity)
    for length in ("hours", "epochs", "pairs"):  # the one asked for counts, not the recipe's
        if given.get(length) is not None:
            given |= {other: None for other in ("hours", "epochs") if given.get(other) is None}
    if args.stages:
        if args.size or args.height or args.width:
            raise TrainingError("--stages says how large images are. Leave out --size, --height and --width.")
        given["stages"] = tuple(args.stages)
    elif height := args.height or args.size or args.width:
        given |= {"stages": ((height, 0.0),), "aspect": (args.width or height) / height}
    of_generator = {name: getattr(args, name) for name in (*_GENERATOR_FLAGS, *_GENERATOR_SWITCHES, "channels")}
    of_discriminator = {name: getattr(args, f"D_{name}") for name in _DISCRIMINATOR_FLAGS}
    of_discriminator |= {"dilated": args.dilated, "channels": args.channels}
    if args.D_unshuffle is None:  # both work on the same pixels unless told otherwise
        of_discriminator["unshuffle"] = args.unshuffle
    try:
        for field, changes in (("generator", of_generator), ("discriminator", of_discriminator)):
            changes = {name: value for name, value in changes.items() if value is not None}
            given[field] = replace(getattr(config, field), **changes)
        return replace(config, **given)
    except ValueError as error:  # of the generator's settings
        raise TrainingError(str(error)) from error


def _about(args: argparse.Namespace) -> tuple[Path, About]:
    """(model folder, words) of a new model."""
    model = args.model or args.run / "model"
    if as_text(str(args.run.resolve())) != str(args.run.resolve()):
        raise TrainingError("TensorBoard cannot write to this --run: its name is not in UTF-8. Choose another.")
    name = as_text((args.model or args.run).resolve().name)
    a, b = args.domains
    directions = tuple(args.directions or (f"{a} to {b}", f"{b} to {a}"))
    title = args.title or name
    command = as_text(shlex.join(["python", "-m", "train", *args.argv]))
    return model, About(name, title, tuple(args.domains), directions, args.description, args.license, command)


def _fit(args: argparse.Namespace) -> None:
    from cyclegan.runtime import resolve_device

    config = resolve(args)
    if args.dry_run:
        print(json.dumps(config.to_json(), indent=1))
        return

    from train.loop import fit

    model, about = _about(args)
    fit(config, args.data, args.run, model, about, resolve_device(args.device), args.init)


def _add_distill(commands) -> None:
    command = commands.add_parser(
        "distill",
        help="a trained model to a smaller, faster one",
        description="Train a small student that repeats a teacher's translations, judged by the data too.",
        epilog="""example:
  python -m train distill --teacher runs/glasses-large/model --data crops/glasses --run runs/glasses-small \\
      --model checkpoints/glasses --filters 24 --blocks 6 --hours 1
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--teacher", type=Path, required=True, help="model folder of the teacher")
    _add_places(command)
    _add_settings(command)
    command.set_defaults(run_command=_distill, after_stop=_CONTINUES, recipe="student", init=None)


def _distill(args: argparse.Namespace) -> None:
    from cyclegan.runtime import resolve_device
    from train.distill import check_student

    config = resolve(args)
    taught_by = check_student(config, args.teacher)
    args.title = args.title or taught_by.title
    if args.domains == ("A", "B"):
        args.domains = tuple(taught_by.domains[letter].label for letter in "AB")
    args.directions = args.directions or tuple(taught_by.directions[direction] for direction in ("A2B", "B2A"))
    args.description, args.license = args.description or taught_by.description, args.license or taught_by.license
    if args.dry_run:
        print(json.dumps(config.to_json(), indent=1))
        return

    from train.loop import fit

    model, about = _about(args)
    fit(config, args.data, args.run, model, about, resolve_device(args.device), teacher=args.teacher)


def _add_evaluate(commands) -> None:
    from cyclegan.runtime import DEVICES
    from train.evaluate import SPLITS
    from train.metrics import FEATURES

    command = commands.add_parser(
        "evaluate",
        help="a model on images it never saw",
        description="Print, for both directions: KID and FID to the target domain between their floor (real against "
        "real) and ceiling (the input as it is), the share of translations that a classifier takes for the target, "
        "cycle error, and how much of the image changed. Draw a panel of images. The classifier is trained on the "
        "first call (about a minute) and kept beside the data.",
        epilog="""examples:
  python -m train evaluate --checkpoint checkpoints/glasses --data crops/glasses --save --panel panel.png
  python -m train evaluate --checkpoint runs/a/model --data crops/glasses --split validation --json

KID and FID as published need the features of Inception: pip install torch-fidelity, then --features inception, which
fetches the weights once (95 MB). Without, they are measured in O-Net, a network of the face detector, and say so.
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--checkpoint", type=Path, required=True, help="model folder")
    command.add_argument("--data", type=Path, required=True, help="crops: a folder of prepare, or its pack (.tar)")
    command.add_argument(
        "--split",
        choices=SPLITS,
        default="test",
        help="testA and testB, or what training set aside: choose settings on the latter (test)",
    )
    command.add_argument(
        "--features", choices=FEATURES, default="auto", help="for KID and FID; auto: Inception if here, else O-Net"
    )
    command.add_argument("--save", action="store_true", help="write the figures into the model's config and card")
    command.add_argument(
        "--save-pictures",
        action="store_true",
        help="and pictures for the card: translations of test images, typical and least convincing, without inputs "
        "and reconstructions; whoever gets the model sees them",
    )
    command.add_argument("--panel", type=Path, help="write input | translation | reconstruction of images here (PNG)")
    command.add_argument("--count", type=_positive, default=60, help="images per direction in the panel (60)")
    command.add_argument("--columns", type=_positive, default=4, help="images per row of the panel (4)")
    command.add_argument(
        "--failures", action="store_true", help="in the panel, those that convince the classifier least"
    )
    command.add_argument("--translations-only", action="store_true", help="no inputs and reconstructions in the panel")
    command.add_argument("--device", default="auto", choices=DEVICES, help="where to compute (auto)")
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.set_defaults(run_command=_evaluate)


def _evaluate(args: argparse.Namespace) -> None:
    from cyclegan.images import save_png
    from cyclegan.runtime import resolve_device
    from train.card import figures
    from train.evaluate import check_saving, evaluate, panel, save_evaluation

    save = args.save or args.save_pictures
    if save:
        check_saving(args.split)  # before minutes of work
    measured, pictures = evaluate(args.checkpoint, args.data, resolve_device(args.device), args.split, args.features)
    if args.json:
        print(json.dumps(measured.to_json(), indent=1))
    else:
        rows = [(f"{args.split} images", *measured.model.directions.values()), *figures(measured.to_json())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, A2B, B2A in rows:
            print(f"{name:{widths[0]}}  {A2B:>{widths[1]}}  {B2A:>{widths[2]}}")
    if save:
        save_evaluation(args.checkpoint, measured, pictures if args.save_pictures else None)
    if args.panel:
        try:
            args.panel.parent.mkdir(parents=True, exist_ok=True)
            save_png(args.panel, panel(pictures, args.count, args.columns, args.translations_only, args.failures))
        except OSError as error:
            raise TrainingError(f"The panel cannot be written to {args.panel}: {error.strerror}.") from error


def _add_push(commands) -> None:
    command = commands.add_parser(
        "push",
        help="a model to the Hugging Face Hub",
        description="Upload config.json, model.safetensors, README.md and the card's pictures of a model folder as "
        "a model repository, in one commit and nothing else. Log in before: hf auth login.",
        epilog="example:\n  python -m train push --model checkpoints/glasses --repo you/glasses --private",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--model", type=Path, required=True, help="model folder")
    command.add_argument("--repo", required=True, metavar="NAME", help="repository: you/NAME, or NAME for one of yours")
    command.add_argument("--private", action="store_true", help="a new repository that only you can see")
    command.add_argument("--dry-run", action="store_true", help="check the model, print what would go, and stop")
    command.set_defaults(run_command=_push)


def _push(args: argparse.Namespace) -> None:
    from train.push import model_files, push

    if args.dry_run:
        print(*model_files(args.model), f"would go to {args.repo}", sep="\n")
        return
    print(push(args.model, args.repo, args.private))


def _add_campaign(commands) -> None:
    from cyclegan.runtime import DEVICES
    from train.campaign import TASKS

    command = commands.add_parser(
        "campaign",
        help="the project's own models, within a budget of time",
        description="Train, measure and write anew the models that checkpoints/ has, one after the other. The same "
        "command again goes on where it stopped.",
        epilog="""example:
  python -m train campaign --data crops --hours 5 --out models

DIR holds a pack or a folder of crops for each model, as prepare --pack makes them.
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("models", nargs="*", default=list(TASKS), metavar="MODEL", help=f"{', '.join(TASKS)} (all)")
    command.add_argument("--data", type=Path, required=True, help="folder with MODEL.tar or MODEL for each")
    command.add_argument("--hours", type=float, required=True, help="time of training, all of them together")
    _add_recipe(command)
    command.add_argument("--batch", type=_positive, help="pairs per step (the recipe's)")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="where the run directories go (runs)")
    command.add_argument("--out", type=Path, default=Path("checkpoints"), help="where models go (checkpoints)")
    command.add_argument("--device", default="auto", choices=DEVICES, help="where to train (auto)")
    command.set_defaults(run_command=_campaign, after_stop=_CONTINUES)


def _campaign(args: argparse.Namespace) -> None:
    from cyclegan.runtime import resolve_device
    from train.campaign import campaign

    device = resolve_device(args.device)
    campaign(args.models, args.recipe, args.data, args.runs, args.out, args.hours, device, args.batch)


def _add_bench(commands) -> None:
    from cyclegan.runtime import DEVICES

    command = commands.add_parser(
        "bench",
        help="speed of training",
        description="Pairs per second of fit and of a plain transcription of the classic loop (eager, float32, "
        "DataLoader, batch 1) with the same networks, device memory, and the share of the device's peak.",
        epilog="example:\n  python -m train bench --size 128 --batch 16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--steps", type=_positive, default=40, help="steps to time of each loop (40)")
    command.add_argument("--device", default="auto", choices=DEVICES, help="where to compute (auto)")
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    _add_recipe(command)
    _add_settings(command)
    command.set_defaults(run_command=_bench)


def _bench(args: argparse.Namespace) -> None:
    import torch

    from cyclegan.runtime import resolve_device
    from train.bench import bench

    config = resolve(args)
    if args.dry_run:
        print(json.dumps(config.to_json(), indent=1))
        return
    measured = bench(config, torch.device(resolve_device(args.device)), args.steps)
    print(json.dumps(measured.to_json(), indent=1) if args.json else measured)


if __name__ == "__main__":
    sys.exit(main())
