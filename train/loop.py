"""`fit`: the whole training of a CycleGAN (Zhu et al. 2017), readable from top to bottom."""

import math
import os
import shutil
import signal
import sysconfig
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cyclegan.images import save_png
from cyclegan.model import (
    CARD_FILE,
    CONFIG_FILE,
    DIRECTIONS,
    PICTURE_FILES,
    CycleGAN,
    Domain,
    ModelConfig,
    read_config,
    write_config,
)
from cyclegan.networks import Generator, GeneratorConfig
from train import schedule
from train.buffer import ImageBuffer
from train.card import write_card
from train.config import About, TrainConfig, as_of_now
from train.data import Pairs
from train.distill import Teacher
from train.errors import TrainingError, as_text, warn
from train.health import check_alive, check_finite, naming_memory, warn_of_overfitting, warn_of_standstill
from train.log import LossLog, plot_log
from train.prepare import Geometry, read_geometry
from train.samples import Samples
from train.state import STATE_FILE, claimed, load_state, save_state, writing
from train.step import R1_EVERY, DiscriminatorStep, GeneratorStep, Networks

COUNTERS = ("pairs", "steps", "seconds", "variety", "height")  # of a training's state
# Settings that a resumed run may have anew: what makes no other training, and what makes another from here on. Lengths
# are of the second kind, as step sizes follow them.
_MAY_DIFFER = {"accumulate", "compile", "log_every", "save_every"}
_MAY_TURN = {
    "pairs",
    "epochs",
    "hours",
    "augment_from",
    "cycle",
    "identity",
    "identity_end",
    "keep_outside",
    "mask_area",
    "r1",
}
_LOG_SECONDS, _SAVE_SECONDS = 30, 600  # at the latest: a slow machine must not be silent, or lose hours
_AGREE_EVERY = 20  # steps between two looks at the first process's clock


def fit(
    config: TrainConfig,
    data: Path,
    run: Path,
    model_folder: Path,
    about: About,
    device: str | torch.device = "cpu",
    init: Path | None = None,
    teacher: Path | None = None,
) -> None:
    """Train on the images in ``data``; the same call again continues where ``run`` was left.

    So does one with another length, loss weights or ``augment_from``; the model then says what they were before.

    ``run`` receives the training state, ``samples/*.png``, ``losses.csv``, ``losses.png`` and TensorBoard logs;
    ``model_folder`` the snapshot that the app loads (averaged generators). ``init`` is a model folder whose generators
    to start from, ``teacher`` one whose translations are repeated, with the weight ``config.distill``. Under
    ``accelerate launch`` the batch is divided among the processes, and the first one writes.
    Raises TrainingError for data or settings that cannot work, for a ``run`` of other data or settings or that another
    process trains in, for a ``model_folder`` that holds the model of another run, for a loss that is no longer finite,
    for translations that have become all alike, for a full disk, and when memory runs out; KeyboardInterrupt when
    stopped by SIGINT or SIGTERM, after saving.
    """
    with naming_memory(config), ExitStack() as stack:
        _fit(config, data, run, model_folder, about, torch.device(device), init, teacher, stack)


