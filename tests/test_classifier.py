"""The attribute classifier: it learns what sets the domains apart, and is kept beside the data."""

import numpy as np
import pytest
import torch
from train_fixtures import write_domains, write_image

from train import classifier
from train.classifier import ClassifierConfig, cached_classifier, fit_classifier, vary
from train.crops import write_pack
from train.errors import TrainingError

SMALL = ClassifierConfig(size=16, filters=4, steps=40, batch=16)


def striped(count, upright, seed, side=32):
    """Stripes of random colour, width and place: all that differs between the domains is their direction."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        wave = np.sin(np.arange(side) * rng.uniform(0.6, 1.2) + rng.uniform(0, 6))
        wave = np.broadcast_to(wave, (side, side)) if upright else np.broadcast_to(wave[:, None], (side, side))
        pictures.append(128 + 90 * wave[..., None] * rng.uniform(0.5, 1, 3))
    return np.stack(pictures).clip(0, 255).astype(np.uint8)


def test_it_learns_what_sets_unseen_images_apart():
    config = ClassifierConfig(size=16, filters=8, steps=120, batch=32)
    judge = fit_classifier(striped(80, True, 0), striped(20, False, 1), config, "cpu")
    unseen_A, unseen_B = striped(50, True, 2), striped(50, False, 3)
    assert judge.accuracy(unseen_A, unseen_B) > 0.9
    assert judge.is_B(unseen_B).mean() > 0.9 > 0.1 > judge.is_B(unseen_A).mean()
    assert judge.accuracy(unseen_B, unseen_A) < 0.1


def test_accuracy_is_balanced_between_domains_of_unequal_size():
    judge = fit_classifier(striped(30, True, 0), striped(30, False, 1), SMALL, "cpu")
    judge.is_B = lambda images: np.ones(len(images), bool)
    assert judge.accuracy(np.zeros((9, 4, 4, 3)), np.zeros((1, 4, 4, 3))) == 0.5


def test_the_same_images_and_settings_give_the_same_verdicts():
    images = striped(20, True, 0), striped(20, False, 1)
    before = torch.get_rng_state()
    first, second = (fit_classifier(*images, SMALL, "cpu") for _ in range(2))
    assert all(map(torch.equal, first.net.state_dict().values(), second.net.state_dict().values()))
    assert torch.equal(torch.get_rng_state(), before)


def test_variations_stay_pictures_and_differ():
    x = torch.rand(6, 3, 16, 16) * 2 - 1
    varied = vary(x, torch.Generator().manual_seed(0))
    assert varied.shape == x.shape and varied.min() >= -1 and varied.max() <= 1
    assert ((varied - x).abs().mean((1, 2, 3)) > 0.02).all()


@pytest.fixture
def data(tmp_path):
    return write_domains(tmp_path / "crops", count=30)


@pytest.fixture
def trainings(monkeypatch):
    """Grows by one with every training."""
    done = []

    def fit(*args):
        done.append(1)
        return fit_classifier(*args)

    monkeypatch.setattr(classifier, "fit_classifier", fit)
    return done


def test_it_is_trained_once_and_kept_beside_the_data(data, trainings):
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    first, second = (cached_classifier(data, 3, SMALL, "cpu") for _ in range(2))
    assert len(trainings) == 1
    assert (data / "classifier.safetensors").exists()
    assert np.array_equal(first.is_B(images), second.is_B(images))


def test_a_pack_has_it_beside_itself(data, trainings, tmp_path):
    (data / "prepare.json").write_text("{}")
    write_pack(data, tmp_path / "noise.tar")
    for _ in range(2):
        cached_classifier(tmp_path / "noise.tar", 3, SMALL, "cpu")
    assert len(trainings) == 1 and (tmp_path / "noise.classifier.safetensors").exists()


def test_other_images_another_share_or_a_damaged_file_train_it_anew(data, trainings):
    cached_classifier(data, 3, SMALL, "cpu")
    write_image(data / "trainA" / "000.png", np.zeros((16, 16, 3), np.uint8))
    cached_classifier(data, 3, SMALL, "cpu")
    assert len(trainings) == 2
    cached_classifier(data, 2, SMALL, "cpu")
    assert len(trainings) == 3
    (data / "classifier.safetensors").write_bytes(b"cut off")
    cached_classifier(data, 2, SMALL, "cpu")
    cached_classifier(data, 2, SMALL, "cpu")
    assert len(trainings) == 4


def test_images_set_aside_for_validation_are_not_trained_on(data, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        classifier, "fit_classifier", lambda A, B, *rest: seen.update(A=len(A), B=len(B)) or fit_classifier(A, B, *rest)
    )
    cached_classifier(data, 3, SMALL, "cpu")
    assert seen == {"A": 27, "B": 27}


def test_where_it_cannot_be_kept_a_warning_is_given_and_nothing_left(data, monkeypatch, capsys):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(classifier.os, "replace", full)
    assert cached_classifier(data, 3, SMALL, "cpu").size == SMALL.size
    assert "No space left" in capsys.readouterr().err
    assert sorted(path.name for path in data.iterdir()) == ["trainA", "trainB"]


def test_no_data_is_said(tmp_path):
    with pytest.raises(TrainingError, match="trainA"):
        cached_classifier(tmp_path, 3, SMALL, "cpu")
