"""Engines that run a generator: PyTorch on CUDA, MPS or CPU, and OpenVINO on the CPU.

The device is chosen once, at the edge, and passed down. On the CPU OpenVINO is the default: less than half of PyTorch's
time for the same picture, and less again in bfloat16 or in integers where the processor has them and the model bears
them.
"""

import contextlib
import copy
import hashlib
import io
import json
import os
import queue
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan import networks, quantize
from cyclegan.errors import DeviceError
from cyclegan.images import to_images, to_tensor
from cyclegan.networks import Generator
from cyclegan.quantize import Calibration, quantized

DEVICES = ("auto", "cuda", "mps", "cpu")
ENGINES = ("auto", "torch", "openvino")
# OpenVINO reports conversions to Google Analytics, unless the package for that seems not to be installed.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

PRECISIONS = ("f32", "bf16", "int8")
"""In which OpenVINO computes, the most exact first; a model's config names the one that it bears."""

_REQUESTS = 2  # one computes with all cores while another's picture is prepared
_CACHED = 64  # compiled models kept on disk, about 3 MB each

Engine = Callable[[np.ndarray], np.ndarray]
"""Translates pictures: uint8 [B, S, S, 3] -> uint8 [B, S, S, 3]. Safe to call from many threads."""


def resolve_device(device: str = "auto") -> str:
    """The torch device to use: ``"auto"`` takes CUDA, then MPS, then the CPU.

    On a ZeroGPU Space ``"auto"`` is the CPU: a GPU is there only within decorated functions, for a small daily quota.
    Raises DeviceError for an unknown device or one this machine does not have.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return "cpu" if os.environ.get("SPACES_ZERO_GPU") else next(name for name, there in present.items() if there)
    if device not in present:
        raise DeviceError(f'There is no device "{device}". Choose {", ".join(DEVICES)}.')
    if not present[device]:
        raise DeviceError(f'The device "{device}" is not available on this machine. Choose auto or cpu.')
    return device


def make_engine(
    generator: Generator,
    size: int,
    device: str = "cpu",
    engine: str = "auto",
    precision: str = "f32",
    calibration: Calibration | None = None,
    keep: bool = True,
) -> Engine:
    """The engine for a generator in evaluation mode, for pictures of ``size`` pixels.

    ``device`` comes from `resolve_device`. ``engine`` is ``"torch"``, ``"openvino"`` (CPU only) or ``"auto"``: OpenVINO
    on the CPU, PyTorch elsewhere. ``precision`` is the least exact one allowed, for OpenVINO; where the processor lacks
    it, float32 takes its place. ``"int8"`` needs a ``calibration`` (`quantize.calibrate`). With ``keep`` OpenVINO's
    compiled model stays on this machine's disk for the next time. Raises DeviceError for OpenVINO off the CPU, and
    ValueError for another engine and for int8 without the network's own calibration.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}, not {engine!r}.")
    if engine == "auto":
        engine = "openvino" if device == "cpu" else "torch"
    if engine == "torch":
        return CUDAEngine(generator, size) if device == "cuda" else TorchEngine(generator, size, device)
    if device != "cpu":
        raise DeviceError(f'OpenVINO runs on the CPU only, not on "{device}".')
    return OpenVINOEngine(generator, size, available_precision(precision), calibration, keep)


def available_precision(precision: str) -> str:
    """The precision itself where this machine's processor computes in it, else ``"f32"``.

    Raises ValueError for one that is not of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, not {precision!r}.")
    return precision if precision.upper() in _capabilities() else "f32"


def processor() -> str:
    """The name of this machine's processor."""
    return _core().get_property("CPU", "FULL_DEVICE_NAME").strip()


class TorchEngine:
    """PyTorch in float32, layer by layer, on any device; warm when it is made."""

    def __init__(self, generator: Generator, size: int, device: str):
        self.device = device
        self.generator = copy.deepcopy(generator).to(device)  # the caller's stays where it is
        if device != "cpu":
            self(np.zeros((1, size, size, 3), np.uint8))  # the first picture takes seconds: kernels are chosen for it

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        return to_images(self.generator(to_tensor(images).to(self.device)))


class CUDAEngine:
    """PyTorch on CUDA in float16, one picture at a time: the kernels of a picture are recorded once and replayed as one
    CUDA graph, as starting them one by one takes longer than they do."""

    @torch.inference_mode()
    def __init__(self, generator: Generator, size: int):
        generator = copy.deepcopy(generator).to("cuda", torch.float16)  # the caller's stays where it is
        self._input = torch.zeros(1, generator.config.channels, size, size, dtype=torch.float16, device="cuda")
        warm_up = torch.cuda.Stream()  # capturing asks for a stream of its own, where all has run before
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            for _ in range(3):
                generator(self._input)
        torch.cuda.current_stream().wait_stream(warm_up)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # others may go on computing
            self._output = generator(self._input)
        self._generator = generator  # whose weights the graph reads
        self._lock = threading.Lock()  # one input and one output for all threads

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        batch = to_tensor(images).to(self._input.device, self._input.dtype)
        with self._lock:
            outputs = [self._paint(x) for x in batch]
        return to_images(torch.stack(outputs))

    def _paint(self, x: Tensor) -> Tensor:
        self._input[0].copy_(x)
        self._graph.replay()
        return self._output[0].clone()


