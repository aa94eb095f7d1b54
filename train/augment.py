"""What discriminators see, a little changed each time, so that few images are not learnt by heart."""

import torch
from torch import Tensor
from torch.nn import functional as F

_SHIFT = 1 / 8  # of the side
_BRIGHTNESS, _CONTRAST, _SATURATION = 0.2, 0.2, 0.4


def augmented(x: Tensor) -> Tensor:
    """Images [B, C, H, W] in [-1, 1], each moved by up to an eighth of its side, lightened or darkened by up to 0.2,
    and with 0.8 to 1.2 times its contrast and 0.6 to 1.4 times its saturation.

    Real and generated images alike, and gradients pass through it: what it does is not what generators learn
    (DiffAugment: Zhao et al. 2020, 3.2; here without cut-out, and lighter). What moves out of sight is mirrored in.
    """

    def uniform(reach: float, *shape: int) -> Tensor:
        return (torch.rand(len(x), *shape, device=x.device) * 2 - 1) * reach

    x = x.float()
    shift = uniform(2 * _SHIFT, 2, 1)  # of coordinates from -1 to 1
    turn = torch.eye(2, device=x.device).expand(len(x), 2, 2)
    grid = F.affine_grid(torch.cat([turn, shift], 2), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    grey = x.mean(1, keepdim=True)
    x = grey + (1 + uniform(_SATURATION, 1, 1, 1)) * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (1 + uniform(_CONTRAST, 1, 1, 1)) * (x - mean) + uniform(_BRIGHTNESS, 1, 1, 1)
