"""What `evaluate` says of a model, held against models whose behaviour is known."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from helpers import TEMPLATE, blend, identity_model, make_config, make_model
from PIL import Image
from train_fixtures import write_noise

from cyclegan.__main__ import main as cyclegan_main
from cyclegan.faces.align import face_ellipse
from cyclegan.model import DIRECTIONS, read_config, write_config
from cyclegan.runtime import available_precision
from train import evaluate as module
from train.__main__ import main
from train.classifier import ClassifierConfig
from train.crops import write_pack
from train.errors import TrainingError
from train.evaluate import evaluate, panel, save_evaluation

SIZE = 32
WHITE = (0.98, 0.98, 0.98)


@pytest.fixture(scope="module", autouse=True)
def quick_classifier():
    """Dark and bright noise are told apart in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ClassifierConfig", partial(ClassifierConfig, size=16, filters=4, steps=40, batch=16))
        yield


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Dark noise in A; in B bright noise of half the contrast, as `brighten` makes it; 12 and 9 test images."""
    data = tmp_path_factory.mktemp("data") / "crops"
    for letter, low, high, tests in (("A", 0, 90, 12), ("B", 126, 171, 9)):
        write_noise(data / f"train{letter}", 40, low, high, SIZE, seed=ord(letter))
        write_noise(data / f"test{letter}", tests, low, high, SIZE, seed=ord(letter) + 10)
    (data / "prepare.json").write_text("{}")
    return data


def config(name, **changes):
    return make_config(name, image_size=SIZE, training={"recipe": {"validation": 3}}, metrics={}, **changes)


@pytest.fixture
def same(tmp_path):
    """A model that changes nothing."""
    identity_model(config("same")).save_pretrained(tmp_path / "same")
    return tmp_path / "same"


@pytest.fixture
def brighten(tmp_path):
    """A model that mixes half of white into every pixel from A to B, and changes nothing from B to A."""
    model = identity_model(config("brighten"))
    blend(model.G_AB, WHITE, 0.5)
    model.save_pretrained(tmp_path / "brighten")
    return tmp_path / "brighten"


@pytest.fixture
def measured(brighten, crops):
    return evaluate(brighten, crops, "cpu", features="onet")


def test_a_model_that_changes_nothing_is_its_own_ceiling(same, crops):
    found, _ = evaluate(same, crops, "cpu", features="onet")
    assert (found.split, found.features, found.kid_subset, found.classifier_accuracy) == ("test", "O-Net", 9, 1.0)
    for direction, (images, others) in {"A2B": (12, 9), "B2A": (9, 12)}.items():
        scores = found.directions[direction]
        assert (scores.images, scores.target_images, scores.changed, scores.changed_outside) == (images, others, 0, 0)
        assert scores.cycle_l1 < 0.004 and scores.change_l1 < 0.004 and scores.flip_rate == 0
        assert scores.kid_share == pytest.approx(1, abs=0.01)
        assert scores.fid == pytest.approx(scores.fid_copy, rel=0.01)
        assert abs(scores.kid_floor) < 0.01 * scores.kid_copy and scores.fid_floor < scores.fid_copy


def test_a_model_that_reaches_the_target_flips_the_classifier_and_comes_closer(measured):
    there, back = (measured[0].directions[direction] for direction in DIRECTIONS)
    assert there.flip_rate == 1 and back.flip_rate == 0
    assert there.kid < 0.1 * there.kid_copy
    assert there.kid_share == pytest.approx(there.kid / there.kid_copy, abs=1e-3)
    assert there.fid < there.fid_copy


def test_changes_are_those_between_the_pictures(measured):
    pictures = measured[1]["A2B"].images.astype(float) / 255
    assert pictures.shape == (12, 3, SIZE, SIZE, 3)
    real, fake, rec = (pictures[:, i] for i in range(3))
    scores = measured[0].directions["A2B"]
    assert scores.change_l1 == pytest.approx(np.abs(fake - real).mean(), abs=1e-4)
    assert scores.cycle_l1 == pytest.approx(np.abs(rec - real).mean(), abs=1e-4)
    moved = np.abs(fake - real).mean(-1) > 0.1
    assert scores.changed == pytest.approx(moved.mean(), abs=1e-4)
    assert scores.changed_outside == pytest.approx(moved[:, ~face_ellipse(TEMPLATE, SIZE)].mean(), abs=1e-4)


@pytest.mark.skipif(available_precision("bf16") == "f32", reason="needs a processor with bfloat16")
def test_a_model_is_measured_in_its_precision_and_held_against_float32(crops, tmp_path, measured):
    model = make_model(config("rough", precision="bf16"))
    model.save_pretrained(tmp_path / "rough")
    scores = evaluate(tmp_path / "rough", crops, "cpu", features="onet")[0].directions["A2B"]
    assert 20 < scores.psnr_f32 < 90 and abs(scores.flip_rate - scores.flip_rate_f32) < 0.5
    exact = measured[0].directions["A2B"]  # of a model that runs in float32
    assert exact.psnr_f32 is None and exact.flip_rate_f32 is None


def test_drawings_have_no_outside_and_a_domain_against_itself_no_share(tmp_path, crops):
    model = identity_model(config("sketch", faces=("mtcnn", "square")))
    model.save_pretrained(tmp_path / "sketch")
    alike = tmp_path / "alike"
    for letter in "AB":
        write_noise(alike / f"train{letter}", 30, side=SIZE, seed=ord(letter))
        write_noise(alike / f"test{letter}", 12, side=SIZE, seed=7)  # the very same images: a copy is at its best
    found, _ = evaluate(tmp_path / "sketch", alike, "cpu", features="onet")
    assert found.directions["A2B"].changed_outside == 0 and found.directions["B2A"].changed_outside is None
    assert [scores.kid_share for scores in found.directions.values()] == [None, None]


def test_validation_images_are_those_that_training_set_aside(same, crops, tmp_path):
    found, pictures = evaluate(same, crops, "cpu", "validation", "onet")
    assert {direction: len(each.images) for direction, each in pictures.items()} == {"A2B": 3, "B2A": 3}
    names = {path.read_bytes() for path in (crops / "trainA").iterdir()}
    Image.fromarray(pictures["A2B"].images[0, 0]).save(tmp_path / "first.png")
    assert (tmp_path / "first.png").read_bytes() in names
    with pytest.raises(TrainingError, match="test images"):
        save_evaluation(same, found)


def test_test_images_that_were_trained_on_are_told(same, crops, tmp_path, capsys):
    data = shutil.copytree(crops, tmp_path / "crops")
    for name in ("000.png", "001.png"):
        shutil.copy(data / "trainB" / name, data / "testB" / f"again{name}")
    evaluate(same, data, "cpu", features="onet")
    err = capsys.readouterr().err
    assert "2 of 11 pictures of testB are among those of trainB, too: the figures flatter the model." in err
    assert "of testA are" not in err


def test_no_validation_images_is_said(tmp_path, crops):
    model = identity_model(replace(config("none"), training={"recipe": {"validation": 0}}))
    model.save_pretrained(tmp_path / "none")
    with pytest.raises(TrainingError, match="set aside"):
        evaluate(tmp_path / "none", crops, "cpu", "validation", "onet")


def test_a_pack_gives_what_its_folder_gives(same, crops, tmp_path):
    write_pack(crops, tmp_path / "crops.tar")
    found, _ = evaluate(same, tmp_path / "crops.tar", "cpu", features="onet")
    assert found.directions["A2B"].images == 12 and found.classifier_accuracy == 1


def test_the_face_holds_the_landmarks_and_not_the_corners():
    for size in (64, 128):
        face = face_ellipse(TEMPLATE, size)
        assert all(face[round(y), round(x)] for x, y in TEMPLATE.points(size))
        assert not face[[0, 0, -1, -1], [0, -1, 0, -1]].any()
        assert np.array_equal(face, face[:, ::-1])
        assert 0.5 < face.mean() < 0.85


def test_a_template_with_more_surroundings_has_a_smaller_face():
    wide = replace(TEMPLATE, scale=2.0)
    assert face_ellipse(wide, 128).sum() < 0.4 * face_ellipse(TEMPLATE, 128).sum()


def test_the_panel_has_a_cell_per_image_and_can_show_translations_only(measured):
    pictures = measured[1]
    whole, generated = panel(pictures, 60, columns=2), panel(pictures, 60, columns=2, publishable=True)
    cell = SIZE + 4
    assert whole.shape == (6 * cell + 12 + 5 * cell, 2 * (3 * SIZE + 8), 3)
    assert generated.shape == (6 * cell + 12 + 5 * cell, 2 * (SIZE + 8), 3)
    assert np.array_equal(whole[2 : 2 + SIZE, 4 : 4 + SIZE], pictures["A2B"].images[0, 0])
    assert np.array_equal(generated[2 : 2 + SIZE, 4 : 4 + SIZE], pictures["A2B"].images[0, 1])
    assert panel(pictures, 4, columns=2).shape[0] == 2 * cell + 12 + 2 * cell


def test_failures_are_those_the_classifier_believes_least(measured):
    pictures = measured[1]["A2B"]
    worst = pictures.least_convincing(3)
    assert worst.shape == (3, 3, SIZE, SIZE, 3)
    assert (pictures.conviction > 0).mean() == measured[0].directions["A2B"].flip_rate
    order = np.argsort(pictures.conviction)
    assert np.array_equal(worst, pictures.images[order[:3]]) and len(set(pictures.conviction)) > 1
    shown = panel(measured[1], 3, columns=3, failures=True)
    assert np.array_equal(shown[2 : 2 + SIZE, 4 : 4 + SIZE], worst[0, 0])
    assert len(pictures.least_convincing(60)) == 12


def arguments(model, crops, *more):
    return [
        "evaluate",
        "--checkpoint",
        str(model),
        "--data",
        str(crops),
        "--device",
        "cpu",
        "--features",
        "onet",
        *more,
    ]


def test_the_command_prints_one_table_of_both_directions_and_writes_the_panel(brighten, crops, tmp_path, capsys):
    assert main(arguments(brighten, crops, "--panel", str(tmp_path / "panel.png"))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "test images" and lines[0].endswith("Change back")
    flip = next(line for line in lines if line.startswith("flip rate (classifier right on 100.0% of real images)"))
    assert flip.split()[-2:] == ["100.0%", "0.0%"]
    assert any(line.startswith("KID x 100 (O-Net, 100 subsets of 9)") for line in lines)
    assert len({len(line) for line in lines}) == 1
    assert Image.open(tmp_path / "panel.png").size[0] == 4 * (3 * SIZE + 8)


def test_saved_figures_are_listed_with_the_model_and_shown_in_its_card(brighten, crops, capsys):
    weights = (brighten / "model.safetensors").read_bytes()
    assert main(arguments(brighten, crops, "--save", "--json")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == evaluate(brighten, crops, "cpu", features="onet")[0].to_json()
    assert cyclegan_main(["models", "--json", "--checkpoints", str(brighten.parent)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["metrics"] == printed
    assert read_config(brighten).training == {"recipe": {"validation": 3}}
    assert (brighten / "model.safetensors").read_bytes() == weights
    assert "| 100.0% | 0.0% |" in (brighten / "README.md").read_text()


def test_saved_pictures_hold_translations_only_and_the_card_shows_them(brighten, crops):
    assert main(arguments(brighten, crops, "--save")) == 0
    assert not (brighten / "grid.png").exists() and not (brighten / "failures.jpg").exists()
    assert main(arguments(brighten, crops, "--save-pictures")) == 0
    grid, failures = (np.asarray(Image.open(brighten / name)) for name in ("grid.png", "failures.jpg"))
    assert grid.shape == (2 * (SIZE + 4) + 12, 6 * (SIZE + 8), 3)
    assert failures.shape == (4 * (SIZE + 4) + 12, 3 * (SIZE + 8), 3)
    # Translated from A to B everything is brighter than any test image of A is on average.
    across, down = SIZE + 8, SIZE + 4
    cells = [failures[2 + y * down :, 4 + x * across :][:SIZE, :SIZE] for y in range(2) for x in range(3)]
    darkest = np.mean(np.asarray(Image.open(sorted((crops / "testA").iterdir())[0])))
    assert all(cell.mean() > darkest + 50 for cell in cells)
    card = (brighten / "README.md").read_text()
    assert card.index("(grid.png)") < card.index("## Limitations") < card.index("(failures.jpg)")


def test_validation_figures_are_not_saved(same, crops, capsys):
    before = (same / "config.json").read_bytes()
    assert main(arguments(same, crops, "--split", "validation", "--save-pictures")) == 1
    assert "test images" in capsys.readouterr().err
    assert (same / "config.json").read_bytes() == before and not (same / "failures.jpg").exists()


def test_a_missing_part_is_said(same, crops, tmp_path, capsys):
    for part in ("trainA", "trainB"):
        (tmp_path / "bare" / part).mkdir(parents=True)
        for path in (crops / part).iterdir():
            (tmp_path / "bare" / part / path.name).write_bytes(path.read_bytes())
    assert main(arguments(same, tmp_path / "bare")) == 1
    assert "testA" in capsys.readouterr().err
    assert main(arguments(same, tmp_path / "nowhere")) == 1
    assert "trainA" in capsys.readouterr().err


def test_a_panel_that_cannot_be_written_is_said(same, crops, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(arguments(same, crops, "--save", "--panel", str(tmp_path / "file" / "panel.png"))) == 1
    told = capsys.readouterr()
    assert "panel.png" in told.err
    assert "flip rate" in told.out and read_config(same).metrics["A2B"]["images"] == 12  # nothing else is lost
    assert main(arguments(same, crops, "--panel", str(tmp_path / "new" / "panel.png"))) == 0


def test_figures_are_those_of_the_weights_beside_them(same, crops):
    found, _ = evaluate(same, crops, "cpu", features="onet")
    write_config(same, replace(read_config(same), training={"pairs": 9, "recipe": {"validation": 3}}))
    with pytest.raises(TrainingError, match="trained on since it was measured. Measure it again"):
        save_evaluation(same, found)
    assert read_config(same).metrics == {}


def test_random_weights_are_measured_without_a_fault(tmp_path, crops):
    make_model(config("random")).save_pretrained(tmp_path / "random")
    found, _ = evaluate(tmp_path / "random", crops, "cpu", features="onet")
    assert all(scores.cycle_l1 > 0 and 0 <= scores.flip_rate <= 1 for scores in found.directions.values())
