"""Training on two processes (CPU, gloo) as a person starts it, beside the same training on one."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from PIL import Image
from train_fixtures import ABOUT, ROOT, one_thread, tiny_config, write_domains  # noqa: F401

from cyclegan.model import CycleGAN
from train.__main__ import _parser, resolve
from train.data import Pairs
from train.errors import TrainingError
from train.log import read_log
from train.loop import fit, per_process

pytestmark = pytest.mark.usefixtures("one_thread")

# As few steps as show everything: a batch of 8 in two parts per process, saved every second step. The buffers never
# fill, as each process has its own.
SETTINGS = """--recipe face --unshuffle 1 --stages 16:0 24:0.5 --filters 4 --blocks 1 --D-filters 4 --D-layers 2
    --D-norm spectral --batch 8 --accumulate 2 --precision float32 --no-compile --decay-from 1 --lr 5e-4 --lr-ratio 1
    --identity 1 --identity-end 1 --ema-halflife 8 --log-every 8 --save-every 16 --validation 2""".split()

# What each process saw and holds goes to a file of its own.
WATCHED = """
    import os, sys, torch
    from pathlib import Path
    from train.__main__ import main
    from train.data import Pairs
    from train.step import Networks

    batches, weights = [], {}
    batch, average = Pairs.batch, Networks.average

    def watched_batch(*arguments):
        batches.append(batch(*arguments))
        return batches[-1]

    def watched_average(self, *arguments):
        average(self, *arguments)
        for name, network in self.named().items():
            weights[name] = {key: value.clone() for key, value in network.state_dict().items()}

    Pairs.batch, Networks.average = watched_batch, watched_average
    code = main(sys.argv[2:])
    torch.save({"batches": batches, "weights": weights}, Path(sys.argv[1], f"{os.environ['RANK']}.pt"))
    sys.exit(code)
"""


def launch(*command: object) -> str:
    """Run something on two processes; its stderr."""
    # On machines without GPUs, --multi_gpu is how accelerate is told to start several processes.
    start = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    process = subprocess.run(
        [*start, "--main_process_port", "0", *map(str, command)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    return process.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_domains(tmp_path_factory.mktemp("data"), 20, 24)


@pytest.fixture(scope="module")
def two(data, tmp_path_factory) -> tuple[Path, list[dict], str]:
    """(run, what each of the processes saw, stderr) of 32 pairs on two processes."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "watched.py").write_text(textwrap.dedent(WATCHED))
    command = ["fit", "--data", data, "--run", folder / "run", *SETTINGS, "--pairs", "32", "--device", "cpu"]
    error = launch(folder / "watched.py", folder, *command)
    return folder / "run", [torch.load(folder / f"{rank}.pt") for rank in range(2)], error


def config(pairs: int):
    return resolve(_parser().parse_args(["fit", "--data", "x", "--run", "x", *SETTINGS, "--pairs", str(pairs)]))


@pytest.fixture(scope="module")
def one(data, tmp_path_factory) -> Path:
    """The run of the same training on one process, lengthened on the way as the other will be."""
    run = tmp_path_factory.mktemp("one") / "run"
    for pairs in (32, 48):
        fit(config(pairs), data, run, run / "model", ABOUT)
    return run


def curves(run: Path) -> dict[tuple[int, str], float]:
    rows = read_log(run)
    found = {(int(row["pairs"]), row["loss"]): float(row["value"]) for row in rows}
    assert len(found) == len(rows)  # one writer: no line twice
    return found


def test_together_they_see_the_batches_of_one(two, data):
    _, watched, _ = two
    height, width = 24, 24
    alone = Pairs.load(data, height, width, 3, 2, 0, torch.device("cpu"))
    steps = [each["batches"] for each in watched]
    assert len(steps[0]) == len(steps[1]) == 4
    for number, halves in enumerate(zip(*steps, strict=True)):
        size = (16, 16) if number < 2 else (24, 24)
        expected = alone.batch(8 * number, 8, size, True)
        for domain in range(2):
            assert torch.equal(torch.cat([half[domain] for half in halves]), expected[domain])


def test_they_hold_the_same_weights_and_averages(two):
    _, (first, second), _ = two
    assert {"G_AB", "D_B", "ema_G_AB", "ema_G_BA"} <= first["weights"].keys()
    for network, weights in first["weights"].items():
        for name, value in weights.items():
            assert torch.equal(value, second["weights"][network][name]), (network, name)


def test_each_has_buffers_and_random_numbers_of_its_own(two):
    run, _, _ = two
    one, other = torch.load(run / "state.pt", weights_only=True)["processes"]
    for name in ("buffer_A", "buffer_B"):
        images, others = (torch.stack(each[name]["images"]) for each in (one, other))
        assert len(images) == len(others) == 8  # of the last two steps; the first two were smaller
        assert not torch.equal(images, others)
    assert not torch.equal(one["random"]["cpu"], other["random"]["cpu"])
    assert not torch.equal(one["random"]["buffer"], other["random"]["buffer"])


def test_one_of_them_writes_and_speaks(two):
    run, _, error = two
    assert {path.name for path in run.iterdir() if not path.name.startswith("events")} == {
        ".lock",
        "losses.csv",
        "losses.png",
        "model",
        "samples",
        "state.pt",
    }
    assert len(list(run.glob("events*"))) == 1
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["00000016.png", "00000032.png"]
    assert error.count("trainA has only 20 images") == 1
    with Image.open(run / "losses.png") as picture:
        picture.load()
    assert CycleGAN.from_pretrained(run / "model").config.training["pairs"] == 32


def test_losses_are_those_of_one_process_also_after_going_on(two, one, data):
    """Within half a per cent: sums of float32 in another order, which Adam amplifies where gradients are near zero.

    Measured: 0.07 per cent.
    """
    run, _, _ = two
    launch("-m", "train", "fit", "--data", data, "--run", run, *SETTINGS, "--pairs", "48", "--device", "cpu")
    assert torch.load(run / "state.pt", weights_only=True)["pairs"] == 48
    shared, alone = curves(run), curves(one)
    assert shared.keys() == alone.keys() and max(pairs for pairs, _ in shared) == 48
    for place, value in alone.items():
        assert shared[place] == pytest.approx(value, rel=0.005), place
    changes = [abs(alone[8, name] - alone[48, name]) / alone[8, name] for pairs, name in alone if pairs == 8]
    assert max(changes) > 0.05  # the tolerance is far below what six steps change


def test_another_number_of_processes_is_refused(two, data):
    run, _, _ = two
    before = (run / "state.pt").read_bytes()
    with pytest.raises(TrainingError) as caught:
        fit(config(64), data, run, run / "model", ABOUT)
    assert str(caught.value) == f"{run} was started with 2 processes, not 1. Start as many, or choose another --run."
    assert (run / "state.pt").read_bytes() == before


def test_a_batch_is_divided_among_processes_and_parts():
    assert per_process(tiny_config(batch=8), 2) == 4
    assert per_process(tiny_config(batch=8, accumulate=2), 4) == 2
    with pytest.raises(TrainingError) as caught:
        per_process(tiny_config(batch=4, accumulate=2), 4)
    assert str(caught.value) == (
        "A batch of 4 cannot be divided among 4 processes in 2 parts each. Choose another --batch."
    )
