"""`train.distill`: a small student comes to do what its teacher does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import blend, copy_model, make_config, make_model
from train_fixtures import ABOUT, one_thread, quick_plots, tiny_config, write_domains  # noqa: F401

from cyclegan.images import to_tensor
from cyclegan.model import CycleGAN
from cyclegan.networks import GeneratorConfig
from train.config import DiscriminatorConfig
from train.data import load_part
from train.distill import Teacher, check_student
from train.errors import TrainingError
from train.loop import fit

pytestmark = pytest.mark.usefixtures("one_thread", "quick_plots")

RED, BLUE = (0.9, -0.9, -0.9), (-0.9, -0.9, 0.9)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A model of eight filters and two blocks that mixes half of red into A, and half of blue into B."""
    config = make_config("teacher", ("square", "square"), image_size=16)
    config = replace(config, generator=GeneratorConfig(filters=8, blocks=2, mask=True))
    model = make_model(config)
    blend(model.G_AB, RED, 0.5)
    blend(model.G_BA, BLUE, 0.5)
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    model.save_pretrained(folder)
    return folder


def student(**changes):
    return tiny_config(
        **dict(
            generator=GeneratorConfig(filters=4, blocks=1),
            pairs=320,
            batch=4,
            lr=4e-3,
            cycle=0.0,
            identity=0.0,
            identity_end=0.0,
            distill=20.0,
            ema_halflife=20,
            log_every=100,
            save_every=1000,
        )
        | changes
    )


# Which students are accepted. ---------------------------------------------------------------------------------------


def test_a_smaller_student_learns_its_teachers_words(teacher):
    config = check_student(student(), teacher)
    assert config.directions == {"A2B": "Change", "B2A": "Change back"} and config.name == "teacher"


def test_a_student_as_large_as_its_teacher_is_refused(teacher):
    for filters in (8, 12):
        with pytest.raises(TrainingError, match="GMAC, its teacher .*: nothing is won. Lower --filters or --blocks."):
            check_student(student(generator=GeneratorConfig(filters=filters, blocks=2, mask=True)), teacher)


def test_a_student_too_large_to_be_served_live_is_refused(teacher):
    large = student(generator=GeneratorConfig(filters=64, blocks=6), stages=((128, 0.0),))
    with pytest.raises(TrainingError) as caught:
        check_student(large, teacher)
    assert str(caught.value) == (
        "A student of 10.6 GMAC at 128 pixels is too slow to serve live; 3 are the most. Lower --filters, --blocks or "
        "--size."
    )
    # At the size it serves: the same one on quarter the side has a sixteenth of the work.
    with pytest.raises(TrainingError, match="nothing is won"):
        check_student(replace(large, stages=((32, 0.0),)), teacher)


def test_a_size_that_the_teacher_was_not_trained_at_is_told(teacher, capsys):
    check_student(student(), teacher)
    assert capsys.readouterr().err == ""
    check_student(student(stages=((32, 0.0),)), teacher)
    assert capsys.readouterr().err == (
        "The teacher was trained at 16 pixels, and may translate badly at 32, where it is to teach. --size changes "
        "that.\n"
    )


def test_a_student_of_grey_images_is_refused(teacher):
    grey = {"channels": 1}
    generator = GeneratorConfig(filters=4, blocks=1, **grey)
    with pytest.raises(TrainingError, match="^A student works in colour, as its teacher does. Leave out --channels.$"):
        check_student(student(generator=generator, discriminator=DiscriminatorConfig(layers=2, **grey)), teacher)


def test_a_teacher_that_is_not_there():
    with pytest.raises(Exception, match="nowhere"):
        check_student(student(), Path("nowhere"))


# The teacher. -------------------------------------------------------------------------------------------------------


def test_a_teacher_translates_both_ways_without_gradients(teacher):
    taught_by = Teacher(teacher, torch.device("cpu"), compile=False)
    real_A, real_B = torch.rand(2, 3, 3, 16, 16)
    fake_A, fake_B = taught_by.translate(real_A.requires_grad_(), real_B)
    red, blue = (torch.tensor(colour)[:, None, None] for colour in (RED, BLUE))
    assert torch.allclose(fake_B, (real_A + red) / 2, atol=2e-3) and not fake_B.requires_grad
    assert torch.allclose(fake_A, (real_B + blue) / 2, atol=2e-3) and not fake_A.requires_grad


# Learning. ----------------------------------------------------------------------------------------------------------


def distance(model: Path, teacher: Path, data: Path) -> float:
    """Mean absolute distance of a student's translations from its teacher's, over both directions."""
    student, theirs = CycleGAN.from_pretrained(model), CycleGAN.from_pretrained(teacher)
    total = 0.0
    with torch.no_grad():
        for letter, direction in (("A", "A2B"), ("B", "B2A")):
            real = to_tensor(load_part(data, f"train{letter}", 16, 16)[0])
            total += (student.translate(real, direction) - theirs.translate(real, direction)).abs().mean().item() / 2
    return total


def test_a_student_approaches_its_teacher_which_stays_as_it_is(teacher, tmp_path):
    data = write_domains(tmp_path / "data", 20)
    theirs = copy_model(teacher, tmp_path / "teacher")
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    start, end = tmp_path / "start", tmp_path / "end"
    fit(student(pairs=4), data, start, start / "model", ABOUT, teacher=theirs)
    fit(student(), data, end, end / "model", ABOUT, teacher=theirs)
    first, last = (distance(run / "model", teacher, data) for run in (start, end))
    assert last < 0.5 * first, (first, last)
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == before
    config = json.loads((end / "model" / "config.json").read_text())
    assert config["training"]["teacher"] == "teacher" and config["generator"]["filters"] == 4
    losses = (end / "losses.csv").read_text()
    assert "distill_A" in losses and "distill_B" in losses


def test_a_run_is_not_continued_with_another_teacher(teacher, tmp_path):
    data, run = write_domains(tmp_path / "data", 6), tmp_path / "run"
    fit(student(pairs=4), data, run, run / "model", ABOUT, teacher=teacher)
    other = copy_model(teacher, tmp_path / "other")
    model = CycleGAN.from_pretrained(other)
    blend(model.G_AB, RED, 0.2)
    model.save_pretrained(other)
    with pytest.raises(TrainingError, match="was started with another teacher. Repeat its command"):
        fit(student(pairs=8), data, run, run / "model", ABOUT, teacher=other)


def test_without_a_teacher_its_weight_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="distill needs a teacher"):
        fit(student(), write_domains(tmp_path / "data", 4), tmp_path / "run", tmp_path / "model", ABOUT)
    assert not (tmp_path / "run").exists()


def test_a_student_does_not_take_the_place_of_its_teacher(teacher, tmp_path):
    before = (teacher / "model.safetensors").read_bytes()
    data = write_domains(tmp_path / "data")
    with pytest.raises(TrainingError, match="would take the place of its teacher"):
        fit(student(), data, tmp_path / "run", teacher.parent / "." / "teacher", ABOUT, teacher=teacher)
    assert (teacher / "model.safetensors").read_bytes() == before


def test_a_teacher_that_reduces_wants_other_sizes(tmp_path):
    config = replace(make_config("teacher", image_size=64), generator=GeneratorConfig(filters=32, blocks=4, reduce=2))
    make_model(config).save_pretrained(tmp_path / "teacher")
    with pytest.raises(TrainingError, match="divisible by 8 and at least 32 pixels, not 36 x 36"):
        check_student(student(stages=((36, 0.0),)), tmp_path / "teacher")
