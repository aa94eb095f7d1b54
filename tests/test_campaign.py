"""`train.campaign`: several models in turn, stopped and gone on with."""

import itertools
import json
from dataclasses import replace

import pytest
from train_fixtures import one_thread, tiny_config, write_domains  # noqa: F401

from cyclegan.model import CycleGAN, read_config, write_config
from cyclegan.networks import GeneratorConfig
from cyclegan.zoo import Zoo
from train import campaign as module
from train import loop, recipes
from train.__main__ import main
from train.campaign import TASKS, campaign
from train.classifier import ClassifierConfig
from train.errors import TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny(monkeypatch):
    """A recipe of a few steps; the clock decides nothing, so that the test does the same on any machine."""
    masked = GeneratorConfig(filters=4, blocks=1, mask=True)
    monkeypatch.setitem(
        recipes.RECIPES, "tiny", tiny_config(validation=3, generator=masked, stages=((32, 0.0),), mask_area=0.4)
    )
    ticks = itertools.count(0, 60)
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(ticks)))  # a step a minute
    monkeypatch.setattr("train.evaluate.ClassifierConfig", lambda: ClassifierConfig(size=16, filters=4, steps=2))


@pytest.fixture
def crops(tmp_path):
    for name in ("glasses", "anime"):
        write_domains(tmp_path / "crops" / name, 30)
        for part, source in (("testA", "trainA"), ("testB", "trainB")):
            (tmp_path / "crops" / name / part).symlink_to(tmp_path / "crops" / name / source)
    return tmp_path / "crops"


def test_five_tasks_share_the_time():
    assert list(TASKS) == ["glasses", "gender", "anime", "age", "ethnicity"]
    assert sum(task.share for task in TASKS.values()) == pytest.approx(1)


def test_models_are_trained_measured_and_put_into_the_page(tiny, crops, tmp_path):
    out = tmp_path / "checkpoints"
    campaign(["glasses", "anime"], "tiny", crops, tmp_path / "runs", out, 0.4, "cpu")
    zoo = Zoo(out)
    assert set(zoo.entries) == {"anime", "glasses"} and not zoo.problems
    for name, words in (("glasses", "Add glasses"), ("anime", "Photo to anime")):
        config = CycleGAN.from_pretrained(out / name).config
        assert config.directions["A2B"] == words
        assert config.metrics["A2B"]["images"] == 30
        assert {path.name for path in (out / name).iterdir()} == {
            "config.json", "model.safetensors", "README.md", "grid.png", "failures.jpg",
        }  # fmt: skip
        assert "python -m train fit --recipe tiny" in (out / name / "README.md").read_text()


