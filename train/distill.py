"""`distill`: a small student, taught by a trained pair of generators and by the data.

The student trains in the same loop as any model: beside fooling its discriminators it repeats the teacher's
translations, pixel by pixel, as in online distillation (Ren et al. 2021, OMGD). The teacher stays as it is.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from cyclegan.model import WEIGHTS_FILE, CycleGAN, ModelConfig, read_config
from cyclegan.networks import count_macs
from train.config import TrainConfig
from train.errors import TrainingError, warn

MOST_MACS = 3_000_000_000  # of a student at the size it serves: what two CPU cores translate live


class Teacher:
    """A finished model on the training device, without gradients."""

    def __init__(self, folder: Path, device: torch.device, compile: bool):
        model = CycleGAN.from_pretrained(folder).to(device)
        self.digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
        """Of the weights: tells one teacher from another."""
        self._G_AB, self._G_BA = model.G_AB.forward, model.G_BA.forward
        if compile:
            self._G_AB, self._G_BA = (torch.compile(each, dynamic=False) for each in (self._G_AB, self._G_BA))

    @torch.no_grad()
    def translate(self, real_A: Tensor, real_B: Tensor) -> tuple[Tensor, Tensor]:
        """(fake_A, fake_B) for real images [B, 3, H, W] in [-1, 1]."""
        return self._G_BA(real_B), self._G_AB(real_A)


def check_student(config: TrainConfig, teacher: Path) -> ModelConfig:
    """The teacher's config; warns of a student of another size, at which the teacher may translate badly.

    Raises TrainingError for a student of grey images, as large as its teacher, or too large to serve live.
    """
    taught_by = read_config(teacher)
    if config.generator.channels != taught_by.generator.channels:
        raise TrainingError("A student works in colour, as its teacher does. Leave out --channels.")
    if config.generator.reduce > 1:
        raise TrainingError("A student is trained at the size that it serves. Leave out --reduce.")
    step = taught_by.generator.step
    for stage, _ in config.stages:
        height, width = config.shape(stage)
        if height % step or width % step or min(height, width) < 4 * step:
            raise TrainingError(
                f"The teacher translates images whose sides are divisible by {step} and at least {4 * step} pixels, "
                f"not {width} x {height}. Choose another --size."
            )
    student, theirs = (count_macs(each, height, width) for each in (config.generator, taught_by.generator))
    if student > MOST_MACS:
        raise TrainingError(
            f"A student of {student / 1e9:.1f} GMAC at {height} pixels is too slow to serve live; "
            f"{MOST_MACS / 1e9:.0f} are the most. Lower --filters, --blocks or --size."
        )
    if student >= theirs:
        raise TrainingError(
            f"The student needs {student / 1e9:.2f} GMAC, its teacher {theirs / 1e9:.2f}: nothing is won. "
            "Lower --filters or --blocks."
        )
    if height != taught_by.image_size:
        warn(
            f"The teacher was trained at {taught_by.image_size} pixels, and may translate badly at {height}, where it "
            "is to teach. --size changes that."
        )
    return taught_by
