"""Two unpaired domains, wholly resident on the device as uint8, shuffled and augmented there."""

import os
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cyclegan.errors import BadImageError
from cyclegan.faces.align import centred_square
from cyclegan.images import load_image, to_tensor
from train.errors import TrainingError


@dataclass(frozen=True)
class Pairs:
    """Training and validation images of both domains: uint8 [N, S, S, 3] on the training device."""

    A: Tensor
    B: Tensor
    validation_A: Tensor
    validation_B: Tensor
    seed: int

    @classmethod
    def load(cls, data: Path, size: int, validation: int, seed: int, device: torch.device) -> "Pairs":
        """Read ``data/trainA`` and ``data/trainB``; raises TrainingError when either has under two usable images.

        Up to ``validation`` images per domain, and never more than a tenth, are set aside; which ones depends only
        on their names.
        """
        parts = {}
        for letter in "AB":
            images, names = load_folder(data / f"train{letter}", size)
            by_hash = np.argsort([zlib.crc32(os.fsencode(name)) for name in names], kind="stable")
            held_out = min(validation, len(names) // 10)
            parts[f"validation_{letter}"] = torch.from_numpy(images[by_hash[:held_out]]).to(device)
            parts[letter] = torch.from_numpy(images[np.sort(by_hash[held_out:])]).to(device)
        return cls(**parts, seed=seed)

    def batch(self, pairs_seen: int, count: int, size: int, flip: bool) -> tuple[Tensor, Tensor]:
        """The next ``count`` images of each domain, float32 [count, 3, size, size] in [-1, 1].

        A pure function of the seed and of how many pairs came before, so that a resumed run sees what it would have
        seen. Each domain is shuffled anew per epoch of its own.
        """
        rng = torch.Generator().manual_seed(hash((self.seed, pairs_seen)) % 2**63)
        A, B = (
            augment(self._take(images, salt, pairs_seen, count), size, flip, rng)
            for salt, images in enumerate((self.A, self.B))
        )
        return A, B

    def _take(self, images: Tensor, salt: int, start: int, count: int) -> Tensor:
        total = len(images)
        wanted = []
        for position in range(start, start + count):
            epoch, offset = divmod(position, total)
            wanted.append(_order(total, hash((self.seed, salt, epoch)) % 2**63)[offset])
        return images[torch.tensor(wanted, device=images.device)]


_orders: dict[tuple[int, int], list[int]] = {}


def _order(total: int, seed: int) -> list[int]:
    """The shuffled order of one epoch, remembered for the few that are in use."""
    if (total, seed) not in _orders:
        if len(_orders) > 8:
            _orders.clear()
        _orders[total, seed] = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    return _orders[total, seed]


def augment(images: Tensor, size: int, flip: bool, rng: torch.Generator) -> Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, 3, size, size] in [-1, 1], each mirrored with probability 0.5 if ``flip``."""
    x = resize(to_tensor(images), size)
    if flip:
        mirrored = (torch.rand(len(x), generator=rng) < 0.5).to(x.device)
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x


def resize(x: Tensor, size: int) -> Tensor:
    """Shrink [B, C, S, S] to [B, C, size, size] by averaging areas; unchanged when it already has this size."""
    return x if x.shape[-1] == size else F.interpolate(x, (size, size), mode="area")


def load_folder(folder: Path, size: int) -> tuple[np.ndarray, list[str]]:
    """Every readable image of a folder as uint8 [N, size, size, 3] (centred square, scaled), and the file names.

    Unreadable files are counted on stderr and left out. Raises TrainingError for a missing folder, or fewer than two
    images.
    """
    if not folder.is_dir():
        raise TrainingError(f"There is no folder {folder}. Make it with: python -m train prepare --help")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images, names, unreadable = [], [], []
    for path in tqdm(paths, desc=folder.name, unit="image", leave=False):
        try:
            image = load_image(path)
        except BadImageError:
            unreadable.append(path.name)
            continue
        left, top, right, bottom = centred_square(*image.shape[:2])
        square = image[top:bottom, left:right]
        if square.shape[0] != size:
            shrink = square.shape[0] > size
            square = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
        images.append(square)
        names.append(path.name)
    if unreadable:
        files = "1 file" if len(unreadable) == 1 else f"{len(unreadable)} files"
        tqdm.write(f"{folder.name}: {files} left out as unreadable, the first: {unreadable[0]}", file=sys.stderr)
    if len(images) < 2:
        has = "1 readable image" if len(images) == 1 else f"{len(images)} readable images"
        raise TrainingError(f"{folder} has {has}; at least 2 are needed, and 1,000 advised.")
    return np.stack(images), names
