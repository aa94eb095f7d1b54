"""`train.health`: what goes wrong is noticed, and the message says what to change."""

from pathlib import Path

import pytest
import torch
from train_fixtures import tiny_config

from train.errors import TrainingError
from train.health import check_alive, check_finite, naming_memory, warn_of_overfitting, warn_of_standstill

RUN = Path("runs/mine")


def test_numbers_are_fine():
    check_finite({"loss cycle_A": 0.0, "norm of G_AB": 1e30}, 12, RUN, 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_named_with_its_step_and_what_survives(value):
    with pytest.raises(TrainingError) as caught:
        check_finite({"loss cycle_A": 1.0, "loss D_B": value, "loss D_A": value}, 1200, RUN, 800)
    assert str(caught.value) == (
        "The loss D_B is no longer a number after 1200 pairs. runs/mine keeps the state after 800 pairs. "
        "Start another --run with a lower --lr or --precision float32."
    )


def test_nothing_is_said_to_survive_where_nothing_was_saved():
    with pytest.raises(TrainingError, match=r" after 12 pairs\. No state had been saved yet\. Start another --run "):
        check_finite({"loss D_B": float("nan")}, 12, RUN, 0)


def test_the_greatest_variety_of_each_direction_is_remembered():
    best = check_alive({"A2B": (0.5, 0.1), "B2A": (0.4, 0.1)}, {}, 100, RUN, 0)
    best = check_alive({"A2B": (0.3, 0.1), "B2A": (0.9, 0.1)}, best, 200, RUN, 100)
    assert best == {"A2B": 0.5, "B2A": 0.9}


def test_grey_beginnings_are_no_collapse():
    assert check_alive({"A2B": (0.001, 0.5), "B2A": (0.2, 0.5)}, {}, 100, RUN, 0) == {"A2B": 0.001, "B2A": 0.2}


@pytest.mark.parametrize("direction", ["A2B", "B2A"])
def test_a_collapse_is_told_with_its_direction_and_what_to_change(direction):
    """Even where translations of the other direction never varied more than these do now, as drawings may."""
    other = {"A2B": "B2A", "B2A": "A2B"}[direction]
    with pytest.raises(TrainingError) as caught:
        check_alive({other: (0.05, 0.3), direction: (0.04, 0.3)}, {other: 0.05, direction: 0.62}, 5000, RUN, 4000)
    assert str(caught.value) == (
        f"The training has collapsed: after 5000 pairs all translations {direction} look alike (variety 0.040, once "
        "0.620). runs/mine keeps the state after 4000 pairs. Start another --run with a lower --lr or a higher --cycle."
    )


def test_less_variety_is_no_collapse_yet():
    best = {"A2B": 0.8, "B2A": 0.8}
    assert check_alive({"A2B": (0.1, 0.3), "B2A": (0.7, 0.3)}, best, 5000, RUN, 0) == best


@pytest.mark.parametrize(
    ("masked", "cure"),
    [(True, "a higher --mask-area"), (False, "a lower --cycle and --identity, or a higher --lr-ratio")],
)
def test_copying_is_told_late_in_a_training_and_for_the_direction_that_does_it(capsys, masked, cure):
    measured = {"A2B": (1.0, 0.01), "B2A": (1.0, 0.2)}
    warn_of_standstill(measured, 0.1, masked)  # all begin as something near grey, or near a copy
    assert capsys.readouterr().err == ""
    warn_of_standstill(measured, 0.5, masked)
    assert capsys.readouterr().err == (
        "Translations A2B hardly differ from their inputs (by 0.0100). If that stays so, start another --run with "
        f"{cure}.\n"
    )


def test_translations_that_never_differed_from_one_another_are_told(capsys):
    warn_of_standstill({"A2B": (0.01, 0.4), "B2A": (0.1, 0.4)}, 0.5, masked=False)
    assert capsys.readouterr().err == (
        "Translations A2B all look alike (variety 0.010). If that stays so, start another --run with a lower --lr or a "
        "higher --cycle.\n"
    )


@pytest.mark.parametrize(
    ("augment", "cure"), [(False, "Stop, and go on with --augment-from 0."), (True, "It needs more images.")]
)
def test_a_discriminator_that_knows_its_images_by_heart_is_told(capsys, augment, cure):
    verdicts = {"A": (0.55, 0.53, 0.43), "B": (0.57, 0.44, 0.38)}
    warn_of_overfitting(verdicts, 0.1, augment)  # averages of the first steps say nothing yet
    assert capsys.readouterr().err == ""
    warn_of_overfitting(verdicts, 0.5, augment)
    assert capsys.readouterr().err == (
        "The discriminator of B knows its images by heart: it gives them 0.57, others of their kind 0.44, and "
        f"translations 0.38. {cure}\n"
    )


@pytest.mark.parametrize("verdicts", [(0.53, 0.49, 0.48), (0.6, 0.5, 0.39), (0.4, 0.5, 0.5)])
def test_little_or_well_placed_memory_is_not(capsys, verdicts):
    """A small gap may be chance, and a larger one to translations is what generators learn from."""
    warn_of_overfitting({"A": verdicts}, 0.5, False)
    assert capsys.readouterr().err == ""


def test_of_several_processes_the_first_warns(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    warn_of_standstill({"A2B": (1.0, 0.0), "B2A": (1.0, 0.0)}, 0.5, masked=False)
    assert capsys.readouterr().err == ""


def out_of_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def out_of(message):
    def fail():
        raise RuntimeError(message)

    return fail


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(2**50),
        out_of_gpu,
        lambda: bytearray(2**50),
        out_of("CUDA error: out of memory"),
        out_of("MPS backend out of memory (MPS allocated: 5.00 GB)"),
        out_of("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        out_of("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        out_of("std::bad_alloc"),
    ],
)
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
