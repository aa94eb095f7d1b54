"""Engines that run a generator: PyTorch on CUDA, MPS or CPU, and OpenVINO on the CPU.

The device is chosen once, at the edge, and passed down. On the CPU OpenVINO is the default: about half of PyTorch's
time for the same picture.
"""

import copy
import sys
import threading
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cyclegan.errors import DeviceError
from cyclegan.images import to_images, to_tensor
from cyclegan.networks import Generator

DEVICES = ("auto", "cuda", "mps", "cpu")
ENGINES = ("auto", "torch", "openvino")

Engine = Callable[[np.ndarray], np.ndarray]
"""Translates pictures: uint8 [B, S, S, 3] -> uint8 [B, S, S, 3]. Safe to call from many threads."""


def resolve_device(device: str = "auto") -> str:
    """The torch device to use: ``"auto"`` takes CUDA, then MPS, then the CPU.

    Raises DeviceError for an unknown device or one this machine does not have.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in present.items() if there)
    if device not in present:
        raise DeviceError(f'There is no device "{device}". Choose {", ".join(DEVICES)}.')
    if not present[device]:
        raise DeviceError(f'The device "{device}" is not available on this machine. Choose auto or cpu.')
    return device


def make_engine(generator: Generator, size: int, device: str = "cpu", engine: str = "auto") -> Engine:
    """The engine for a generator in evaluation mode, for pictures of ``size`` pixels.

    ``device`` comes from `resolve_device`. ``engine`` is ``"torch"``, ``"openvino"`` (CPU only) or ``"auto"``: OpenVINO
    on the CPU, PyTorch elsewhere. Raises DeviceError for OpenVINO off the CPU and ValueError for another engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}, not {engine!r}.")
    if engine == "auto":
        engine = "openvino" if device == "cpu" else "torch"
    if engine == "torch":
        return TorchEngine(generator, device)
    if device != "cpu":
        raise DeviceError(f'OpenVINO runs on the CPU only, not on "{device}".')
    return OpenVINOEngine(generator, size)


class TorchEngine:
    """PyTorch in float32, or in float16 on CUDA."""

    def __init__(self, generator: Generator, device: str):
        self.device = device
        self.dtype = torch.float16 if device == "cuda" else torch.float32
        self.generator = copy.deepcopy(generator).to(device, self.dtype)  # the caller's stays where it is

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        x: Tensor = to_tensor(images).to(self.device, self.dtype)
        return to_images(self.generator(x))


class OpenVINOEngine:
    """OpenVINO on the CPU, in float32, one picture at a time."""

    def __init__(self, generator: Generator, size: int):
        # Converting a model reports to Google Analytics, unless the package for that seems not to be installed.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino  # half a second to import, and only needed here

        shape = [1, generator.config.channels, size, size]
        with warnings.catch_warnings():
            # Tracing warns that the size is checked once, which is so, and that it is deprecated, which is OpenVINO's
            # concern; in a terminal both would look like errors.
            warnings.simplefilter("ignore")
            graph = openvino.convert_model(generator, example_input=torch.zeros(shape), input=[shape])
        # Left alone, processors with bfloat16 use it; its error shows on smooth skin.
        self._compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self._requests = threading.local()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        batch = to_tensor(images).numpy()
        outputs = [self._requests.own.infer([x[None]])[0].copy() for x in batch]
        return to_images(torch.from_numpy(np.concatenate(outputs)))