def _fit(
    config: TrainConfig,
    data: Path,
    run: Path,
    model_folder: Path,
    about: About,
    device: torch.device,
    init: Path | None,
    teacher: Path | None,
    stack: ExitStack,
) -> None:
    # Set up: processes, data, networks, optimisers. ------------------------------------------------------------------
    if config.distill and teacher is None:
        raise TrainingError("distill needs a teacher: python -m train distill --help")
    if teacher and teacher.resolve() == model_folder.resolve():
        raise TrainingError(f"The student would take the place of its teacher, {teacher}. Choose another --model.")
    if config.compile and not can_compile():
        warn(
            "There is no C++ compiler, or no Python.h, so networks are not compiled, and training is slower. Install "
            "g++ and python3-dev."
        )
        config = replace(config, compile=False)
    accelerator = make_accelerator(config, device)
    is_main = accelerator.is_main_process
    if device.type != "cpu":  # of several on the CPU each is told "cpu:0", which torch.load does not know
        device = accelerator.device
    share = per_process(config, accelerator.num_processes)
    torch.manual_seed(config.seed)
    geometry = read_geometry(data)
    if config.keep_outside and ("square" in geometry.faces or config.aspect != 1):
        raise TrainingError("keep_outside needs square crops of aligned faces, which prepare makes, in both domains.")
    height, width = config.shape(config.image_size)
    pairs_data = Pairs.load(data, height, width, config.generator.channels, config.validation, config.seed, device)
    epoch = max(len(pairs_data.A), len(pairs_data.B))
    is_new = not (run / STATE_FILE).exists()
    check_free(model_folder, run, is_new, pairs_data.digest)

    nets = Networks.build(config, device)
    if init is not None and is_new:
        start_from(nets, init, config.generator)
    compiled = nets.compiled(device) if config.compile else (nets.G_AB.paint, nets.G_BA.paint, nets.D_A, nets.D_B)
    step_G = GeneratorStep(config, nets, compiled, geometry.template)
    step_D = DiscriminatorStep(config, nets, compiled)
    optimizer_G, optimizer_D = make_optimizer(config, step_G), make_optimizer(config, step_D)
    translate = step_G.translate
    taught_by = Teacher(teacher, device, config.compile) if teacher else None
    step_G, step_D, optimizer_G, optimizer_D = accelerator.prepare(step_G, step_D, optimizer_G, optimizer_D)

    buffer_A, buffer_B = ImageBuffer(config.buffer), ImageBuffer(config.buffer)
    buffer_rng = torch.Generator().manual_seed(config.seed + accelerator.process_index)
    torch.manual_seed(config.seed + accelerator.process_index)  # dropout and noise differ between processes
    shared: dict[str, Any] = {**nets.named(), "optimizer_G": optimizer_G, "optimizer_D": optimizer_D}
    if accelerator.scaler is not None:
        shared["scaler"] = accelerator.scaler
    samples = Samples(nets, pairs_data)

    # Resume. --------------------------------------------------------------------------------------------------------
    if is_main:
        with writing(run):
            (run / "samples").mkdir(parents=True, exist_ok=True)
            stack.enter_context(claimed(run))
    pairs, steps, seconds, variety, height = 0, 0, 0.0, {}, 0
    earlier: list[dict[str, Any]] = []
    sources = {"images": pairs_data.digest, "teacher": taught_by.digest if taught_by else None}
    if state := load_state(run, device):
        check_same(state, config, sources, accelerator.num_processes, run)
        for name, thing in shared.items():
            thing.load_state_dict(state[name])
        own = state["processes"][accelerator.process_index]
        buffer_A.load_state_dict(own["buffer_A"])
        buffer_B.load_state_dict(own["buffer_B"])
        set_random_states(buffer_rng, own["random"], device)
        pairs, steps, seconds, variety, height = (state[name] for name in COUNTERS)
        earlier = state.get("earlier", []) + turned(state, config, run)
        del state, own
        if schedule.progress(config, pairs, seconds, epoch) >= 1 and is_complete(model_folder, pairs):
            if is_main:
                warn(f"{run} is over, after {pairs} pairs. A higher --pairs, --epochs or --hours goes on.")
                with writing(model_folder):
                    reword(model_folder, about)
                finish(run, model_folder)  # it may have been killed just before
            return accelerator.end_training()  # what `evaluate --save` and people wrote into the model stays
    elif schedule.progress(config, pairs, seconds, epoch) >= 1:
        raise TrainingError("The training would be over before its first step. Lower --start-epoch.")

    losses, saved = Losses(accelerator), pairs

    def log_losses() -> None:
        means, since = losses.take()
        for name in sorted(since, key=since.__getitem__):  # stable: of one step, in its order
            check_finite({f"loss {name}": means[name]}, since[name], run, saved)
        if not means:
            return
        if is_main:
            with writing(run):
                for name, mean in means.items():
                    writer.add_scalar(f"loss/{name}", mean, pairs)
                log.write(pairs, seconds, size[0], means)
        bar.show(pairs, at, seconds, size[0], means)

    def save() -> None:
        nonlocal saved
        # A state that cannot be continued must not replace one that can.
        check_finite({f"norm of {name}": norm for name, norm in nets.norms().items()}, pairs, run, saved)
        own = {
            "buffer_A": buffer_A.state_dict(),
            "buffer_B": buffer_B.state_dict(),
            "random": random_states(buffer_rng, device),
        }
        processes = gather_object([own]) if accelerator.num_processes > 1 else [own]
        saved = pairs
        if not is_main:
            return
        state = {name: thing.state_dict() for name, thing in shared.items()}
        state |= dict(zip(COUNTERS, (pairs, steps, seconds, variety, height), strict=True)) | {"earlier": earlier}
        save_state(run, state | {"processes": processes, "config": config.to_json(), "sources": sources})
        trained = {"recipe": config.to_json(), "pairs": pairs, "hours": round(seconds / 3600, 3)}
        trained |= {"images": pairs_data.digest}
        trained |= {"command": about.command} if about.command else {}
        trained |= {"earlier": earlier} if earlier else {}
        trained |= {"started_from": as_text(init.name)} if init else {}
        trained |= {"teacher": as_text(teacher.name)} if teacher else {}
        served = min(config.shape(height)) * config.generator.reduce  # the page shows squares, as large as they were
        with writing(model_folder):
            write_snapshot(nets, config.generator, served, geometry, about, trained, model_folder)

    # The loop. ------------------------------------------------------------------------------------------------------
    if is_main:
        with writing(run):
            writer = SummaryWriter(run, purge_step=pairs + 1)  # hides what was logged after the state resumed from
            log = LossLog(run, resume_at=pairs)
    bar = Bar(disable=not is_main)
    clock = Clock(accelerator, seconds)
    logged_at = saved_at = seconds
    # Several processes would each stop at a step of its own, and wait for one another forever.
    stop = stack.enter_context(Stop()) if accelerator.num_processes == 1 else Stop()
    while (at := schedule.progress(config, pairs, seconds, epoch)) < 1:
        # A lengthened training is in an earlier stage than it was, but a model must not become smaller than it was.
        height = max(height, schedule.image_size(config, at))
        size = config.shape(height)
        for optimizer, ratio in ((optimizer_G, 1.0), (optimizer_D, config.lr_ratio)):
            for group in optimizer.param_groups:
                group["lr"] = ratio * schedule.learning_rate(config, at)
        turn = pairs // epoch % 2 if config.alternate else None  # 0: generators only; 1: discriminators only
        noise, mask_area = schedule.noise(config, at), schedule.mask_area(config, at)
        frozen = schedule.frozen_layers(config, at, len(nets.G_AB.decoder_layers()))
        augment = at >= config.augment_from
        cycle, identity = weights(config, at, pairs)
        start = pairs + accelerator.process_index * share

        # Generators: fool the discriminators, come back, leave their own domain alone.
        real_A, real_B = pairs_data.batch(start, share, size, config.flip, config.enlarge)
        fakes = []
        for part_A, part_B in parts(config, real_A, real_B):
            if turn == 1:
                with accelerator.autocast():
                    fakes.append(translate(part_A, part_B))
                continue
            with accelerator.accumulate(step_G), accelerator.autocast():
                taught = taught_by.translate(part_A, part_B) if taught_by else None
                loss, named, *fake = step_G(part_A, part_B, cycle, identity, mask_area, noise, augment, taught)
                accelerator.backward(loss)
                if frozen:
                    nets.freeze_decoders(frozen)
                optimizer_G.step()
                optimizer_G.zero_grad()
            fakes.append(fake)
            losses.add(named, pairs + config.batch)

        # Discriminators: tell real images from new and remembered fakes.
        for repeat in range(0 if turn == 0 else config.discriminator_steps):
            if repeat:
                at_pair = start + repeat * config.batch
                real_A, real_B = pairs_data.batch(at_pair, share, size, config.flip, config.enlarge)
                with accelerator.autocast():
                    fakes = [translate(*part) for part in parts(config, real_A, real_B)]
            penalise = config.r1 > 0 and steps % R1_EVERY == 0
            for (part_A, part_B), (fake_A, fake_B) in zip(parts(config, real_A, real_B), fakes, strict=True):
                shown_A, shown_B = buffer_A.exchange(fake_A, buffer_rng), buffer_B.exchange(fake_B, buffer_rng)
                with accelerator.accumulate(step_D), accelerator.autocast():
                    loss, named = step_D(part_A, part_B, shown_A, shown_B, noise, augment, penalise)
                    accelerator.backward(loss)
                    optimizer_D.step()
                    optimizer_D.zero_grad()
                losses.add(named, pairs + config.batch)

        before, pairs, steps = pairs, pairs + config.batch, steps + 1
        nets.average(config, pairs)
        to_log = crossed(before, pairs, config.log_every)
        seconds = clock.read(agree=to_log or steps % _AGREE_EVERY == 0)

        # Now and then: log, look, save.
        to_look = crossed(before, pairs, config.save_every) or seconds - saved_at >= _SAVE_SECONDS
        to_save = to_look or stop.asked
        if to_log or to_save or seconds - logged_at >= _LOG_SECONDS:
            log_losses()
            logged_at = seconds
        if to_look:
            grid, measured = samples.draw(size)
            variety = check_alive(measured, variety, pairs, run, saved)
            warn_of_standstill(measured, at, config.generator.mask)
            warn_of_overfitting(samples.verdicts(size), at, augment)
        if to_save:
            save()
            saved_at = seconds
        if to_look and is_main:
            with writing(run):
                save_png(run / "samples" / f"{pairs:08}.png", grid)
                writer.add_image("samples", grid, pairs, dataformats="HWC")
        if stop.asked:
            raise KeyboardInterrupt

    # Done. ----------------------------------------------------------------------------------------------------------
    log_losses()
    save()
    if is_main:
        with writing(run):
            writer.close()
        finish(run, model_folder)
    bar.close()
    accelerator.end_training()


