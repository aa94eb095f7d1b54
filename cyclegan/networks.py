"""Generators: the ResNet of Zhu et al. 2017 (appendix 7.2) and cheaper relatives with the same interface.

In the paper's notation the 6-block network is ``c7s1-64, d128, d256, R256 x 6, u128, u64, c7s1-3``.
`GeneratorConfig` spans that network, the fast-neural-style one of Johnson et al. 2016 (``filters=32, blocks=5,
kernel=9``) and these departures, each named where it is defined: upsample + convolution instead of transposed
convolution, separable residual blocks, a space-to-depth stem, pixels folded into channels, switchable normalisation,
dropout, a long skip connection, and a mask output.
"""

from dataclasses import dataclass
from math import log2

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    kernel: int = 7
    """Kernel of the first and the last layer where ``stem`` is 1."""
    upsample: str = "nearest"
    """``"nearest"``: upsample, then convolve (Odena et al. 2016, no checkerboard); ``"transposed"``: the paper's."""
    separable: bool = False
    """Depthwise + pointwise convolutions in the residual blocks (Howard et al. 2017)."""
    norm: str = "instance"
    """Of the residual blocks and the decoder: ``"instance"`` or ``"switchable"`` (Luo et al. 2018)."""
    dropout: float = 0.0
    """Share of channels' values dropped within each residual block while training."""
    mask: bool = False
    """A fourth output channel alpha in [0, 1] blends the painted RGB over the input (Pumarola et al. 2018, GANimation,
    eq. 1)."""
    channels: int = 3
    """Image channels in and out."""
    unshuffle: int = 1
    """Work at 1/2 or 1/4 of the image's size on its pixels rearranged into channels (Shi et al. 2016, section 3): each
    weight reaches further, and nothing is lost on the way in. Out come coarse colours and mask, enlarged, and what
    each pixel differs from them, 0 at first: painted pixel by pixel alone, colours would show a grid."""
    skip: bool = False
    """The last layers see the input itself beside what was decoded, and can filter it where it stands: smooth skin,
    take away grain and lines. What was decoded has been through 1/4 of the size. A long skip connection (Ronneberger
    et al. 2015)."""
    skip_pool: int = 1
    """1, 2, 4, 8 or 16: what ``skip`` shows is first averaged over squares of so many pixels (after ``reduce``) and
    enlarged again. Colours and light come through, which instance normalisation takes away, and no lines or grain."""
    reduce: int = 1
    """Paint at 1/2 or 1/4 of the image's size, and put the image's own fine detail back onto the enlarged paint: the
    top of a Laplacian pyramid stays as it is (Liang et al. 2021, LPTN). A network trained on small images serves larger
    ones so."""
    detail: bool = True
    """Whether that detail goes back wherever something is painted. Without, it stays only where the mask leaves the
    image as it is: for what has fine edges and must go, as the frames of glasses."""

    def __post_init__(self):
        whole = ("filters", "blocks", "stem", "kernel", "channels", "unshuffle", "skip_pool", "reduce")
        if any(type(getattr(self, name)) is not int for name in whole):
            raise ValueError(f"{', '.join(whole[:-1])} and {whole[-1]} must be whole numbers.")
        if type(self.skip) is not bool:
            raise ValueError("skip must be true or false.")
        if type(self.detail) is not bool or not (self.detail or self.mask):
            raise ValueError("detail must be true or, for a generator with a mask, false.")
        if self.filters < 1 or self.blocks < 0 or self.channels < 1:
            raise ValueError("filters and channels must be at least 1, blocks at least 0.")
        if self.filters > _MAX_FILTERS or self.blocks > _MAX_BLOCKS:  # a config may come from a stranger
            raise ValueError(f"filters are at most {_MAX_FILTERS}, blocks at most {_MAX_BLOCKS}.")
        if self.stem not in (1, 2, 4):
            raise ValueError(f"stem must be 1, 2 or 4, not {self.stem!r}.")
        if self.unshuffle not in (1, 2, 4):
            raise ValueError(f"unshuffle must be 1, 2 or 4, not {self.unshuffle!r}.")
        if self.skip_pool not in ((1, 2, 4, 8, 16) if self.skip else (1,)):
            raise ValueError(f"skip_pool must be 1, 2, 4, 8 or 16, and 1 without skip, not {self.skip_pool!r}.")
        if self.reduce not in (1, 2, 4):
            raise ValueError(f"reduce must be 1, 2 or 4, not {self.reduce!r}.")
        if self.kernel not in (3, 5, 7, 9):
            raise ValueError(f"kernel must be 3, 5, 7 or 9, not {self.kernel!r}.")
        if self.upsample not in ("nearest", "transposed"):
            raise ValueError(f'upsample must be "nearest" or "transposed", not {self.upsample!r}.')
        if self.norm not in ("instance", "switchable"):
            raise ValueError(f'norm must be "instance" or "switchable", not {self.norm!r}.')
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout!r}.")

    @property
    def step(self) -> int:
        """What sides of images must be divisible by, in pixels; the smallest are four times that."""
        return max(4 * self.unshuffle, self.skip_pool) * self.reduce


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


