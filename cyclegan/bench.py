"""How fast a frame is on this machine, stage by stage, and which precision a model bears.

``python -m cyclegan bench`` and ``python -m cyclegan precision``.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from cyclegan.errors import CycleGANError, NoFaceError
from cyclegan.faces import align
from cyclegan.faces.detect import Face, FaceDetector
from cyclegan.faces.track import LIVE_SIDE, FaceTracker
from cyclegan.images import encode_jpeg, load_image, psnr, to_tensor
from cyclegan.model import DIRECTIONS, reverse, source, write_config
from cyclegan.networks import Generator, GeneratorConfig, count_macs
from cyclegan.quantize import calibrate, quantized
from cyclegan.runtime import (
    DEVICES,
    PRECISIONS,
    Engine,
    TorchEngine,
    available_precision,
    compile_network,
    make_engine,
    processor,
    resolve_device,
)
from cyclegan.translator import Translator
from cyclegan.zoo import CHECKPOINTS, Zoo

EXAMPLE = Path(__file__).resolve().parent / "examples" / "astronaut.jpg"
PLAIN = GeneratorConfig(filters=64, blocks=9, upsample="transposed")
"""The generator of Zhu et al. 2017 for 256 pixels, against which the others are measured."""
PLAIN_SIZE = 256

LEAST_PSNR = 40.0
"""Decibels against float32 that a precision must keep, as the mean over all faces, to be chosen."""

_NO_FACE = "No face was found in the photo to measure with. Choose another one with --photo."
_FRAME = (640, 480)
_EYES = 60.0  # pixels between the eyes in the frame: a person at a desk


def add_commands(commands: Any) -> None:
    """Add ``bench`` and ``precision`` to the subparsers of the command line."""
    bench = commands.add_parser(
        "bench",
        help="measure a frame, stage by stage",
        description="Milliseconds per stage and whole frame, 640 x 480 in and out with one face, for every model, "
        "beside the plain ResNet-9/64 in eager PyTorch in the same run.",
    )
    bench.add_argument("--model", help="only this one")
    bench.add_argument("--size", type=_size, nargs="+", metavar="PX", help="run the generators at these sizes")
    bench.add_argument("--photo", type=Path, default=EXAMPLE, help="a photo with a face (an example of the page)")
    bench.add_argument("--frames", type=_count, default=60, help="how often each stage runs (60)")
    bench.add_argument("--device", default="cpu", choices=DEVICES, help="where to compute (cpu)")
    bench.add_argument("--json", action="store_true", help="one JSON object on stdout")
    bench.set_defaults(run_command=_bench)

    precision = commands.add_parser(
        "precision",
        help="choose the precision in which a model runs on the CPU",
        description=f"Compare {' and '.join(PRECISIONS)} on the faces of photos, and write the fastest that keeps "
        f"{LEAST_PSNR:.0f} dB PSNR against f32, and its PSNR, into the model's config.json.",
        epilog="example:\n  python -m cyclegan precision --model glasses photos/*.jpg",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    precision.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    precision.add_argument("--model", required=True, help="a name listed by: python -m cyclegan models")
    precision.add_argument("--json", action="store_true", help="one JSON object on stdout")
    precision.set_defaults(run_command=_precision)

    for command in (bench, precision):
        command.add_argument("--checkpoints", type=folder_of_models, default=CHECKPOINTS, help="folder of models")


def folder_of_models(text: str) -> Path:
    """An argument of ``argparse`` that names a folder."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f'there is no folder "{Path(text).name}"')
    return Path(text)


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) % 4 or not 16 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f'"{text}" is not a size: divisible by 4, from 16 to 1024')
    return int(text)


# --- bench ---