def make_accelerator(config: TrainConfig, device: torch.device) -> Accelerator:
    """What carries the processes, mixed precision, gradient scaling and accumulation (Hugging Face Accelerate)."""
    precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[config.precision]
    if precision == "fp16" and device.type != "cuda":
        warn("float16 needs CUDA; training in bfloat16 instead.")
        precision = "bf16"
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # a few sizes, many steps
        torch.set_float32_matmul_precision("high")
    # Accelerate remembers the settings of the first training of a process and would refuse others.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=precision, gradient_accumulation_steps=config.accumulate, cpu=device.type == "cpu"
    )


def per_process(config: TrainConfig, processes: int) -> int:
    """Pairs per step and process; raises TrainingError when the batch cannot be divided so."""
    if config.batch % (processes * config.accumulate):
        raise TrainingError(
            f"A batch of {config.batch} cannot be divided among {processes} processes in {config.accumulate} parts "
            "each. Choose another --batch."
        )
    return config.batch // processes


def make_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of one half's networks."""
    weights = list(network.parameters())
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(weights, lr=config.lr, alpha=config.betas[1])
    return torch.optim.Adam(weights, lr=config.lr, betas=config.betas, fused=True)


def start_from(nets: Networks, folder: Path, shape: GeneratorConfig) -> None:
    """Copy the generators of a finished model, to go on from it; raises TrainingError when it has another shape.

    A shape with ``skip`` may start from the same without.
    """
    model = CycleGAN.from_pretrained(folder)
    found = model.config.generator
    if found.mask == shape.mask:  # else another shape, and it might not bear the detail
        found = replace(found, reduce=shape.reduce, detail=shape.detail)  # done around the weights, which do not know
    grows = not found.skip and replace(found, skip=True, skip_pool=shape.skip_pool) == shape and shape.stem < 4
    if found != shape and not grows:
        raise TrainingError(f"The generators of {folder} have another shape than this recipe's. Start without --init.")
    for networks, trained in (((nets.G_AB, nets.ema_G_AB), model.G_AB), ((nets.G_BA, nets.ema_G_BA), model.G_BA)):
        for network in networks:
            if grows:
                take_without_skip(network, trained)
            else:
                network.load_state_dict(trained.state_dict())