class OpenVINOEngine:
    """OpenVINO on the CPU, one picture at a time: one compiled model for all threads, which queue for its requests."""

    def __init__(
        self,
        generator: Generator,
        size: int,
        precision: str = "f32",
        calibration: Calibration | None = None,
        keep: bool = True,
    ):
        self.precision = precision
        if precision != "int8":
            calibration = None
        elif calibration is None:
            raise ValueError("int8 needs a calibration.")
        compiled = _compile(generator, size, precision, calibration, keep)
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        for _ in range(_REQUESTS):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, images: np.ndarray) -> np.ndarray:
        batch = to_tensor(images).numpy()
        request = self._requests.get()
        try:
            outputs = [request.infer([x[None]])[0].copy() for x in batch]
        finally:
            self._requests.put(request)
        return to_images(torch.from_numpy(np.concatenate(outputs)))


@cache
def _core() -> Any:
    import openvino  # half a second to import, and only needed here

    return openvino.Core()


@cache
def _capabilities() -> list[str]:
    return _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _compile(generator: Generator, size: int, precision: str, calibration: Calibration | None, keep: bool) -> Any:
    """The generator as an OpenVINO model for one picture, from the cache if it was compiled on this machine before."""
    key = _key(generator, size, precision, calibration)
    if (compiled := _cached(key, _options(precision))) is not None:
        return compiled
    network = generator if calibration is None else quantized(generator, calibration)
    compiled = compile_network(network, [1, generator.config.channels, size, size], precision)
    if keep:
        _keep(key, compiled.export_model())
    return compiled


def compile_network(network: nn.Module, shape: list[int], precision: str) -> Any:
    """A network in evaluation mode as an OpenVINO model for float32 inputs [B, C, H, W] of this shape.

    For ``"int8"`` it has to round as integers do (`quantize.quantized`).
    """
    import openvino

    with warnings.catch_warnings():
        # Tracing warns that the size is checked once, which is so, and that it is deprecated, which is OpenVINO's
        # concern; in a terminal both would look like errors.
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(network, example_input=torch.zeros(shape), input=[shape])
    return _core().compile_model(graph, "CPU", _options(precision))


def _options(precision: str) -> dict[str, str]:
    # Left alone, processors with bfloat16 use it, whether or not the model bears it; a cached model forgets its own.
    # What is between convolutions of integers needs no more than bfloat16.
    hint = available_precision("bf16") if precision == "int8" else precision
    return {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}


def _key(generator: Generator, size: int, precision: str, calibration: Calibration | None) -> str:
    """A name for everything that a compiled model depends on."""
    import openvino

    machine = processor(), _capabilities(), os.cpu_count()
    config = asdict(generator.config)
    digest = hashlib.sha256(json.dumps([openvino.__version__, machine, config, size, precision, calibration]).encode())
    for module in (networks, quantize):  # an update may compute something else with the same weights
        digest.update(Path(str(module.__file__)).read_bytes())
    for value in generator.state_dict().values():
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where compiled models are kept: ``cyclegan`` in the user's cache folder (XDG_CACHE_HOME, or ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cyclegan"


def _cached(key: str, options: dict[str, str]) -> Any:
    """The compiled model of this name, or None if there is none or it is damaged."""
    try:
        data = (cache_folder() / f"{key}.blob").read_bytes()
        checksum, blob = data[:32], data[32:]
        if hashlib.sha256(blob).digest() == checksum:
            return _core().import_model(io.BytesIO(blob), "CPU", options)
    except (OSError, RuntimeError):  # RuntimeError: no home folder, or OpenVINO refuses the blob
        pass
    return None


def _keep(key: str, blob: Any) -> None:
    """Write a compiled model into the cache; where that is not possible, it is compiled again next time."""
    data = bytes(blob.getvalue() if hasattr(blob, "getvalue") else blob)
    with contextlib.suppress(OSError, RuntimeError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{key}.{os.getpid()}"
        partial.write_bytes(hashlib.sha256(data).digest() + data)
        os.replace(partial, folder / f"{key}.blob")
        for old in sorted(folder.glob("*.blob"), key=lambda path: path.stat().st_mtime)[:-_CACHED]:
            old.unlink(missing_ok=True)
