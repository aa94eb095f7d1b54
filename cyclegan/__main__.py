"""The command line: ``python -m cyclegan models | translate | bench | precision``."""

import argparse
import json
import sys
from pathlib import Path

from cyclegan.bench import add_commands
from cyclegan.errors import CycleGANError
from cyclegan.images import load_image, save_png
from cyclegan.model import DIRECTIONS
from cyclegan.runtime import DEVICES
from cyclegan.translator import Faces, Result, Translator
from cyclegan.zoo import CHECKPOINTS, Zoo


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with the reasons on stderr, 2 for wrong usage."""
    args = _parser().parse_args(argv)
    try:
        return args.run_command(args)
    except CycleGANError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cyclegan", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    models = commands.add_parser("models", help="list the models")
    models.add_argument("--json", action="store_true", help="one JSON array on stdout")
    models.set_defaults(run_command=_models)

    translate = commands.add_parser(
        "translate",
        help="translate the faces of photos",
        description="Write <stem>.png, the photo with its faces translated, and per face "
        "<stem>.face<i>.{input,translation,reconstruction}.png.",
        epilog="example:\n  python -m cyclegan translate holiday.jpg --model glasses --direction A2B --out results",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    translate.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    translate.add_argument("--model", required=True, help="a name listed by: python -m cyclegan models")
    translate.add_argument("--direction", required=True, help="A2B or B2A")
    translate.add_argument(
        "--then",
        action="append",
        default=[],
        type=_link,
        metavar="NAME:DIRECTION",
        help="a further model for the translated face; may be repeated",
    )
    translate.add_argument("--out", type=Path, default=Path("results"), help="folder for the results (results)")
    translate.add_argument("--face", default="all", type=_faces, help="all, largest, or a number from 1 (all)")
    translate.add_argument("--device", default="auto", choices=DEVICES, help="where to compute (auto)")
    translate.add_argument("--json", action="store_true", help="one JSON object per photo and line on stdout")
    translate.set_defaults(run_command=_translate)

    add_commands(commands)
    for command in (models, translate):
        command.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help="folder of models")
    return parser


def _link(text: str) -> tuple[str, str]:
    name, colon, direction = text.rpartition(":")
    if not colon or direction not in DIRECTIONS:
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME:DIRECTION, as in glasses:A2B')
    return name, direction


def _faces(text: str) -> Faces:
    if text in ("all", "largest"):
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text) - 1
    raise argparse.ArgumentTypeError(f'"{text}" is not all, largest, or a number from 1')


def _models(args: argparse.Namespace) -> int:
    zoo = Zoo(args.checkpoints)
    rows = zoo.describe()
    if args.json:
        print(json.dumps(rows, indent=1))
    for row in [] if args.json else rows:
        print(f"{row['name']}: {row['title']}, {row['image_size']} px, {row['parameters'] / 1e6:.2f} M parameters, "
              f"{row['macs'] / 1e9:.2f} GMAC")  # fmt: skip
        for direction, label in row["directions"].items():
            print(f"  {direction}  {label}")
    for problem in zoo.problems.values():
        print(problem, file=sys.stderr)
    if not rows and not zoo.problems:
        print("There are no models yet. Train one: python -m train --help", file=sys.stderr)
    return 0


def _translate(args: argparse.Namespace) -> int:
    translator = Translator(Zoo(args.checkpoints), args.device)
    for name, direction in [(args.model, args.direction), *args.then]:
        translator.engine(name, direction)  # a wrong name is one error, not one per photo
    for stem in (path.stem for path in args.photos):
        if sum(path.stem == stem for path in args.photos) > 1:
            raise CycleGANError(f'Two photos are called "{stem}"; their results would overwrite each other.')
    failed = False
    for path in args.photos:
        try:
            # Without a name of its own the message reads well behind the one printed below.
            result = translator.translate(load_image(path, name=""), args.model, args.direction, args.face, args.then)
            row = _write(result, path, args.out)
        except CycleGANError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            failed = True
            continue
        if args.json:
            print(json.dumps(row))
        else:
            faces = "1 face" if len(row["faces"]) == 1 else f"{len(row['faces'])} faces"
            print(f"{row['output']}  {faces}, {row['seconds']} s")
    return int(failed)


def _write(result: Result, path: Path, out: Path) -> dict:
    """Write the pictures of one photo; return the row that ``--json`` prints."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        note = {"Software": "cyclegan", "Comment": "AI-generated"}
        output = out / f"{path.stem}.png"
        if output.resolve() == path.resolve():
            raise CycleGANError("The result would overwrite the photo itself. Choose another folder with --out.")
        save_png(output, result.output, note)
        faces = []
        for each in result.translations:
            files = {}
            for kind in ("input", "translation", "reconstruction"):
                file = out / f"{path.stem}.face{each.index + 1}.{kind}.png"
                save_png(file, getattr(each, kind), note)
                files[kind] = str(file)
            faces.append(
                {
                    "box": [round(v, 1) for v in each.box],
                    "landmarks": each.face.landmarks.round(1).tolist() if each.face else None,
                    "score": round(each.face.score, 4) if each.face else None,
                    "cycle_l1": round(each.cycle_l1, 4),
                    "files": files,
                }
            )
    except OSError as error:
        raise CycleGANError(f"The results cannot be written to {out}: {error.strerror}.") from error
    height, width = result.photo.shape[:2]
    return {
        "photo": str(path),
        "size": [width, height],
        "faces": faces,
        "output": str(output),
        "seconds": round(result.seconds, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
