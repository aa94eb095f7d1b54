"""The command line of training: ``python -m train prepare | fit | evaluate``."""

import argparse
import json
import sys
from dataclasses import fields, replace
from pathlib import Path

from cyclegan.errors import CycleGANError

EXAMPLE = """
from two folders of photographs to a model in the page:

  python -m train prepare --a photos/without --b photos/with --out crops/glasses
  python -m train fit --data crops/glasses --run runs/glasses --model checkpoints/glasses --hours 3 \\
      --domains "no glasses" "glasses" --directions "Add glasses" "Remove glasses"
  python app.py                      # the model is in the page from the first snapshot on
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with the reason on stderr, 2 for wrong usage."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        args.run_command(args)
    except CycleGANError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command continues from what was saved.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_fit(commands)
    _add_evaluate(commands)
    return parser


def _add_prepare(commands) -> None:
    from train.prepare import TEMPLATES

    command = commands.add_parser(
        "prepare",
        help="raw images to aligned crops",
        description="Find the largest face of every image, cut and align it as the app will, write it to OUT. "
        "Run again to continue. Images without a usable face are counted and listed in OUT/rejected.csv.",
        epilog="example:\n  python -m train prepare --a photos/without --b photos/with --out crops/glasses --size 128",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--data", type=Path, help="folder with trainA, trainB and, optionally, testA, testB")
    command.add_argument("--a", type=Path, help="folder of images of domain A (with --b, instead of --data)")
    command.add_argument("--b", type=Path, help="folder of images of domain B")
    command.add_argument("--test-share", type=float, default=0.05, help="share of --a/--b kept for testing (0.05)")
    command.add_argument("--out", type=Path, required=True, help="where the crops go")
    command.add_argument("--size", type=int, default=128, help="side of the crops in pixels (128)")
    command.add_argument("--template", choices=TEMPLATES, default="tight", help="face only, or the head with its hair")
    command.add_argument(
        "--faces",
        nargs=2,
        choices=("mtcnn", "square"),
        default=("mtcnn", "mtcnn"),
        metavar=("A", "B"),
        help='how faces are found in each domain: "mtcnn" for photographs, "square" (the centre) for drawings',
    )
    command.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"), help="where to find faces (cpu)")
    command.set_defaults(run_command=_prepare)


def _prepare(args: argparse.Namespace) -> None:
    from cyclegan.runtime import resolve_device
    from train.prepare import TEMPLATES, Geometry, find_images, prepare

    images = find_images(args.data, args.a, args.b, args.test_share)
    geometry = Geometry(args.size, TEMPLATES[args.template], tuple(args.faces))
    print(prepare(images, args.out, geometry, resolve_device(args.device)))


def _add_fit(commands) -> None:
    from cyclegan.runtime import DEVICES
    from train import recipes

    command = commands.add_parser(
        "fit",
        help="crops to a model",
        description="Train on OUT of prepare. The same command again continues; snapshots appear in --model.",
        epilog="""example:
  python -m train fit --data crops/glasses --run runs/glasses --model checkpoints/glasses --hours 3 \\
      --domains "no glasses" "glasses" --directions "Add glasses" "Remove glasses"
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--data", type=Path, required=True, help="folder of crops: trainA, trainB, prepare.json")
    command.add_argument("--run", type=Path, required=True, help="run directory: training state, samples, TensorBoard")
    command.add_argument("--model", type=Path, help="model folder to write, ready for the app (RUN/model)")
    command.add_argument("--title", help="the model's name for people (the folder's name)")
    command.add_argument("--domains", nargs=2, default=("A", "B"), metavar=("A", "B"), help="what A and B show")
    command.add_argument(
        "--directions", nargs=2, metavar=("A2B", "B2A"), help='what each direction does: "Add glasses" "Remove glasses"'
    )
    command.add_argument("--description", default="", help="one or two sentences for the page")
    command.add_argument("--license", default="", help="terms of the weights, as the data demands")
    command.add_argument("--device", default="auto", choices=DEVICES, help="where to train (auto)")
    command.add_argument("--recipe", default=recipes.DEFAULT, choices=recipes.RECIPES, help="named settings (face)")
    for name, kind in (("pairs", int), ("hours", float), ("batch", int), ("lr", float), ("cycle", float)):
        command.add_argument(f"--{name}", type=kind, help=_doc(name))
    for name, kind in (("identity", float), ("buffer", int), ("seed", int), ("log-every", int), ("save-every", int)):
        command.add_argument(f"--{name}", type=kind, help=_doc(name.replace("-", "_")))
    command.add_argument("--precision", choices=("float32", "bfloat16"), help=_doc("precision"))
    command.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None, help=_doc("compile"))
    command.add_argument("--size", type=int, help="image side in pixels, without stages")
    command.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")
    command.set_defaults(run_command=_fit)


