"""`train.health`: what goes wrong is noticed, and the message says what to change."""

from pathlib import Path

import pytest
import torch
from train_fixtures import tiny_config

from train.errors import TrainingError
from train.health import check_alive, check_finite, naming_memory, warn_of_copying

RUN = Path("runs/mine")


def test_numbers_are_fine():
    check_finite({"loss cycle_A": 0.0, "norm of G_AB": 1e30}, 12, RUN)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_named_with_its_step_and_what_survives(value):
    with pytest.raises(TrainingError) as caught:
        check_finite({"loss cycle_A": 1.0, "loss D_B": value, "loss D_A": value}, 1200, RUN)
    assert str(caught.value) == (
        "The loss D_B is no longer a number after 1200 pairs. runs/mine keeps the last good state. "
        "Start another --run with a lower --lr or --precision float32."
    )


def test_the_greatest_variety_of_the_poorer_direction_is_remembered():
    assert check_alive({"A2B": (0.5, 0.1), "B2A": (0.4, 0.1)}, 0.0, 100, RUN) == 0.4
    assert check_alive({"A2B": (0.3, 0.1), "B2A": (0.9, 0.1)}, 0.4, 200, RUN) == 0.4
    assert check_alive({"A2B": (0.8, 0.1), "B2A": (0.9, 0.1)}, 0.4, 300, RUN) == 0.8


def test_grey_beginnings_are_no_collapse():
    assert check_alive({"A2B": (0.001, 0.5), "B2A": (0.002, 0.5)}, 0.0, 100, RUN) == 0.001


@pytest.mark.parametrize("direction", ["A2B", "B2A"])
def test_a_collapse_is_told_with_its_direction_and_what_to_change(direction):
    measured = {"A2B": (0.8, 0.3), "B2A": (0.7, 0.3)} | {direction: (0.04, 0.3)}
    with pytest.raises(TrainingError) as caught:
        check_alive(measured, 0.62, 5000, RUN)
    assert str(caught.value) == (
        f"The training has collapsed: after 5000 pairs all translations {direction} look alike (variety 0.040, once "
        "0.620). runs/mine keeps the last good state. Start another --run with a lower --lr or a higher --cycle."
    )


def test_less_variety_is_no_collapse_yet():
    """Drawings of one style vary less than photographs do."""
    assert check_alive({"A2B": (0.1, 0.3), "B2A": (0.7, 0.3)}, 0.8, 5000, RUN) == 0.8


def test_copying_is_told_late_in_a_training_and_for_the_direction_that_does_it(capsys):
    measured = {"A2B": (1.0, 0.01), "B2A": (1.0, 0.2)}
    warn_of_copying(measured, 0.1)  # all begin as something near grey, or near a copy
    assert capsys.readouterr().err == ""
    warn_of_copying(measured, 0.5)
    assert capsys.readouterr().err == (
        "Translations A2B hardly differ from their inputs (by 0.0100). Lower --cycle and --identity, or raise "
        "--lr-ratio.\n"
    )


def test_of_several_processes_the_first_warns(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    warn_of_copying({"A2B": (1.0, 0.0), "B2A": (1.0, 0.0)}, 0.5)
    assert capsys.readouterr().err == ""


def out_of_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**50), out_of_gpu, lambda: bytearray(2**50)])
def test_a_lack_of_memory_names_the_settings_to_lower(allocate):
    """The first and last one really ask for a petabyte."""
    with pytest.raises(TrainingError) as caught, naming_memory(tiny_config(batch=6, stages=((16, 0.0), (64, 0.5)))):
        allocate()
    assert str(caught.value) == (
        "Memory ran out at a batch of 6 and 64 pixels. Lower --batch, raise --accumulate, or lower --size or --filters."
    )


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), naming_memory(tiny_config()):
        torch.ones(2, 3) @ torch.ones(2, 3)
    with pytest.raises(TrainingError, match="no such data"), naming_memory(tiny_config()):
        raise TrainingError("no such data")
