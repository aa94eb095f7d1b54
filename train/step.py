"""The networks of a training, and the two halves of its step.

Each half is one module whose forward gives a loss: its parameters are just those it trains, which is what gradient
synchronisation between processes needs, and what it only uses (the other half's networks) stays outside.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from cyclegan.faces.align import Template, face_ellipse
from cyclegan.networks import Generator, blend
from train import losses
from train.augment import augmented
from train.config import TrainConfig
from train.discriminators import PatchDiscriminator

R1_EVERY = 16  # steps between two gradient penalties (lazy regularisation: Karras et al. 2020, appendix B)
_MASK_WEIGHT = 10.0

Painted = tuple[Tensor, Tensor | None]
Translate = Callable[[Tensor], Painted]


@dataclass(frozen=True)
class Networks:
    """The four networks and the averaged generators."""

    G_AB: Generator
    G_BA: Generator
    D_A: PatchDiscriminator
    D_B: PatchDiscriminator
    ema_G_AB: Generator
    ema_G_BA: Generator

    @classmethod
    def build(cls, config: TrainConfig, device: torch.device) -> "Networks":
        """Freshly initialised networks on ``device``."""
        # Channels last is what the fast convolutions of both CPUs and CUDA want in half precision.
        layout = torch.contiguous_format if config.precision == "float32" else torch.channels_last
        generator = replace(config.generator, reduce=1)  # the images are reduced already
        G_AB, G_BA = (Generator(generator).to(device).to(memory_format=layout) for _ in range(2))
        D_A, D_B = (PatchDiscriminator(config.discriminator).to(device).to(memory_format=layout) for _ in range(2))
        ema_G_AB, ema_G_BA = (copy.deepcopy(generator).eval().requires_grad_(False) for generator in (G_AB, G_BA))
        return cls(G_AB, G_BA, D_A, D_B, ema_G_AB, ema_G_BA)

    def named(self) -> dict[str, nn.Module]:
        """The six modules by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def norms(self) -> dict[str, float]:
        """The Euclidean norm of all weights of each network."""
        weights = {name: [p.detach() for p in module.parameters()] for name, module in self.named().items()}
        return {name: float(nn.utils.get_total_norm(each)) for name, each in weights.items()}

    @torch.no_grad()
    def average(self, config: TrainConfig, pairs: int) -> None:
        """Move the averaged generators towards the current ones.

        The half-life grows with the run up to its setting (Karras et al. 2024), so that the start is soon forgotten.
        """
        halflife = min(config.ema_halflife, 0.1 * pairs)
        keep = 0.5 ** (config.batch / halflife) if halflife else 0.0
        for current, averaged in ((self.G_AB, self.ema_G_AB), (self.G_BA, self.ema_G_BA)):
            torch._foreach_lerp_(list(averaged.parameters()), list(current.parameters()), 1 - keep)
            for ours, theirs in zip(averaged.buffers(), current.buffers(), strict=True):
                ours.copy_(theirs)  # statistics are averages already

    def freeze_decoders(self, layers: int) -> None:
        """Drop the gradients of the first ``layers`` layers of both decoders, so that an optimiser skips them."""
        for generator in (self.G_AB, self.G_BA):
            for layer in generator.decoder_layers()[:layers]:
                for weight in layer.parameters():
                    weight.grad = None

    def compiled(self, device: torch.device) -> tuple[Translate, Translate, Callable, Callable]:
        """(G_AB, G_BA, D_A, D_B) compiled; they share the weights."""
        # Two networks of a kind, with and without gradients, at each size of `stages`: more than the default of 8.
        torch._dynamo.config.recompile_limit = 64
        compile = partial(torch.compile, dynamic=False)
        return compile(self.G_AB.paint), compile(self.G_BA.paint), compile(self.D_A), compile(self.D_B)