@torch.no_grad()
def take_without_skip(generator: Generator, trained: Generator) -> None:
    """Give a fresh generator with ``skip`` the weights of one without, so that both do the same at first.

    `join` passes on what was decoded, which is not negative, unchanged through its ReLU, and `head` does not yet look
    at what else it finds (function-preserving widening: Chen et al. 2016, Net2Net). Not for ``stem`` 4, where what was
    decoded may be negative.
    """
    weights, ours = trained.state_dict(), generator.state_dict()
    decoded = weights["head.0.weight"].shape[1]
    nn.init.dirac_(ours["join.0.weight"][:decoded])
    nn.init.kaiming_normal_(ours["join.0.weight"][decoded:, decoded:])  # He et al. 2015; N(0, 0.02) is found late
    ours["head.0.weight"].zero_()[:, :decoded] = weights.pop("head.0.weight")
    generator.load_state_dict(ours | weights)


def weights(config: TrainConfig, at: float, pairs: int) -> tuple[float, float]:
    """(cycle, identity): the weights of this step's two losses, one of them 0 where only one is drawn."""
    cycle, identity = config.cycle, schedule.identity_weight(config, at)
    if config.identity_chance is not None:
        drawn = torch.rand((), generator=torch.Generator().manual_seed(hash((config.seed, pairs)) % 2**63))
        return (0.0, identity) if drawn < config.identity_chance else (cycle, 0.0)
    return cycle, identity


