"""`train.loop`: trainings of a second at 16 pixels, watched from outside."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import blend, make_config, make_model
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_fixtures import ABOUT, ROOT, one_thread, quick_plots, tiny_config, write_domains, write_noise  # noqa: F401

from cyclegan.images import load_image, to_tensor
from cyclegan.model import CycleGAN, read_config, write_config
from cyclegan.networks import Generator, GeneratorConfig, InstanceNorm
from train import loop, losses
from train.card import write_card
from train.config import DiscriminatorConfig
from train.data import Pairs, load_part
from train.errors import TrainingError
from train.log import read_log
from train.loop import fit, in_colour
from train.prepare import TEMPLATES, Geometry
from train.state import claimed
from train.step import DiscriminatorStep, GeneratorStep, Networks

NETWORKS = {"G_AB", "G_BA", "D_A", "D_B", "ema_G_AB", "ema_G_BA"}
LOSSES = {"adversarial_AB", "adversarial_BA", "cycle_A", "cycle_B", "identity_A", "identity_B", "D_A", "D_B"}


# The first so that what is compared was computed alike.
pytestmark = pytest.mark.usefixtures("one_thread", "quick_plots")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_domains(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    """The run directory of a whole uninterrupted training, its model in RUN/model."""
    run = tmp_path_factory.mktemp("finished") / "run"
    fit(tiny_config(), data, run, run / "model", ABOUT)
    return run


MASKED = GeneratorConfig(filters=4, blocks=1, mask=True)


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
    average, taken = Networks.average, itertools.count()

    def interrupted(self, *args):
        if next(taken) == steps:
            raise KeyboardInterrupt
        average(self, *args)

    patch.setattr(Networks, "average", interrupted)


def scalars(run: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: loss -> {pairs: value}."""
    events = EventAccumulator(str(run)).Reload()
    return {
        tag.removeprefix("loss/"): {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


def losses_of(run: Path) -> list[tuple[int, str, float]]:
    """What the table says, without the clock."""
    return [(int(row["pairs"]), row["loss"], float(row["value"])) for row in read_log(run)]


def logged(run: Path) -> dict[str, list[int]]:
    """At how many pairs each loss was logged."""
    found: dict[str, list[int]] = {}
    for pairs, name, _ in losses_of(run):
        found.setdefault(name, []).append(pairs)
    return found


def sample_sizes(run: Path) -> dict[str, tuple[int, int]]:
    return {path.name: Image.open(path).size for path in sorted((run / "samples").iterdir())}


# What a training leaves behind. -------------------------------------------------------------------------------------


def test_the_state_holds_everything_that_moves(finished):
    state = state_of(finished)
    assert set(state) == NETWORKS | {
        "optimizer_G",
        "optimizer_D",
        "processes",
        "pairs",
        "steps",
        "seconds",
        "variety",
        "earlier",
        "height",
        "config",
        "sources",
    }
    assert (state["pairs"], state["steps"]) == (24, 12) and min(state["variety"].values()) > 0
    assert state["config"] == tiny_config().to_json()
    (own,) = state["processes"]
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
    assert {path.name for path in (finished / "model").iterdir()} == {"README.md", "config.json", "model.safetensors"}


def test_the_snapshot_says_what_it_is(finished):
    config = CycleGAN.from_pretrained(finished / "model").config
    assert (config.name, config.title, config.description, config.license) == ("tiny", "Tiny", "For tests.", "None.")
    assert {letter: (each.label, each.faces) for letter, each in config.domains.items()} == {
        "A": ("dark", "square"),
        "B": ("bright", "square"),
    }
    assert config.directions == {"A2B": "Light up", "B2A": "Dim"}
    assert (config.image_size, config.generator) == (16, tiny_config().generator)
    hours = config.training.pop("hours")
    assert config.training.pop("images") == state_of(finished)["sources"]["images"]
    assert config.training == {"recipe": tiny_config().to_json(), "pairs": 24} and 0 <= hours < 0.1


def test_the_snapshot_keeps_the_geometry_of_the_crops(data, tmp_path):
    geometry = Geometry(16, TEMPLATES["portrait"], ("mtcnn", "square"))
    for letter in "AB":
        (tmp_path / f"train{letter}").symlink_to(data / f"train{letter}")
    (tmp_path / "prepare.json").write_text(json.dumps(geometry.to_json()))
    fit(tiny_config(pairs=2), tmp_path, tmp_path / "run", tmp_path / "model", ABOUT)
    config = CycleGAN.from_pretrained(tmp_path / "model").config
    assert config.template == TEMPLATES["portrait"]
    assert [config.domains[letter].faces for letter in "AB"] == ["mtcnn", "square"]


def test_a_reduced_generator_is_trained_on_small_images_and_serves_large_ones(tmp_path):
    data = write_domains(tmp_path / "data", 6, side=32)
    reduced = {"generator": replace(MASKED, reduce=2), "stages": ((32, 0.0),)}
    for name, changes in (("small", {"generator": MASKED}), ("large", reduced)):
        fit(tiny_config(**changes), data, tmp_path / name, tmp_path / name / "model", ABOUT)
    small, large = (CycleGAN.from_pretrained(tmp_path / name / "model") for name in ("small", "large"))
    assert (large.config.image_size, large.config.generator.reduce) == (32, 2)
    assert_same(dict(large.G_AB.state_dict()), dict(small.G_AB.state_dict()), "weights")
    again, init = tmp_path / "again", tmp_path / "large" / "model"
    fit(tiny_config(**reduced, pairs=2), data, again, again / "model", ABOUT, init=init)


def test_what_lies_outside_the_face_needs_to_be_known(data, tmp_path):
    config = tiny_config(keep_outside=1.0)
    with pytest.raises(TrainingError, match="aligned faces"):
        fit(config, data, tmp_path / "run", tmp_path / "model", ABOUT)


def test_sample_grids(finished):
    assert sample_sizes(finished) == {f"{pairs:08}.png": (8 * 16, 6 * 16) for pairs in (8, 16, 24)}
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
        for x in range(0, 128, 16):
            translated = there(to_tensor(np.ascontiguousarray(real[:, x : x + 16])))
            for shown, expected in ((fake, translated), (rec, back(translated))):
                tile = to_tensor(np.ascontiguousarray(shown[:, x : x + 16]))
                assert (tile - expected).abs().max() < 0.02  # two grey levels: rounding, and the rounding of the input


def test_images_of_unequal_number(data, tmp_path):
    """The smaller domain decides how many columns the grid has."""
    (tmp_path / "trainA").symlink_to(data / "trainA")
    write_noise(tmp_path / "trainB", 5)
    fit(tiny_config(pairs=8), tmp_path, tmp_path / "run", tmp_path / "model", ABOUT)
    assert sample_sizes(tmp_path / "run") == {"00000008.png": (5 * 16, 96)}


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
    monkeypatch.setattr(losses, "cycle", lambda rec, real, size: rec.float().mean() * 0 + next(values))
    config = tiny_config(pairs=12, log_every=log_every, save_every=100)
    fit(config, data, tmp_path / "run", tmp_path / "model", ABOUT)
    expected, done = {}, 0
    for pairs in steps:
        expected[pairs] = np.mean([2 * step for step in range(done, pairs // 2)])
        done = pairs // 2
    assert scalars(tmp_path / "run")["cycle_A"] == expected
    table = [row for row in read_log(tmp_path / "run") if row["loss"] == "cycle_A"]
    assert {int(row["pairs"]): float(row["value"]) for row in table} == expected


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
    assert losses_of(run) == losses_of(finished)
    weights = Path("model", "model.safetensors")
    assert (run / weights).read_bytes() == (finished / weights).read_bytes()
    assert sample_sizes(run) == sample_sizes(finished)


SETTINGS = {
    "rmsprop": {"optimizer": "rmsprop", "betas": (0.5, 0.9)},
    "mask": {"generator": GeneratorConfig(filters=4, blocks=1, mask=True), "mask_area": 0.6},
    "alternate epochs": {"alternate": True},
    "discriminator steps": {"discriminator_steps": 3, "lr_ratio": 2.0},
    "identity by chance": {"identity_chance": 0.5},
    "unfreeze": {"unfreeze": 2},
    "dropout and switchable norm": {
        "generator": GeneratorConfig(filters=4, blocks=1, norm="switchable", dropout=0.5),
    },
    "lazy gradient penalty": {"r1": 1.0, "pairs": 40},
    "noise": {"noise": 0.3},
    "accumulate": {"batch": 4, "accumulate": 2, "pairs": 48},
    "batch norm": {"discriminator": DiscriminatorConfig(filters=4, layers=2, norm="batch", coarse=True)},
    "stages, jitter, width": {
        "stages": ((32, 0.0), (48, 0.5)),
        "aspect": 0.5,
        "enlarge": 1.2,
        "discriminator": DiscriminatorConfig(filters=4, layers=2),
    },
    "epochs": {"epochs": 4, "start_epoch": 0.5},
    "grey, scales, sigmoid": {
        "generator": GeneratorConfig(filters=4, blocks=1, channels=1),
        "discriminator": DiscriminatorConfig(filters=4, layers=1, scales=2, sigmoid=True, channels=1),
        "adversarial": "absolute",
    },
}


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_with_any_setting_interrupted_and_continued_is_the_same_training(tmp_path, monkeypatch, changes):
    """Six images a domain: turns of an epoch end in the middle, and the state lies within one."""
    data, config = write_domains(tmp_path / "data", 6), tiny_config(**changes)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    fit(config, data, whole, whole / "model", ABOUT)
    steps = 13 if config.r1 else 7  # so that the penalty, every 16 steps, comes after the interruption
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, steps)
        fit(config, data, halves, halves / "model", ABOUT)
    saved = state_of(halves)["pairs"]
    assert 0 < saved <= steps * config.batch
    torch.manual_seed(12345)
    fit(config, data, halves, halves / "model", ABOUT)
    assert state_of(halves)["pairs"] > saved
    assert_same_training(whole, halves)
    assert losses_of(whole) == losses_of(halves)


def test_how_often_it_saves_changes_nothing(tmp_path):
    """Nor do samples and snapshots draw from the random numbers of dropout and noise."""
    data = write_domains(tmp_path / "data", 6)
    for name, every in (("often", 2), ("once", 1000)):
        config = tiny_config(noise=0.3, save_every=every, generator=GeneratorConfig(filters=4, blocks=1, dropout=0.5))
        fit(config, data, tmp_path / name, tmp_path / name / "model", ABOUT)
    often, once = state_of(tmp_path / "often"), state_of(tmp_path / "once")
    for name in NETWORKS | {"processes", "optimizer_G"}:
        assert_same(often[name], once[name], name)


def test_tensorboard_shows_steps_that_were_done_again_once(data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 7)
        patch.setattr(losses, "cycle", lambda rec, real, size: (rec.float() - real).mean() * 0)
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


@pytest.mark.parametrize("what", ["state", "model"])
def test_killed_while_it_writes_and_started_again(data, finished, tmp_path, what):
    """With kill -9, in the middle of a file of the second save."""
    run = tmp_path / "run"
    dying = """
        import itertools, os, signal, sys, torch
        from pathlib import Path
        from train_fixtures import ABOUT, tiny_config
        import cyclegan.model
        from train.loop import fit

        module, name = {"state": (torch, "save"), "model": (cyclegan.model, "save_file")}[sys.argv[3]]
        save, calls = getattr(module, name), itertools.count(1)

        def killed_half_way(content, path, **options):
            save(content, path, **options)
            if next(calls) == 2:
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(module, name, killed_half_way)
        torch.set_num_threads(1)
        data, run = map(Path, sys.argv[1:3])
        fit(tiny_config(), data, run, run / "model", ABOUT)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(dying), data, run, what],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert state_of(run)["pairs"] == {"state": 8, "model": 16}[what]
    assert CycleGAN.from_pretrained(run / "model").config.training["pairs"] == 8
    fit(tiny_config(), data, run, run / "model", ABOUT)
    assert_same_training(run, finished)
    assert losses_of(run) == losses_of(finished)
    assert {path.name for path in (run / "model").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert {path.name for path in run.iterdir() if not path.name.startswith("events")} == {
        ".lock",
        "losses.csv",
        "losses.png",
        "model",
        "samples",
        "state.pt",
    }


def test_a_finished_training_stays_as_it_is(data, finished):
    before, model = state_of(finished), finished / "model"
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"metrics": {"flip_rate": 0.9}}))  # somebody measured it
    fit(tiny_config(), data, finished, model, ABOUT)
    assert_same(state_of(finished), before)
    assert CycleGAN.from_pretrained(model).config.metrics == {"flip_rate": 0.9}


def test_a_finished_training_can_be_lengthened(data, tmp_path):
    run = tmp_path / "run"
    fit(tiny_config(pairs=8), data, run, run / "model", ABOUT)
    fit(tiny_config(pairs=12, log_every=2, save_every=4), data, run, run / "model", ABOUT)
    assert state_of(run)["pairs"] == 12
    fit(tiny_config(hours=1e-6), data, run, run / "model", ABOUT)  # a clock that has long run out
    assert state_of(run)["pairs"] == 12


def test_training_by_the_clock(data, tmp_path, monkeypatch):
    now = itertools.count(0, 60)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    run = tmp_path / "run"
    fit(tiny_config(hours=0.1, pairs=2), data, run, run / "model", ABOUT)  # six minutes, a step a minute
    assert (state_of(run)["pairs"], state_of(run)["seconds"]) == (12, 360)
    fit(tiny_config(hours=0.15, pairs=2), data, run, run / "model", ABOUT)
    assert (state_of(run)["pairs"], state_of(run)["seconds"]) == (18, 540)
    assert CycleGAN.from_pretrained(run / "model").config.training["hours"] == 0.15


def test_a_run_may_go_on_with_other_weights_and_its_model_says_so(six, tmp_path, capsys):
    run, model = tmp_path / "run", tmp_path / "model"
    for turn in (
        {"pairs": 4},
        {"pairs": 8, "cycle": 5.0, "augment_from": 0.0},
        {"pairs": 8, "log_every": 1},
        {"pairs": 12},
    ):
        config = tiny_config(**({"augment_from": 0.0, "cycle": 5.0} if turn["pairs"] > 4 else {}) | turn)
        fit(config, six, run, model, ABOUT)
        fit(config, six, run, model, ABOUT)  # the same command: nothing to say
    assert f"{run} goes on with augment_from 0.0 instead of 1.0, cycle 5.0 instead of 10.0, pairs 8 instead of 4." in (
        capsys.readouterr().err
    )
    assert read_config(model).training["earlier"] == [
        {"until": 4, "settings": {"augment_from": 1.0, "cycle": 10.0, "pairs": 4}},
        {"until": 8, "settings": {"pairs": 8}},
    ]
    card = (model / "README.md").read_text()
    assert "Until 4 pairs it had `augment_from` 1.0, `cycle` 10.0, `pairs` 4. Until 8 pairs it had `pairs` 8." in card


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


def test_a_run_from_before_a_setting_existed_goes_on(data, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    state = state_of(run)
    del state["config"]["generator"]["skip_pool"], state["config"]["augment_from"]
    torch.save(state, run / "state.pt")
    fit(tiny_config(pairs=26), data, run, run / "model", ABOUT)
    assert state_of(run)["pairs"] == 26
    assert read_config(run / "model").training["earlier"] == [{"until": 24, "settings": {"pairs": 24}}]


def test_a_run_is_not_continued_with_other_images(finished, tmp_path):
    data = write_domains(tmp_path / "data", 31)
    with pytest.raises(TrainingError) as caught:
        fit(tiny_config(), data, finished, tmp_path / "model", ABOUT)
    assert str(caught.value) == (
        f"{finished} was started with other images. Give it the same --data or choose another --run."
    )
    assert not (tmp_path / "model").exists()


def test_a_new_run_takes_no_other_models_place(data, finished, tmp_path):
    model = shutil.copytree(finished / "model", tmp_path / "model")
    before = (model / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError) as caught:
        fit(tiny_config(seed=1), data, tmp_path / "run", model, ABOUT)
    assert str(caught.value) == (
        f"{model} holds a model already, and {tmp_path / 'run'} has no state to continue. Choose another --model, or "
        "move that one away."
    )
    assert (model / "model.safetensors").read_bytes() == before


def test_a_finished_run_takes_no_other_models_place_either(data, finished, tmp_path):
    other = tmp_path / "other"
    fit(tiny_config(), write_domains(tmp_path / "data", 6), other, other / "model", ABOUT)
    before = (other / "model" / "config.json").read_bytes()
    with pytest.raises(TrainingError, match="model holds a model of other images. Choose another --model."):
        fit(tiny_config(), data, finished, other / "model", replace(ABOUT, title="Mine"))
    assert (other / "model" / "config.json").read_bytes() == before


def test_a_model_in_its_own_run_directory_is_in_nobodys_way(data, finished, tmp_path):
    """As after deleting a damaged state."""
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "state.pt").unlink()
    fit(tiny_config(), data, run, run / "model", ABOUT)
    assert state_of(run)["pairs"] == 24
    assert CycleGAN.from_pretrained(run / "model").config.training["pairs"] == 24


def test_a_finished_training_takes_other_words_and_says_that_it_is_over(data, finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    model = run / "model"
    metrics, weights = {"features": "O-Net"}, (model / "model.safetensors").read_bytes()
    write_config(model, replace(read_config(model), metrics=metrics))
    words = replace(ABOUT, title="Lamps", domains=("night", "day"), directions=("On", "Off"), license="Free.")
    fit(tiny_config(), data, run, model, replace(words, description=""))
    assert f"{run} is over, after 24 pairs. A higher --pairs, --epochs or --hours goes on." in capsys.readouterr().err
    config = read_config(model)
    assert (config.title, config.license, config.directions["B2A"]) == ("Lamps", "Free.", "Off")
    assert config.description == ABOUT.description  # a command without one takes none away
    assert [domain.label for domain in config.domains.values()] == ["night", "day"]
    assert config.metrics == metrics and (model / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_finishes_its_step_and_saves(data, finished, tmp_path, monkeypatch, signum, capsys):
    run = tmp_path / "run"
    average, taken = Networks.average, itertools.count(1)

    def signalled(self, *args):
        average(self, *args)
        if next(taken) == 5:
            os.kill(os.getpid(), signum)

    before = signal.getsignal(signum)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Networks, "average", signalled)
        fit(tiny_config(), data, run, run / "model", ABOUT)
    assert signal.getsignal(signum) == before
    assert "Stopping after this step." in capsys.readouterr().err
    assert state_of(run)["pairs"] == CycleGAN.from_pretrained(run / "model").config.training["pairs"] == 10
    fit(tiny_config(), data, run, run / "model", ABOUT)
    assert_same_training(run, finished)


def test_a_slow_machine_logs_and_saves_by_the_clock(data, tmp_path, monkeypatch):
    """Twenty seconds a step: a line every other step, and a state after ten minutes."""
    run = tmp_path / "run"
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: 20.0 * next(ticks)))
    config = tiny_config(pairs=80, log_every=1000, save_every=1000)
    fit(config, data, run, run / "model", ABOUT)
    assert logged(run)["cycle_A"][:3] == [4, 8, 12]
    assert list(sample_sizes(run)) == ["00000060.png"]


# Trouble. -----------------------------------------------------------------------------------------------------------


def nan_from_call(patch: pytest.MonkeyPatch, name: str, first: int) -> None:
    loss, calls = getattr(losses, name), itertools.count()
    patch.setattr(losses, name, lambda *args: loss(*args) * (float("nan") if next(calls) >= first else 1.0))


@pytest.mark.parametrize(
    ("function", "named"),
    [("adversarial_G", "adversarial_AB"), ("cycle", "cycle_A"), ("identity", "identity_A"), ("adversarial_D", "D_A")],
)
def test_a_loss_that_is_not_a_number_is_named_with_its_step(data, tmp_path, monkeypatch, function, named):
    """Though it is looked for steps later: by then pictures are no numbers, and so is every loss."""
    run = tmp_path / "run"
    nan_from_call(monkeypatch, function, first=10)  # two calls per step: in the sixth
    with pytest.raises(TrainingError) as caught:
        fit(tiny_config(batch=2, log_every=1000), data, run, run / "model", ABOUT)
    assert str(caught.value) == (
        f"The loss {named} is no longer a number after 12 pairs. {run} keeps the state after 8 pairs. "
        "Start another --run with a lower --lr or --precision float32."
    )
    assert state_of(run)["pairs"] == 8


def test_nothing_is_said_to_survive_before_the_first_save(data, tmp_path, monkeypatch):
    nan_from_call(monkeypatch, "cycle", first=2)
    with pytest.raises(
        TrainingError, match=r"cycle_A is no longer a number after 4 pairs\. No state had been saved yet"
    ):
        fit(tiny_config(), data, tmp_path / "run", tmp_path / "model", ABOUT)
    assert not (tmp_path / "run" / "state.pt").exists()


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


def test_a_full_disk_for_tensorboard(data, tmp_path, monkeypatch):
    """Its writer is a thread, whose errors come with the next call."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop.SummaryWriter, "add_scalar", full)
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match=f"^{run} cannot be written: .* No space left on device"):
        fit(tiny_config(), data, run, run / "model", ABOUT)


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


def test_a_collapse_is_noticed_and_the_last_good_state_survives(data, tmp_path, monkeypatch):
    """From the fifth step on G_AB gives the same picture whatever it sees."""
    run = tmp_path / "run"
    average, taken = Networks.average, itertools.count(1)

    def collapsing(self, *args):
        average(self, *args)
        if next(taken) >= 5:
            self.ema_G_AB.head[0].weight.data.zero_()

    monkeypatch.setattr(Networks, "average", collapsing)
    with pytest.raises(TrainingError) as caught:
        fit(tiny_config(), data, run, run / "model", ABOUT)
    message = str(caught.value)
    assert message.startswith("The training has collapsed: after 16 pairs all translations A2B look alike (variety 0.0")
    assert f"{run} keeps the state after 8 pairs." in message
    assert state_of(run)["pairs"] == CycleGAN.from_pretrained(run / "model").config.training["pairs"] == 8


def test_a_collapse_is_still_known_after_an_interruption(data, tmp_path, monkeypatch):
    """What counts is the variety that there once was, and that was before."""
    run = tmp_path / "run"
    fit(tiny_config(pairs=8), data, run, run / "model", ABOUT)
    monkeypatch.setattr(Networks, "average", lambda self, *_: self.ema_G_BA.head[0].weight.data.zero_())
    with pytest.raises(TrainingError, match="after 16 pairs all translations B2A look alike"):
        fit(tiny_config(), data, run, run / "model", ABOUT)


def test_copying_is_said_but_not_stopped(data, tmp_path, capsys):
    """A mask that is closed at the start, and a training too short to open it."""
    config = tiny_config(generator=GeneratorConfig(filters=4, blocks=1, mask=True), lr=1e-9)
    model = make_model(replace(make_config(image_size=16), generator=config.generator))
    blend(model.G_AB)
    blend(model.G_BA)
    model.save_pretrained(tmp_path / "copying")
    fit(config, data, tmp_path / "run", tmp_path / "model", ABOUT, init=tmp_path / "copying")
    error = capsys.readouterr().err
    for direction in ("A2B", "B2A"):
        assert error.count(f"Translations {direction} hardly differ from their inputs (by 0.0000).") == 3  # per save


def test_too_large_for_the_memory(data, tmp_path, monkeypatch):
    def allocate(self, *_):
        torch.empty(2**50)

    monkeypatch.setattr(DiscriminatorStep, "forward", allocate)
    with pytest.raises(TrainingError, match="^Memory ran out at a batch of 2 and 16 pixels. Lower --batch"):
        fit(tiny_config(), data, tmp_path / "run", tmp_path / "model", ABOUT)


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
        "00000008.png": (128, 96),
        "00000016.png": (256, 192),
        "00000024.png": (256, 192),
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


@pytest.mark.parametrize("alternate", [False, True])
@pytest.mark.parametrize(("precision", "inside"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_networks_train_in_the_precision_asked_for(tmp_path, monkeypatch, precision, inside, alternate):
    data = write_domains(tmp_path, 4)
    seen, forward = set(), InstanceNorm.forward

    def watched(self, x):
        if self.training and not x.is_meta:  # not the averaged ones, which draw, nor those that are only counted
            seen.add(x.dtype)
        return forward(self, x)

    monkeypatch.setattr(InstanceNorm, "forward", watched)
    config = tiny_config(pairs=16, precision=precision, alternate=alternate, discriminator_steps=2)
    fit(config, data, tmp_path / "run", tmp_path / "model", ABOUT)
    assert seen == {inside}


def test_float16_is_said_to_need_cuda_and_trains_in_bfloat16(data, tmp_path, capsys):
    fit(tiny_config(precision="float16", pairs=4), data, tmp_path / "run", tmp_path / "model", ABOUT)
    assert "float16 needs CUDA; training in bfloat16 instead.\n" in capsys.readouterr().err
    assert state_of(tmp_path / "run")["pairs"] == 4


@pytest.fixture
def six(tmp_path) -> Path:
    """Six images a domain: an epoch of three steps."""
    return write_domains(tmp_path / "data", 6)


def test_a_pack_trains_as_its_folder_does(six, tmp_path):
    geometry = Geometry(16, TEMPLATES["portrait"], ("mtcnn", "square"))
    (six / "prepare.json").write_text(json.dumps(geometry.to_json()))
    pack = tmp_path / "crops.tar"
    with tarfile.open(pack, "w") as archive:
        for path in sorted(six.iterdir()):
            archive.add(path, path.name)
    for name, source in (("folder", six), ("pack", pack)):
        fit(tiny_config(pairs=8), source, tmp_path / name, tmp_path / name / "model", ABOUT)
    assert_same_training(tmp_path / "folder", tmp_path / "pack")
    config = CycleGAN.from_pretrained(tmp_path / "pack" / "model").config
    assert config.template == TEMPLATES["portrait"] and config.domains["B"].faces == "square"


def test_lengths_in_epochs_are_passes_through_the_larger_domain(tmp_path):
    data = tmp_path / "data"
    write_noise(data / "trainA", 4)
    write_noise(data / "trainB", 6, seed=2)
    for name, changes, pairs in (("two", {}, 12), ("late", {"start_epoch": 1.0}, 6)):
        fit(tiny_config(epochs=2, **changes), data, tmp_path / name, tmp_path / name / "model", ABOUT)
        assert state_of(tmp_path / name)["pairs"] == pairs


def test_generators_and_discriminators_can_take_turns_of_an_epoch(six, tmp_path):
    fit(tiny_config(alternate=True, pairs=18, log_every=2), six, tmp_path / "run", tmp_path / "model", ABOUT)
    found, turns = logged(tmp_path / "run"), ([2, 4, 6, 14, 16, 18], [8, 10, 12])
    assert found["D_A"] == found["D_B"] == turns[1]
    assert {tuple(found[name]) for name in found if not name.startswith("D_")} == {tuple(turns[0])}
    state = state_of(tmp_path / "run")
    steps = [{int(each["step"]) for each in state[f"optimizer_{half}"]["state"].values()} for half in "GD"]
    assert steps == [{6}, {3}]


def test_discriminators_can_take_several_steps_each_on_images_of_its_own(six, tmp_path, monkeypatch):
    starts, batch = [], Pairs.batch
    monkeypatch.setattr(Pairs, "batch", lambda self, start, *args: starts.append(start) or batch(self, start, *args))
    config = tiny_config(discriminator_steps=3, pairs=4)
    fit(config, six, tmp_path / "run", tmp_path / "model", ABOUT)
    assert starts == [0, 2, 4, 2, 4, 6]
    state = state_of(tmp_path / "run")
    assert [int(state[f"optimizer_{half}"]["state"][0]["step"]) for half in "GD"] == [2, 6]


def test_decoder_layers_are_freed_one_after_the_other(six, tmp_path):
    """In twelve steps and four parts: none for three steps, then the head, then each layer before it."""
    config = tiny_config(unfreeze=1)
    fit(config, six, tmp_path / "run", tmp_path / "model", ABOUT)
    nets = Networks.build(config, torch.device("cpu"))
    optimizer = state_of(tmp_path / "run")["optimizer_G"]["state"]
    names = [f"{G}.{name}" for G in ("G_AB", "G_BA") for name, _ in getattr(nets, G).named_parameters()]
    steps = {name: int(optimizer[index]["step"]) for index, name in enumerate(names)}
    for G in ("G_AB", "G_BA"):
        assert [steps[f"{G}.{layer}.weight"] for layer in ("up.0.1", "up.1.1", "head.0")] == [3, 6, 9]
        assert steps[f"{G}.stem.1.weight"] == steps[f"{G}.body.0.layers.0.weight"] == 12


@pytest.mark.parametrize(("chance", "identity"), [(0.0, 0), (1.0, 12), (0.5, None)])
def test_per_step_only_one_of_cycle_and_identity_loss(six, tmp_path, chance, identity):
    fit(tiny_config(identity_chance=chance, log_every=2), six, tmp_path / "run", tmp_path / "model", ABOUT)
    found = logged(tmp_path / "run")
    cycles, identities = found.get("cycle_A", []), found.get("identity_B", [])
    assert sorted(cycles + identities) == list(range(2, 26, 2))
    if identity is None:
        assert 2 <= len(identities) <= 10
    else:
        assert len(identities) == identity


def test_the_gradient_penalty_is_lazy(six, tmp_path):
    fit(tiny_config(r1=1.0, pairs=40, log_every=2), six, tmp_path / "run", tmp_path / "model", ABOUT)
    assert logged(tmp_path / "run")["r1_A"] == [2, 34]  # the first step and the seventeenth


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_the_step_sizes_of_both_halves_follow_the_schedule(six, tmp_path, monkeypatch, optimizer):
    rates, kind = [], {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[optimizer]
    step = kind.step
    monkeypatch.setattr(kind, "step", lambda s, *args: rates.append(s.param_groups[0]["lr"]) or step(s, *args))
    config = tiny_config(optimizer=optimizer, lr=0.01, lr_ratio=4.0, decay_from=0.5, pairs=8)
    fit(config, six, tmp_path / "run", tmp_path / "model", ABOUT)
    assert rates == pytest.approx([0.01, 0.04, 0.01, 0.04, 0.01, 0.04, 0.005, 0.02])


def first_gradients(monkeypatch, data: Path, run: Path, config) -> list[torch.Tensor]:
    """What the optimisers of generators and discriminators get in their first step."""
    found, step = [], torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        found.append([weight.grad.clone() for group in self.param_groups for weight in group["params"]])
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", watched)
        fit(config, data, run, run / "model", ABOUT)
    assert len(found) == 2 * config.pairs // config.batch  # one step per batch, however many parts it has
    return found[0] + found[1]


def test_a_batch_in_parts_has_the_gradients_of_the_whole(six, tmp_path, monkeypatch):
    """Where images do not see each other: without batch statistics, and with as many power iterations.

    The absolute tolerance is for biases before a norm, whose gradients are rounding errors.
    """
    config = tiny_config(
        generator=GeneratorConfig(filters=4, blocks=1, mask=True),
        discriminator=DiscriminatorConfig(filters=4, layers=2),
        batch=4,
        pairs=8,
    )
    whole = first_gradients(monkeypatch, six, tmp_path / "whole", config)
    for count in (2, 4):
        parts = first_gradients(monkeypatch, six, tmp_path / f"{count}", replace(config, accumulate=count))
        for one, other in zip(whole, parts, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)
    halves = first_gradients(monkeypatch, six, tmp_path / "halves", replace(config, batch=2, pairs=4))
    assert not all(torch.allclose(one, other, rtol=1e-3, atol=1e-5) for one, other in zip(whole, halves, strict=True))


def test_images_need_not_be_square(tmp_path):
    data, run = write_domains(tmp_path / "data", 6, 32), tmp_path / "run"
    fit(tiny_config(stages=((32, 0.0),), aspect=0.5, pairs=8), data, run, run / "model", ABOUT)
    assert sample_sizes(run) == {"00000008.png": (6 * 16, 6 * 32)}
    assert read_config(run / "model").image_size == 16  # the page shows the middle square, no larger than it was


# Grey images. -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stem", "unshuffle"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_a_generator_of_grey_images_becomes_one_that_looks_at_luma_and_paints_grey(stem, unshuffle, mask, skip):
    shape = GeneratorConfig(filters=4, blocks=1, stem=stem, unshuffle=unshuffle, mask=mask, skip=skip, channels=1)
    grey = Generator(shape).eval()
    with torch.no_grad():
        torch.nn.init.normal_(grey.head[0].weight)
    coloured = in_colour(grey).eval()
    assert coloured.config == replace(grey.config, channels=3)
    x = torch.rand(2, 3, 32, 40) * 2 - 1
    luma = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    with torch.no_grad():
        paint, alpha = grey.paint(luma)
        rgb, same_alpha = coloured.paint(x)
        assert torch.allclose(rgb, paint.expand(-1, 3, -1, -1), atol=1e-4) and rgb.std() > 0.1
        assert torch.allclose(alpha, same_alpha, atol=1e-4) if mask else same_alpha is None
        assert torch.allclose(coloured(luma.expand_as(x)), grey(luma).expand_as(x), atol=1e-4)


def test_a_generator_in_colour_stays_itself():
    generator = Generator(GeneratorConfig(filters=2, blocks=0))
    assert in_colour(generator) is generator


def test_a_training_on_grey_images_gives_a_model_that_the_app_can_serve(six, tmp_path):
    config = tiny_config(
        generator=GeneratorConfig(filters=4, blocks=1, channels=1),
        discriminator=DiscriminatorConfig(filters=4, layers=2, channels=1),
        pairs=8,
    )
    fit(config, six, tmp_path / "run", tmp_path / "model", ABOUT)
    y = CycleGAN.from_pretrained(tmp_path / "model").translate(torch.rand(1, 3, 16, 16), "A2B")
    assert y.shape == (1, 3, 16, 16) and torch.allclose(y[:, 0], y[:, 2], atol=1e-6)


# Starting from a model. ---------------------------------------------------------------------------------------------


def test_a_finished_model_of_the_same_shape_is_a_start(data, finished, tmp_path):
    """Directions stay what they are, so that whoever has better hardware can go on from a shipped model."""
    config = tiny_config(pairs=2, lr=1e-12)
    fit(config, data, tmp_path / "run", tmp_path / "model", ABOUT, init=finished / "model")
    state, model = state_of(tmp_path / "run"), CycleGAN.from_pretrained(finished / "model")
    for name in ("G_AB", "G_BA"):
        for which in (name, f"ema_{name}"):
            weights = getattr(model, name).state_dict()
            assert all(torch.allclose(state[which][key], value, atol=1e-6) for key, value in weights.items())


def test_statistics_of_the_direction_that_stays_do_not_move(six, tmp_path):
    generator = GeneratorConfig(filters=4, blocks=1, norm="switchable")
    fit(tiny_config(generator=generator, pairs=4), six, tmp_path / "a", tmp_path / "before", ABOUT)
    config = tiny_config(generator=generator, pairs=4, only="B2A")
    fit(config, six, tmp_path / "b", tmp_path / "after", ABOUT, init=tmp_path / "before")
    old, new = (CycleGAN.from_pretrained(tmp_path / name).G_AB.state_dict() for name in ("before", "after"))
    assert any("running" in key for key in old) and all(torch.equal(old[key], new[key]) for key in old)


@pytest.mark.parametrize(("only", "trained", "kept"), [("A2B", "G_AB", "G_BA"), ("B2A", "G_BA", "G_AB")])
def test_one_direction_can_be_trained_while_the_other_stays(six, finished, tmp_path, only, trained, kept):
    for pairs in (4, 8):  # and goes on so
        config = tiny_config(pairs=pairs, only=only)
        fit(config, six, tmp_path / "run", tmp_path / "model", ABOUT, init=finished / "model")
    before, after = (CycleGAN.from_pretrained(folder / "model") for folder in (finished, tmp_path))
    for name, same in ((trained, False), (kept, True)):
        old, new = (getattr(model, name).state_dict() for model in (before, after))
        assert all(torch.equal(old[key], new[key]) for key in old) is same


def test_a_training_says_what_it_started_from(six, finished, tmp_path):
    fit(tiny_config(pairs=2), six, tmp_path / "run", tmp_path / "model", ABOUT, init=finished / "model")
    assert CycleGAN.from_pretrained(tmp_path / "model").config.training["started_from"] == "model"


def test_a_model_trained_small_goes_on_as_one_that_enlarges(six, finished, tmp_path):
    """The weights are the same, whatever is done around them."""
    config = tiny_config(generator=replace(tiny_config().generator, reduce=2), stages=((32, 0.0),), pairs=2)
    fit(config, six, tmp_path / "run", tmp_path / "model", ABOUT, init=finished / "model")
    assert read_config(tmp_path / "model").generator.reduce == 2


@pytest.mark.parametrize(
    ("changes", "pool"), [({}, 1), ({"unshuffle": 2, "mask": True}, 4), ({"stem": 2, "reduce": 2}, 1)]
)
def test_a_model_without_skip_is_a_start_for_one_with_it_that_does_the_same(six, tmp_path, changes, pool):
    plain = GeneratorConfig(filters=8, blocks=1, kernel=3, **changes)
    size = 16 * plain.unshuffle * plain.reduce
    before = tmp_path / "before"
    fit(tiny_config(generator=plain, stages=((size, 0.0),), pairs=2), six, tmp_path / "a", before, ABOUT)
    grown = tiny_config(generator=replace(plain, skip=True, skip_pool=pool), stages=((size, 0.0),), pairs=2, lr=1e-12)
    fit(grown, six, tmp_path / "b", tmp_path / "after", ABOUT, init=before)
    x = torch.rand(2, 3, size, size)
    for direction in ("A2B", "B2A"):
        ours, theirs = (
            CycleGAN.from_pretrained(tmp_path / name).translate(x, direction) for name in ("after", "before")
        )
        assert torch.allclose(ours, theirs, atol=1e-5) and not torch.allclose(ours, x, atol=1e-2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"skip": True}, {}),
        ({"skip": True}, {"skip": True, "skip_pool": 4}),
        ({"stem": 4}, {"stem": 4, "skip": True}),
        ({}, {"skip": True, "blocks": 2}),
        ({}, {"mask": True, "detail": False}),
        ({"mask": True, "detail": False}, {}),
    ],
)
def test_only_what_can_do_the_same_starts_from_another_shape(six, tmp_path, before, after):
    plain = tiny_config().generator
    fit(tiny_config(generator=replace(plain, **before), pairs=2), six, tmp_path / "a", tmp_path / "before", ABOUT)
    with pytest.raises(TrainingError, match="have another shape than this recipe's"):
        config = tiny_config(generator=replace(plain, **after), pairs=2)
        fit(config, six, tmp_path / "b", tmp_path / "after", ABOUT, init=tmp_path / "before")


def test_a_model_of_another_shape_is_no_start(six, finished, tmp_path):
    config = tiny_config(generator=GeneratorConfig(filters=8, blocks=1))
    with pytest.raises(TrainingError) as caught:
        fit(config, six, tmp_path / "run", tmp_path / "model", ABOUT, init=finished / "model")
    assert str(caught.value) == (
        f"The generators of {finished / 'model'} have another shape than this recipe's. Start without --init."
    )
    assert not (tmp_path / "run").exists()


def test_a_state_of_an_earlier_version_is_refused(six, tmp_path):
    (tmp_path / "run").mkdir()
    torch.save({"pairs": 12, "config": tiny_config().to_json()}, tmp_path / "run" / "state.pt")
    with pytest.raises(TrainingError, match="is of an earlier version. Choose another --run and --init"):
        fit(tiny_config(), six, tmp_path / "run", tmp_path / "model", ABOUT)


def test_two_processes_do_not_train_in_one_run(six, tmp_path):
    run, model = tmp_path / "run", tmp_path / "model"
    run.mkdir()
    with claimed(run), pytest.raises(TrainingError, match="Another process trains in .*run. Wait for it"):
        fit(tiny_config(), six, run, model, ABOUT)
    assert not model.exists() and not (run / "losses.csv").exists()
    fit(tiny_config(), six, run, model, ABOUT)
    assert state_of(run)["pairs"] == 24


def test_killed_between_its_last_snapshot_and_its_card(six, tmp_path, monkeypatch):
    run, model = tmp_path / "run", tmp_path / "model"
    fit(tiny_config(pairs=12), six, run, model, ABOUT)
    (run / "losses.png").unlink()
    (model / "grid.png").touch()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_config(), six, run, model, ABOUT)
    fit(tiny_config(), six, run, model, ABOUT)
    assert "Trained on 24 pairs" in (model / "README.md").read_text() and (run / "losses.png").exists()


def test_figures_and_pictures_of_earlier_weights_go_with_them(six, tmp_path, monkeypatch):
    run, model = tmp_path / "run", tmp_path / "model"
    fit(tiny_config(pairs=4), six, run, model, ABOUT)
    change = {"images": 3, "flip_rate": 0.9}
    write_config(model, replace(read_config(model), metrics={"A2B": change, "B2A": change}))
    for name in ("grid.png", "failures.jpg"):
        (model / name).touch()
    write_card(model)
    (model / "README.md").write_text((model / "README.md").read_text() + "\nMine.\n")
    fit(tiny_config(pairs=4), six, run, model, ABOUT)  # the same training: they stay
    assert "(failures.jpg)" in (model / "README.md").read_text() and "90.0%" in (model / "README.md").read_text()
    interrupt_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_config(), six, run, model, ABOUT)
    card = (model / "README.md").read_text()
    assert {path.name for path in model.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert (
        "90.0%" not in card
        and "failures" not in card.split("## Limitations")[0]
        and "Trained on 8 pairs" in card
        and card.endswith("\nMine.\n")
    )


def test_a_lengthened_training_serves_no_smaller_model(tmp_path, monkeypatch):
    data, run = write_domains(tmp_path, side=32), tmp_path / "run"
    stages = ((16, 0.0), (32, 0.5))
    fit(tiny_config(stages=stages, pairs=8, save_every=4), data, run, run / "model", ABOUT)
    interrupt_after(monkeypatch, 2)  # a step in which it would be back at 16 pixels
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_config(stages=stages, pairs=80, save_every=2), data, run, run / "model", ABOUT)
    config = CycleGAN.from_pretrained(run / "model").config
    assert config.image_size == 32 and config.training["pairs"] > 8


def test_without_a_compiler_it_trains_all_the_same(six, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    fit(tiny_config(compile=True), six, tmp_path / "run", tmp_path / "model", ABOUT)
    assert "There is no C++ compiler, or no Python.h" in capsys.readouterr().err
    monkeypatch.undo()
    assert loop.can_compile()
    monkeypatch.setattr(loop.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert not loop.can_compile()
    fit(tiny_config(), six, tmp_path / "run", tmp_path / "model", ABOUT)  # no other training


def test_a_continued_training_needs_its_first_model_no_more(six, finished, tmp_path, monkeypatch):
    start = shutil.copytree(finished / "model", tmp_path / "start")
    interrupt_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_config(), six, tmp_path / "run", tmp_path / "model", ABOUT, init=start)
    monkeypatch.undo()
    shutil.rmtree(start)
    fit(tiny_config(), six, tmp_path / "run", tmp_path / "model", ABOUT, init=start)
    assert CycleGAN.from_pretrained(tmp_path / "model").config.training["pairs"] == 24


def test_schedules_that_are_over_before_the_first_step(six, tmp_path):
    with pytest.raises(TrainingError, match="over before its first step. Lower --start-epoch"):
        fit(tiny_config(start_epoch=5), six, tmp_path / "run", tmp_path / "model", ABOUT)
    with pytest.raises(TrainingError, match="start_epoch must lie before the last of the epochs"):
        tiny_config(epochs=5, start_epoch=5)


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
