"""Fixtures of the tests of the core: the photographs that lie beside the checkout, the detector, model folders."""

import os
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from helpers import identity_model, make_config, red_model

from cyclegan.faces.detect import FaceDetector
from cyclegan.images import load_image
from cyclegan.zoo import Zoo

ROOT = Path(__file__).resolve().parents[1]

# The networks of the tests are tiny: on a busy machine, threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """Compiled models of tests do not crowd out those of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache-home")))
        yield


@pytest.fixture(scope="session")
def shared_photos() -> Path:
    """Folder of photographs of people. They may not be published, so they are not in the repository."""
    folder = Path(os.environ.get("CYCLEGAN_SHARED") or ROOT.parent / "shared") / "photos"
    if not folder.is_dir():
        pytest.skip("The photographs are not here; CYCLEGAN_SHARED names the folder that holds photos/.")
    return folder


@pytest.fixture(scope="session")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="session")
def shared_faces(shared_photos, detector):
    """A function from the name of a shared photo to (photo, faces); each is searched once."""

    @lru_cache
    def search(name: str):
        photo = load_image(shared_photos / name)
        return photo, detector.detect(photo)

    return search


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Path:
    """A folder of three models: ``same`` changes nothing, ``red`` reddens from A to B, ``sketch`` leads from
    photographs to drawings and changes nothing."""
    root = tmp_path_factory.mktemp("checkpoints")
    identity_model(make_config("same")).save_pretrained(root / "same")
    red_model(make_config("red")).save_pretrained(root / "red")
    identity_model(make_config("sketch", ("mtcnn", "square"), image_size=48)).save_pretrained(root / "sketch")
    return root


@pytest.fixture(scope="session")
def zoo(checkpoints) -> Zoo:
    return Zoo(checkpoints)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
