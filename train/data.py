"""Two unpaired domains, wholly resident on the device as uint8, shuffled and augmented there."""

import hashlib
import os
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cyclegan.errors import BadImageError
from cyclegan.images import load_image, to_tensor
from train.crops import Crops, warn_unreadable
from train.errors import TrainingError, warn
from train.health import is_lack_of_memory

_FEW = 100  # images of a domain below which no training can be expected to generalise
_MOST_HELD_OUT = 10  # one image in so many, at most, is kept out of training


@dataclass(frozen=True)
class Pairs:
    """Training and validation images of both domains: uint8 [N, H, W, C] on the training device."""

    A: Tensor
    B: Tensor
    validation_A: Tensor
    validation_B: Tensor
    seed: int
    digest: str
    """Of the images' names: the same for crops and their pack, another for other images."""

    @classmethod
    def load(
        cls, data: Path, height: int, width: int, channels: int, validation: int, seed: int, device: torch.device
    ) -> "Pairs":
        """Read trainA and trainB of a folder or a pack, scaled to the size of training.

        Up to ``validation`` images per domain, and never more than a tenth, are set aside; which ones depends only
        on their names. Raises TrainingError when either domain has under two usable images, when both have the same,
        or when they do not fit into memory.
        """
        parts, hashes, digest = {}, [], hashlib.sha256()
        for letter in "AB":
            try:
                images, names = load_part(data, f"train{letter}", height, width, channels)
                held_out = _held_out(names, validation)
                parts[f"validation_{letter}"] = torch.from_numpy(images[held_out]).to(device)
                parts[letter] = torch.from_numpy(images[~held_out]).to(device)
            except (MemoryError, RuntimeError) as error:
                if not is_lack_of_memory(error):
                    raise
                raise TrainingError(
                    f"The pictures of train{letter} do not fit into memory at {width} x {height} pixels: all are kept "
                    "there. Lower --size, or train on fewer."
                ) from error
            hashes.append({hashlib.sha256(image).digest() for image in images})
            digest.update(b"\0".join(map(os.fsencode, names)) + b"\0\0")
        if hashes[0] == hashes[1]:
            raise TrainingError("trainA and trainB hold the same pictures. Give each domain its own.")
        if shared := len(hashes[0] & hashes[1]):
            warn(f"{shared} pictures are in both domains; what they show cannot be learnt to differ.")
        return cls(**parts, seed=seed, digest=digest.hexdigest())

    def batch(
        self, pairs_seen: int, count: int, size: tuple[int, int], flip: bool, enlarge: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """The next ``count`` images of each domain, float32 [count, C, H, W] in [-1, 1] for ``size`` (H, W).

        A pure function of the seed and of how many pairs came before, so that a resumed run sees what it would have
        seen. Each domain is shuffled anew per epoch of its own.
        """
        # Drawn pair by pair, so that several processes see together what one would see alone.
        drawn = torch.stack([_uniform(hash((self.seed, pairs_seen + i)) % 2**63, 2, 3) for i in range(count)])
        A, B = (
            augment(self._take(images, salt, pairs_seen, count), size, flip, enlarge, drawn[:, salt])
            for salt, images in enumerate((self.A, self.B))
        )
        return A, B

    def _take(self, images: Tensor, salt: int, start: int, count: int) -> Tensor:
        total, chosen = len(images), []
        while count:
            epoch, offset = divmod(start, total)
            order = _order(total, hash((self.seed, salt, epoch)) % 2**63, images.device)
            chosen.append(order[offset : offset + count])
            start, count = start + len(chosen[-1]), count - len(chosen[-1])
        return images[torch.cat(chosen)]

    def validation(self, letter: str, count: int, size: tuple[int, int]) -> Tensor:
        """The first ``count`` validation images of a domain, float32 [N, C, H, W] in [-1, 1].

        A data set too small for so many adds training images.
        """
        held_out, rest = (self.validation_A, self.A) if letter == "A" else (self.validation_B, self.B)
        return to_floats(torch.cat([held_out[:count], rest[: max(0, count - len(held_out))]]), size)

    def spread(self, letter: str, count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(training, validation) images of a domain, evenly spread over their names, at most ``count`` of each, float32
        [N, C, H, W] in [-1, 1]."""
        both = (self.A, self.validation_A) if letter == "A" else (self.B, self.validation_B)
        training, held_out = (to_floats(images[:: max(1, -(-len(images) // count))], size) for images in both)
        return training, held_out


def _uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@lru_cache(maxsize=8)
def _order(total: int, seed: int, device: torch.device) -> Tensor:
    """The shuffled order of one epoch, kept on the device for the few that are in use."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed)).to(device)


def _held_out(names: list[str], validation: int) -> np.ndarray:
    """bool [N]: which images are for validation, by a hash of their names."""
    by_hash = np.argsort([zlib.crc32(os.fsencode(name)) for name in names], kind="stable")
    chosen = np.zeros(len(names), bool)
    chosen[by_hash[: min(validation, len(names) // _MOST_HELD_OUT)]] = True
    return chosen


def to_floats(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [B, H, W, C] with C = 1 or 3 -> float32 [B, C, *size] in [-1, 1]."""
    return resize(to_tensor(images.expand(-1, -1, -1, 3))[:, : images.shape[3]], size)


def augment(images: Tensor, size: tuple[int, int], flip: bool, enlarge: float, drawn: Tensor) -> Tensor:
    """uint8 [B, H, W, C] -> float32 [B, C, *size] in [-1, 1].

    With ``flip`` each is mirrored with probability 0.5; with ``enlarge`` > 1 each is a random part of itself made
    larger by that factor, the jitter of Zhu et al. 2017. ``drawn`` decides, [B, 3] in [0, 1) for the mirror, from the
    top and from the left; on the CPU, so that nothing waits for the device.
    """
    x = to_floats(images, size)
    if flip:
        mirrored = (drawn[:, 0] < 0.5).to(x.device, non_blocking=True)
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    if enlarge > 1:
        height, width = size
        x = F.interpolate(x, scale_factor=enlarge, mode="bicubic", align_corners=False).clamp(-1, 1)
        top = (drawn[:, 1] * (x.shape[2] - height + 1)).long().tolist()
        left = (drawn[:, 2] * (x.shape[3] - width + 1)).long().tolist()
        x = torch.stack([each[:, t : t + height, u : u + width] for each, t, u in zip(x, top, left, strict=True)])
    return x


def resize(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Shrink [B, C, H, W] to ``size``, a side or (height, width), by averaging areas; as it is if it has it."""
    size = (size, size) if isinstance(size, int) else size
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="area")


def load_part(data: Path, part: str, height: int, width: int, channels: int = 3) -> tuple[np.ndarray, list[str]]:
    """Every readable image of a part (``"trainA"``, ...) as uint8 [N, height, width, channels], and the file names.

    The middle of each picture, as large as the shape allows, is scaled. One channel is its luma.
    Unreadable files and pictures that had to be enlarged are counted on stderr. Raises TrainingError for a missing
    part, or fewer than two images.
    """
    crops = Crops.open(data)
    images, names, unreadable, small = [], [], [], 0
    for name in tqdm(crops.names(part), desc=part, unit="image", leave=False):
        try:
            image = load_image(crops.read(part, name), name)
        except BadImageError:
            unreadable.append(name)
            continue
        middle = _middle(image, width / height)
        small += middle.shape[0] < height or middle.shape[1] < width
        if middle.shape[:2] != (height, width):
            shrink = middle.shape[0] > height
            middle = cv2.resize(middle, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
        images.append(middle if channels == 3 else cv2.cvtColor(middle, cv2.COLOR_RGB2GRAY)[..., None])
        names.append(name)
    warn_unreadable(part, unreadable)
    if len(images) < 2:
        has = "1 readable image" if len(images) == 1 else f"{len(images)} readable images"
        raise TrainingError(f"{part} of {data} has {has}; at least 2 are needed, and 1,000 advised.")
    if len(images) < _FEW and part.startswith("train"):
        warn(f"{part} has only {len(images)} images: the model will learn them by heart. 1,000 are advised.")
    if small:
        warn(f"{part}: {small} of {len(images)} pictures are smaller than {width} x {height} and were enlarged.")
    return np.stack(images), names


def _middle(image: np.ndarray, aspect: float) -> np.ndarray:
    """The largest part in the middle with this width over height."""
    height, width = image.shape[:2]
    keep_height, keep_width = min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))
    top, left = (height - keep_height) // 2, (width - keep_width) // 2
    return image[top : top + keep_height, left : left + keep_width]


def load_split(data: Path, letter: str, size: int, validation: int) -> tuple[np.ndarray, np.ndarray]:
    """The training images of a domain without those kept for validation, and these: uint8 [N, size, size, 3] each.

    The same division as in `Pairs.load`; raises as `load_part` does.
    """
    images, names = load_part(data, f"train{letter}", size, size)
    held_out = _held_out(names, validation)
    return images[~held_out], images[held_out]
