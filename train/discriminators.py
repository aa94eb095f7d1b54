"""PatchGAN discriminators."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from cyclegan.networks import InstanceNorm, initialise
from train.config import DiscriminatorConfig


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: float [B, C, H, W] in [-1, 1] -> scores [B, 1, h, w], higher for real.

    Isola et al. 2017: ``C64-C128-C256-C512`` with 4x4 kernels, leaky ReLU, no norm on the first layer and no sigmoid,
    as the loss is least squares (Mao et al. 2017). With several ``scales`` the scores of all sizes come as one row,
    [B, 1, 1, n].
    """

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        layers = config.layers
        widths = [config.filters * min(2**i, 8) for i in range(layers + 1)]
        units: list[nn.Module] = [nn.PixelUnshuffle(config.unshuffle)] if config.unshuffle > 1 else []
        units += self._unit(config.channels * config.unshuffle**2, widths[0], stride=2, norm=False)
        for i in range(1, layers):
            units += self._unit(widths[i - 1], widths[i], stride=2)
        if config.coarse:
            verdict = nn.Conv2d(widths[layers - 1], 1, 3, 1, 1)
        else:
            units += self._unit(widths[layers - 1], widths[layers], stride=1, dilation=2 if config.dilated else 1)
            verdict = nn.Conv2d(widths[layers], 1, 4, 1, 1)
        initialise(verdict)
        # The verdict stays free: were its norm bounded too, scores of real and generated faces could not move apart,
        # and the least-squares loss stays near that of guessing (0.24 of 0.25 at 128 px).
        self.layers = nn.Sequential(*units, verdict, *([nn.Sigmoid()] if config.sigmoid else []))

    def _unit(self, fan_in: int, fan_out: int, stride: int, norm: bool = True, dilation: int = 1) -> list[nn.Module]:
        # Dilated by 2, a 4x4 kernel spans 7 pixels: with a padding of 2 the scores are one row and column fewer.
        conv = nn.Conv2d(fan_in, fan_out, 4, stride, 1 if dilation == 1 else 2, dilation)
        initialise(conv)
        unit: list[nn.Module] = [spectral_norm(conv) if self.config.norm == "spectral" else conv]
        if norm and self.config.norm == "instance":
            unit.append(InstanceNorm())
        if norm and self.config.norm == "batch":
            unit.append(nn.BatchNorm2d(fan_out))
        return [*unit, nn.LeakyReLU(0.2, inplace=True)]

    def forward(self, x: Tensor) -> Tensor:
        if self.config.scales == 1:
            return self.layers(x)
        scores = []
        for _ in range(self.config.scales):
            scores.append(self.layers(x).flatten(2))
            x = F.max_pool2d(x, 2)
        return torch.cat(scores, dim=2).unsqueeze(2)
