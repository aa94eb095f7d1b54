"""`fit`: the whole training of a CycleGAN (Zhu et al. 2017), readable from top to bottom."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cyclegan.images import save_png, to_images, to_tensor
from cyclegan.model import CycleGAN, Domain, ModelConfig
from cyclegan.networks import Generator
from train import losses, schedule
from train.buffer import ImageBuffer
from train.config import About, TrainConfig
from train.data import Pairs, resize
from train.discriminators import PatchDiscriminator
from train.errors import TrainingError
from train.prepare import Geometry
from train.state import load_state, save_state, writing

_MAY_CHANGE = {"pairs", "hours", "log_every", "save_every"}  # settings a resumed run may have anew
_SAMPLES = 8  # validation images per domain in a sample grid


def fit(
    config: TrainConfig, data: Path, run: Path, model_folder: Path, about: About, device: str | torch.device = "cpu"
) -> None:
    """Train on the crops in ``data``; the same call again continues where ``run`` was left.

    ``run`` receives the training state, ``samples/*.png`` and TensorBoard logs; ``model_folder`` the snapshot that the
    app loads (averaged generators). Raises TrainingError for data or settings that cannot work, for a loss that is no
    longer finite, and for a full disk.
    """
    # Set up: data, networks, optimisers. ----------------------------------------------------------------------------
    device = torch.device(device)
    torch.manual_seed(config.seed)
    geometry = read_geometry(data)
    pairs_data = Pairs.load(data, config.image_size, config.validation, config.seed, device)
    nets = Networks.build(config, device)
    optimizer_G, optimizer_D = adam(config, nets.G_AB, nets.G_BA), adam(config, nets.D_A, nets.D_B)
    buffer_A, buffer_B = ImageBuffer(config.buffer), ImageBuffer(config.buffer)
    buffer_rng = torch.Generator().manual_seed(config.seed)
    stateful: dict[str, Any] = {
        **nets.named(),
        "optimizer_G": optimizer_G,
        "optimizer_D": optimizer_D,
        "buffer_A": buffer_A,
        "buffer_B": buffer_B,
    }

    # Resume. --------------------------------------------------------------------------------------------------------
    pairs, seconds = 0, 0.0
    if state := load_state(run, device):
        check_same(state["config"], config, run)
        for name, thing in stateful.items():
            thing.load_state_dict(state[name])
        buffer_rng.set_state(state["buffer_rng"].cpu())
        pairs, seconds = state["pairs"], state["seconds"]

    def save() -> None:
        # A state that cannot be continued must not replace one that can.
        check_finite({f"loss {name}": float(total) for name, total in totals.items()}, pairs, run)
        check_finite({f"norm of {name}": norm for name, norm in nets.norms().items()}, pairs, run)
        state = {name: thing.state_dict() for name, thing in stateful.items()}
        state |= {"buffer_rng": buffer_rng.get_state(), "pairs": pairs, "seconds": seconds, "config": config.to_json()}
        save_state(run, state)
        trained = {"recipe": config.to_json(), "pairs": pairs, "hours": round(seconds / 3600, 3)}
        size = schedule.image_size(config, schedule.progress(config, pairs, seconds))
        with writing(model_folder):
            write_snapshot(nets, size, geometry, about, trained, model_folder)

    # The loop. ------------------------------------------------------------------------------------------------------
    step = Step(config, nets, device)
    with writing(run):
        (run / "samples").mkdir(parents=True, exist_ok=True)
        writer = SummaryWriter(run, purge_step=pairs + 1)  # hides what was logged after the state resumed from
    bar = Bar()
    totals: dict[str, Tensor] = {}
    steps = 0  # summed up in totals
    started, seconds_before = time.monotonic(), seconds
    while (at := schedule.progress(config, pairs, seconds)) < 1:
        size = schedule.image_size(config, at)
        for optimizer, ratio in ((optimizer_G, 1.0), (optimizer_D, config.lr_ratio)):
            for group in optimizer.param_groups:
                group["lr"] = ratio * schedule.learning_rate(config, at)
        real_A, real_B = pairs_data.batch(pairs, config.batch, size, config.flip)

        # Generators: fool the discriminators, come back, leave their own domain alone.
        loss_G, parts_G, fake_A, fake_B = step.generators(real_A, real_B, schedule.identity_weight(config, at))
        optimizer_G.zero_grad(set_to_none=True)
        loss_G.backward()
        optimizer_G.step()

        # Discriminators: tell real images from new and remembered fakes.
        shown_A, shown_B = buffer_A.exchange(fake_A, buffer_rng), buffer_B.exchange(fake_B, buffer_rng)
        loss_D, parts_D = step.discriminators(real_A, real_B, shown_A, shown_B)
        optimizer_D.zero_grad(set_to_none=True)
        loss_D.backward()
        optimizer_D.step()

        before, pairs = pairs, pairs + config.batch
        nets.average(config, pairs)
        seconds = seconds_before + time.monotonic() - started
        for name, value in (parts_G | parts_D).items():
            totals[name] = totals.get(name, 0) + value
        steps += 1

        # Now and then: log, look, save.
        if crossed(before, pairs, config.log_every):
            means = {name: float(total) / steps for name, total in totals.items()}
            check_finite({f"loss {name}": mean for name, mean in means.items()}, pairs, run)
            for name, mean in means.items():
                writer.add_scalar(f"loss/{name}", mean, pairs)
            totals.clear()
            steps = 0
            bar.show(pairs, at, seconds, size, means)
        if crossed(before, pairs, config.save_every):
            save()
            grid = sample_grid(nets, pairs_data, size)
            with writing(run):
                save_png(run / "samples" / f"{pairs:08}.png", grid)
                writer.add_image("samples", grid, pairs, dataformats="HWC")

    # Done. ----------------------------------------------------------------------------------------------------------
    save()
    writer.close()
    bar.close()


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
        layout = torch.channels_last if config.precision == "bfloat16" else torch.contiguous_format
        G_AB, G_BA = (Generator(config.generator).to(device).to(memory_format=layout) for _ in range(2))
        D_A, D_B = (PatchDiscriminator(config.discriminator).to(device).to(memory_format=layout) for _ in range(2))
        ema_G_AB, ema_G_BA = (copy.deepcopy(generator).requires_grad_(False) for generator in (G_AB, G_BA))
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


class Step:
    """The two halves of a training step, on compiled networks in mixed precision."""

    def __init__(self, config: TrainConfig, nets: Networks, device: torch.device):
        self.config, self.nets, self.device = config, nets, device
        modules: Sequence[Callable[[Tensor], Tensor]] = (nets.G_AB, nets.G_BA, nets.D_A, nets.D_B)
        if config.compile:
            # Two networks of a kind, with and without gradients, at each size of `stages`: more than the default of 8.
            torch._dynamo.config.recompile_limit = 64
            modules = [torch.compile(module, dynamic=False) for module in modules]
        self.G_AB, self.G_BA, self.D_A, self.D_B = modules

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def generators(
        self, real_A: Tensor, real_B: Tensor, identity_weight: float
    ) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
        """(total loss, its parts detached, fake_A, fake_B) for real images [B, 3, H, W] in [-1, 1]."""
        self.nets.D_A.requires_grad_(False)
        self.nets.D_B.requires_grad_(False)
        with self._autocast():
            if identity_weight:  # one pass over both domains is cheaper than two
                fake_B, idt_B = self.G_AB(torch.cat([real_A, real_B])).chunk(2)
                fake_A, idt_A = self.G_BA(torch.cat([real_B, real_A])).chunk(2)
            else:
                fake_B, idt_B = self.G_AB(real_A), real_B
                fake_A, idt_A = self.G_BA(real_B), real_A
            rec_A, rec_B = self.G_BA(fake_B), self.G_AB(fake_A)
            score_A, score_B = self.D_A(fake_A), self.D_B(fake_B)
        parts = {
            "adversarial_AB": losses.adversarial_G(score_B),
            "adversarial_BA": losses.adversarial_G(score_A),
            "cycle_A": losses.cycle(rec_A, real_A),
            "cycle_B": losses.cycle(rec_B, real_B),
            "identity_A": losses.identity(idt_A, real_A),
            "identity_B": losses.identity(idt_B, real_B),
        }
        total = (
            parts["adversarial_AB"]
            + parts["adversarial_BA"]
            + self.config.cycle * (parts["cycle_A"] + parts["cycle_B"])
            + identity_weight * (parts["identity_A"] + parts["identity_B"])
        )
        return total, {name: part.detach() for name, part in parts.items()}, fake_A.detach(), fake_B.detach()

    def discriminators(
        self, real_A: Tensor, real_B: Tensor, fake_A: Tensor, fake_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(total loss, its parts detached) for real and generated images [B, 3, H, W] in [-1, 1]."""
        self.nets.D_A.requires_grad_(True)
        self.nets.D_B.requires_grad_(True)
        with self._autocast():
            D_A = losses.adversarial_D(*self.D_A(torch.cat([real_A, fake_A])).chunk(2))
            D_B = losses.adversarial_D(*self.D_B(torch.cat([real_B, fake_B])).chunk(2))
        return D_A + D_B, {"D_A": D_A.detach(), "D_B": D_B.detach()}


class Bar:
    """Progress in the terminal: share done, speed, time left, losses."""

    def __init__(self) -> None:
        self._tqdm = tqdm(total=1000, bar_format="{l_bar}{bar:20}| {postfix}", desc="fit")
        self._last: tuple[int, float] | None = None

    def show(self, pairs: int, at: float, seconds: float, size: int, means: dict[str, float]) -> None:
        """Update after a log interval."""
        speed = (pairs - self._last[0]) / (seconds - self._last[1]) if self._last else 0.0
        self._last = (pairs, seconds)
        left = f"{seconds / at * (1 - at) / 60:.0f} min left" if at else "?"
        brief = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        self._tqdm.n = int(at * 1000)
        self._tqdm.set_postfix_str(f"{pairs} pairs, {speed:.1f}/s, {size} px, {left}, {brief}")

    def close(self) -> None:
        """Leave the finished bar standing."""
        self._tqdm.n = self._tqdm.total
        self._tqdm.close()


def adam(config: TrainConfig, *networks: nn.Module) -> torch.optim.Adam:
    """One optimiser for these networks."""
    weights = [weight for network in networks for weight in network.parameters()]
    return torch.optim.Adam(weights, lr=config.lr, betas=config.betas, fused=True)


def crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, after]."""
    return before // every < after // every


def check_finite(values: Mapping[str, float], pairs: int, run: Path) -> None:
    """Raise TrainingError naming the first value that is not a number, and what survives."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"The {name} is no longer a number after {pairs} pairs. {run} keeps the last good state. "
                "Start another --run with a lower --lr or --precision float32."
            )


def check_same(saved: dict, config: TrainConfig, run: Path) -> None:
    """Raise TrainingError when a run is resumed with settings that would make it another training."""
    wanted = config.to_json()
    changed = sorted(k for k in wanted if k not in _MAY_CHANGE and wanted[k] != saved.get(k))
    if changed:
        raise TrainingError(
            f"{run} was started with other settings ({', '.join(changed)}). Repeat its command or choose another --run."
        )


def read_geometry(data: Path) -> Geometry:
    """The geometry the crops were cut with; the whole picture, scaled, for folders that `prepare` did not make."""
    path = data / "prepare.json"
    return Geometry.read(path) if path.exists() else Geometry(faces=("square", "square"))


def write_snapshot(
    nets: Networks, size: int, geometry: Geometry, about: About, trained: dict, folder: Path
) -> None:
    """Write the averaged generators as a model folder that the app serves at ``size`` pixels, the stage's own."""
    model_config = ModelConfig(
        name=about.name,
        title=about.title,
        generator=nets.G_AB.config,
        image_size=size,
        domains={k: Domain(label, faces) for k, label, faces in zip("AB", about.domains, geometry.faces, strict=True)},
        directions=dict(zip(("A2B", "B2A"), about.directions, strict=True)),
        template=geometry.template,
        description=about.description,
        license=about.license,
        training=trained,
    )
    model = CycleGAN(model_config)
    model.G_AB.load_state_dict(nets.ema_G_AB.state_dict())
    model.G_BA.load_state_dict(nets.ema_G_BA.state_dict())
    model.save_pretrained(folder)


@torch.no_grad()
def sample_grid(nets: Networks, data: Pairs, size: int) -> np.ndarray:
    """Validation images as uint8 [6 * size, N * size, 3]: rows real_A, fake_B, rec_A, real_B, fake_A, rec_B.

    A data set too small for any validation images shows training images.
    """
    shown_A = data.validation_A if len(data.validation_A) else data.A
    shown_B = data.validation_B if len(data.validation_B) else data.B
    count = min(_SAMPLES, len(shown_A), len(shown_B))
    rows: list[Tensor] = []
    for images, there, back in (
        (shown_A, nets.ema_G_AB, nets.ema_G_BA),
        (shown_B, nets.ema_G_BA, nets.ema_G_AB),
    ):
        real = resize(to_tensor(images[:count]), size)
        fake = there(real)
        rows += [real, fake, back(fake)]
    return tile([to_images(row) for row in rows])


def tile(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of uint8 [N, S, S, 3] -> one picture uint8 [len(rows) * S, N * S, 3]."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
