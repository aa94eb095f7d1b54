"""The losses of CycleGAN: pure functions of images and scores, each under its equation. Scalars are float32."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DISTANCES = {"squared": torch.square, "absolute": torch.abs}


def adversarial_G(score_fake: Tensor, distance: str = "squared") -> Tensor:
    """E[d(D(G(x)) - 1)]: what a generator pays for being found out. Scores of any shape.

    With d(t) = t^2 this is Mao et al. 2017, eq. 9; with |t| the loss of the fast-style recipes.
    """
    return DISTANCES[distance](score_fake.float() - 1).mean()


def adversarial_D(score_real: Tensor, score_fake: Tensor, distance: str = "squared") -> Tensor:
    """(E[d(D(y) - 1)] + E[d(D(G(x)))]) / 2: the other side of `adversarial_G` (Mao et al. 2017, eq. 9)."""
    of = DISTANCES[distance]
    return (of(score_real.float() - 1).mean() + of(score_fake.float()).mean()) / 2


def cycle(rec: Tensor, real: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """E[|G_BA(G_AB(x)) - x|_1] per pixel and channel (Zhu et al. 2017, eq. 2). Images [B, C, H, W] in [-1, 1].

    With ``size`` (height, width) both are averaged down to it first, so that fine detail may differ.
    """
    difference = rec.float() - real
    if size is not None and size[0] < difference.shape[2]:
        difference = F.interpolate(difference, size, mode="area")
    return difference.abs().mean()


def identity(idt: Tensor, real: Tensor) -> Tensor:
    """E[|G_AB(y) - y|_1] for y already in B (Zhu et al. 2017, 5.2). Images [B, C, H, W] in [-1, 1]."""
    return (idt.float() - real).abs().mean()


def distillation(fake: Tensor, taught: Tensor) -> Tensor:
    """E[|S(x) - T(x)|_1] for a student S and its teacher T. Images [B, C, H, W] in [-1, 1]."""
    return (fake.float() - taught.float()).abs().mean()


def mask_area(alpha: Tensor, least: float) -> Tensor:
    """E[max(0, least - mean(alpha))^2]: keeps a mask [B, 1, H, W] in [0, 1] from closing before anything is learnt."""
    return F.relu(least - alpha.float().mean((1, 2, 3))).square().mean()


def change_outside(fake: Tensor, real: Tensor, outside: Tensor, free: float = 0.1) -> Tensor:
    """E[max(0, |G(x) - x|_1 per channel - free)] over the pixels where ``outside``, bool [H, W], is True.

    Images [B, C, H, W] in [-1, 1]. What is smaller than ``free``, a twentieth of the range, costs nothing: grain and
    tone may follow the target where a background has to stay.
    """
    change = F.relu((fake.float() - real).abs().mean(1) - free)
    return (change * outside).sum((1, 2)).mean() / outside.sum()  # indexing would wait for the device


def r1(D: nn.Module, real: Tensor) -> Tensor:
    """E[|grad D(x)|^2] / 2 at real images [B, C, H, W] (Mescheder et al. 2018, eq. 9); differentiable."""
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(D(real).float().sum(), real, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2
