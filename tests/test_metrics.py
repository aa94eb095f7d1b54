"""KID and FID against values worked out by hand, and the networks they are measured in."""

import sys

import cv2
import numpy as np
import pytest
from helpers import draw_face

from train import metrics
from train.errors import TrainingError
from train.metrics import fid, kid, load_features


def column(*values):
    return np.array(values, float)[:, None]


def normal(count, shift=0.0, seed=0, width=8):
    return np.random.default_rng(seed).normal(shift, 1, (count, width))


def test_kid_of_two_points_each_is_what_the_formula_gives():
    # k(a, b) = (ab + 1)^3. Within the sets 1 and 8, between them 1.
    assert kid(column(0, 0), column(1, 1)) == pytest.approx(100 * (1 + 8 - 2 * 1))
    # An image is not compared with itself: within 1 and 1; between them 1, 1, 1 and 27.
    assert kid(column(0, 1), column(0, 2)) == pytest.approx(100 * (1 + 1 - 2 * 7.5))


def test_kid_divides_by_the_number_of_features():
    assert kid(np.zeros((2, 4)), np.ones((2, 4))) == pytest.approx(kid(column(0, 0), column(1, 1)))


def test_kid_of_equal_distributions_is_zero_on_average_at_any_size():
    for count in (8, 64):
        values = [kid(normal(count, seed=2 * i), normal(count, seed=2 * i + 1), subsets=1) for i in range(400)]
        assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
        assert min(values) < 0 < max(values)


def test_kid_grows_with_the_distance_and_is_the_same_every_time():
    near, far = (kid(normal(150), normal(120, shift, seed=1)) for shift in (0.2, 0.5))
    assert 0 < near < far
    assert kid(normal(150), normal(120, 0.2, seed=1)) == near


def test_kid_is_the_mean_over_subsets_of_the_smaller_set():
    x, y = normal(6), normal(3, 1, seed=1)
    by_hand = [kid(x[[i, j, k]], y) for i in range(6) for j in range(i) for k in range(j)]
    assert kid(x, y, subset=100, subsets=4000) == pytest.approx(np.mean(by_hand), rel=0.05)


def test_fid_of_one_feature_is_what_the_formula_gives():
    # Means 0 and 3, variances 1 and 4: 9 + 1 + 4 - 2 * sqrt(1 * 4).
    half = np.sqrt(0.5)
    assert fid(column(-half, half), column(3 - 2 * half, 3 + 2 * half)) == pytest.approx(10)


def test_fid_takes_the_matrix_root_of_covariances_that_do_not_commute():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(0, 1, (50, 3)) @ rng.normal(0, 1, (3, 3)) for _ in range(2))
    c_x, c_y = np.cov(x.T), np.cov(y.T)
    assert np.abs(c_x @ c_y - c_y @ c_x).max() > 0.1
    root = np.sqrt(np.linalg.eigvals(c_x @ c_y).real).sum()
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c_x) + np.trace(c_y) - 2 * root
    assert fid(x, y) == pytest.approx(expected)


def test_fid_of_a_set_with_itself_is_zero_with_fewer_images_than_features():
    assert fid(normal(5, width=20), normal(5, width=20)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("measure", [kid, fid])
def test_one_image_is_no_set(measure):
    with pytest.raises(ValueError, match="at least 2"):
        measure(normal(1), normal(5))


@pytest.fixture(scope="module")
def onet():
    return load_features("onet", "cpu")


@pytest.fixture(scope="module")
def faces():
    return np.stack([draw_face(96, seed) for seed in range(40)])


def test_onet_describes_each_picture_by_itself_at_any_size(onet, faces):
    assert onet.name == "O-Net"
    described = onet(faces)
    assert described.shape == (40, 192)
    assert np.allclose(described[7:8], onet(faces[7:8]), atol=1e-4)
    assert onet(np.zeros((1, 200, 200, 3), np.uint8)).shape == (1, 192)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda face: cv2.GaussianBlur(face, (0, 0), 1.5), id="blur"),
        pytest.param(lambda face: (face * (1.2, 1.0, 0.8)).clip(0, 255).astype(np.uint8), id="cast"),
        pytest.param(lambda face: face + (np.indices((96, 96)).sum(0) % 2 * 12).astype(np.uint8)[..., None], id="grid"),
    ],
)
def test_kid_in_onet_sees_what_viewers_see(onet, faces, damage):
    first, second = onet(faces[:20]), onet(faces[20:])
    damaged = onet(np.stack([damage(face) for face in faces[20:]]))
    assert kid(first, damaged) > 10 * abs(kid(first, second))


def test_auto_takes_onet_where_inception_is_not_at_hand(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    assert load_features("auto", "cpu").name == "O-Net"
    with pytest.raises(TrainingError, match="pip install torch-fidelity"):
        load_features("inception", "cpu")


def test_unknown_features_are_named_with_those_that_exist():
    with pytest.raises(TrainingError, match="auto, inception, onet"):
        load_features("vgg", "cpu")


def test_inception_says_that_it_fetches_and_that_it_could_not(monkeypatch, tmp_path, capsys):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is optional")
    monkeypatch.setattr(metrics.torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_args, **_options):
        raise OSError("no route")

    monkeypatch.setattr(module, "load_state_dict_from_url", offline)
    assert load_features("auto", "cpu").name == "O-Net"
    assert not capsys.readouterr().err
    with pytest.raises(TrainingError, match="no route.*--features onet"):
        load_features("inception", "cpu")
    assert "95 MB" in capsys.readouterr().err


def test_inception_is_taken_once_its_weights_are_there(monkeypatch, tmp_path, faces):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is optional")
    monkeypatch.setattr(metrics.torch.hub, "get_dir", lambda: str(tmp_path))
    weights = tmp_path / "checkpoints" / module.URL_INCEPTION_V3.rpartition("/")[2]
    weights.parent.mkdir()
    weights.touch()
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_args, **_options: {})
    monkeypatch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_args: None)  # untrained
    network = load_features("auto", "cpu")
    assert network.name == "Inception"
    assert network(faces[:2]).shape == (2, 2048)
