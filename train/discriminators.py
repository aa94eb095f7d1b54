"""PatchGAN discriminators."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cyclegan.networks import InstanceNorm, initialise
from train.config import DiscriminatorConfig


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: float [B, 3, H, W] in [-1, 1] -> unbounded scores [B, 1, h, w].

    Isola et al. 2017: ``C64-C128-C256-C512`` with 4x4 kernels, leaky ReLU, no norm on the first layer and no sigmoid,
    as the loss is least squares (Mao et al. 2017).
    """

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        spectral = config.norm == "spectral"

        def unit(fan_in: int, fan_out: int, stride: int, norm: bool) -> list[nn.Module]:
            conv = nn.Conv2d(fan_in, fan_out, 4, stride, 1)
            initialise(conv)
            return [
                spectral_norm(conv) if spectral else conv,
                *([InstanceNorm()] if norm and not spectral else []),
                nn.LeakyReLU(0.2, inplace=True),
            ]

        widths = [config.filters * min(2**i, 8) for i in range(config.layers + 1)]
        units = unit(3, widths[0], stride=2, norm=False)
        for i in range(1, config.layers + 1):
            units += unit(widths[i - 1], widths[i], stride=2 if i < config.layers else 1, norm=True)
        verdict = nn.Conv2d(widths[-1], 1, 4, 1, 1)
        initialise(verdict)
        # The verdict stays free: were its norm bounded too, scores of real and generated faces could not move apart,
        # and the least-squares loss stays near that of guessing (0.24 of 0.25 at 128 px).
        self.layers = nn.Sequential(*units, verdict)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
