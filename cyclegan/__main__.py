"""The command line: ``python -m cyclegan models | translate | bench | precision``."""

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from cyclegan.batch import Batch, Source, gather
from cyclegan.bench import add_commands, folder_of_models
from cyclegan.errors import CycleGANError
from cyclegan.model import DIRECTIONS
from cyclegan.runtime import DEVICES
from cyclegan.translator import Faces, Translator
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
        help="translate the faces of photos and videos",
        description="Write <stem>.png, the photo with its faces translated, per face "
        "<stem>.face<i>.{input,translation,reconstruction}.png, and <stem>.mp4 for a video, with its sound. "
        "manifest.json lists every file with models, revisions, boxes and cycle errors. A file that cannot be used "
        "does not stop the others. Ctrl-C keeps what is done.",
        epilog="examples:\n  python -m cyclegan translate holiday.jpg --model glasses --direction A2B --out results\n"
        "  python -m cyclegan translate photos/ more.zip clip.mp4 --model glasses --direction B2A",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    translate.add_argument("files", nargs="+", type=Path, metavar="FILE", help="photo, video, folder or zip of them")
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
    translate.add_argument("--json", action="store_true", help="one JSON object per file and line on stdout")
    translate.set_defaults(run_command=_translate)

    add_commands(commands)
    for command in (models, translate):
        command.add_argument("--checkpoints", type=folder_of_models, default=CHECKPOINTS, help="folder of models")
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
    chain = [(args.model, args.direction), *args.then]
    batch = Batch(translator, gather(args.files), args.out, chain, args.face, crops=True)
    if not batch.sources:
        raise CycleGANError("There are no photos or videos in this folder.")
    # Without a terminal there is nobody to watch the bar.
    bar = tqdm(total=len(batch.sources), disable=None, bar_format="{percentage:3.0f}% |{bar}| {remaining} left  {desc}")
    reported = 0  # rows are in the order of the sources
    with bar, _stopped_by_keyboard(batch):
        for progress in batch.run():
            for source, row in zip(batch.sources[reported:], batch.rows[reported:], strict=False):
                _report(source, row, args.out, args.json)
            reported = len(batch.rows)
            bar.set_description_str(progress.current or "", refresh=False)
            bar.update(progress.done + progress.share - bar.n)
    if batch.stopped:
        left = len(batch.sources) - len(batch.rows)
        print(f"Stopped: {left} of {len(batch.sources)} files were not begun.", file=sys.stderr)
    return int(batch.stopped or any("error" in row for row in batch.rows))


def _report(source: Source, row: dict, out: Path, as_json: bool) -> None:
    """Print what became of one file. The manifest holds the same row, with names that stay right when it is moved."""
    if "error" in row:
        tqdm.write(f"{row['photo']}: {row['error']}", file=sys.stderr)
        return
    output = str(out / row["output"])
    if as_json:
        row = {**row, "photo": str(source.path or source.name), "output": output}
        if "faces" in row:
            row["faces"] = [
                {**face, "files": {kind: str(out / name) for kind, name in face["files"].items()}}
                for face in row["faces"]
            ]
        tqdm.write(json.dumps(row))
        return
    count = len(row["faces"]) if "faces" in row else None
    found = f"{row['frames']} frames" if count is None else "1 face" if count == 1 else f"{count} faces"
    tqdm.write(f"{output}  {found}, {row['seconds']} s")


@contextmanager
def _stopped_by_keyboard(batch: Batch) -> Iterator[None]:
    """The first Ctrl-C ends the batch with what is done, a second one ends the program."""

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        batch.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
