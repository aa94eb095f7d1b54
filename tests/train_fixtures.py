"""What the tests of `train` share: the folder of real images, if it is here, and trainings that take a second."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.networks import GeneratorConfig
from train.config import About, DiscriminatorConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("CYCLEGAN_SHARED", ROOT.parent / "shared"))
needs_real_images = pytest.mark.skipif(
    not (SHARED / "data").is_dir() or not (SHARED / "photos").is_dir(),
    reason="real images are not here: name their folder (with data/ and photos/) in CYCLEGAN_SHARED",
)

ABOUT = About("tiny", "Tiny", ("dark", "bright"), ("Light up", "Dim"), "For tests.", "None.")


def tiny_config(**changes) -> TrainConfig:
    """A training of 12 steps at 16 pixels that still has every part: spectral norm, full buffers, averages."""
    settings = dict(
        generator=GeneratorConfig(filters=4, blocks=1),
        discriminator=DiscriminatorConfig(filters=4, layers=2, norm="spectral"),
        stages=((16, 0.0),),
        pairs=24,
        batch=2,
        buffer=4,
        ema_halflife=8,
        identity_end=1.0,
        precision="float32",
        compile=False,
        validation=3,
        log_every=4,
        save_every=8,
    )
    return TrainConfig(**(settings | changes))


@pytest.fixture(scope="module")
def one_thread():
    """Networks this small are faster on one core, and far faster when another process keeps the others busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write a uint8 [H, W, 3] picture, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def write_noise(folder: Path, count: int, low: int = 0, high: int = 256, side: int = 16, seed: int = 0) -> None:
    """``count`` pictures of noise with values from ``low`` to below ``high``, all different."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        write_image(folder / f"{number:03}.png", rng.integers(low, high, (side, side, 3), np.uint8))


def write_domains(data: Path, count: int = 30, side: int = 16) -> Path:
    """Two folders to train on: dark noise in trainA, bright noise in trainB."""
    write_noise(data / "trainA", count, 0, 90, side, seed=1)
    write_noise(data / "trainB", count, 166, 256, side, seed=2)
    return data


@pytest.fixture
def quick_plots(monkeypatch):
    """Trainings that leave an empty ``losses.png``: drawing it takes longer than a training of twelve steps."""
    monkeypatch.setattr("train.loop.plot_log", lambda run: (run / "losses.png").touch())