def _doc(name: str) -> str:
    """The first sentence of a TrainConfig field's docstring, so that help and code cannot disagree."""
    import ast
    import inspect
    from itertools import pairwise

    from train.config import TrainConfig

    (definition,) = ast.parse(inspect.getsource(TrainConfig)).body
    for pair in pairwise(ast.iter_child_nodes(definition)):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                if field == name:
                    sentence = text.split(". ")[0].rstrip(".")
                    return " ".join(sentence.replace("``", "").replace("%", "%%").split())
    raise KeyError(name)


def _fit(args: argparse.Namespace) -> None:
    from cyclegan.runtime import resolve_device
    from train import recipes
    from train.config import About, TrainConfig

    config = recipes.recipe(args.recipe)
    given = {f.name: getattr(args, f.name, None) for f in fields(TrainConfig)}
    if args.size:
        given["stages"] = ((args.size, 0.0),)
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    if args.dry_run:
        print(json.dumps(config.to_json(), indent=1))
        return

    from train.loop import fit

    model = args.model or args.run / "model"
    name = model.name if args.model else args.run.name
    title = args.title or name
    a, b = args.domains
    directions = tuple(args.directions or (f"{a} to {b}", f"{b} to {a}"))
    about = About(name, title, tuple(args.domains), directions, args.description, args.license)
    fit(config, args.data, args.run, model, about, resolve_device(args.device))


def _add_evaluate(commands) -> None:
    from cyclegan.runtime import DEVICES

    command = commands.add_parser(
        "evaluate",
        help="a model on test images",
        description="Print cycle error and amount of change on testA and testB; draw a panel of test images.",
        epilog="example:\n"
        "  python -m train evaluate --checkpoint checkpoints/glasses --data crops/glasses --panel panel.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--checkpoint", type=Path, required=True, help="model folder")
    command.add_argument("--data", type=Path, required=True, help="folder of crops with testA and testB")
    command.add_argument("--panel", type=Path, help="write input | translation | reconstruction of test images here")
    command.add_argument("--count", type=int, default=60, help="test images per direction in the panel (60)")
    command.add_argument("--columns", type=int, default=4, help="images per row of the panel (4)")
    command.add_argument("--no-inputs", action="store_true", help="leave the test images out of the panel")
    command.add_argument("--device", default="auto", choices=DEVICES, help="where to compute (auto)")
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.set_defaults(run_command=_evaluate)


def _evaluate(args: argparse.Namespace) -> None:
    from cyclegan.images import save_png
    from cyclegan.runtime import resolve_device
    from train.evaluate import evaluate, panel, to_json

    scores, pictures = evaluate(args.checkpoint, args.data, resolve_device(args.device))
    if args.panel:
        save_png(args.panel, panel(pictures, args.count, args.columns, not args.no_inputs))
    if args.json:
        print(json.dumps(to_json(scores), indent=1))
        return
    for direction, each in scores.items():
        print(
            f"{direction}: {each.images} images, cycle L1 {each.cycle_l1:.4f}, change L1 {each.change_l1:.4f}, "
            f"pixels changed {each.changed:.1%}"
        )


if __name__ == "__main__":
    sys.exit(main())
