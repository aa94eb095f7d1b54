"""Faces drawn by hand, which the real detector finds, and models whose answer can be worked out on paper."""

import shutil
from dataclasses import replace
from math import atanh
from pathlib import Path

import cv2
import numpy as np
import torch

from cyclegan.faces.align import Template
from cyclegan.model import CycleGAN, Domain, ModelConfig
from cyclegan.networks import Generator, GeneratorConfig

# Face and a little hair, with the five landmarks upright.
TEMPLATE = Template(((0.31, 0.30), (0.69, 0.30), (0.50, 0.52), (0.33, 0.69), (0.67, 0.69)), 1.0)
# Where `draw_face` puts the eyes, the tip of the nose and the mouth's corners, as fractions of its side.
DRAWN_LANDMARKS = np.array([[93, 114], [147, 114], [120, 149], [97, 176], [143, 176]]) / 240


def draw_face(side: int = 240, seed: int = 0) -> np.ndarray:
    """A face from the front before a grey wall: uint8 [side, side, 3]."""
    scale = side / 240
    picture = np.full((side, side, 3), (120, 130, 140), np.float32)

    def ellipse(centre, axes, colour, angle=0):
        fixed = [tuple(round(value * scale * 16) for value in pair) for pair in (centre, axes)]  # four binary places
        cv2.ellipse(picture, *fixed, angle, 0, 360, colour, -1, cv2.LINE_AA, 4)

    def skin(lighter):
        return 205 + lighter, 160 + lighter, 135 + lighter

    ellipse((120, 110), (80, 100), (60, 45, 40))  # hair
    cv2.rectangle(picture, (round(95 * scale), round(180 * scale)), (round(145 * scale), side), (175, 130, 105), -1)
    ellipse((120, 125), (64, 84), skin(0))
    ellipse((120, 150), (50, 55), skin(8))
    for x, tilt in ((93, -8), (147, 8)):
        ellipse((x, 112), (20, 12), skin(-45))
        ellipse((x, 114), (14, 7), (245, 240, 238))
        ellipse((x, 114), (7, 7), (70, 50, 40))
        ellipse((x, 114), (3, 3), (10, 10, 10))
        ellipse((x, 97), (19, 4), (60, 45, 38), tilt)
    ellipse((120, 138), (9, 22), skin(18))
    ellipse((120, 152), (15, 7), skin(-25))
    for x in (113, 127):
        ellipse((x, 154), (4, 2.5), (110, 70, 60))
    ellipse((120, 176), (25, 9), (170, 85, 85))
    ellipse((120, 175), (22, 2), (90, 40, 40))
    picture = cv2.GaussianBlur(picture, (0, 0), 2.2 * scale)
    across = np.arange(side) / side
    picture *= (1.12 - 0.35 * np.abs(across - 0.42))[None, :, None]  # light from the left
    picture += np.random.default_rng(seed).normal(0, 4, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def draw_photo(*faces: tuple[int, int, int], width: int = 640, height: int = 420) -> np.ndarray:
    """A wall with drawn faces, each given as left, top, side."""
    grain = np.random.default_rng(9).normal(0, 3, (height, width, 3))
    photo = (np.array((120, 130, 140)) + grain).clip(0, 255).astype(np.uint8)
    for seed, (left, top, side) in enumerate(faces):
        photo[top : top + side, left : left + side] = draw_face(side, seed)
    return photo


def drawn_landmarks(left: int, top: int, side: int) -> np.ndarray:
    """Where the landmarks of a face of `draw_photo` are: [5, 2]."""
    return DRAWN_LANDMARKS * side + (left, top)


def texture(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    """Clouds with fine grain over the whole range: uint8 [height, width, 3], as rich in detail as a photograph."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.normal(0, 1, (height // step + 2, width // step + 2, 3)), (width, height), interpolation=3)
        * step
        for step in (2, 6, 20, 60)
    ]
    clouds = sum(layers)
    return ((clouds - clouds.min()) / np.ptp(clouds) * 255).astype(np.uint8)


def make_config(name: str = "tiny", faces: tuple[str, str] = ("mtcnn", "mtcnn"), **changes) -> ModelConfig:
    """A config of a network of a few hundred weights; ``faces`` of domains A and B."""
    config = ModelConfig(
        name=name,
        title=name.capitalize(),
        generator=GeneratorConfig(filters=2, blocks=1, stem=4, mask=True),
        image_size=64,
        domains={"A": Domain("plain", faces[0]), "B": Domain("changed", faces[1])},
        directions={"A2B": "Change", "B2A": "Change back"},
        template=TEMPLATE,
        description="A model for tests.",
        license="CC0",
        metrics={"flip_rate_10": 0.5},
        training={"seed": 0},
    )
    return replace(config, **changes)


def blend(generator: Generator, colour: tuple[float, float, float] = (0, 0, 0), alpha: float = 0.0) -> None:
    """Set a generator with a mask so that it returns ``(1 - alpha) * x + alpha * colour`` for every x.

    ``colour`` in (-1, 1). With alpha 0 the output is the input.
    """
    last, each = generator.head[0], generator.config.stem**2
    torch.nn.init.zeros_(last.weight)
    logit = -40.0 if alpha == 0 else float(np.log(alpha / (1 - alpha)))
    values = [*(atanh(value) for value in colour), logit]
    with torch.no_grad():
        last.bias.copy_(torch.tensor(values).repeat_interleave(each))


def make_model(config: ModelConfig, seed: int = 0) -> CycleGAN:
    """A model with random weights that half precision holds exactly, in evaluation mode."""
    torch.manual_seed(seed)
    model = CycleGAN(config)
    for weight in model.parameters():
        weight.data = weight.data.half().float()
    return model.eval().requires_grad_(False)


def identity_model(config: ModelConfig) -> CycleGAN:
    """A model that returns its input, both ways."""
    model = make_model(config)
    blend(model.G_AB)
    blend(model.G_BA)
    return model


RED = (0.9, -0.9, -0.9)


def red_model(config: ModelConfig) -> CycleGAN:
    """A model that mixes half of red into every pixel from A to B, and changes nothing from B to A."""
    model = identity_model(config)
    blend(model.G_AB, RED, 0.5)
    return model


def tinted_red(image: np.ndarray) -> np.ndarray:
    """What `red_model` makes of a picture, before rounding."""
    return (image + (np.array(RED) + 1) * 127.5) / 2


def copy_model(folder: Path, to: Path) -> Path:
    """A copy of a model folder, to damage."""
    return Path(shutil.copytree(folder, to))
