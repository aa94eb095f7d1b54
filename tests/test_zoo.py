"""The folder of models: what is good loads, what is not is named, and neither disturbs the other."""

import hashlib
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from helpers import TEMPLATE, copy_model, make_config, make_model

from cyclegan.errors import BadCheckpointError, UnknownModelError
from cyclegan.model import CycleGAN
from cyclegan.networks import GeneratorConfig
from cyclegan.zoo import CHECKPOINTS, Zoo

PROBLEMS = {
    "bert": 'The config.json of the model "bert" is not ours: unknown entries: hidden_size, model_type.',
    "cut": 'The weights of the model "cut" are cut off or damaged. Fetch model.safetensors again.',
    "empty": 'The model "empty" has no config.json.',
    "half": 'The model "half" has no model.safetensors.',
    "misfit": 'The weights of the model "misfit" do not fit its config.json: they belong to another network.',
    "nameless": 'The model "nameless" has no config.json.',
    "odd": 'The config.json of the model "odd" is not ours: filters, blocks, stem, kernel, channels, unshuffle, '
    "skip_pool and reduce must be whole numbers.",
    "torn": 'The config.json of the model "torn" cannot be read.',
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Two good models among every kind of bad one, and things that are no models at all."""
    root = tmp_path_factory.mktemp("mixed")
    good = root / "good"
    make_model(make_config("good", license="CC BY-NC 4.0")).save_pretrained(good)
    separable = GeneratorConfig(filters=4, blocks=2, separable=True)
    make_model(make_config("another", image_size=32, generator=separable)).save_pretrained(root / "another")

    (root / "empty").mkdir()
    (copy_model(good, root / "nameless") / "config.json").unlink()
    (copy_model(good, root / "half") / "model.safetensors").unlink()
    weights = copy_model(good, root / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    config = copy_model(good, root / "torn") / "config.json"
    config.write_text(config.read_text()[:40])
    (copy_model(good, root / "bert") / "config.json").write_text('{"model_type": "bert", "hidden_size": 768}')
    for name, blocks in (("misfit", 3), ("odd", 1.5)):
        config = copy_model(good, root / name) / "config.json"
        data = json.loads(config.read_text())
        data["generator"]["blocks"] = blocks
        config.write_text(json.dumps(data))

    (root / "README.md").write_text("Models live here.")
    copy_model(good, root / ".hidden")
    return root


@pytest.fixture(scope="module")
def zoo(mixed) -> Zoo:
    return Zoo(mixed)


def test_good_models_are_listed_by_name(zoo):
    assert list(zoo.entries) == ["another", "good"]
    assert zoo.config("good") == make_config("good", license="CC BY-NC 4.0")


def test_every_problem_is_named(zoo):
    assert zoo.problems == PROBLEMS


def test_problems_hold_no_path(zoo, mixed):
    assert not any(part in message for message in zoo.problems.values() for part in (str(mixed), "/"))


def test_good_models_load(zoo, mixed):
    loaded = zoo.load("good")
    expected = CycleGAN.from_pretrained(mixed / "good")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in expected.state_dict().items())
    assert not loaded.training
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert zoo.load("another").translate(x, "B2A").shape == x.shape


def test_a_model_is_loaded_once(zoo):
    assert zoo.load("good") is zoo.load("good")


@pytest.mark.parametrize("ask", [Zoo.entry, Zoo.config, Zoo.load])
def test_an_unknown_name_lists_the_known(zoo, ask):
    with pytest.raises(UnknownModelError) as caught:
        ask(zoo, "goood")
    assert str(caught.value) == 'There is no model "goood". Known models: another, good.'


@pytest.mark.parametrize("name", ["../good", ".hidden", "README.md", "", "/etc"])
def test_only_listed_names_are_models(zoo, name):
    with pytest.raises(UnknownModelError):
        zoo.load(name)


@pytest.mark.parametrize("ask", [Zoo.entry, Zoo.config, Zoo.load])
@pytest.mark.parametrize("name", PROBLEMS)
def test_asking_for_a_bad_model_says_what_is_wrong_with_it(zoo, ask, name):
    with pytest.raises(BadCheckpointError) as caught:
        ask(zoo, name)
    assert str(caught.value) == PROBLEMS[name]


@pytest.mark.parametrize("what", ["other weights", "junk", "other config"])
def test_a_model_that_changed_after_the_start_is_not_served_half_old_half_new(checkpoints, tmp_path, what):
    folder = copy_model(checkpoints / "same", tmp_path / "same")
    zoo = Zoo(tmp_path)
    if what == "other config":
        CycleGAN(make_config("same", title="Another")).save_pretrained(tmp_path / "new")
        (tmp_path / "new" / "config.json").replace(folder / "config.json")
    else:
        other = (checkpoints / "red" / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(other if what == "other weights" else b"junk")
    with pytest.raises(BadCheckpointError) as caught:
        zoo.load("same")
    assert str(caught.value) == ('The model "same" has changed since this program started. Start it again to use it.')


def test_a_model_that_vanished_after_the_start_is_not_looked_for_elsewhere(checkpoints, tmp_path, monkeypatch):
    copy_model(checkpoints / "same", tmp_path / "models" / "same")
    monkeypatch.chdir(tmp_path)
    zoo = Zoo(Path("models"))  # which could be a name on the Hub
    shutil.rmtree("models/same")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("The Hub was asked."))
    with pytest.raises(BadCheckpointError, match='The model "same" has no config.json'):
        zoo.load("same")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"scale": 1.0', '"scale": 1' + 400 * "0"),
        ('"metrics": {}', '"metrics": {"A2B": {"flip_rate": 1' + 400 * "0" + "}}"),
    ],
    ids=["scale", "flip rate"],
)
def test_absurd_numbers_in_one_config_stop_no_other_model(checkpoints, tmp_path, old, new):
    copy_model(checkpoints / "red", tmp_path / "red")
    make_model(make_config("odd", template=replace(TEMPLATE, scale=1.0), metrics={})).save_pretrained(tmp_path / "odd")
    config = tmp_path / "odd" / "config.json"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    zoo = Zoo(tmp_path)
    assert list(zoo.entries) == ["red"] and "is not ours" in zoo.problems["odd"]


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path.mkdir(), lambda path: path.write_text("file")])
def test_without_a_folder_of_models_there_are_none(tmp_path, make):
    root = tmp_path / "models"
    make(root)
    zoo = Zoo(root)
    assert zoo.entries == {} and zoo.problems == {} and zoo.describe() == []
    with pytest.raises(UnknownModelError) as caught:
        zoo.load("glasses")
    assert str(caught.value) == 'There is no model "glasses". Known models: none.'


def test_a_folder_dropped_in_appears_in_the_next_zoo(checkpoints, tmp_path):
    copy_model(checkpoints / "same", tmp_path / "new-name")
    assert list(Zoo(tmp_path).entries) == ["new-name"]


def test_rows_describe_the_models(zoo, mixed):
    another, good = zoo.describe()
    assert list(good) == [
        *("name", "title", "description", "domains", "directions", "image_size", "parameters", "macs", "sha256"),
        *("license", "metrics"),
    ]
    assert good["name"] == "good" and good["title"] == "Good"
    assert good["domains"] == {"A": "plain", "B": "changed"}
    assert good["directions"] == {"A2B": "Change", "B2A": "Change back"}
    assert good["image_size"] == 64 and another["image_size"] == 32
    assert good["license"] == "CC BY-NC 4.0"
    assert good["metrics"] == {"flip_rate_10": 0.5}
    assert good["sha256"] == hashlib.sha256((mixed / "good" / "model.safetensors").read_bytes()).hexdigest()
    # One generator: 3x3 kernels 48 -> 8 and 8 -> 64 around two of 8 -> 8, on a 16 x 16 grid.
    assert good["parameters"] == 9 * (48 * 8 + 2 * 8 * 8 + 8 * 64) + 8 + 2 * 8 + 64
    assert good["macs"] == 9 * (48 * 8 + 2 * 8 * 8 + 8 * 64) * 16 * 16


def test_rows_are_json_and_hold_no_path(zoo, mixed):
    text = json.dumps(zoo.describe(), allow_nan=False)
    assert json.loads(text) == zoo.describe()
    assert str(mixed) not in text


def test_changing_a_row_changes_no_model(zoo):
    zoo.describe()[0]["directions"]["A2B"] = "Something else"
    assert zoo.describe()[0]["directions"]["A2B"] == "Change"


def test_many_threads_load_a_model_once(checkpoints, monkeypatch):
    zoo = Zoo(checkpoints)
    reads = []
    from_folder = CycleGAN.from_folder
    monkeypatch.setattr(
        CycleGAN, "from_folder", lambda folder, **how: reads.append(folder) or from_folder(folder, **how)
    )
    start = threading.Barrier(8)

    def load(_):
        start.wait()
        return zoo.load("red")

    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(load, range(8)))
    assert len({id(model) for model in models}) == 1
    assert reads == [checkpoints / "red"]


def test_starting_reads_no_weights_into_memory(checkpoints, monkeypatch):
    monkeypatch.setattr(CycleGAN, "from_pretrained", lambda folder: pytest.fail("loaded"))
    assert set(Zoo(checkpoints).entries) == {"red", "same", "sketch"}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_a_model_that_may_not_be_read(checkpoints, tmp_path):
    folder = copy_model(checkpoints / "same", tmp_path / "same")
    (folder / "model.safetensors").chmod(0)
    assert Zoo(tmp_path).problems == {"same": PROBLEMS["cut"].replace("cut", "same", 1)}


# The models of this repository


def test_the_shipped_models_have_no_problems():
    zoo = Zoo()
    assert zoo.root == CHECKPOINTS
    assert zoo.problems == {}
    assert "glasses" in zoo.entries


def test_the_glasses_model_is_complete_and_small():
    folder = CHECKPOINTS / "glasses"
    weights, config, card = (folder / name for name in ("model.safetensors", "config.json", "README.md"))
    assert weights.stat().st_size + config.stat().st_size < 10_000_000
    (row,) = (row for row in Zoo().describe() if row["name"] == "glasses")
    assert row["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert row["license"] and row["title"] and row["description"] and row["metrics"]
    assert row["directions"].keys() == {"A2B", "B2A"} and len(set(row["directions"].values())) == 2
    headings = [line.strip("# ").lower() for line in card.read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    assert any("license" in heading or "licence" in heading for heading in headings)


def test_the_glasses_model_loads_with_sound_weights():
    model = Zoo().load("glasses")
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert model.config.domains["A"].faces == model.config.domains["B"].faces == "mtcnn"


def test_the_best_model_comes_first_and_unmeasured_ones_last(tmp_path):
    """By the worse direction; the first is what the page offers."""

    def measured(there: float | None, back: float | None, changed: float = 0.5) -> dict:
        return {way: {"flip_rate": rate, "changed": changed} for way, rate in (("A2B", there), ("B2A", back))}

    for name, metrics in {
        "plain": {},
        "uneven": measured(0.99, 0.4),
        "good": measured(0.9, 0.79),
        "good and gentle": measured(0.9, 0.71, 0.1),
        "odd": {"A2B": "no figures", "flip_rate": 1},
        "half": measured(0.9, None),
        "no number": measured(float("nan"), float("inf")),
    }.items():
        make_model(make_config(name, metrics=metrics)).save_pretrained(tmp_path / name)
    assert list(Zoo(tmp_path).entries) == ["good and gentle", "good", "uneven", "half", "no number", "odd", "plain"]