class SwitchableNorm(nn.Module):
    """Normalisation that learns how much of instance, layer and batch statistics to use (Luo et al. 2018, eq. 3-5).

    [B, C, H, W] -> [B, C, H, W]. While training, batch statistics are the batch's own; after, a running average.
    """

    eps = 1e-5
    momentum = 0.1
    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.mean_weight = nn.Parameter(torch.zeros(3))
        self.variance_weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("running_mean", torch.zeros(1, width, 1, 1))
        self.register_buffer("running_variance", torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        mean = wide.mean((2, 3), keepdim=True)
        variance = (wide - mean).square().mean((2, 3), keepdim=True)
        # Means over more axes follow from those over pixels: E[x^2] = variance + mean^2.
        power = variance + mean.square()
        layer_mean = mean.mean(1, keepdim=True)
        layer_variance = power.mean(1, keepdim=True) - layer_mean.square()
        if self.training:
            batch_mean = mean.mean(0, keepdim=True)
            batch_variance = power.mean(0, keepdim=True) - batch_mean.square()
            with torch.no_grad():
                self.running_mean.lerp_(batch_mean, self.momentum)
                self.running_variance.lerp_(batch_variance, self.momentum)
        else:
            batch_mean, batch_variance = self.running_mean, self.running_variance
        m, v = self.mean_weight.softmax(0), self.variance_weight.softmax(0)
        mean = m[0] * mean + m[1] * layer_mean + m[2] * batch_mean
        variance = v[0] * variance + v[1] * layer_variance + v[2] * batch_variance
        return ((wide - mean) * torch.rsqrt(variance + self.eps) * self.gain + self.bias).to(x.dtype)


def convolution(fan_in: int, fan_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A size-preserving (up to stride) convolution with reflection padding: no border artefacts (appendix 7.2)."""
    return nn.Conv2d(fan_in, fan_out, kernel, stride, kernel // 2, groups=groups, padding_mode="reflect")


def normed(*layers: nn.Module, norm: nn.Module | None = None) -> nn.Sequential:
    """Convolution, normalisation (instance norm by default), ReLU: the tail of the paper's ``c``, ``d``, ``u``."""
    return nn.Sequential(*layers, norm or InstanceNorm(), nn.ReLU(inplace=True))


def normalisation(name: str, width: int) -> nn.Module:
    """The layer that a config's ``norm`` names."""
    return SwitchableNorm(width) if name == "switchable" else InstanceNorm()


class ResidualBlock(nn.Module):
    """``Rk``: two 3x3 convolutions around a skip connection, [B, k, H, W] -> same."""

    def __init__(self, width: int, config: GeneratorConfig):
        super().__init__()

        def conv() -> nn.Module:
            if config.separable:
                return nn.Sequential(convolution(width, width, 3, groups=width), nn.Conv2d(width, width, 1))
            return convolution(width, width, 3)

        middle = normed(conv(), norm=normalisation(config.norm, width))
        dropout = [nn.Dropout(config.dropout)] if config.dropout else []
        self.layers = nn.Sequential(*middle, *dropout, conv(), normalisation(config.norm, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Generator(nn.Module):
    """Maps images of one domain to the other: float [B, C, H, W] in [-1, 1] -> same shape and range.

    H and W must be divisible by the config's ``step`` and at least four times it (ValueError); they need not be equal.
    Weights start at N(0, 0.02), biases at 0 (Zhu et al. 2017, 7.1), those of the finer output of ``unshuffle`` at 0.
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        f, stem, channels, unshuffle = config.filters, config.stem, config.channels, config.unshuffle
        stages = int(log2(4 // stem))  # strided convolutions left to do after the space-to-depth stem
        kernel = {1: config.kernel, 2: 5, 4: 3}[stem]  # the same reach in pixels, or a little more
        width = f * stem

        folded = channels * (unshuffle * stem) ** 2
        self.stem = normed(nn.PixelUnshuffle(unshuffle * stem), convolution(folded, width, kernel))
        self.down = nn.Sequential(
            *(normed(convolution(width << i, width << (i + 1), 3, stride=2)) for i in range(stages))
        )
        self.body = nn.Sequential(*(ResidualBlock(4 * f, config) for _ in range(config.blocks)))
        self.up = nn.Sequential(*(self._up(width << (i + 1), width << i) for i in reversed(range(stages))))
        self._coarse = channels + 1 if config.mask else channels
        self._fine = channels * unshuffle**2 if unshuffle > 1 else 0
        seen, self.join = width, None
        if config.skip:  # without a norm, which would take away the contrast of what it sees
            seen = width + width // 2
            self.join = nn.Sequential(convolution(width + folded, seen, 3), nn.ReLU(inplace=True))
        last = convolution(seen, (self._coarse + self._fine) * stem**2, kernel)
        self.head = nn.Sequential(last, nn.PixelShuffle(stem))
        self.apply(initialise)
        with torch.no_grad():
            last.weight[self._coarse * stem**2 :].zero_()

    def _up(self, fan_in: int, fan_out: int) -> nn.Module:
        norm = normalisation(self.config.norm, fan_out)
        if self.config.upsample == "transposed":
            return normed(nn.ConvTranspose2d(fan_in, fan_out, 3, stride=2, padding=1, output_padding=1), norm=norm)
        return normed(nn.Upsample(scale_factor=2, mode="nearest"), convolution(fan_in, fan_out, 3), norm=norm)

    def decoder_layers(self) -> list[nn.Module]:
        """The layers after the residual blocks, first to last."""
        return [*self.up, *([] if self.join is None else [self.join]), self.head]

    def paint(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (RGB in [-1, 1], alpha in [0, 1] or None) before blending; alpha is [B, 1, H, W]."""
        height, width = x.shape[-2:]
        step = self.config.step
        if height % step or width % step or min(height, width) < 4 * step:
            raise ValueError(
                f"Image height and width must be divisible by {step} and at least {4 * step}, not {height} x {width}."
            )
        small = x if self.config.reduce == 1 else F.avg_pool2d(x, self.config.reduce)
        # Colours leave in float32 whatever precision the layers ran in: half precision would band smooth skin.
        y = self.up(self.body(self.down(self.stem(small))))
        if self.join is not None:
            pool = self.config.skip_pool
            seen = small if pool == 1 else enlarge(F.avg_pool2d(small, pool), pool)
            y = self.join(torch.cat([y, self.stem[0](seen)], dim=1))
        y = self.head(y).float()
        y, fine = y.split((self._coarse, self._fine), dim=1)
        y = enlarge(y, self.config.unshuffle)
        rgb, alpha = (y[:, :-1], torch.sigmoid(y[:, -1:])) if self.config.mask else (y, None)
        if self._fine:
            rgb = rgb + F.pixel_shuffle(fine, self.config.unshuffle)
        rgb = torch.tanh(rgb)
        if (reduce := self.config.reduce) > 1:
            rgb = enlarge(rgb, reduce)
            if self.config.detail:
                rgb = (rgb + x - enlarge(small, reduce)).clamp(-1, 1)
            alpha = None if alpha is None else enlarge(alpha, reduce)
        return rgb, alpha

    def forward(self, x: Tensor) -> Tensor:
        return blend(x, *self.paint(x))


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Images or masks [B, C, H, W] so many times larger, bilinearly; borders stay where they are."""
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def blend(x: Tensor, rgb: Tensor, alpha: Tensor | None) -> Tensor:
    """Put what a generator painted over its input, both [B, C, H, W], where alpha [B, 1, H, W] is 1."""
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
