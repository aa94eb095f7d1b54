"""8-bit integers: what a generator's convolutions see is measured once, then rounded to 256 levels as they run.

Post-training quantisation as in Jacob et al. 2018: weights per output channel, activations per layer, both with a scale
and no offset. The rounding is written into the network, where OpenVINO finds it and computes in integers.
"""

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan.networks import Generator

Calibration = dict[str, tuple[float, float]]
"""The least and the greatest value that the input of each convolution takes, by the name of its module."""

Network = TypeVar("Network", bound=nn.Module)

_TAIL = 2e-4  # share of the values at either end that may be cut off: a single outlier must not coarsen all others
_SAMPLE = 200_000  # values per layer and image that are looked at


def convolutions(generator: nn.Module) -> dict[str, nn.Conv2d]:
    """The layers that can be quantised, by name. Transposed convolutions stay as they are."""
    return {name: layer for name, layer in generator.named_modules() if type(layer) is nn.Conv2d}


@torch.no_grad()
def calibrate(generator: Generator, images: Iterable[Tensor]) -> Calibration:
    """Measure a generator in evaluation mode on batches of images [B, 3, H, W] in [-1, 1]: a few dozen are enough."""
    seen: dict[str, list[tuple[float, float]]] = {}
    hooks = []
    random = torch.Generator().manual_seed(0)
    for name, layer in convolutions(generator).items():

        def look(_: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
            values = inputs[0].flatten()
            if len(values) > _SAMPLE:
                values = values[torch.randint(len(values), (_SAMPLE,), generator=random)]
            low, high = torch.quantile(values, torch.tensor([_TAIL, 1 - _TAIL])).tolist()
            seen.setdefault(name, []).append((low, high))

        hooks.append(layer.register_forward_pre_hook(look))
    try:
        for batch in images:
            generator(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (min(low for low, _ in each), max(high for _, high in each)) for name, each in seen.items()}


def quantized(generator: Network, calibration: Calibration) -> Network:
    """A copy that rounds as integers do; raises ValueError for the calibration of another network."""
    if calibration.keys() != convolutions(generator).keys():
        raise ValueError("The calibration is of another network.")
    generator = copy.deepcopy(generator)
    for name, layer in convolutions(generator).items():
        parent, _, own = name.rpartition(".")
        setattr(generator.get_submodule(parent), own, _Quantized(layer, *calibration[name]))
    return generator.eval()


class _Quantized(nn.Module):
    """A convolution whose input and weights are rounded."""

    weight_scale: Tensor
    weight_zero: Tensor

    def __init__(self, layer: nn.Conv2d, low: float, high: float):
        super().__init__()
        self.layer = layer
        self.edges = [side for side in reversed(layer.padding) for _ in (0, 1) if isinstance(side, int)]
        scale = layer.weight.detach().abs().amax((1, 2, 3)) / 127
        self.register_buffer("weight_scale", scale.clamp_min(1e-8))
        self.register_buffer("weight_zero", torch.zeros(len(scale), dtype=torch.int32))
        # What a ReLU leaves has no negative half to spend levels on.
        self.least, self.greatest = (0, 255) if low >= 0 else (-128, 127)
        self.scale = max(max(-low, high) / self.greatest, 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        if any(self.edges):
            x = F.pad(x, self.edges, "constant" if layer.padding_mode == "zeros" else layer.padding_mode)
        x = torch.fake_quantize_per_tensor_affine(x, self.scale, 0, self.least, self.greatest)
        weight = torch.fake_quantize_per_channel_affine(layer.weight, self.weight_scale, self.weight_zero, 0, -127, 127)
        return F.conv2d(x, weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)