def parts(config: TrainConfig, real_A: Tensor, real_B: Tensor) -> list[tuple[Tensor, Tensor]]:
    """A batch cut into what is computed at once."""
    return list(zip(real_A.chunk(config.accumulate), real_B.chunk(config.accumulate), strict=True))


class Losses:
    """The losses of the steps since they were last taken, kept on the device without waiting for it."""

    def __init__(self, accelerator: Accelerator):
        self._accelerator = accelerator
        self._kept: list[tuple[list[str], Tensor, int]] = []

    def add(self, named: dict[str, Tensor], pairs: int) -> None:
        """Keep the losses of a step, scalars by name, after which ``pairs`` have been seen."""
        self._kept.append((list(named), torch.stack([value.float() for value in named.values()]), pairs))

    def take(self) -> tuple[dict[str, float], dict[str, int]]:
        """By name: means over all steps and processes, and of those that are no numbers the pairs after which they
        were none first. All in the order of a step, so that of one step the first bad loss is the culprit."""
        if not self._kept:
            return {}, {}
        values = torch.cat([of_step for _, of_step, _ in self._kept])
        values = self._accelerator.reduce(values, "mean").tolist()  # no number on one process, none on all
        every: dict[str, list[float]] = {}
        since: dict[str, int] = {}
        at = iter(values)
        for names, _, pairs in self._kept:
            for name in names:
                every.setdefault(name, []).append(next(at))
                if not math.isfinite(every[name][-1]):
                    since.setdefault(name, pairs)
        self._kept.clear()
        return {name: math.fsum(of_loss) / len(of_loss) for name, of_loss in every.items()}, since


class Clock:
    """Seconds of training, earlier runs included. Processes agree on those of the first one, or their schedules by the
    clock would part."""

    def __init__(self, accelerator: Accelerator, seconds_before: float):
        self._accelerator, self._before, self._started = accelerator, seconds_before, time.monotonic()
        self._agreed = seconds_before

    def read(self, agree: bool) -> float:
        """The time now; with several processes that of the last call with ``agree``."""
        now = self._before + time.monotonic() - self._started
        if self._accelerator.num_processes == 1:
            return now
        if agree:
            first = now if self._accelerator.is_main_process else 0.0
            told = torch.tensor(first, device=self._accelerator.device, dtype=torch.float32)
            self._agreed = float(self._accelerator.reduce(told, "sum"))
        return self._agreed


