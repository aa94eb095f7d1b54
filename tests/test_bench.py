"""The figures of ``bench`` and the choice of ``precision``: what they say, write and refuse."""

import itertools
import json

import pytest
from helpers import copy_model, draw_photo, identity_model, make_config, make_model, texture

from cyclegan import bench, runtime
from cyclegan.__main__ import main
from cyclegan.images import save_png
from cyclegan.model import read_config
from cyclegan.networks import GeneratorConfig


@pytest.fixture
def models(tmp_path, checkpoints):
    copy_model(checkpoints / "red", tmp_path / "models" / "red")
    return tmp_path / "models"


@pytest.fixture
def photo(tmp_path):
    save_png(tmp_path / "photo.png", draw_photo((200, 60, 260)))
    return tmp_path / "photo.png"


@pytest.fixture
def run(capsys, models, monkeypatch):
    # The paper's network takes a second per picture; what is said of it does not depend on its width.
    monkeypatch.setattr(bench, "PLAIN", GeneratorConfig(filters=2, blocks=1))

    def call(command, *args):
        code = main([command, "--checkpoints", str(models), *map(str, args)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_bench_measures_every_stage_and_model(run, photo):
    code, out, _ = run("bench", "--photo", photo, "--frames", 3, "--json")
    assert code == 0
    result = json.loads(out)
    assert {"decode", "track", "encode"} < set(result["stages"]) and result["machine"] and result["cores"] >= 1
    (row,) = result["models"]
    assert row["name"] == "red" and row["image_size"] == 64 and row["precision"] == "f32"
    times = [*result["stages"].values(), *(row[key] for key in ("align", "generate", "paste", "frame"))]
    assert all(0 < time["median"] <= time["p95"] for time in times)
    # A whole frame holds its parts.
    assert row["frame"]["p95"] > row["generate"]["median"]


def test_bench_prints_a_table_and_takes_another_size(run, photo):
    code, out, _ = run("bench", "--photo", photo, "--frames", 3, "--size", 128, "--model", "red")
    assert code == 0 and "| red | 128 | f32 |" in out and "median (95th percentile)" in out


def test_a_size_that_a_model_cannot_take_is_refused_before_anything_is_measured(run, photo, models):
    half = make_config("half", generator=GeneratorConfig(filters=4, blocks=1, unshuffle=2))
    make_model(half).save_pretrained(models / "half")
    code, out, err = run("bench", "--photo", photo, "--frames", 10**6, "--size", 64, 36, "--model", "half")
    assert code == 1 and out == "" and err == "half takes sizes divisible by 8 and from 32, not 36.\n"


def test_bench_needs_a_face_and_a_known_model(run, photo, tmp_path):
    save_png(tmp_path / "none.png", texture(100, 100))
    code, _, err = run("bench", "--photo", tmp_path / "none.png")
    assert code == 1 and "--photo" in err
    code, _, err = run("bench", "--photo", photo, "--model", "blue")
    assert code == 1 and "Known models: red." in err


needs_bf16 = pytest.mark.skipif(runtime.available_precision("bf16") == "f32", reason="needs a processor with bfloat16")


@needs_bf16
@pytest.mark.parametrize(
    "times, least, chosen",
    [
        ((3.0, 1.0, 2.0), 40.0, "bf16"),
        ((3.0, 2.0, 1.0), 40.0, "int8"),
        ((1.0, 3.0, 3.0), 40.0, "f32"),
        ((3.0, 2.0, 1.0), 60.0, "f32"),
    ],
    ids=["faster", "integers are fastest", "slower", "too far off"],
)
def test_precision_takes_the_fastest_that_is_close_enough(run, photo, models, monkeypatch, times, least, chosen):
    before = read_config(models / "red")
    measured = itertools.cycle(times)
    monkeypatch.setattr(bench, "measure", lambda *_: {"median": next(measured)})
    monkeypatch.setattr(bench, "psnr", lambda image, reference: 99.0 if image is reference else 50.0)
    monkeypatch.setattr(bench, "LEAST_PSNR", least)
    code, out, _ = run("precision", "--model", "red", photo, "--json")
    config, result = read_config(models / "red"), json.loads(out)
    assert code == 0 and result["chosen"] == config.precision == chosen and result["faces"] == 1
    assert ("psnr_f32" in config.metrics.get("A2B", {})) == (chosen != "f32")
    assert bool(config.calibration) == (chosen == "int8")
    assert config.metrics["flip_rate_10"] == before.metrics["flip_rate_10"] and config.template == before.template
    code, out, _ = run("precision", "--model", "red", photo)
    assert code == 0 and f"red runs in {chosen} now, chosen on 1 faces." in out


def test_precision_is_not_chosen_where_there_is_only_one(run, photo, models, monkeypatch):
    monkeypatch.setattr(runtime, "_capabilities", lambda: ["FP32"])
    before = (models / "red" / "config.json").read_bytes()
    code, _, err = run("precision", "--model", "red", photo)
    assert code == 1 and "f32 only" in err
    assert (models / "red" / "config.json").read_bytes() == before


def test_precision_needs_a_face(run, tmp_path):
    save_png(tmp_path / "none.png", texture(100, 100))
    code, _, err = run("precision", "--model", "red", tmp_path / "none.png")
    assert code == 1 and err.strip() == "No face was found in these photos."


def test_a_config_without_a_precision_is_of_a_model_that_runs_in_f32(tmp_path):
    identity_model(make_config("old")).save_pretrained(tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    data = json.loads(file.read_text())
    del data["precision"]
    file.write_text(json.dumps(data))
    assert read_config(tmp_path / "old").precision == "f32"


def test_how_often_is_at_least_once(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "--frames", "0"])
    assert stopped.value.code == 2 and "at least 1" in capsys.readouterr().err