class GeneratorStep(nn.Module):
    """Fool the discriminators, come back, leave their own domain alone."""

    def __init__(self, config: TrainConfig, nets: Networks, compiled: tuple, template: Template):
        """``template`` says where faces are, in case it matters."""
        super().__init__()
        self.config, self._template = config, template
        self._outside: dict[int, Tensor] = {}  # by size: [S, S], True where no face is
        self.G_AB, self.G_BA = nets.G_AB, nets.G_BA
        if config.only:  # in evaluation mode, or a norm's statistics would move
            (nets.G_BA if config.only == "A2B" else nets.G_AB).requires_grad_(False).eval()
        self._paint_AB, self._paint_BA, D_A, D_B = compiled
        # Hidden from Module in a function, as only the other half trains them.
        self._judge_A, self._judge_B = (_frozen(nets.D_A, D_A), _frozen(nets.D_B, D_B))

    def translate(self, real_A: Tensor, real_B: Tensor) -> tuple[Tensor, Tensor]:
        """(fake_A, fake_B) without gradients."""
        with torch.no_grad():
            return blend(real_B, *self._paint_BA(real_B)), blend(real_A, *self._paint_AB(real_A))

    def _paint_both(self, paint: Translate, first: Tensor, second: Tensor) -> tuple[Painted, Painted]:
        """What a generator paints of two batches, in one pass, which is cheaper than two; unless it normalises by
        statistics of a batch, which must not mix."""
        if self.config.generator.norm == "switchable":
            return paint(first), paint(second)
        rgb, alpha = paint(torch.cat([first, second]))
        rgbs = rgb.tensor_split([len(first)])
        alphas = (None, None) if alpha is None else alpha.tensor_split([len(first)])
        return (rgbs[0], alphas[0]), (rgbs[1], alphas[1])

    def forward(
        self,
        real_A: Tensor,
        real_B: Tensor,
        cycle: float,
        identity: float,
        mask_area: float,
        noise: float,
        augment: bool,
        taught: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
        """(total loss, its parts detached, fake_A, fake_B) for real images [B, C, H, W] in [-1, 1].

        ``cycle``, ``identity``, ``mask_area``, ``noise`` and ``augment`` are what they are at this moment of the
        schedule, ``taught`` a teacher's (fake_A, fake_B), if there is one.
        """
        if identity:
            (rgb_B, alpha_B), same_B = self._paint_both(self._paint_AB, real_A, real_B)
            (rgb_A, alpha_A), same_A = self._paint_both(self._paint_BA, real_B, real_A)
            idt_B, idt_A = blend(real_B, *same_B), blend(real_A, *same_A)
        else:
            (rgb_B, alpha_B), (rgb_A, alpha_A) = self._paint_AB(real_A), self._paint_BA(real_B)
            idt_B, idt_A = real_B, real_A
        fake_B, fake_A = blend(real_A, rgb_B, alpha_B), blend(real_B, rgb_A, alpha_A)

        shown_B, shown_A = (seen(fake, noise, augment) for fake in (fake_B, fake_A))
        parts = {
            "adversarial_AB": losses.adversarial_G(self._judge_B(shown_B), self.config.adversarial),
            "adversarial_BA": losses.adversarial_G(self._judge_A(shown_A), self.config.adversarial),
        }
        total = parts["adversarial_AB"] + parts["adversarial_BA"]
        if cycle:
            rec_A, rec_B = blend(fake_B, *self._paint_BA(fake_B)), blend(fake_A, *self._paint_AB(fake_A))
            size = self.config.cycle_shape
            parts["cycle_A"] = losses.cycle(rec_A, real_A, size)
            parts["cycle_B"] = losses.cycle(rec_B, real_B, size)
            total = total + cycle * (parts["cycle_A"] + parts["cycle_B"])
        if identity:
            parts["identity_A"] = losses.identity(idt_A, real_A)
            parts["identity_B"] = losses.identity(idt_B, real_B)
            total = total + identity * (parts["identity_A"] + parts["identity_B"])
        if taught is not None:
            parts["distill_A"] = losses.distillation(fake_A, taught[0])
            parts["distill_B"] = losses.distillation(fake_B, taught[1])
            total = total + self.config.distill * (parts["distill_A"] + parts["distill_B"])
        if alpha_A is not None and alpha_B is not None:
            parts["mask_A"], parts["mask_B"] = alpha_A.float().mean(), alpha_B.float().mean()
            area = losses.mask_area(alpha_A, mask_area) + losses.mask_area(alpha_B, mask_area)
            total = total + _MASK_WEIGHT * area
        if self.config.keep_outside:
            outside = self._no_face(real_A)
            parts["outside_A"] = losses.change_outside(fake_A, real_B, outside)
            parts["outside_B"] = losses.change_outside(fake_B, real_A, outside)
            total = total + self.config.keep_outside * (parts["outside_A"] + parts["outside_B"])
        return total, {name: part.detach() for name, part in parts.items()}, fake_A.detach(), fake_B.detach()

    def _no_face(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        if size not in self._outside:
            self._outside[size] = torch.from_numpy(~face_ellipse(self._template, size)).to(x.device)
        return self._outside[size]


class DiscriminatorStep(nn.Module):
    """Tell real images from generated ones."""

    def __init__(self, config: TrainConfig, nets: Networks, compiled: tuple):
        super().__init__()
        self.config = config
        self.D_A, self.D_B = nets.D_A, nets.D_B
        self._judges = compiled[2:]

    def forward(
        self,
        real_A: Tensor,
        real_B: Tensor,
        fake_A: Tensor,
        fake_B: Tensor,
        noise: float,
        augment: bool,
        penalise: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(total loss, its parts detached) for real and generated images [B, C, H, W] in [-1, 1].

        ``penalise`` adds the gradient penalty, weighted for all the steps that go without it.
        """
        self.D_A.requires_grad_(True)
        self.D_B.requires_grad_(True)
        total, parts = torch.zeros((), device=real_A.device), {}
        for name, D, judge, real, fake in (
            ("D_A", self.D_A, self._judges[0], real_A, fake_A),
            ("D_B", self.D_B, self._judges[1], real_B, fake_B),
        ):
            real, fake = (seen(x, noise, augment) for x in (real, fake))
            if self.config.discriminator.norm == "batch":  # whose statistics must not mix real and generated
                score_real, score_fake = judge(real), judge(fake)
            else:
                score_real, score_fake = judge(torch.cat([real, fake])).chunk(2)
            loss = losses.adversarial_D(score_real, score_fake, self.config.adversarial)
            parts[name] = loss.detach()
            total = total + loss
            if penalise:  # through the plain network: compiled ones have no second derivative
                penalty = losses.r1(D, real)
                parts[f"r1_{name[-1]}"] = penalty.detach()
                total = total + self.config.r1 * R1_EVERY * penalty
        return total, parts


def seen(x: Tensor, noise: float, augment: bool) -> Tensor:
    """Images [B, C, H, W] in [-1, 1] as discriminators see them: augmented, then with Gaussian noise of this standard
    deviation (instance noise: Soenderby et al. 2017)."""
    x = augmented(x) if augment else x
    return x + noise * torch.randn_like(x) if noise else x


def _frozen(D: PatchDiscriminator, judge: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def score(x: Tensor) -> Tensor:
        D.requires_grad_(False)
        return judge(x)

    return score
