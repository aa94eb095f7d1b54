"""``python -m train``: what a person types and reads."""

import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from train_fixtures import ROOT, one_thread, tiny_config, write_domains, write_image, write_noise  # noqa: F401

from cyclegan.model import CycleGAN
from cyclegan.zoo import Zoo
from train import recipes
from train.__main__ import _parser, main

COMMANDS = ("prepare", "fit", "distill", "evaluate", "push", "campaign", "bench")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny_recipe(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", tiny_config())


def usage_error(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def resolved(capsys, *arguments) -> dict:
    capsys.readouterr()
    assert main(["fit", "--data", "nowhere", "--run", "nowhere", "--dry-run", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


# Help. --------------------------------------------------------------------------------------------------------------


def test_help_shows_the_way_from_photos_to_the_page(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for command in ("python -m train prepare", "python -m train fit", "python app.py"):
        assert f"\n  {command}" in text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_its_own_parser_accepts(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    examples = re.split(r"\nexamples?:\n", text)[1].partition("\n\n")[0].replace("\\\n", " ").strip().splitlines()
    for example in examples:
        assert example.strip().startswith(f"python -m train {command} ")
        arguments = _parser().parse_args(shlex.split(example)[3:])
        assert arguments.run_command.__name__ == f"_{command}"


def test_the_help_of_settings_is_that_of_the_config(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--identity IDENTITY Weight of the identity loss at the start" in text
    assert "`" not in text and "%%" not in text
    assert '"spectral" (Miyato et al. 2018), "batch" or "none"' in text  # no sentence ends after "et al."


def test_no_command_is_wrong_usage(capsys):
    assert "COMMAND" in usage_error(capsys)
    assert "invalid choice: 'tfi'" in usage_error(capsys, "tfi")


# Settings. ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_settings_and_makes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolved(capsys) == recipes.RECIPES[recipes.DEFAULT].to_json()
    assert resolved(capsys, "--recipe", "paper") == recipes.RECIPES["paper"].to_json()
    assert list(tmp_path.iterdir()) == []


def test_flags_override_the_recipe_and_nothing_else(capsys):
    flags = {
        "pairs": 5000,
        "hours": 1.5,
        "batch": 8,
        "lr": 0.001,
        "cycle": 7.5,
        "identity": 0.5,
        "buffer": 0,
        "seed": 3,
        "log_every": 10,
        "save_every": 20,
        "precision": "float32",
    }
    typed = [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    expected = recipes.RECIPES[recipes.DEFAULT].to_json()
    changed = {name for name, value in flags.items() if expected[name] != value}
    assert changed == set(flags)  # each of them is an override
    expected |= flags | {"compile": False, "stages": [[96, 0.0]]}
    assert resolved(capsys, *typed, "--no-compile", "--size", "96") == expected
    assert resolved(capsys, "--recipe", "paper", "--compile")["compile"] is True


def test_a_constant_identity_loss_stays_constant(capsys):
    paper = resolved(capsys, "--recipe", "paper", "--identity", "10")
    assert (paper["identity"], paper["identity_end"]) == (10, 10)


def test_switches_of_the_generator(capsys):
    generator = resolved(capsys, "--upsample", "transposed", "--separable", "--no-mask", "--mask-area", "0")[
        "generator"
    ]
    assert (generator["upsample"], generator["separable"], generator["mask"]) == ("transposed", True, False)


def test_stages_leave_no_size_to_choose(capsys, tmp_path):
    command = ["fit", "--data", str(tmp_path), "--run", str(tmp_path / "run"), "--stages", "64:0", "128:0.5"]
    for flag in ("--size", "--height", "--width"):
        assert main([*command, flag, "96"]) == 1
        assert "Leave out --size, --height and --width." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["glasses", "gender", "anime", "age", "ethnicity"])
def test_the_commands_of_the_shipped_models_still_mean_what_made_them(name, capsys):
    training = json.loads((ROOT / "checkpoints" / name / "config.json").read_text())["training"]
    words = shlex.split(training["command"])
    assert words[:3] == ["python", "-m", "train"]
    capsys.readouterr()
    assert main([*words[3:], "--dry-run"]) == 0
    settings = json.loads(capsys.readouterr().out)
    for key, value in training["recipe"].items():
        if key in ("pairs", "hours", "log_every", "save_every"):  # how long, and what was written on the way
            continue
        if isinstance(value, dict):  # fields that are younger than the model are not in it
            assert {name: settings[key][name] for name in value} == value
        else:
            assert settings[key] == value, key


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--unshuffle", "2"], (2, 2)),
        (["--D-unshuffle", "2"], (1, 2)),
        (["--unshuffle", "2", "--D-unshuffle", "1"], (2, 1)),
    ],
)
def test_discriminators_unshuffle_as_generators_do_unless_told_otherwise(flags, expected, capsys):
    settings = resolved(capsys, "--recipe", "paper", *flags)
    assert (settings["generator"]["unshuffle"], settings["discriminator"]["unshuffle"]) == expected


def test_an_unknown_recipe_is_wrong_usage_and_lists_the_known_ones(capsys):
    message = usage_error(capsys, "fit", "--data", "x", "--run", "y", "--recipe", "pepper")
    assert "invalid choice: 'pepper'" in message and "face" in message and "paper" in message


@pytest.mark.parametrize("flags", [("--batch", "many"), ("--device", "abacus"), ("--precision", "float8")])
def test_other_wrong_usage(capsys, flags):
    assert flags[1] in usage_error(capsys, "fit", "--data", "x", "--run", "y", *flags)


def test_settings_that_cannot_work_are_one_line_on_stderr(capsys):
    assert main(["fit", "--data", "x", "--run", "y", "--batch", "0"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("Batch, accumulate, pairs, lr, ") and output.err.endswith(" must be positive.\n")
    assert output.err.count("\n") == 1 and output.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that is meant to be missing")
def test_a_device_that_is_not_there(capsys, tmp_path):
    write_domains(tmp_path, 3)
    message = 'The device "cuda" is not available on this machine. Choose auto or cpu.\n'
    assert main(["fit", "--data", str(tmp_path), "--run", str(tmp_path / "run"), "--device", "cuda"]) == 1
    assert capsys.readouterr().err == message
    assert main(["prepare", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cuda"]) == 1
    assert capsys.readouterr().err == message
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()


# Work. --------------------------------------------------------------------------------------------------------------


def test_missing_data_from_a_real_shell(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "train", "fit", "--data", "nowhere", "--run", "run"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert process.stderr == "There is no folder nowhere/trainA. Make it with: python -m train prepare --help\n"
    assert process.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_for_prepare(capsys, tmp_path):
    missing = tmp_path / "nowhere"
    assert main(["prepare", "--a", str(missing), "--b", str(missing), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"There is no folder {missing}.\n"
    assert main(["prepare", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("Give one source:\n  --data DIR")
    assert main(["prepare", "--out", str(tmp_path / "out"), "--pack", str(tmp_path / "p.tar")]) == 1
    assert capsys.readouterr().err.startswith(f"There are no crops in {tmp_path / 'out'} to pack.")
    assert list(tmp_path.iterdir()) == []


def test_from_utkface_and_from_a_table_to_a_pack(capsys, tmp_path):
    raw, packs = tmp_path / "raw", (tmp_path / "age.tar", tmp_path / "label.tar", tmp_path / "again.tar")
    table = ["id,young"]
    for age in range(20, 30):
        write_image(raw / f"{age}_0_1_1.png", np.full((32, 32, 3), 5 * age, np.uint8))
        table.append(f"{age},{int(age < 25)}")
    (tmp_path / "table.csv").write_text("\n".join(table))
    both = ["--size", "16", "--faces", "square", "square", "--test-share", "0"]
    people = ["--utkface", raw, "--a", "age 20-24", "--b", "age 25-29", "--out", tmp_path / "age"]
    rows = ["--csv", tmp_path / "table.csv", "--images", raw, "--label", "young", "--image", "{id}_0_1_1.png"]
    rows += ["--a", "1", "--b", "0", "--out", tmp_path / "label"]
    for command, pack in ((people + both, packs[0]), (rows + both, packs[1]), (people[-2:], packs[2])):
        assert main(["prepare", *map(str, command), "--pack", str(pack)]) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"{pack}: 10 crops, ")
    assert packs[0].read_bytes() == packs[1].read_bytes() == packs[2].read_bytes()


def test_from_drawings_to_a_model_in_the_zoo(tiny_recipe, capsys, tmp_path):
    for letter, seed in (("a", 1), ("b", 2)):
        write_noise(tmp_path / letter, 12, side=40, seed=seed)
    (tmp_path / "a" / "notes.txt").write_text("hello")
    out, models = tmp_path / "crops", tmp_path / "models"
    command = ["prepare", "--a", tmp_path / "a", "--b", tmp_path / "b", "--test-share", "0", "--out", out]
    assert main([*map(str, command), "--size", "16", "--faces", "square", "square"]) == 0
    assert capsys.readouterr().out == (
        "trainA       12 crops\ntrainB       12 crops\nrejected      1 not a readable image\n"
    )

    command = ["fit", "--data", out, "--run", tmp_path / "run", "--model", models / "dots", "--recipe", "tiny"]
    command += ["--domains", "grey dots", "dots", "--directions", "Colour", "Fade", "--title", "Dots", "--pairs", "8"]
    assert main([*map(str, command), "--device", "cpu", "--license", "Free."]) == 0
    zoo = Zoo(models)
    assert zoo.problems == {}
    (row,) = zoo.describe()
    assert (row["name"], row["title"], row["license"], row["image_size"]) == ("dots", "Dots", "Free.", 16)
    assert row["domains"] == {"A": "grey dots", "B": "dots"}
    assert row["directions"] == {"A2B": "Colour", "B2A": "Fade"}


def test_a_model_says_the_command_that_made_it(tiny_recipe, tmp_path):
    write_domains(tmp_path / "my data")
    command = ["fit", "--data", str(tmp_path / "my data"), "--run", str(tmp_path / "run"), "--recipe", "tiny"]
    command += ["--pairs", "2", "--device", "cpu"]
    assert main(command) == 0
    config = CycleGAN.from_pretrained(tmp_path / "run" / "model").config
    assert shlex.split(config.training["command"]) == ["python", "-m", "train", *command]


def test_from_a_large_model_to_a_small_one(tiny_recipe, capsys, tmp_path):
    """The student takes over the teacher's words, and may have others."""
    write_domains(tmp_path / "data")
    places = ["--data", str(tmp_path / "data"), "--device", "cpu"]
    large = ["fit", *places, "--recipe", "tiny", "--pairs", "2", "--run", str(tmp_path / "large"), "--filters", "8"]
    large += ["--domains", "dark", "bright", "--directions", "Light up", "Dim"]
    large += ["--title", "Lights", "--license", "Free."]
    assert main(large) == 0
    settings = ["--size", "16", "--unshuffle", "1", "--filters", "4", "--blocks", "1"]
    settings += ["--D-filters", "2", "--D-layers", "2"]
    settings += ["--no-compile", "--precision", "float32", "--pairs", "8", "--log-every", "4"]
    teacher = ["--teacher", str(tmp_path / "large" / "model")]
    small = ["distill", *teacher, *places, *settings, "--run", str(tmp_path / "small")]
    capsys.readouterr()
    assert main([*small, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["distill"] > 0 and not (tmp_path / "small").exists()
    assert main([*small, "--description", "Quick.", "--model", str(tmp_path / "models" / "lights")]) == 0
    config = CycleGAN.from_pretrained(tmp_path / "models" / "lights").config
    assert (config.name, config.title, config.description, config.license) == ("lights", "Lights", "Quick.", "Free.")
    assert [config.domains[letter].label for letter in "AB"] == ["dark", "bright"]
    assert config.directions == {"A2B": "Light up", "B2A": "Dim"}
    assert config.generator.filters == 4 and config.training["teacher"] == "model"

    capsys.readouterr()
    assert main([*small, "--filters", "8"]) == 1
    assert "its teacher" in (error := capsys.readouterr().err) and "nothing is won" in error
    assert main(["fit", *places, *settings, "--recipe", "student", "--run", str(tmp_path / "alone")]) == 1
    assert capsys.readouterr().err.endswith("distill needs a teacher: python -m train distill --help\n")
    assert not (tmp_path / "alone").exists()


def test_without_words_a_model_is_named_after_its_run(tiny_recipe, tmp_path):
    write_domains(tmp_path)
    command = ["fit", "--data", tmp_path, "--run", tmp_path / "winter", "--recipe", "tiny", "--pairs", "2"]
    assert main([*map(str, command), "--device", "cpu"]) == 0
    config = CycleGAN.from_pretrained(tmp_path / "winter" / "model").config
    assert (config.name, config.title) == ("winter", "winter")
    assert config.directions == {"A2B": "A to B", "B2A": "B to A"}


def test_changed_settings_on_resume(tiny_recipe, capsys, tmp_path):
    write_domains(tmp_path)
    run = tmp_path / "run"
    command = ["fit", "--data", str(tmp_path), "--run", str(run), "--recipe", "tiny", "--device", "cpu"]
    assert main([*command, "--pairs", "2"]) == 0
    assert main([*command, "--pairs", "4"]) == 0
    capsys.readouterr()
    assert main([*command, "--lr", "0.1"]) == 1
    error = capsys.readouterr().err
    assert error.endswith(f"{run} was started with other settings (lr). Repeat its command or choose another --run.\n")
    assert "Traceback" not in error


def test_one_image_is_too_few(capsys, tmp_path):
    for letter in "AB":
        write_noise(tmp_path / f"train{letter}", 1)
    assert main(["fit", "--data", str(tmp_path), "--run", str(tmp_path / "run")]) == 1
    expected = f"trainA of {tmp_path} has 1 readable image; at least 2 are needed, and 1,000 advised.\n"
    assert capsys.readouterr().err.endswith(expected)


def test_ctrl_c_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.prepare.prepare", interrupted)
    for letter in "ab":
        write_image(tmp_path / letter / "x.png", np.zeros((16, 16, 3), np.uint8))
    command = ["prepare", "--a", tmp_path / "a", "--b", tmp_path / "b", "--test-share", "0", "--out", tmp_path / "out"]
    assert main([str(part) for part in command]) == 130
    assert capsys.readouterr().err == "Stopped. The same command continues from what was saved.\n"


def test_ctrl_c_promises_nothing_where_nothing_was_saved(capsys, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.evaluate.evaluate", interrupted)
    assert main(["evaluate", "--checkpoint", str(tmp_path), "--data", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_a_lack_of_memory_is_a_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("train.evaluate.evaluate", lambda *_: bytearray(2**50))
    assert main(["evaluate", "--checkpoint", str(tmp_path), "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "Memory ran out. Close other programs, or use fewer or smaller pictures.\n"


def test_options_are_whole_words(capsys):
    """The card finds the recipe by its option in the command."""
    assert "--rec" in usage_error(capsys, "fit", "--data", "x", "--run", "y", "--rec", "paper")


@pytest.mark.parametrize("options", [("--columns", "0"), ("--count", "-1")])
def test_numbers_of_pictures_that_are_none(capsys, options):
    assert "must be at least 1" in usage_error(capsys, "evaluate", "--checkpoint", "x", "--data", "y", *options)


def test_a_run_in_the_folder_that_one_is_in_is_named_after_it(tiny_recipe, tmp_path, monkeypatch):
    data = write_domains(tmp_path / "data")
    (tmp_path / "hats").mkdir()
    monkeypatch.chdir(tmp_path / "hats")
    assert main(["fit", "--recipe", "tiny", "--data", str(data), "--run", ".", "--device", "cpu"]) == 0
    assert CycleGAN.from_pretrained("model").config.name == "hats"


def test_names_that_are_no_text_do_not_stop_a_training(tiny_recipe, tmp_path, capsys):
    data = write_domains(tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape"))
    model = tmp_path / b"th\xe9".decode("utf-8", "surrogateescape")
    begin = ["fit", "--recipe", "tiny", "--data", str(data), "--device", "cpu", "--run"]
    assert main([*begin, str(model)]) == 1
    assert "its name is not in UTF-8" in capsys.readouterr().err
    assert main([*begin, str(tmp_path / "run"), "--model", str(model)]) == 0
    config = CycleGAN.from_pretrained(model).config
    assert "caf" in config.training["command"] and config.title == r"th\udce9"
