"""`train.state`: a training state is there whole, or as it was before."""

import errno
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError
from train_fixtures import ROOT

from train import state
from train.errors import TrainingError

CPU = torch.device("cpu")
CONTENT = {"weights": {"a": torch.arange(6.0).reshape(2, 3)}, "pairs": 12, "seconds": 1.5, "config": {"hours": None}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    state.save_state(tmp_path, CONTENT)
    back = state.load_state(tmp_path, CPU)
    assert torch.equal(back["weights"]["a"], CONTENT["weights"]["a"])
    assert {key: back[key] for key in ("pairs", "seconds", "config")} == {
        "pairs": 12,
        "seconds": 1.5,
        "config": {"hours": None},
    }
    assert names(tmp_path) == ["state.pt"]


def test_a_run_that_saved_nothing_has_no_state(tmp_path):
    assert state.load_state(tmp_path, CPU) is None
    assert state.load_state(tmp_path / "not made yet", CPU) is None


def half_written_then(error):
    def save(content, path):
        path.write_bytes(b"half of it")
        raise error

    return save


def test_a_full_disk_is_said_and_the_previous_state_survives(tmp_path, monkeypatch):
    state.save_state(tmp_path, CONTENT)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(torch, "save", half_written_then(full))
    with pytest.raises(TrainingError) as caught:
        state.save_state(tmp_path, CONTENT | {"pairs": 99})
    assert str(caught.value) == (
        f"The training state cannot be written to {tmp_path}: [Errno 28] No space left on device. "
        "The previous state is intact."
    )
    assert state.load_state(tmp_path, CPU)["pairs"] == 12
    assert names(tmp_path) == ["state.pt"]  # what was half written gives its space back


def test_a_full_disk_as_torch_reports_it(tmp_path, monkeypatch):
    state.save_state(tmp_path, CONTENT)
    monkeypatch.setattr(torch, "save", half_written_then(RuntimeError("PytorchStreamWriter failed writing file")))
    with pytest.raises(TrainingError, match=r"PytorchStreamWriter failed writing file\. The previous state is intact"):
        state.save_state(tmp_path, CONTENT | {"pairs": 99})
    assert state.load_state(tmp_path, CPU)["pairs"] == 12


def test_a_kill_while_writing_leaves_the_previous_state(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    state.save_state(tmp_path, CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half_written_then(Killed()))
        with pytest.raises(Killed):
            state.save_state(tmp_path, CONTENT | {"pairs": 99})
    assert state.load_state(tmp_path, CPU)["pairs"] == 12
    state.save_state(tmp_path, CONTENT | {"pairs": 24})
    assert state.load_state(tmp_path, CPU)["pairs"] == 24
    assert names(tmp_path) == ["state.pt"]


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_state_is_named_with_what_to_do(tmp_path, damage):
    state.save_state(tmp_path, CONTENT)
    path = tmp_path / "state.pt"
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(TrainingError) as caught:
        state.load_state(tmp_path, CPU)
    assert str(caught.value) == f"{path} is damaged. Restore it from a copy, or delete it to start anew."


def test_a_state_runs_no_code_of_strangers(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").mkdir, ())

    torch.save({"pairs": Trap()}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="is damaged"):
        state.load_state(tmp_path, CPU)
    assert names(tmp_path) == ["state.pt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error")])
def test_other_files_that_cannot_be_written(tmp_path, error):
    with pytest.raises(TrainingError) as caught, state.writing(tmp_path):
        raise error
    assert str(caught.value) == f"{tmp_path} cannot be written: {error}. The last training state is intact."


def test_mistakes_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(ZeroDivisionError), state.writing(tmp_path):
        _ = 1 / 0


def test_a_state_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    state.save_state(tmp_path, CONTENT)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(TrainingError) as caught:
        state.load_state(tmp_path, CPU)
    assert str(caught.value) == f"{tmp_path / 'state.pt'} cannot be read: Permission denied. Change its permissions."


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("can't allocate memory"),
    ],
)
def test_a_state_is_not_called_damaged_for_want_of_memory(tmp_path, monkeypatch, error):
    state.save_state(tmp_path, CONTENT)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)) as caught:
        state.load_state(tmp_path, CPU)
    assert caught.value is error


def test_a_run_is_claimed_until_its_process_lets_go_or_ends(tmp_path):
    with state.claimed(tmp_path):
        with pytest.raises(TrainingError, match="Another process trains in"), state.claimed(tmp_path):
            pass
    claiming = "import os, sys; from pathlib import Path; from train.state import claimed; "
    claiming += "claimed(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", claiming, tmp_path], cwd=ROOT).returncode == -9
    with state.claimed(tmp_path):
        pass