def measure(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Wall-clock time of a call in milliseconds: median and 95th percentile, after three calls to warm up."""
    times = []
    for i in range(repeats + 3):
        started = time.perf_counter()
        run()
        if i >= 3:
            times.append(1000 * (time.perf_counter() - started))
    return {"median": round(float(np.median(times)), 2), "p95": round(float(np.percentile(times, 95)), 2)}


def bench(
    zoo: Zoo, names: Sequence[str], photo: np.ndarray, device: str, frames: int, sizes: Sequence[int] = ()
) -> dict[str, Any]:
    """Measure the models of these names, at their own size or these, on a photo (uint8 [H, W, 3]).

    Times are in milliseconds, as `measure` gives them. Raises NoFaceError, and CycleGANError for a size that one of the
    models cannot take.
    """
    for name in names:
        step = zoo.config(name).generator.step
        if wrong := [size for size in sizes if size % step or size < 4 * step]:
            raise CycleGANError(f"{name} takes sizes divisible by {step} and from {4 * step}, not {wrong[0]}.")
    film, shifts = film_of(photo, FaceDetector())
    jpegs = [encode_jpeg(frame) for frame in film]
    faces_on = "cuda" if device == "cuda" else "cpu"
    searching, whole = FaceDetector(faces_on, LIVE_SIDE), FaceDetector(faces_on, max(_FRAME))
    tracker = FaceTracker(searching, most=1)  # with all it follows in view it does not search
    clock = itertools.count()
    frame, jpeg = itertools.cycle(film), itertools.cycle(jpegs)

    def track() -> list[Face]:
        return tracker.track(next(frame), next(clock) / 30)

    stages = {
        "decode": measure(lambda: load_image(next(jpeg)), frames),
        f"search, at {LIVE_SIDE} px": measure(lambda: searching.detect(next(frame)), min(frames, 20)),
        "search, whole frame": measure(lambda: whole.detect(next(frame)), min(frames, 10)),
        "track": measure(track, frames),
        "encode": measure(lambda: encode_jpeg(next(frame)), frames),
    }
    plain = _plain(PLAIN_SIZE, device)
    crop = cv2.resize(film[0], (PLAIN_SIZE, PLAIN_SIZE))[None]
    stages[f"plain ResNet-9/64, eager, {PLAIN_SIZE} px"] = baseline = measure(lambda: plain(crop), 5)
    borne = [precision for precision in PRECISIONS if available_precision(precision) == precision]
    peaks = {precision: _peak(precision) for precision in borne} if device == "cpu" else {}
    rows = [
        _bench_model(zoo, name, film, jpegs, device, frames, size, baseline["median"], peaks)
        for name in names
        for size in sizes or [zoo.config(name).image_size]
    ]
    return {
        "machine": processor() if device == "cpu" else torch.cuda.get_device_name() if device == "cuda" else device,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "landmarks": landmark_errors(film, shifts, whole, FaceTracker(searching, most=1)),
        "peak_gmacs": {precision: round(peak, 1) for precision, peak in peaks.items()},
        "stages": stages,
        "models": rows,
    }


def _bench_model(
    zoo: Zoo, name: str, film: list, jpegs: list, device: str, frames: int, size: int, plain: float, peaks: dict
) -> dict[str, Any]:
    zoo = Zoo(zoo.root)  # one's own, to change: the networks are convolutions and run at any size
    zoo.load(name)  # while its entry is that of its folder
    config = replace(zoo.config(name), image_size=size)
    zoo.entries[name] = replace(zoo.entry(name), config=config)
    translator = Translator(zoo, device)
    tracker = FaceTracker(FaceDetector(device if device == "cuda" else "cpu", LIVE_SIDE), most=1)
    face = tracker.track(film[0], 0.0)[0]
    matrix = align.photo_to_crop(face.landmarks, config.template, size)
    before = align.crop(film[0], matrix, size)
    engine = translator.engine(name, "A2B")
    after = engine(before[None])[0]
    clock, jpeg = itertools.count(1), itertools.cycle(jpegs)

    def whole() -> bytes:
        frame = load_image(next(jpeg))
        return encode_jpeg(translator.retouch(frame, name, "A2B", tracker.track(frame, next(clock) / 30)))

    macs = count_macs(config.generator, size, size)
    generate = measure(lambda: engine(before[None]), frames)
    precision = available_precision(config.precision) if device == "cpu" else "f16" if device == "cuda" else "f32"
    same = _plain(size, device)
    return {
        "name": name,
        "image_size": size,
        "precision": precision,
        "gmac": round(macs / 1e9, 2),
        "align": measure(lambda: align.crop(film[0], matrix, size), frames),
        "generate": generate,
        "paste": measure(lambda: align.paste(film[0], before, after, matrix, True), frames),
        "frame": measure(whole, frames),
        "plain_same_crop": measure(lambda: same(before[None]), 5),
        "times_faster_than_plain": round(plain / generate["median"], 1),
        "share_of_peak": round(macs / 1e6 / generate["median"] / peaks[precision], 3) if peaks else None,
    }


def landmark_errors(
    film: list[np.ndarray], shifts: list[np.ndarray], detector: FaceDetector, tracker: FaceTracker
) -> dict[str, float]:
    """How far from their average over the film the landmarks of MTCNN lie, and how far the tracker's lie from the same.

    ``film`` and ``shifts`` come from `film_of`. Medians over frames of the mean distance of the five, as shares of the
    distance between the eyes, under ``"mtcnn"`` and ``"tracked"``. Raises NoFaceError.
    """
    middle = np.array(_FRAME) / 2

    def landmarks(find: Callable[[np.ndarray, float], list[Face]]) -> list[np.ndarray]:
        points = []
        for i, (frame, shift) in enumerate(zip(film, shifts, strict=True)):
            # There may be more people in the photo.
            faces = find(frame, i / 30)
            if not faces:
                raise NoFaceError(_NO_FACE)
            face = min(faces, key=lambda face: np.abs(face.landmarks.mean(0) - middle).max())
            points.append(face.landmarks - shift)
        return points

    searched, tracked = landmarks(lambda frame, time: detector.detect(frame)), landmarks(tracker.track)
    average = np.mean(searched, 0)
    eyes = np.linalg.norm(average[1] - average[0])
    return {
        name: round(float(np.median([np.linalg.norm(each - average, axis=1).mean() for each in points]) / eyes), 4)
        for name, points in (("mtcnn", searched), ("tracked", tracked))
    }


def film_of(photo: np.ndarray, detector: FaceDetector) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A film in which the largest face of a photo (uint8 [H, W, 3]) moves a little around the middle.

    Frames, uint8 [480, 640, 3], and by how many pixels (x, y) the face has moved in each, float64 [2]. Raises
    NoFaceError.
    """
    faces = detector.detect(photo)
    if not faces:
        raise NoFaceError(_NO_FACE)
    middle = np.array(_FRAME) / 2
    spread = np.array([(-_EYES / 2, -20), (_EYES / 2, -20), (0, 15), (-_EYES / 2.6, 40), (_EYES / 2.6, 40)])
    frames = []
    shifts = [np.array([4 * np.sin(i * np.pi / 6), 3 * np.cos(i * np.pi / 6)]) for i in range(12)]
    for shift in shifts:
        matrix = align.similarity(faces[0].landmarks, spread + middle + shift)
        frames.append(cv2.warpAffine(photo, matrix, _FRAME, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE))
    return frames, shifts


def _plain(size: int, device: str) -> Engine:
    return TorchEngine(Generator(PLAIN).eval().requires_grad_(False), size, device)


def _peak(precision: str) -> float:
    """Billions of multiply-adds per second in a large product of matrices: what the processor can do at best."""
    side = 2048
    product: torch.nn.Module = torch.nn.Sequential(torch.nn.Conv2d(side, side, 1, bias=False))
    if precision == "int8":
        product = quantized(product, {"0": (-1.0, 1.0)})
    shape = [1, side, 32, side // 32]
    request = compile_network(product, shape, precision).create_infer_request()
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        request.infer([x])
        times.append(time.perf_counter() - started)
    return side**3 / 1e9 / min(times)


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _bench(args: argparse.Namespace) -> int:
    zoo = Zoo(args.checkpoints)
    names = [zoo.entry(args.model).name] if args.model else list(zoo.entries)
    photo = load_image(args.photo)
    result = bench(zoo, names, photo, resolve_device(args.device), args.frames, args.size or ())
    print(json.dumps(result, indent=1) if args.json else _table(result))
    return 0


def _table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['machine']}, {result['cores']} cores; milliseconds, median (95th percentile)",
        "",
        "| stage of a frame, 640 x 480 | ms |",
        "|---|---|",
        *(f"| {name} | {_ms(value)} |" for name, value in result["stages"].items()),
        "",
        f"Landmarks: tracked ones lie {result['landmarks']['tracked']:.1%} of the distance between the eyes from the "
        f"average of MTCNN's, its own of a single frame {result['landmarks']['mtcnn']:.1%}.",
        "",
        "| model | px | precision | GMAC | align | generate | paste | whole frame | plain ResNet-9/64, same crop "
        f"| faster than plain at {PLAIN_SIZE} | share of peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["models"]:
        share = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"
        lines.append(
            f"| {row['name']} | {row['image_size']} | {row['precision']} | {row['gmac']:.2f} | {_ms(row['align'])} "
            f"| {_ms(row['generate'])} | {_ms(row['paste'])} | {_ms(row['frame'])} | {_ms(row['plain_same_crop'])} "
            f"| {row['times_faster_than_plain']:.0f}x | {share} |"
        )
    return "\n".join(lines)


def _ms(value: dict[str, float]) -> str:
    return f"{value['median']:.1f} ({value['p95']:.1f})"


# --- precision ---


def choose_precision(zoo: Zoo, name: str, crops: np.ndarray) -> dict[str, Any]:
    """Measure a model on aligned faces (uint8 [N, S, S, 3]), and write its config with the precision to use.

    Raises CycleGANError where this processor has nothing but float32: what it cannot run, it cannot judge.
    """
    entry = zoo.entry(name)
    if all(available_precision(precision) == "f32" for precision in PRECISIONS):
        raise CycleGANError("This processor computes in f32 only. Choose the precision on one with bfloat16 or int8.")
    rows: dict[str, dict[str, Any]] = {precision: {} for precision in PRECISIONS}
    size, calibration = entry.config.image_size, {}
    for direction in DIRECTIONS:
        generator, images = zoo.load(name).generator(direction), crops
        if entry.config.domains[source(direction)].faces == "square":  # drawings: those that the model makes of faces
            images = make_engine(zoo.load(name).generator(reverse(direction)), size)(crops)
        # Measured on half of the faces, judged on the other.
        seen, images = (images[::2], images[1::2]) if len(images) > 1 else (images, images)
        calibration[direction] = calibrate(generator, to_tensor(seen).split(1))
        reference: list[np.ndarray] = []  # of f32, the first
        for precision, row in rows.items():
            if available_precision(precision) != precision:
                continue
            engine = make_engine(generator, size, "cpu", "openvino", precision, calibration[direction])
            outputs = [engine(image[None])[0] for image in images]
            reference = reference or outputs
            values = [psnr(*pair) for pair in zip(outputs, reference, strict=True)]
            row[direction] = {
                "psnr": round(float(np.mean(values)), 1),
                "least_psnr": round(min(values), 1),
                "ms": measure(partial(engine, images[:1]), 20)["median"],
            }
    rows = {precision: row for precision, row in rows.items() if row}
    borne = [p for p, row in rows.items() if p == "f32" or min(row[d]["psnr"] for d in DIRECTIONS) >= LEAST_PSNR]
    chosen = min(borne, key=lambda precision: sum(rows[precision][d]["ms"] for d in DIRECTIONS))
    metrics = {key: dict(value) if isinstance(value, dict) else value for key, value in entry.config.metrics.items()}
    for direction in DIRECTIONS if chosen != "f32" else ():
        metrics.setdefault(direction, {})["psnr_f32"] = rows[chosen][direction]["psnr"]
    calibration = calibration if chosen == "int8" else {}
    write_config(entry.folder, replace(entry.config, precision=chosen, calibration=calibration, metrics=metrics))
    return {"model": name, "faces": len(crops), "chosen": chosen, "precisions": rows}


def _precision(args: argparse.Namespace) -> int:
    zoo = Zoo(args.checkpoints)
    config = zoo.config(args.model)
    detector = FaceDetector()
    crops = []
    for path in args.photos:
        photo = load_image(path)
        for face in detector.detect(photo):
            matrix = align.photo_to_crop(face.landmarks, config.template, config.image_size)
            crops.append(align.crop(photo, matrix, config.image_size))
    if not crops:
        raise NoFaceError("No face was found in these photos.")
    result = choose_precision(zoo, args.model, np.stack(crops))
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    for precision, row in result["precisions"].items():
        for direction, values in row.items():
            print(f"{precision}  {direction}  {values['psnr']} dB (least {values['least_psnr']})  {values['ms']} ms")
    print(f"{args.model} runs in {result['chosen']} now, chosen on {result['faces']} faces.")
    return 0
