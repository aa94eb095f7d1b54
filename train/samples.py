"""A few held-out images, translated now and then, to look at and to tell whether a training is alive."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cyclegan.images import to_images
from train.data import Pairs
from train.step import Networks

_COUNT = 8
_JUDGED = 64  # images of each kind, a standard error of a hundredth or two
_FEWEST_JUDGED = 16


class Samples:
    """The validation images of both domains that are looked at; training images where there are too few."""

    def __init__(self, nets: Networks, data: Pairs):
        self._nets, self._data = nets, data

    @torch.no_grad()
    def draw(self, size: tuple[int, int]) -> tuple[np.ndarray, dict[str, tuple[float, float]]]:
        """(picture, measured) at (height, width) pixels.

        The picture is uint8 [6 * H, N * W, 3] with rows real_A, fake_B, rec_A, real_B, fake_A, rec_B. ``measured`` has
        per direction (variety, change) as `train.health.check_alive` wants them.
        """
        rows: list[Tensor] = []
        measured = {}
        for letter, direction, there, back in (
            ("A", "A2B", self._nets.ema_G_AB, self._nets.ema_G_BA),
            ("B", "B2A", self._nets.ema_G_BA, self._nets.ema_G_AB),
        ):
            real = self._data.validation(letter, _COUNT, size)
            fake = there(real)
            rows += [real, fake, back(fake)]
            # Without Bessel's correction, which for a single image has no value.
            variety = float(fake.std(0, correction=0).mean() / real.std(0, correction=0).mean().clamp_min(1e-3))
            measured[direction] = (variety, float((fake - real).abs().mean()))
        count = min(len(row) for row in rows)
        return tile([to_images(row[:count].expand(-1, 3, -1, -1)) for row in rows]), measured

    @torch.no_grad()
    def verdicts(self, size: tuple[int, int]) -> dict[str, tuple[float, float, float]]:
        """Per domain, as `train.health.warn_of_overfitting` wants it, what its discriminator thinks on average of
        images it is trained on, of images it is not, and of translations of such, at (height, width) pixels; near 1
        is real.

        Nothing of a domain with few images set aside.
        """
        images = {letter: self._data.spread(letter, _JUDGED, size) for letter in "AB"}
        found: dict[str, tuple[float, float, float]] = {}
        for letter, other, D, translate in (
            ("A", "B", self._nets.D_A, self._nets.ema_G_BA),
            ("B", "A", self._nets.D_B, self._nets.ema_G_AB),
        ):
            if min(len(images[letter][1]), len(images[other][1])) < _FEWEST_JUDGED:
                continue
            D.eval()  # norms must not learn from what is only looked at
            training, held_out = images[letter]
            generated = torch.cat([translate(few) for few in images[other][1].split(_COUNT)])
            scores = [torch.cat([D(few) for few in kind.split(_COUNT)]) for kind in (training, held_out, generated)]
            D.train()
            of_training, of_held_out, of_generated = (float(score.mean()) for score in scores)
            found[letter] = (of_training, of_held_out, of_generated)
        return found


def tile(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of uint8 [N, H, W, 3] -> one picture uint8 [len(rows) * H, N * W, 3]."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