def test_what_is_done_is_passed_over_and_written_words_stay(tiny, crops, tmp_path, monkeypatch):
    arguments = (["glasses"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 0.2, "cpu")
    campaign(*arguments)
    card, weights = tmp_path / "out" / "glasses" / "README.md", tmp_path / "out" / "glasses" / "model.safetensors"
    card.write_text(card.read_text() + "\nSeen: frames on hats.\n")
    before = weights.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", lambda *_: pytest.fail("measured twice"))
        campaign(*arguments)
    assert weights.read_bytes() == before
    assert "Seen: frames on hats." in card.read_text()


def test_more_time_later_trains_on(tiny, crops, tmp_path):
    for hours in (0.1, 0.2):
        campaign(["glasses"], "tiny", crops, tmp_path / "runs", tmp_path / "out", hours, "cpu")
        training = CycleGAN.from_pretrained(tmp_path / "out" / "glasses").config.training
        assert training["hours"] == pytest.approx(hours, abs=0.02)


def test_a_model_of_something_else_is_not_overwritten(tiny, crops, tmp_path):
    folder = tmp_path / "out" / "glasses"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match="out/glasses holds a model already, and .* has no state to continue."):
        campaign(["anime", "glasses"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 1.0, "cpu")
    assert not (tmp_path / "runs").exists() and (folder / "config.json").read_text() == "{}"


def test_the_precision_chosen_for_a_model_stays(tiny, crops, tmp_path):
    arguments = (["glasses"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 0.2, "cpu")
    campaign(*arguments)
    folder = tmp_path / "out" / "glasses"
    write_config(folder, replace(read_config(folder), precision="bf16"))
    campaign(*arguments)
    assert read_config(folder).precision == "bf16"


def test_another_recipe_is_another_training(tiny, crops, tmp_path, monkeypatch):
    campaign(["glasses"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 0.2, "cpu")
    monkeypatch.setitem(recipes.RECIPES, "other", replace(recipes.recipe("tiny"), lr=1e-3))
    with pytest.raises(TrainingError, match="was started with other settings .*lr"):
        campaign(["glasses"], "other", crops, tmp_path / "runs", tmp_path / "out", 0.2, "cpu")


def test_a_run_of_so_many_pairs_is_not_done_by_the_clock(tiny, crops, tmp_path):
    run, task = tmp_path / "runs" / "glasses", TASKS["glasses"]
    config = replace(task.config("tiny", 1.0), hours=None, pairs=4)
    loop.fit(config, crops / "glasses", run, run / "model", task.about)
    module.save_evaluation(run / "model", *module.evaluate(run / "model", crops / "glasses", "cpu"))
    campaign(["glasses"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 0.3, "cpu")
    assert CycleGAN.from_pretrained(tmp_path / "out" / "glasses").config.training["pairs"] > 4


def test_missing_data_is_noticed_before_anything_is_trained(tiny, crops, tmp_path):
    with pytest.raises(TrainingError, match="There is neither .*gender.tar nor a folder"):
        campaign(["glasses", "gender"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 1.0, "cpu")
    assert not (tmp_path / "runs").exists()


def test_an_unknown_model(capsys, tmp_path):
    assert main(["campaign", "hats", "--data", str(tmp_path), "--hours", "1"]) == 1
    assert capsys.readouterr().err.startswith("There is no task hats. Known ones: glasses, gender")


def test_the_time_is_shared_among_the_models_named(crops, tmp_path, monkeypatch):
    asked = {}

    def done(model, config):
        asked[model.parent.name] = config.hours
        return True

    monkeypatch.setattr(module, "_is_done", done)
    monkeypatch.setattr(module, "_ship", lambda *_: None)
    campaign(["glasses", "anime"], "face", crops, tmp_path / "runs", tmp_path / "out", 3.0, "cpu")
    assert asked == pytest.approx({"glasses": 1.5, "anime": 1.5})


def test_the_cards_command_is_the_training_itself(tiny, crops, tmp_path):
    campaign(["anime"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 0.2, "cpu", batch=4)
    training = json.loads((tmp_path / "out" / "anime" / "config.json").read_text())["training"]
    assert "--no-mask" in training["command"] and "--cycle 10" in training["command"]
    assert "--batch 4" in training["command"] and training["recipe"]["batch"] == 4
    assert "--license 'Non-commercial" in training["command"] and "--description 'Redraws a" in training["command"]
    assert training["recipe"]["cycle"] == 10 and not training["recipe"]["generator"]["mask"]


@pytest.mark.parametrize("recipe", ["face", "utk-age"])
@pytest.mark.parametrize("name", module.TASKS)
def test_every_tasks_options_are_its_settings(name, recipe, capsys):
    task = module.TASKS[name]
    config = task.config(recipe, 1.0)
    command = ["fit", "--recipe", recipe, "--data", "x", "--run", "y", "--hours", "1", *task.flags(), "--dry-run"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == config.to_json()


@pytest.mark.parametrize("lost", ["grid.png", "failures.jpg"])
def test_a_model_whose_pictures_could_not_be_written_is_measured_again(tiny, crops, tmp_path, lost):
    arguments = (["glasses"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 0.2, "cpu")
    campaign(*arguments)
    weights = (tmp_path / "out" / "glasses" / "model.safetensors").read_bytes()
    (tmp_path / "runs" / "glasses" / "model" / lost).unlink()
    campaign(*arguments)
    assert (tmp_path / "runs" / "glasses" / "model" / lost).exists()
    assert (tmp_path / "out" / "glasses" / "model.safetensors").read_bytes() == weights


def test_less_time_later_changes_nothing(tiny, crops, tmp_path, monkeypatch):
    campaign(["glasses"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 0.2, "cpu")
    monkeypatch.setattr(module, "evaluate", lambda *_: pytest.fail("measured twice"))
    campaign(["glasses"], "tiny", crops, tmp_path / "runs", tmp_path / "out", 0.1, "cpu")


def test_a_recipe_that_does_not_suit_a_task_is_refused_before_anything_is_trained(crops, tmp_path):
    with pytest.raises(TrainingError, match="3 scale.* needs images of at least 192 pixels"):  # pixels rearranged
        campaign(["glasses", "anime"], "glasses-v2", crops, tmp_path / "runs", tmp_path / "out", 1.0, "cpu")
    assert not (tmp_path / "runs").exists()
