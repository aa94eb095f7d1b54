"""`train.loop`: trainings of a second at 16 pixels, watched from outside."""

import ast
import errno
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_fixtures import ABOUT, ROOT, one_thread, tiny_config, write_domains, write_noise  # noqa: F401

from cyclegan.images import load_image, to_tensor
from cyclegan.model import CycleGAN
from cyclegan.networks import GeneratorConfig
from train import loop, losses
from train.config import DiscriminatorConfig
from train.crops import write_pack
from train.data import Pairs, load_part
from train.errors import TrainingError
from train.loop import fit
from train.prepare import TEMPLATES, Geometry
from train.step import GeneratorStep, Networks

NETWORKS = {"G_AB", "G_BA", "D_A", "D_B", "ema_G_AB", "ema_G_BA"}
LOSSES = {"adversarial_AB", "adversarial_BA", "cycle_A", "cycle_B", "identity_A", "identity_B", "D_A", "D_B"}


pytestmark = pytest.mark.usefixtures("one_thread")  # first, so that what is compared was computed alike


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_domains(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    """The run directory of a whole uninterrupted training, its model in RUN/model."""
    run = tmp_path_factory.mktemp("finished") / "run"
    fit(tiny_config(), data, run, run / "model", ABOUT)
    return run


def state_of(run: Path) -> dict:
    return torch.load(run / "state.pt", weights_only=True)


def assert_same(one, other, where="state"):
    """Equal to the last bit, whatever is nested in it."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}.{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def assert_same_training(run: Path, other: Path):
    one, two = state_of(run), state_of(other)
    assert one.pop("seconds") > 0 and two.pop("seconds") > 0
    assert_same(one, two)


def interrupt_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Press Ctrl-C in the middle of the step that follows."""
    forward, taken = GeneratorStep.forward, itertools.count()

    def interrupted(self, *args):
        if next(taken) == steps:
            raise KeyboardInterrupt
        return forward(self, *args)

    patch.setattr(GeneratorStep, "forward", interrupted)


def scalars(run: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: loss -> {pairs: value}."""
    events = EventAccumulator(str(run)).Reload()
    return {
        tag.removeprefix("loss/"): {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


def sample_sizes(run: Path) -> dict[str, tuple[int, int]]:
    return {path.name: Image.open(path).size for path in sorted((run / "samples").iterdir())}


# What a training leaves behind. -------------------------------------------------------------------------------------


def test_the_state_holds_everything_that_moves(finished):
    state = state_of(finished)
    assert set(state) == NETWORKS | {"optimizer_G", "optimizer_D", "processes", "config"} | {
        "pairs",
        "steps",
        "seconds",
        "liveliness",
    }
    assert (state["pairs"], state["steps"]) == (24, 12) and state["liveliness"] > 0
    (own,) = state["processes"]
    assert set(own) == {"buffer_A", "buffer_B", "random"} and set(own["random"]) == {"buffer", "cpu"}
    assert state["config"] == tiny_config().to_json()
    assert len(own["buffer_A"]["images"]) == len(own["buffer_B"]["images"]) == 4
    assert not torch.equal(own["random"]["buffer"], torch.Generator().manual_seed(0).get_state())
    assert {int(each["step"]) for each in state["optimizer_G"]["state"].values()} == {12}
    for name in ("G_AB", "G_BA"):  # the average lags behind
        current, average = state[name]["head.0.weight"], state[f"ema_{name}"]["head.0.weight"]
        assert not torch.equal(current, average)


def test_the_snapshot_is_the_averaged_generators_in_half_precision(finished):
    model, state = CycleGAN.from_pretrained(finished / "model"), state_of(finished)
    for name in ("G_AB", "G_BA"):
        wanted = {key: value.half().float() for key, value in state[f"ema_{name}"].items()}
        assert_same(dict(getattr(model, name).state_dict()), wanted, name)
    assert {path.name for path in (finished / "model").iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_the_snapshot_says_what_it_is(finished):
    config = CycleGAN.from_pretrained(finished / "model").config
    assert (config.name, config.title, config.description, config.license) == ("tiny", "Tiny", "For tests.", "None.")
    assert {letter: (each.label, each.faces) for letter, each in config.domains.items()} == {
        "A": ("dark", "square"),
        "B": ("bright", "square"),
    }
    assert config.directions == {"A2B": "Light up", "B2A": "Dim"}
    assert (config.image_size, config.generator) == (16, tiny_config().generator)
    assert config.training["pairs"] == 24 and config.training["recipe"] == tiny_config().to_json()


def test_the_snapshot_keeps_the_geometry_of_the_crops(data, tmp_path):
    geometry = Geometry(16, TEMPLATES["portrait"], ("mtcnn", "square"))
    for letter in "AB":
        (tmp_path / f"train{letter}").symlink_to(data / f"train{letter}")
    (tmp_path / "prepare.json").write_text(json.dumps(geometry.to_json()))
    fit(tiny_config(pairs=2), tmp_path, tmp_path / "run", tmp_path / "model", ABOUT)
    config = CycleGAN.from_pretrained(tmp_path / "model").config
    assert config.template == TEMPLATES["portrait"]
    assert [config.domains[letter].faces for letter in "AB"] == ["mtcnn", "square"]


def test_sample_grids(finished):
    assert sample_sizes(finished) == {f"{pairs:08}.png": (3 * 16, 6 * 16) for pairs in (8, 16, 24)}
    last = load_image(finished / "samples" / "00000024.png")
    real_A, fake_B, rec_A, real_B, fake_A, rec_B = (last[16 * row : 16 * row + 16] for row in range(6))
    assert real_A.max() < 90 and real_B.min() >= 166
    state = state_of(finished)
    nets = Networks.build(tiny_config(), torch.device("cpu"))
    nets.ema_G_AB.load_state_dict(state["ema_G_AB"])
    nets.ema_G_BA.load_state_dict(state["ema_G_BA"])
    for real, fake, rec, there, back in (
        (real_A, fake_B, rec_A, nets.ema_G_AB, nets.ema_G_BA),
        (real_B, fake_A, rec_B, nets.ema_G_BA, nets.ema_G_AB),
    ):
        for x in range(0, 48, 16):
            translated = there(to_tensor(np.ascontiguousarray(real[:, x : x + 16])))
            for shown, expected in ((fake, translated), (rec, back(translated))):
                tile = to_tensor(np.ascontiguousarray(shown[:, x : x + 16]))
                assert (tile - expected).abs().max() < 0.02  # two grey levels: rounding, and the rounding of the input


def test_validation_images_of_unequal_number(data, tmp_path):
    """The smaller domain decides how many columns the grid has."""
    (tmp_path / "trainA").symlink_to(data / "trainA")
    write_noise(tmp_path / "trainB", 12)
    fit(tiny_config(pairs=8), tmp_path, tmp_path / "run", tmp_path / "model", ABOUT)
    assert sample_sizes(tmp_path / "run") == {"00000008.png": (16, 96)}


def test_a_few_images_are_enough_to_train(tmp_path):
    fit(tiny_config(pairs=8), write_domains(tmp_path, 3), tmp_path / "run", tmp_path / "model", ABOUT)
    assert sample_sizes(tmp_path / "run") == {"00000008.png": (48, 96)}


def test_tensorboard_has_every_loss_and_the_grids(finished):
    logged = scalars(finished)
    assert set(logged) == LOSSES
    for values in logged.values():
        assert list(values) == [4, 8, 12, 16, 20, 24]
        assert np.isfinite(list(values.values())).all() and min(values.values()) > 0
    assert [e.step for e in EventAccumulator(str(finished)).Reload().Images("samples")] == [8, 16, 24]


@pytest.mark.parametrize(("log_every", "steps"), [(4, [4, 8, 12]), (3, [4, 6, 10, 12]), (1, [2, 4, 6, 8, 10, 12])])
def test_logged_losses_are_means_over_the_steps_since_the_last_line(data, tmp_path, monkeypatch, log_every, steps):
    values = itertools.count(0)  # cycle_A and cycle_B in turn: 0, 1, 2, 3, ...
    monkeypatch.setattr(losses, "cycle", lambda rec, *_: rec.float().mean() * 0 + next(values))
    config = tiny_config(pairs=12, log_every=log_every, save_every=100)
    fit(config, data, tmp_path / "run", tmp_path / "model", ABOUT)
    expected, done = {}, 0
    for pairs in steps:
        expected[pairs] = np.mean([2 * step for step in range(done, pairs // 2)])
        done = pairs // 2
    assert scalars(tmp_path / "run")["cycle_A"] == expected


# Going on. ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "saved"), [(4, 8), (7, 8), (11, 16)])
def test_interrupted_and_continued_is_the_same_training(data, finished, tmp_path, monkeypatch, steps, saved):
    """Whether stopped right after a save or later, with steps lost that are then done again."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, steps)
        fit(tiny_config(), data, run, run / "model", ABOUT)
    assert state_of(run)["pairs"] == saved
    torch.manual_seed(12345)  # nothing may hang on what the process drew before
    fit(tiny_config(), data, run, run / "model", ABOUT)
    assert_same_training(run, finished)
    weights = Path("model", "model.safetensors")
    assert (run / weights).read_bytes() == (finished / weights).read_bytes()
    assert sample_sizes(run) == sample_sizes(finished)


def test_tensorboard_shows_steps_that_were_done_again_once(data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 7)
        patch.setattr(losses, "cycle", lambda rec, real, _: (rec.float() - real).mean() * 0)
        fit(tiny_config(), data, run, run / "model", ABOUT)
    (events,) = run.glob("events*")
    events.rename(run / "events.out.tfevents.1000000000.first")  # files are read by time, which is whole seconds
    fit(tiny_config(), data, run, run / "model", ABOUT)
    cycle = scalars(run)["cycle_A"]
    assert list(cycle) == [4, 8, 12, 16, 20, 24]
    # 12 had been logged before the stop, too, but the state went back to 8.
    assert [pairs for pairs, value in cycle.items() if value == 0] == [4, 8]


def test_without_the_state_it_would_be_another_training(data, finished, tmp_path):
    """That the comparison above can fail."""
    fit(tiny_config(seed=1), data, tmp_path / "run", tmp_path / "model", ABOUT)
    with pytest.raises(AssertionError):
        assert_same_training(tmp_path / "run", finished)


def test_killed_while_it_writes_its_state_and_started_again(data, finished, tmp_path):
    run = tmp_path / "run"
    dying = """
        import itertools, os, signal, sys, torch
        from pathlib import Path
        from train_fixtures import ABOUT, tiny_config
        from train.loop import fit

        save, calls = torch.save, itertools.count(1)

        def killed_half_way(state, path):
            save(state, path)
            if next(calls) == 2:
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        torch.save = killed_half_way
        torch.set_num_threads(1)
        data, run = map(Path, sys.argv[1:])
        fit(tiny_config(), data, run, run / "model", ABOUT)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(dying), data, run],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert state_of(run)["pairs"] == 8
    CycleGAN.from_pretrained(run / "model")
    fit(tiny_config(), data, run, run / "model", ABOUT)
    assert_same_training(run, finished)
    assert {path.name for path in run.iterdir() if not path.name.startswith("events")} == {
        "state.pt",
        "model",
        "samples",
        "losses.csv",
        "losses.png",
    }


def test_a_finished_training_stays_as_it_is(data, finished):
    before = state_of(finished)
    fit(tiny_config(), data, finished, finished / "model", ABOUT)
    assert_same(state_of(finished), before)


def test_a_finished_training_can_be_lengthened(data, tmp_path):
    run = tmp_path / "run"
    fit(tiny_config(pairs=8), data, run, run / "model", ABOUT)
    fit(tiny_config(pairs=12, log_every=2, save_every=4), data, run, run / "model", ABOUT)
    assert state_of(run)["pairs"] == 12
    fit(tiny_config(hours=1e-6), data, run, run / "model", ABOUT)  # a clock that has long run out
    assert state_of(run)["pairs"] == 12


def test_training_by_the_clock(data, tmp_path, monkeypatch):
    now = itertools.count(0, 60)
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(now)))
    run = tmp_path / "run"
    fit(tiny_config(hours=0.1, pairs=2), data, run, run / "model", ABOUT)  # six minutes, a step a minute
    assert (state_of(run)["pairs"], state_of(run)["seconds"]) == (12, 360)
    fit(tiny_config(hours=0.15, pairs=2), data, run, run / "model", ABOUT)
    assert (state_of(run)["pairs"], state_of(run)["seconds"]) == (18, 540)
    assert CycleGAN.from_pretrained(run / "model").config.training["hours"] == 0.15


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"lr": 1e-3}, "lr"), ({"seed": 5, "batch": 4}, "batch, seed"), ({"stages": ((32, 0.0),)}, "stages")],
)
def test_a_run_is_not_continued_with_other_settings(data, finished, changes, named):
    before = (finished / "state.pt").read_bytes()
    with pytest.raises(TrainingError) as caught:
        fit(tiny_config(**changes), data, finished, finished / "model", ABOUT)
    assert str(caught.value) == (
        f"{finished} was started with other settings ({named}). Repeat its command or choose another --run."
    )
    assert (finished / "state.pt").read_bytes() == before


# Trouble. -----------------------------------------------------------------------------------------------------------


def nan_from_call(patch: pytest.MonkeyPatch, name: str, first: int) -> None:
    loss, calls = getattr(losses, name), itertools.count()
    patch.setattr(losses, name, lambda *args: loss(*args) * (float("nan") if next(calls) >= first else 1.0))


@pytest.mark.parametrize(
    ("function", "named"),
    [("adversarial_G", "adversarial_AB"), ("cycle", "cycle_A"), ("identity", "identity_A"), ("adversarial_D", "D_A")],
)
def test_a_loss_that_is_not_a_number_is_named(data, tmp_path, monkeypatch, function, named):
    run = tmp_path / "run"
    nan_from_call(monkeypatch, function, first=10)  # two calls per step: in the sixth
    with pytest.raises(TrainingError) as caught:
        fit(tiny_config(batch=2), data, run, run / "model", ABOUT)
    # Generators whose losses are not numbers draw pictures that are not: then every loss of the next step goes.
    assert str(caught.value).startswith(f"The loss {named} is no longer a number after 12 pairs. ")
    assert str(caught.value).endswith(
        f"{run} keeps the last good state. Start another --run with a lower --lr or --precision float32."
    )
    assert state_of(run)["pairs"] == 8


def test_a_step_size_far_too_large_is_noticed(data, tmp_path):
    with pytest.raises(TrainingError, match=r"^The (loss|norm of) \w+ is no longer a number after \d+ pairs\."):
        fit(tiny_config(lr=1e36), data, tmp_path / "run", tmp_path / "model", ABOUT)
    assert not (tmp_path / "run" / "state.pt").exists()


@pytest.mark.parametrize("last_step", [False, True])
def test_weights_that_are_not_numbers_never_replace_a_state(data, tmp_path, monkeypatch, last_step):
    """A save between two log lines, and the one at the end, look for themselves."""
    run = tmp_path / "run"
    nan_from_call(monkeypatch, "cycle", first=22 if last_step else 14)
    with pytest.raises(TrainingError, match="The loss cycle_A is no longer a number"):
        fit(tiny_config(log_every=1000), data, run, run / "model", ABOUT)
    state = state_of(run)
    assert state["pairs"] == (16 if last_step else 8)
    assert all(torch.isfinite(value).all() for name in NETWORKS for value in state[name].values())


def test_an_overflow_in_the_last_step_before_a_save_is_noticed(data, tmp_path, monkeypatch):
    """The losses of that step are still numbers; the weights are not."""
    run = tmp_path / "run"
    taken, step = itertools.count(1), torch.optim.Adam.step

    def overflow(self, *args, **kwargs):
        step(self, *args, **kwargs)
        if next(taken) == 15:  # generators and discriminators in turn: the generators of step 8
            self.param_groups[0]["params"][0].data[0] = float("inf")

    monkeypatch.setattr(torch.optim.Adam, "step", overflow)
    with pytest.raises(TrainingError, match="The norm of G_AB is no longer a number after 16 pairs"):
        fit(tiny_config(), data, run, run / "model", ABOUT)
    assert state_of(run)["pairs"] == 8


def test_a_full_disk_is_said_and_the_training_can_go_on_later(data, finished, tmp_path, monkeypatch):
    run = tmp_path / "run"
    save, calls = torch.save, itertools.count(1)

    def full(state, path):
        if next(calls) == 2:
            path.write_bytes(b"as much as fits")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(TrainingError) as caught:
            fit(tiny_config(), data, run, run / "model", ABOUT)
    assert str(caught.value) == (
        f"The training state cannot be written to {run}: [Errno 28] No space left on device. "
        "The previous state is intact."
    )
    assert state_of(run)["pairs"] == 8
    CycleGAN.from_pretrained(run / "model")
    fit(tiny_config(), data, run, run / "model", ABOUT)
    assert_same_training(run, finished)


@pytest.mark.parametrize("what", ["model", "samples"])
def test_a_full_disk_for_the_model_or_the_samples(data, tmp_path, monkeypatch, what):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"model": (CycleGAN, "save_pretrained"), "samples": (loop, "save_png")}[what], full)
    run = tmp_path / "run"
    with pytest.raises(TrainingError) as caught:
        fit(tiny_config(), data, run, tmp_path / "model", ABOUT)
    folder = {"model": tmp_path / "model", "samples": run}[what]
    assert str(caught.value) == (
        f"{folder} cannot be written: [Errno 28] No space left on device. The last training state is intact."
    )
    assert state_of(run)["pairs"] == 8


def test_missing_data_leaves_no_run_behind(tmp_path):
    with pytest.raises(TrainingError, match="There is no folder"):
        fit(tiny_config(), tmp_path / "nowhere", tmp_path / "run", tmp_path / "model", ABOUT)
    assert list(tmp_path.iterdir()) == []


# What the settings do. ----------------------------------------------------------------------------------------------


def test_stages_change_the_size_on_the_way(tmp_path, monkeypatch):
    data = write_domains(tmp_path, side=32)
    sizes, forward = [], GeneratorStep.forward
    monkeypatch.setattr(GeneratorStep, "forward", lambda s, *args: sizes.append(args[0].shape[2:]) or forward(s, *args))
    run = tmp_path / "run"
    fit(tiny_config(stages=((16, 0.0), (32, 0.5))), data, run, run / "model", ABOUT)
    assert sizes == [(16, 16)] * 6 + [(32, 32)] * 6
    assert sample_sizes(run) == {
        "00000008.png": (48, 96),
        "00000016.png": (96, 192),
        "00000024.png": (96, 192),
    }
    assert state_of(run)["processes"][0]["buffer_A"]["images"][0].shape == (3, 32, 32)


@pytest.mark.parametrize(("steps", "size"), [(5, 16), (9, 32)])
def test_a_model_is_served_at_the_size_it_has_been_trained_at_so_far(tmp_path, monkeypatch, steps, size):
    data, run = write_domains(tmp_path, side=32), tmp_path / "run"
    interrupt_after(monkeypatch, steps)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_config(stages=((16, 0.0), (32, 0.5))), data, run, run / "model", ABOUT)
    assert CycleGAN.from_pretrained(run / "model").config.image_size == size


def test_no_average_means_the_snapshot_is_the_current_generators(data, tmp_path):
    fit(tiny_config(ema_halflife=0), data, tmp_path / "run", tmp_path / "model", ABOUT)
    state = state_of(tmp_path / "run")
    assert_same(dict(state["ema_G_AB"]), dict(state["G_AB"]))


def test_bfloat16_trains_with_float32_weights_and_resumes(data, tmp_path, monkeypatch):
    config = tiny_config(precision="bfloat16")
    for name in ("whole", "halves"):
        if name == "halves":
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                interrupt_after(patch, 5)
                fit(config, data, tmp_path / name, tmp_path / name / "model", ABOUT)
        fit(config, data, tmp_path / name, tmp_path / name / "model", ABOUT)
    assert_same_training(tmp_path / "whole", tmp_path / "halves")
    state = state_of(tmp_path / "whole")
    assert {value.dtype for name in NETWORKS for value in state[name].values()} == {torch.float32}
    assert not torch.equal(state["G_AB"]["head.0.weight"], state["ema_G_AB"]["head.0.weight"])
    precise = scalars(tmp_path / "whole")
    assert all(np.isfinite(list(values.values())).all() for values in precise.values())


def test_it_learns(tmp_path):
    """Dark pictures become bright and bright ones dark: 150 steps, from grey for everything."""
    data = write_domains(tmp_path, 40)
    config = tiny_config(
        pairs=600,
        batch=4,
        lr=2e-3,
        betas=(0.5, 0.9),
        cycle=1.0,
        identity=0.0,
        identity_end=0.0,
        ema_halflife=50,
        log_every=100,
        save_every=600,
    )
    dark, bright = (to_tensor(load_part(data, f"train{letter}", 16, 16)[0]) for letter in "AB")

    def means(model: CycleGAN) -> tuple[float, float]:
        with torch.no_grad():
            return model.translate(dark, "A2B").mean().item(), model.translate(bright, "B2A").mean().item()

    fit(tiny_config(pairs=2), data, tmp_path / "start", tmp_path / "start" / "model", ABOUT)
    start = means(CycleGAN.from_pretrained(tmp_path / "start" / "model"))
    assert max(map(abs, start)) < 0.2  # in [-1, 1]: dark is about -0.65, bright 0.65

    fit(config, data, tmp_path / "run", tmp_path / "run" / "model", ABOUT)
    brightened, darkened = means(CycleGAN.from_pretrained(tmp_path / "run" / "model"))
    assert brightened > 0.4 and darkened < -0.4


# Every setting that keeps something between steps. -------------------------------------------------------------------

RESUMED = {
    "rmsprop": dict(optimizer="rmsprop", lr=1e-4),
    "mask": dict(generator=GeneratorConfig(filters=4, blocks=1, mask=True), mask_area=0.3),
    "turns of an epoch": dict(alternate=True, pairs=72),  # of 27 images
    "more steps of the discriminators": dict(discriminator_steps=2),
    "one loss or the other": dict(identity_chance=0.4),
    "unfreezing": dict(unfreeze=2),
    "dropout and switchable norm": dict(
        generator=GeneratorConfig(filters=4, blocks=1, norm="switchable", dropout=0.5)
    ),
    "batch norm": dict(discriminator=DiscriminatorConfig(filters=4, layers=2, norm="batch")),
    "gradient penalty": dict(r1=1.0),
    "noise": dict(noise=0.3),
    "parts of a batch": dict(accumulate=2),
    "jitter": dict(enlarge=1.5),
    "stages": dict(stages=((16, 0.0), (20, 0.5))),
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
def test_resumed_bit_for_bit_whatever_the_settings(data, tmp_path, monkeypatch, changes):
    config = tiny_config(**changes)
    fit(config, data, tmp_path / "whole", tmp_path / "whole" / "model", ABOUT)
    run = tmp_path / "run"
    taken, average = itertools.count(), Networks.average

    def interrupted(self, *args):
        if next(taken) == 0.6 * config.pairs // config.batch:
            raise KeyboardInterrupt
        average(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Networks, "average", interrupted)
        fit(config, data, run, run / "model", ABOUT)
    assert 8 <= state_of(run)["pairs"] < config.pairs
    torch.manual_seed(777)
    fit(config, data, run, run / "model", ABOUT)
    assert_same_training(run, tmp_path / "whole")


def test_parts_of_a_batch_are_the_batch(data, tmp_path):
    """Accumulated gradients are those of the whole batch, up to rounding: instance norm knows no batch."""
    plain = dict(batch=4, buffer=0, discriminator=DiscriminatorConfig(filters=4, layers=2, norm="instance"))
    for name, accumulate in (("whole", 1), ("parts", 2)):
        config = tiny_config(**plain, accumulate=accumulate, optimizer="rmsprop", lr=1e-6)
        fit(config, data, tmp_path / name, tmp_path / name / "model", ABOUT)
    one, two = scalars(tmp_path / "whole"), scalars(tmp_path / "parts")
    for name in one:
        assert list(one[name].values()) == pytest.approx(list(two[name].values()), rel=1e-3), name


def test_a_pack_trains_like_its_folder(tmp_path):
    """Names, and with them the images held out, are the same; pixels are those of the pack's JPEG files."""
    write_domains(tmp_path / "crops", side=32)
    (tmp_path / "crops" / "prepare.json").write_text(json.dumps(Geometry(32, faces=("square", "square")).to_json()))
    write_pack(tmp_path / "crops", tmp_path / "crops.tar")
    config = tiny_config(stages=((32, 0.0),), pairs=4)
    fit(config, tmp_path / "crops.tar", tmp_path / "run", tmp_path / "model", ABOUT)
    packed, loose = (
        Pairs.load(path, 32, 32, 3, 3, 0, torch.device("cpu")) for path in (tmp_path / "crops.tar", tmp_path / "crops")
    )
    assert packed.A.shape == loose.A.shape and packed.validation_B.shape == loose.validation_B.shape
    assert (packed.validation_B.float() - loose.validation_B.float()).abs().mean() < 40  # noise is hard on JPEG


def test_a_collapse_is_said_and_the_state_before_it_kept(data, tmp_path, monkeypatch):
    run, average = tmp_path / "run", Networks.average

    def grey(self, config, pairs):
        average(self, config, pairs)
        if pairs > 8:
            for weight in self.ema_G_BA.parameters():
                weight.data.zero_()

    monkeypatch.setattr(Networks, "average", grey)
    with pytest.raises(TrainingError, match="has collapsed: after 16 pairs all translations B2A look alike"):
        fit(tiny_config(), data, run, run / "model", ABOUT)
    assert state_of(run)["pairs"] == 8


def test_copying_is_said(data, tmp_path, capsys):
    config = tiny_config(generator=GeneratorConfig(filters=4, blocks=1, mask=True), cycle=100.0, lr=1e-9)
    shut = torch.sigmoid
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "sigmoid", lambda x: shut(x) * 0)
        fit(config, data, tmp_path / "run", tmp_path / "model", ABOUT)
    assert "Translations A2B hardly differ from their inputs (by 0.0000). Lower --cycle" in capsys.readouterr().err


def test_memory_that_runs_out_names_what_to_lower(data, tmp_path, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(GeneratorStep, "forward", out_of_memory)
    with pytest.raises(TrainingError, match="Memory ran out at a batch of 2 and 16 pixels. Lower --batch, raise"):
        fit(tiny_config(), data, tmp_path / "run", tmp_path / "model", ABOUT)


def test_a_finished_model_of_the_same_shape_is_a_start(data, finished, tmp_path):
    """Directions stay what they are, so that whoever has better hardware can go on from a shipped model."""
    config = tiny_config(pairs=2, lr=1e-12)
    fit(config, data, tmp_path / "run", tmp_path / "model", ABOUT, init=finished / "model")
    state, model = state_of(tmp_path / "run"), CycleGAN.from_pretrained(finished / "model")
    for name in ("G_AB", "G_BA"):
        for which in (name, f"ema_{name}"):
            weights = getattr(model, name).state_dict()
            assert all(torch.allclose(state[which][key], value, atol=1e-6) for key, value in weights.items())
    other = tiny_config(generator=GeneratorConfig(filters=2, blocks=1))
    with pytest.raises(TrainingError, match="have another shape than this recipe's. Start without --init."):
        fit(other, data, tmp_path / "other", tmp_path / "model", ABOUT, init=finished / "model")


def test_a_run_of_another_number_of_processes_is_refused(data, finished, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    state = state_of(finished)
    state["processes"] *= 2
    torch.save(state, run / "state.pt")
    with pytest.raises(TrainingError, match="was started with 2 processes, not 1."):
        fit(tiny_config(), data, run, run / "model", ABOUT)


# Two processes. -----------------------------------------------------------------------------------------------------

LAUNCHED = """
    import sys, torch
    from pathlib import Path
    from train_fixtures import ABOUT, tiny_config
    from train.loop import fit
    from train.data import Pairs

    torch.set_num_threads(1)
    data, run, pairs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    batch = Pairs.batch
    seen = []

    def watched(self, start, count, *rest):
        seen.append((start, count))
        return batch(self, start, count, *rest)

    Pairs.batch = watched
    from train.config import DiscriminatorConfig
    config = tiny_config(batch=4, buffer=0, flip=False, pairs=pairs,
                         discriminator=DiscriminatorConfig(filters=4, layers=2, norm="instance"))
    fit(config, data, run, run / "model", ABOUT)
    import os
    Path(f"{run}.seen.{os.environ.get('RANK', '0')}").write_text(repr(seen))
"""


def launch(folder: Path, data: Path, run: Path, processes: int, pairs: int = 24) -> subprocess.CompletedProcess:
    """Train in that many processes: through `accelerate launch`, as train/README.md says, if there are several."""
    script = folder / "launched.py"
    script.write_text(textwrap.dedent(LAUNCHED))
    command: list = [sys.executable]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", processes]
        command += ["--num_machines", 1, "--main_process_port", port, "--mixed_precision", "no"]
        command += ["--dynamo_backend", "no"]
    return subprocess.run(
        [str(word) for word in [*command, script, data, run, pairs]],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_two_processes_train_what_one_does(data, tmp_path):
    """Same images in the same order, half of each batch in each process; losses within 2 % of one process's."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    for run, processes in ((alone, 1), (both, 2)):
        done = launch(tmp_path, data, run, processes)
        assert done.returncode == 0, done.stderr[-3000:]

    def images(rank: int) -> list[int]:
        seen = ast.literal_eval(Path(f"{both}.seen.{rank}").read_text())
        return [at for start, count in seen for at in range(start, start + count)]

    assert sorted(images(0) + images(1)) == list(range(24)) and len(set(images(0)) & set(images(1))) == 0
    one, two = scalars(alone), scalars(both)
    for name in LOSSES:
        assert list(two[name].values()) == pytest.approx(list(one[name].values()), rel=0.02), name
    state, single = state_of(both), state_of(alone)
    assert len(state["processes"]) == 2 and len(list(both.glob("events*"))) == 1  # one writer
    for name in ("ema_G_AB", "G_AB"):
        difference = (state[name]["head.0.weight"] - single[name]["head.0.weight"]).abs().max()
        assert difference < 5e-3, name  # 24 Adam steps of 2e-4 could part them by 5e-3 at most; rounding decides signs

    # Longer, and with another number of processes.
    longer = launch(tmp_path, data, both, 2, pairs=32)
    assert longer.returncode == 0, longer.stderr[-3000:]
    assert state_of(both)["pairs"] == 32
    refused = launch(tmp_path, data, both, 1, pairs=40)
    assert refused.returncode != 0 and "was started with 2 processes, not 1." in refused.stderr
