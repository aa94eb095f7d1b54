"""How fast `fit` is: beside a plain transcription of the classic loop, and against what the device could do."""

import math
import random
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice, repeat
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from cyclegan.images import load_image, save_png, to_tensor
from cyclegan.networks import Generator
from train import losses
from train.config import About, TrainConfig
from train.discriminators import PatchDiscriminator
from train.log import read_log
from train.loop import fit
from train.prepare import Geometry
from train.step import DiscriminatorStep, GeneratorStep, Networks

_IMAGES = 100  # per domain
_WARM_UP = 10  # steps in which networks are compiled and memory is found


@dataclass(frozen=True)
class Bench:
    """What `bench` measured; speeds in pairs per second."""

    device: str
    size: int
    """Height in pixels of the images that networks see."""
    batch: int
    """Pairs per step of `fit`; the classic loop takes one."""
    classic: float
    """The classic loop: eager, float32, DataLoader, one pair at a time."""
    fit: float
    """This package's loop with the same networks."""
    speedup: float
    """fit / classic."""
    tflops: float
    """Floating point operations per second of `fit`, in 1e12, counted as multiplications and additions."""
    peak_tflops: float
    """What a large bfloat16 matrix product reaches on this device."""
    share_of_peak: float
    """tflops / peak_tflops."""
    memory_mb: float | None
    """Most device memory in use during `fit`, in MB; None on the CPU."""

    def __str__(self) -> str:
        memory = f"{self.memory_mb:.0f} MB" if self.memory_mb is not None else "not measured on the CPU"
        return (
            f"{self.device}, {self.size} px, pairs per second:\n"
            f"  classic loop, eager float32, batch 1   {self.classic:8.2f}\n"
            f"  fit, batch {self.batch:<3}                         {self.fit:8.2f}   ({self.speedup:.1f} x)\n"
            f"{self.tflops:.3f} of {self.peak_tflops:.3f} TFLOP/s measured peak ({self.share_of_peak:.0%}), "
            f"device memory {memory}"
        )

    def to_json(self) -> dict:
        """Plain values."""
        return asdict(self)


