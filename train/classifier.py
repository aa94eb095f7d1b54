"""A small network that tells domain A from domain B, trained on the real images, to judge translations by."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from cyclegan.images import to_tensor
from train.crops import Crops
from train.data import load_split, resize
from train.errors import warn

_BATCH = 64  # images judged at once


@dataclass(frozen=True)
class ClassifierConfig:
    """How a classifier is built and trained; its work is the same for few images as for many."""

    size: int = 64
    """Side in pixels at which it looks at images."""
    filters: int = 32
    """Channels of the first layer."""
    steps: int = 500
    """Optimiser steps."""
    batch: int = 64
    """Images per step, half of them from each domain whatever their numbers."""
    lr: float = 3e-3
    """Highest step size of AdamW, reached after a quarter of the steps and falling to zero at the end."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    smoothing: float = 0.1
    """Label smoothing (Szegedy et al. 2016): folders hold a few wrongly sorted images."""
    seed: int = 0
    """Seed of initial weights, order and augmentation."""


class ClassifierNet(nn.Module):
    """float [B, 3, S, S] in [-1, 1] -> logits [B], above 0 for domain B.

    A residual network (He et al. 2016) at half resolution and below: 0.9 M weights, 55 M multiply-adds at 64 pixels.
    """

    def __init__(self, filters: int):
        super().__init__()
        f = filters
        self.stem = nn.Sequential(nn.Conv2d(3, f, 3, 2, 1, bias=False), nn.BatchNorm2d(f), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(
            ResidualBlock(f, 2 * f, stride=2),
            ResidualBlock(2 * f, 4 * f, stride=2),
            ResidualBlock(4 * f, 4 * f, stride=1),
            ResidualBlock(4 * f, 4 * f, stride=2),
        )
        self.verdict = nn.Linear(4 * f, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.verdict(self.blocks(self.stem(x)).mean((2, 3)))[:, 0]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which averages and projects where the shape changes (He et al. 2019)."""

    def __init__(self, fan_in: int, fan_out: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(fan_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(fan_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(fan_in, fan_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.residual(x))


class Classifier:
    """A trained network behind one question: does this image belong to B?"""

    def __init__(self, net: ClassifierNet, size: int, device: str | torch.device):
        self.net = net.to(device).eval().requires_grad_(False)
        self.size = size
        self.device = device

    @torch.inference_mode()
    def scores(self, images: np.ndarray) -> np.ndarray:
        """float [N] for uint8 [N, S, S, 3] of any size, above 0 for B and the further from 0 the surer.

        Each image is judged together with its mirror image.
        """
        scores = []
        for start in range(0, len(images), _BATCH):
            x = resize(to_tensor(images[start : start + _BATCH]).to(self.device), self.size)
            scores.append((self.net(x) + self.net(x.flip(3))).cpu().numpy())
        return np.concatenate(scores)

    def is_B(self, images: np.ndarray) -> np.ndarray:
        """bool [N] for uint8 [N, S, S, 3] of any size."""
        return self.scores(images) > 0

    def accuracy(self, real_A: np.ndarray, real_B: np.ndarray) -> float:
        """Balanced accuracy in [0, 1]: the mean of the shares recognised in A and in B, uint8 [N, S, S, 3] each."""
        return (float((~self.is_B(real_A)).mean()) + float(self.is_B(real_B).mean())) / 2


def fit_classifier(
    real_A: np.ndarray, real_B: np.ndarray, config: ClassifierConfig, device: str | torch.device
) -> Classifier:
    """Train on uint8 images [N, S, S, 3] of both domains; the same images and settings give the same network."""
    rng = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = ClassifierNet(config.filters).to(device).to(memory_format=torch.channels_last)
    images = [torch.from_numpy(each).to(device) for each in (real_A, real_B)]
    half = config.batch // 2
    is_B = torch.arange(2 * half, device=device) >= half
    wanted = is_B * (1 - config.smoothing) + config.smoothing / 2
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, config.steps, pct_start=0.25)
    for _ in tqdm(range(config.steps), desc="attribute classifier", unit="step", leave=False):
        drawn = [each[torch.randint(len(each), (half,), generator=rng).to(device)] for each in images]
        x = vary(resize(to_tensor(torch.cat(drawn)), config.size), rng).to(memory_format=torch.channels_last)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = net(x)
        loss = F.binary_cross_entropy_with_logits(logits.float(), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return Classifier(net, config.size, device)


def vary(x: Tensor, rng: torch.Generator) -> Tensor:
    """Images [B, 3, S, S] in [-1, 1], each turned, moved, recoloured, blurred and made noisy at random.

    What generators do besides their task, casts of colour, softness and grain, must not decide for a domain.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        values = torch.rand(len(x), *shape, generator=rng) * (high - low) + low
        return values.to(x.device)

    # Mirrored, turned by up to 11 degrees, scaled by up to 13 %, moved by up to 6 % of the side.
    angle, scale = uniform(-0.2, 0.2), uniform(-0.12, 0.12).exp()
    cos, sin, mirror = angle.cos() * scale, angle.sin() * scale, uniform(-1, 1).sign()
    dx, dy = uniform(-0.12, 0.12), uniform(-0.12, 0.12)
    to_source = torch.stack([torch.stack([cos * mirror, -sin, dx], 1), torch.stack([sin * mirror, cos, dy], 1)], 1)
    grid = F.affine_grid(to_source, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    # From a little sharpened to blurred.
    softness = uniform(-0.5, 1.0, 1, 1, 1)
    x = x + softness * (blur(x) - x)

    # Saturation, contrast, brightness and a cast.
    grey = x.mean(1, keepdim=True)
    x = grey + uniform(0.4, 1.3, 1, 1, 1) * (x - grey)
    x = x * (uniform(-0.3, 0.3, 1, 1, 1) + uniform(-0.1, 0.1, 3, 1, 1)).exp()
    x = x + uniform(-0.25, 0.25, 1, 1, 1) + uniform(-0.1, 0.1, 3, 1, 1)

    noise = torch.randn(x.shape, generator=rng).to(x.device)
    return (x + uniform(0, 0.08, 1, 1, 1) * noise).clamp(-1, 1)


def blur(x: Tensor) -> Tensor:
    """[B, C, H, W] convolved with the binomial kernel of 5 x 5, a Gaussian of standard deviation 1."""
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device) / 16
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])


