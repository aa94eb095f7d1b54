"""Generators: the ResNet of Zhu et al. 2017 (appendix 7.2) and cheaper relatives with the same interface.

In the paper's notation the 6-block network is ``c7s1-64, d128, d256, R256 x 6, u128, u64, c7s1-3``.
`GeneratorConfig` spans that network and these departures, each named where it is defined:
upsample + convolution instead of transposed convolution, separable residual blocks, a space-to-depth stem, and a
mask output.
"""

from dataclasses import dataclass
from math import log2

import torch
from torch import Tensor, nn

_MAX_FILTERS, _MAX_BLOCKS = 512, 64  # many times the paper's; beyond, building the network alone takes minutes


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that rebuilds a generator; checked on construction (ValueError)."""

    filters: int = 64
    """Channels of the first layer at full resolution; the residual blocks run at ``4 * filters`` channels."""
    blocks: int = 9
    """Residual blocks: 6 for 128 px, 9 for 256 px in the paper."""
    stem: int = 1
    """Space-to-depth factor 1, 2 or 4: how much of the 4x reduction is done by rearranging pixels instead of by
    strided convolution. 1 is the paper's network; 4 runs every layer at a quarter of the resolution."""
    upsample: str = "nearest"
    """``"nearest"``: upsample, then convolve (Odena et al. 2016, no checkerboard); ``"transposed"``: the paper's."""
    separable: bool = False
    """Depthwise + pointwise convolutions in the residual blocks (Howard et al. 2017)."""
    mask: bool = False
    """A fourth output channel alpha in [0, 1] blends the painted RGB over the input."""
    channels: int = 3
    """Image channels in and out."""

    def __post_init__(self):
        sizes = (self.filters, self.blocks, self.stem, self.channels)
        if any(type(size) is not int for size in sizes):
            raise ValueError("filters, blocks, stem and channels must be whole numbers.")
        if self.filters < 1 or self.blocks < 0 or self.channels < 1:
            raise ValueError("filters and channels must be at least 1, blocks at least 0.")
        if self.filters > _MAX_FILTERS or self.blocks > _MAX_BLOCKS:  # a config may come from a stranger
            raise ValueError(f"filters are at most {_MAX_FILTERS}, blocks at most {_MAX_BLOCKS}.")
        if self.stem not in (1, 2, 4):
            raise ValueError(f"stem must be 1, 2 or 4, not {self.stem!r}.")
        if self.upsample not in ("nearest", "transposed"):
            raise ValueError(f'upsample must be "nearest" or "transposed", not {self.upsample!r}.')


class InstanceNorm(nn.Module):
    """Instance normalisation without affine parameters (Ulyanov et al. 2016): [B, C, H, W] -> [B, C, H, W].

    Written as mean, variance and one multiply-add, with statistics in float32, so that ``torch.compile`` fuses it
    with its neighbours and half precision keeps its accuracy.
    """

    eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        mean = wide.mean((2, 3), keepdim=True)
        centred = wide - mean
        variance = centred.square().mean((2, 3), keepdim=True)
        return (centred * torch.rsqrt(variance + self.eps)).to(x.dtype)


def convolution(fan_in: int, fan_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A size-preserving (up to stride) convolution with reflection padding: no border artefacts (appendix 7.2)."""
    return nn.Conv2d(fan_in, fan_out, kernel, stride, kernel // 2, groups=groups, padding_mode="reflect")


def normed(*layers: nn.Module) -> nn.Sequential:
    """Convolution, instance norm, ReLU: the paper's ``c``, ``d`` and ``u`` units share this tail."""
    return nn.Sequential(*layers, InstanceNorm(), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """``Rk``: two 3x3 convolutions around a skip connection, [B, k, H, W] -> same."""

    def __init__(self, width: int, separable: bool):
        super().__init__()

        def conv() -> nn.Module:
            if separable:
                return nn.Sequential(convolution(width, width, 3, groups=width), nn.Conv2d(width, width, 1))
            return convolution(width, width, 3)

        self.layers = nn.Sequential(conv(), InstanceNorm(), nn.ReLU(inplace=True), conv(), InstanceNorm())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Generator(nn.Module):
    """Maps images of one domain to the other: float [B, C, H, W] in [-1, 1] -> same shape and range.

    H and W must be divisible by 4 and at least 16 (ValueError); they need not be equal.
    Weights start at N(0, 0.02), biases at 0 (Zhu et al. 2017, 7.1).
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        f, stem, channels = config.filters, config.stem, config.channels
        stages = int(log2(4 // stem))  # strided convolutions left to do after the space-to-depth stem
        kernel = {1: 7, 2: 5, 4: 3}[stem]  # the same reach in pixels, or a little more
        width = f * stem

        self.stem = normed(nn.PixelUnshuffle(stem), convolution(channels * stem**2, width, kernel))
        self.down = nn.Sequential(
            *(normed(convolution(width << i, width << (i + 1), 3, stride=2)) for i in range(stages))
        )
        self.body = nn.Sequential(*(ResidualBlock(4 * f, config.separable) for _ in range(config.blocks)))
        self.up = nn.Sequential(*(self._up(width << (i + 1), width << i) for i in reversed(range(stages))))
        outputs = channels + 1 if config.mask else channels
        self.head = nn.Sequential(convolution(width, outputs * stem**2, kernel), nn.PixelShuffle(stem))
        self.apply(initialise)

    def _up(self, fan_in: int, fan_out: int) -> nn.Module:
        if self.config.upsample == "transposed":
            return normed(nn.ConvTranspose2d(fan_in, fan_out, 3, stride=2, padding=1, output_padding=1))
        return normed(nn.Upsample(scale_factor=2, mode="nearest"), convolution(fan_in, fan_out, 3))

    def paint(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (RGB in [-1, 1], alpha in [0, 1] or None) before blending; alpha is [B, 1, H, W]."""
        height, width = x.shape[-2:]
        if height % 4 or width % 4 or min(height, width) < 16:
            raise ValueError(f"Image height and width must be divisible by 4 and at least 16, not {height} x {width}.")
        # Colours leave in float32 whatever precision the layers ran in: half precision would band smooth skin.
        y = self.head(self.up(self.body(self.down(self.stem(x))))).float()
        if not self.config.mask:
            return torch.tanh(y), None
        rgb, alpha = y[:, :-1], y[:, -1:]
        return torch.tanh(rgb), torch.sigmoid(alpha)

    def forward(self, x: Tensor) -> Tensor:
        rgb, alpha = self.paint(x)
        return rgb if alpha is None else x + alpha * (rgb - x)


def initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02), biases 0, in place: Zhu et al. 2017, appendix 7.1."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and not module.weight.is_meta:  # meta: shapes, no values
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def count_parameters(module: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in module.parameters())


def count_macs(config: GeneratorConfig, height: int, width: int) -> int:
    """Multiply-accumulates of the convolutions of one generator at this input size, batch 1."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        generator = Generator(config)
        x = torch.empty(1, config.channels, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(x)
    return counter.get_total_flops() // 2  # the counter counts a multiply-add as two