def bench(config: TrainConfig, device: torch.device, steps: int = 40) -> Bench:
    """Time ``steps`` steps, rounded up to tens, of both loops on pictures made for it.

    At the config's last size, with all losses and with writing the log, without what comes before and after. Both do
    one step of either half with all losses, whatever a recipe alternates, draws or repeats, or there would be nothing
    to compare.
    """
    steps = math.ceil(steps / _WARM_UP) * _WARM_UP  # a line of the log at both ends
    size, _ = config.shape(config.image_size)
    config = replace(
        config,
        generator=replace(config.generator, reduce=1),  # images are reduced before
        stages=((size, 0.0),),
        aspect=1.0,
        alternate=False,
        identity_chance=None,
        discriminator_steps=1,
        identity_end=config.identity,  # or its work would end half way
        pairs=(_WARM_UP + steps) * config.batch,
        epochs=None,
        hours=None,
        distill=0.0,
        keep_outside=0.0,  # the pictures have no faces
        log_every=config.batch * _WARM_UP,
        save_every=1_000_000_000,
        validation=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        data, run = Path(folder, "data"), Path(folder, "run")
        for seed, part in enumerate(("trainA", "trainB")):
            _draw(data / part, size, seed)
        classic = classic_loop(config, data, device, steps)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        fit(config, data, run, run / "model", About("bench", "Bench", ("A", "B"), ("A to B", "B to A")), device)
        memory = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None
        rows = [row for row in read_log(run) if int(row["pairs"]) % config.log_every == 0]  # not those by the clock
        logged = sorted({(int(row["pairs"]), float(row["seconds"])) for row in rows})
    (start, began), (end, ended) = logged[0], logged[-1]
    speed = (end - start) / (ended - began)
    tflops, peak = speed * flops_per_pair(config) / 1e12, matmul_peak(device) / 1e12
    return Bench(
        device=torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        size=size,
        batch=config.batch,
        classic=classic,
        fit=speed,
        speedup=speed / classic,
        tflops=tflops,
        peak_tflops=peak,
        share_of_peak=tflops / peak,
        memory_mb=memory,
    )


def _draw(folder: Path, size: int, seed: int) -> None:
    """Soft coloured clouds, which take about as long to read as photographs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(_IMAGES):
        clouds = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
        save_png(folder / f"{number}.png", clouds)


def flops_per_pair(config: TrainConfig) -> float:
    """Floating point operations of one pair's step, forward and backward, without the gradient penalty."""
    config = replace(config, precision="float32", batch=1, accumulate=1)
    nets = Networks.build(config, torch.device("cpu"))
    plain = (nets.G_AB.paint, nets.G_BA.paint, nets.D_A, nets.D_B)
    step_G = GeneratorStep(config, nets, plain, Geometry().template)
    step_D = DiscriminatorStep(config, nets, plain)
    height, width = config.shape(config.image_size)
    real = torch.zeros(1, config.generator.channels, height, width)
    with FlopCounterMode(display=False) as counter:
        loss, _, fake_A, fake_B = step_G(real, real, config.cycle, config.identity, 0.0, 0.0, False, None)
        loss.backward()
        step_D(real, real, fake_A, fake_B, 0.0, False, False)[0].backward()
    return counter.get_total_flops()


def matmul_peak(device: torch.device) -> float:
    """Floating point operations per second of a bfloat16 matrix product, the best of ten."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(10):
        _wait(device)
        started = time.perf_counter()
        a @ a
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


# The classic loop, to compare with. ---------------------------------------------------------------------------------


def classic_loop(config: TrainConfig, data: Path, device: torch.device, steps: int) -> float:
    """Pairs per second of the training loop that most repositories have, with the config's networks and losses.

    Eager, float32, one pair at a time: files are read and scaled by a DataLoader's workers, generated images pass a
    pool on their way to the discriminators (Zhu et al. 2017).
    """
    G_AB, G_BA = (Generator(config.generator).to(device) for _ in range(2))
    D_A, D_B = (PatchDiscriminator(config.discriminator).to(device) for _ in range(2))
    optimizer_G = torch.optim.Adam(chain(G_AB.parameters(), G_BA.parameters()), lr=config.lr, betas=config.betas)
    optimizer_D = torch.optim.Adam(chain(D_A.parameters(), D_B.parameters()), lr=config.lr, betas=config.betas)
    pools: tuple[list, list] = ([], [])
    loader = DataLoader(
        _Files(data, config.image_size, config.generator.channels), batch_size=1, shuffle=True, num_workers=2
    )

    done, started = 0, 0.0
    for real_A, real_B in islice(chain.from_iterable(repeat(loader)), _WARM_UP + steps):
        if done == _WARM_UP:
            _wait(device)
            started = time.perf_counter()
        real_A, real_B = real_A.to(device), real_B.to(device)

        _require_grad(False, D_A, D_B)
        fake_B, fake_A = G_AB(real_A), G_BA(real_B)
        loss = losses.adversarial_G(D_B(fake_B)) + losses.adversarial_G(D_A(fake_A))
        loss = loss + config.cycle * (losses.cycle(G_BA(fake_B), real_A) + losses.cycle(G_AB(fake_A), real_B))
        if config.identity:
            identity = losses.identity(G_BA(real_A), real_A) + losses.identity(G_AB(real_B), real_B)
            loss = loss + config.identity * identity
        optimizer_G.zero_grad()
        loss.backward()
        optimizer_G.step()

        _require_grad(True, D_A, D_B)
        optimizer_D.zero_grad()
        for D, real, fake, pool in ((D_A, real_A, fake_A, pools[0]), (D_B, real_B, fake_B, pools[1])):
            losses.adversarial_D(D(real), D(_pooled(pool, fake.detach()))).backward()
        optimizer_D.step()
        done += 1
    _wait(device)
    return steps / (time.perf_counter() - started)


class _Files(Dataset):
    """Unpaired images, read anew each time."""

    def __init__(self, data: Path, size: int, channels: int):
        self.A, self.B = (sorted((data / f"train{letter}").iterdir()) for letter in "AB")
        self.size, self.channels = size, channels

    def __len__(self) -> int:
        return len(self.A)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        A, B = self._read(self.A[index]), self._read(random.choice(self.B))
        return A, B

    def _read(self, path: Path) -> torch.Tensor:
        enlarged = cv2.resize(load_image(path), (round(self.size * 286 / 256),) * 2, interpolation=cv2.INTER_CUBIC)
        top, left = (random.randint(0, enlarged.shape[0] - self.size) for _ in range(2))
        part = enlarged[top : top + self.size, left : left + self.size]
        x = to_tensor(part[:, ::-1] if random.random() < 0.5 else part)[0]
        return x if self.channels == 3 else x.mean(0, keepdim=True)


def _require_grad(needed: bool, *networks: nn.Module) -> None:
    for network in networks:
        network.requires_grad_(needed)


def _pooled(pool: list[torch.Tensor], fake: torch.Tensor) -> torch.Tensor:
    if len(pool) < 50:
        pool.append(fake)
        return fake
    if random.random() < 0.5:
        return fake
    slot = random.randrange(50)
    older, pool[slot] = pool[slot], fake
    return older