def cached_classifier(data: Path, validation: int, config: ClassifierConfig, device: str | torch.device) -> Classifier:
    """The classifier of a data set, trained on its training images without those that `fit` sets aside for validation.

    A folder keeps it as ``classifier.safetensors``, a pack has ``NAME.classifier.safetensors`` beside it; it is trained
    anew when training images or settings have changed. The file appears whole or not at all; where it cannot be
    written, a warning is given. Raises TrainingError for data that cannot be trained on.
    """
    file = data / "classifier.safetensors" if data.is_dir() else data.with_suffix(".classifier.safetensors")
    key = {"settings": json.dumps(asdict(config)), "validation": str(validation), "images": _digest(data)}
    net = ClassifierNet(config.filters)
    if _load(net, file, key):
        return Classifier(net, config.size, device)
    real_A, real_B = (load_split(data, letter, config.size, validation)[0] for letter in "AB")
    classifier = fit_classifier(real_A, real_B, config, device)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        save_file({name: value.cpu().contiguous() for name, value in classifier.net.state_dict().items()}, partial, key)
        os.replace(partial, file)
    except (OSError, SafetensorError) as error:
        warn(f"The attribute classifier could not be kept in {file} ({error}); it will be trained again next time.")
    finally:
        with suppress(OSError):  # of a disk that can only be read
            partial.unlink()
    return classifier


def _digest(data: Path) -> str:
    """Changes with any training image, its name or its content."""
    crops, digest = Crops.open(data), hashlib.sha256()
    for part in ("trainA", "trainB"):
        for name in crops.names(part):
            content = hashlib.sha256(crops.read(part, name)).hexdigest()
            digest.update(f"{part}/{name} {content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _load(net: ClassifierNet, file: Path, key: dict[str, str]) -> bool:
    """Fill the network from a file that was written under this key; False when there is none, or none sound."""
    try:
        with safe_open(file, "pt") as stored:
            if stored.metadata() != key:
                return False
            net.load_state_dict({name: stored.get_tensor(name) for name in stored.keys()})
    except (OSError, SafetensorError, RuntimeError):
        return False
    return True