class Stop:
    """While entered, SIGINT and SIGTERM only set ``asked``; the same signal again acts as ever."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {each: signal.signal(each, self._ask) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, *_: Any) -> None:
        self.asked = True
        self.__exit__()
        warn("Stopping after this step.")

    def __exit__(self, *_: Any) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        self._before = {}


class Bar:
    """Progress in the terminal: share done, speed, time left, losses."""

    def __init__(self, disable: bool) -> None:
        self._tqdm = tqdm(total=1000, bar_format="{l_bar}{bar:20}| {postfix}", desc="fit", disable=disable)
        self._last: tuple[int, float] | None = None

    def show(self, pairs: int, at: float, seconds: float, size: int, means: dict[str, float]) -> None:
        """Update after a log interval."""
        elapsed = seconds - self._last[1] if self._last else 0.0
        speed = (pairs - self._last[0]) / elapsed if self._last and elapsed else 0.0
        self._last = (pairs, seconds)
        left = f"{seconds / at * (1 - at) / 60:.0f} min left" if at else "?"
        brief = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        self._tqdm.n = int(at * 1000)
        self._tqdm.set_postfix_str(f"{pairs} pairs, {speed:.1f}/s, {size} px, {left}, {brief}")

    def close(self) -> None:
        """Leave the finished bar standing."""
        self._tqdm.n = self._tqdm.total
        self._tqdm.close()


def crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, after]."""
    return before // every < after // every


