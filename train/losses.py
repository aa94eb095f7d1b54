"""The losses of CycleGAN: pure functions of images and scores, each under its equation. Scalars are float32."""

from torch import Tensor


def adversarial_G(score_fake: Tensor) -> Tensor:
    """E[(D(G(x)) - 1)^2]: what a generator pays for being found out (Mao et al. 2017, eq. 9). Scores of any shape."""
    return (score_fake.float() - 1).square().mean()


def adversarial_D(score_real: Tensor, score_fake: Tensor) -> Tensor:
    """(E[(D(y) - 1)^2] + E[D(G(x))^2]) / 2: least-squares loss of a discriminator (Mao et al. 2017, eq. 9)."""
    return ((score_real.float() - 1).square().mean() + score_fake.float().square().mean()) / 2


def cycle(rec: Tensor, real: Tensor) -> Tensor:
    """E[|G_BA(G_AB(x)) - x|_1] per pixel and channel (Zhu et al. 2017, eq. 2). Images [B, 3, H, W] in [-1, 1]."""
    return (rec.float() - real).abs().mean()


def identity(idt: Tensor, real: Tensor) -> Tensor:
    """E[|G_AB(y) - y|_1] for y already in B (Zhu et al. 2017, 5.2). Images [B, 3, H, W] in [-1, 1]."""
    return (idt.float() - real).abs().mean()
