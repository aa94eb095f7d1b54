"""What `evaluate` says of a model, held against a model whose behaviour is known."""

import json

import numpy as np
import pytest
from helpers import identity_model, make_config, red_model
from PIL import Image

from train.__main__ import main
from train.evaluate import evaluate, panel, to_json

SIZE = make_config("any").image_size


@pytest.fixture
def crops(tmp_path):
    """Five test crops of A, three of B."""
    rng = np.random.default_rng(0)
    for letter, count in (("A", 5), ("B", 3)):
        folder = tmp_path / "crops" / f"test{letter}"
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(60, 160, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "crops"


def test_a_model_that_changes_nothing_has_no_change_and_no_cycle_error(crops, tmp_path):
    identity_model(make_config("same")).save_pretrained(tmp_path / "same")
    scores, _ = evaluate(tmp_path / "same", crops, "cpu")
    assert {k: (s.images, s.changed) for k, s in scores.items()} == {"A2B": (5, 0), "B2A": (3, 0)}
    assert all(s.cycle_l1 < 0.004 and s.change_l1 < 0.004 for s in scores.values())


def test_a_model_that_reddens_is_seen_to_change(crops, tmp_path):
    red_model(make_config("red")).save_pretrained(tmp_path / "red")
    scores, pictures = evaluate(tmp_path / "red", crops, "cpu")
    real, fake = pictures["A2B"][:, 0].astype(float), pictures["A2B"][:, 1].astype(float)
    assert scores["A2B"].change_l1 == pytest.approx(np.abs(fake - real).mean() / 255, abs=1e-4)
    assert scores["A2B"].change_l1 > 0.02 and scores["A2B"].changed > 0


def test_the_panel_has_a_cell_per_image_and_can_leave_the_inputs_out(crops, tmp_path):
    identity_model(make_config("same")).save_pretrained(tmp_path / "same")
    _, pictures = evaluate(tmp_path / "same", crops, "cpu")
    whole, generated = panel(pictures, 60, columns=2), panel(pictures, 60, columns=2, inputs=False)
    cell = SIZE + 4
    assert whole.shape == (3 * cell + 12 + 2 * cell, 2 * (3 * SIZE + 8), 3)
    assert generated.shape == (3 * cell + 12 + 2 * cell, 2 * (2 * SIZE + 8), 3)
    assert np.array_equal(whole[2 : 2 + SIZE, 4 : 4 + SIZE], pictures["A2B"][0, 0])
    assert np.array_equal(generated[2 : 2 + SIZE, 4 : 4 + SIZE], pictures["A2B"][0, 1])


def test_the_command_prints_scores_and_writes_the_panel(crops, tmp_path, capsys):
    identity_model(make_config("same")).save_pretrained(tmp_path / "same")
    arguments = ["evaluate", "--checkpoint", str(tmp_path / "same"), "--data", str(crops), "--device", "cpu"]
    assert main([*arguments, "--panel", str(tmp_path / "panel.png"), "--json"]) == 0
    scores, _ = evaluate(tmp_path / "same", crops, "cpu")
    assert json.loads(capsys.readouterr().out) == to_json(scores)
    assert Image.open(tmp_path / "panel.png").size[0] == 4 * (3 * SIZE + 8)


def test_a_missing_test_folder_is_said(tmp_path, capsys):
    identity_model(make_config("same")).save_pretrained(tmp_path / "same")
    (tmp_path / "empty").mkdir()
    assert main(["evaluate", "--checkpoint", str(tmp_path / "same"), "--data", str(tmp_path / "empty")]) == 1
    assert "There is no folder" in capsys.readouterr().err