def random_states(buffer_rng: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """The states of all generators of random numbers that a step draws from."""
    states = {"buffer": buffer_rng.get_state(), "cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(buffer_rng: torch.Generator, states: dict[str, Tensor], device: torch.device) -> None:
    """The inverse of `random_states`."""
    buffer_rng.set_state(states["buffer"].cpu())
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def check_free(model_folder: Path, run: Path, is_new: bool, images: str) -> None:
    """Raise TrainingError when a run would take the place of a model that is not its own.

    ``images`` is the digest of those it trains on.
    """
    if run.resolve() in model_folder.resolve().parents or not (model_folder / CONFIG_FILE).exists():
        return
    if is_new:
        raise taken(model_folder, run, "--model")
    if read_config(model_folder).training.get("images") not in (None, images):
        raise TrainingError(f"{model_folder} holds a model of other images. Choose another --model.")


def taken(model_folder: Path, run: Path, option: str) -> TrainingError:
    """That a new run would take the place of a model; ``option`` names another."""
    return TrainingError(
        f"{model_folder} holds a model already, and {run} has no state to continue. Choose another {option}, or move "
        "that one away."
    )


def check_same(state: dict, config: TrainConfig, sources: dict, processes: int, run: Path) -> None:
    """Raise TrainingError when a run is resumed with what would make it another training."""
    if not state.keys() >= {"processes", "sources", *COUNTERS}:
        raise TrainingError(f"{run} is of an earlier version. Choose another --run and --init to begin with its model.")
    wanted, saved = config.to_json(), as_of_now(state["config"])
    changed = sorted(k for k in wanted if k not in _MAY_DIFFER | _MAY_TURN and wanted[k] != saved.get(k))
    if changed:
        raise TrainingError(
            f"{run} was started with other settings ({', '.join(changed)}). Repeat its command or choose another --run."
        )
    for what, digest in sources.items():
        if digest != state["sources"][what]:
            raise TrainingError(
                f"{run} was started with another teacher. Repeat its command or choose another --run."
                if what == "teacher"
                else f"{run} was started with other images. Give it the same --data or choose another --run."
            )
    if len(state["processes"]) != processes:
        raise TrainingError(
            f"{run} was started with {len(state['processes'])} processes, not {processes}. Start as many, or choose "
            "another --run."
        )


def turned(state: dict, config: TrainConfig, run: Path) -> list[dict[str, Any]]:
    """What a resumed run did otherwise, for its model to say: at most one {"until": pairs, "settings": those then}."""
    now, then = config.to_json(), as_of_now(state["config"])
    settings = {name: then[name] for name in sorted(_MAY_TURN) if then[name] != now[name]}
    if not settings or not state["pairs"]:
        return []
    changes = ", ".join(f"{name} {now[name]} instead of {value}" for name, value in settings.items())
    warn(f"{run} goes on with {changes}.")
    return [{"until": state["pairs"], "settings": settings}]


def can_compile() -> bool:
    """Whether there are a C++ compiler and Python's header, without which torch.compile fails."""
    compilers = filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++", "cl"))
    return any(map(shutil.which, compilers)) and Path(sysconfig.get_paths()["include"], "Python.h").exists()


def finish(run: Path, model_folder: Path) -> None:
    """Draw the losses of a training that is over, and bring its model's card up to date."""
    with writing(run):
        plot_log(run)
    with writing(model_folder):
        write_card(model_folder)


def reword(model_folder: Path, about: About) -> None:
    """Give a finished model the words of its command now; description and licence stay where that has none."""
    config = read_config(model_folder)
    domains = {k: replace(config.domains[k], label=label) for k, label in zip("AB", about.domains, strict=True)}
    directions = dict(zip(DIRECTIONS, about.directions, strict=True))
    config = replace(config, domains=domains, directions=directions, title=about.title)
    description, license = about.description or config.description, about.license or config.license
    write_config(model_folder, replace(config, description=description, license=license))


def is_complete(model_folder: Path, pairs: int) -> bool:
    """Whether a model folder holds the model of a training of so many pairs, to its last file."""
    written = all((model_folder / name).exists() for name in (CONFIG_FILE, CARD_FILE))
    return written and read_config(model_folder).training.get("pairs") == pairs


def write_snapshot(
    nets: Networks, shape: GeneratorConfig, size: int, geometry: Geometry, about: About, trained: dict, folder: Path
) -> None:
    """Write the averaged generators as a model folder that the app serves at ``size`` pixels, the stage's own.

    Pictures that an earlier model left there go, and a card that is there no longer tells of its figures.
    """
    G_AB, G_BA = in_colour(nets.ema_G_AB), in_colour(nets.ema_G_BA)
    model_config = ModelConfig(
        name=about.name,
        title=about.title,
        generator=replace(G_AB.config, reduce=shape.reduce),
        image_size=size,
        domains={k: Domain(label, faces) for k, label, faces in zip("AB", about.domains, geometry.faces, strict=True)},
        directions=dict(zip(DIRECTIONS, about.directions, strict=True)),
        template=geometry.template,
        description=about.description,
        license=about.license,
        training=trained,
    )
    with torch.device("meta"):  # drawing weights of its own would move the random numbers that training draws next
        model = CycleGAN(model_config)
    model.G_AB.load_state_dict(G_AB.state_dict(), assign=True)
    model.G_BA.load_state_dict(G_BA.state_dict(), assign=True)
    model.save_pretrained(folder)
    for name in PICTURE_FILES:
        (folder / name).unlink(missing_ok=True)
    if (folder / CARD_FILE).exists():
        write_card(folder)


def in_colour(generator: Generator) -> Generator:
    """A generator of grey images as one of RGB images, as the app serves: it looks at their luma and paints grey."""
    if generator.config.channels == 3:
        return generator
    weights = dict(generator.state_dict())
    config = generator.config
    for name, decoded in (("stem.1.weight", 0), ("join.0.weight", config.filters * config.stem)):
        if name in weights:
            kept, grey = weights[name].tensor_split([decoded], dim=1)
            weights[name] = torch.cat([kept, *(share * grey for share in (0.299, 0.587, 0.114))], dim=1)  # ITU-R BT.601
    for name in ("head.0.weight", "head.0.bias"):
        # Colours, mask and, with unshuffle, what is finer, each stem x stem times.
        grey, alpha, fine = weights[name].tensor_split([config.stem**2, (1 + config.mask) * config.stem**2])
        weights[name] = torch.cat([grey, grey, grey, alpha, fine, fine, fine])
    with torch.device("meta"):
        coloured = Generator(replace(config, channels=3))
    coloured.load_state_dict(weights, assign=True)
    return coloured
