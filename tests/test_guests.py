"""Models of visitors: what is taken in, and what is refused with a reason."""

import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from helpers import draw_photo, drawn_landmarks, identity_model, make_config

from cyclegan import guests
from cyclegan.errors import BadCheckpointError, UnknownModelError
from cyclegan.faces.detect import Face
from cyclegan.translator import MAX_GUESTS, Translator
from cyclegan.zoo import Zoo


@pytest.fixture
def files(tmp_path):
    """The files of a sound model, by name."""
    folder = tmp_path / "mine"
    identity_model(make_config("mine")).save_pretrained(folder)
    (folder / "README.md").write_text("# Mine\n")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def drawn_face():
    """A drawn photo and the face in it, without a detector."""
    return draw_photo((100, 90, 240)), [Face((130, 100, 310, 320), drawn_landmarks(100, 90, 240), 1.0)]


def add(zoo: Zoo, files) -> str:
    with guests.from_files(files.items()) as folder:
        return zoo.add_guest(folder)


def test_a_guest_works_without_being_listed_and_can_be_forgotten(files, checkpoints, drawn_face):
    zoo = Zoo(checkpoints)
    translator = Translator(zoo, "cpu", engine="torch")
    name = add(zoo, files)
    photo, found = drawn_face
    assert len(translator.translate(photo, name, "A2B", found=found).translations) == 1
    assert name not in zoo.entries and name not in [row["name"] for row in zoo.describe()]
    with pytest.raises(UnknownModelError) as refused:
        zoo.entry("guest-0")
    assert name not in str(refused.value)
    translator.forget(name)
    with pytest.raises(UnknownModelError):
        translator.translate(photo, name, "A2B", found=found)
    translator.forget("same")
    assert translator.translate(photo, "same", "A2B", found=found)


def test_the_folder_is_gone_afterwards(files):
    with guests.from_files(files.items()) as folder:
        assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files_are_named(files, name, zoo):
    del files[name]
    with pytest.raises(BadCheckpointError, match=name):
        add(zoo, files)


def test_no_pickle_and_nothing_else_comes_in(files, tmp_path, zoo):
    for name in ("pytorch_model.bin", "evil.py", "../../model.pt"):
        extra = tmp_path / "extra"
        torch.save({}, extra)
        with pytest.raises(BadCheckpointError, match="does not belong to a model"):
            add(zoo, {**files, name: extra})


def test_sizes_are_checked_before_anything_is_read(files, tmp_path, zoo):
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(guests.MAX_WEIGHTS + 1)
    with pytest.raises(BadCheckpointError, match=r"model\.safetensors is too large: at most 64 MB"):
        add(zoo, {**files, "model.safetensors": huge})
    with pytest.raises(BadCheckpointError, match=r"README\.md is too large: at most 0\.25 MB"):
        add(zoo, {**files, "README.md": huge})


def test_hostile_weights_and_configs_are_refused(files, tmp_path, zoo):
    damaged = tmp_path / "weights"
    huge_header, cut_off = (2**40).to_bytes(8, "little") + b"{}", files["model.safetensors"].read_bytes()[:-9]
    for content in (b"", b"\x80\x04.", huge_header, cut_off):
        damaged.write_bytes(content)
        with pytest.raises(BadCheckpointError):
            add(zoo, {**files, "model.safetensors": damaged})
    text = files["config.json"].read_text()
    for old, new in (
        ('"blocks": 1', '"blocks": 1000000000'),
        ('"filters": 2', '"filters": 100000'),
        ('"filters": 2', '"filters": 3'),
        ('"image_size": 64', '"image_size": 65536'),
        ("{", "["),
    ):
        config = tmp_path / "config"
        assert old in text
        config.write_text(text.replace(old, new, 1))
        with pytest.raises(BadCheckpointError):
            add(zoo, {**files, "config.json": config})


def test_networks_too_heavy_to_serve_are_refused(tmp_path, zoo, monkeypatch):
    identity_model(make_config("slow", image_size=128)).save_pretrained(tmp_path / "slow")
    monkeypatch.setattr("cyclegan.zoo.MAX_GUEST_MACS", 1e6)
    with pytest.raises(BadCheckpointError, match="GMAC per face"):
        zoo.add_guest(tmp_path / "slow")


def test_there_is_a_limit_to_hospitality(files, checkpoints):
    """Whoever came first goes, with its engines: a page that was reloaded leaves guests that nobody can use."""
    translator = Translator(Zoo(checkpoints), "cpu", engine="torch")
    with guests.from_files(files.items()) as folder:
        names = [translator.add_guest(folder) for _ in range(MAX_GUESTS)]
        assert len(set(names)) == MAX_GUESTS
        translator.engine(names[0], "A2B")
        names.append(translator.add_guest(folder))
    assert translator.zoo.guests == names[1:]
    with pytest.raises(UnknownModelError, match="had to make room for others. Add it again."):
        translator.engine(names[0], "A2B")
    translator.engine(names[1], "A2B")


def test_a_guest_leaves_nothing_on_this_machines_disk(files, checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    translator = Translator(Zoo(checkpoints), "cpu")
    with guests.from_files(files.items()) as folder:
        name = translator.add_guest(folder)
    translator.engine(name, "A2B")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    translator.engine("same", "A2B")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


# --- The Hub, as far as it can be tried without it ---


@pytest.mark.parametrize(
    "name", ["", "beard", "../../etc/passwd", "a/b/c", "http://10.0.0.1/x", "a/..", "ä/b", "a/b\n", "a/" + 97 * "b"]
)
def test_what_cannot_be_a_model_on_the_hub_is_never_asked_for(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: pytest.fail("The Hub was asked."))
    with pytest.raises(BadCheckpointError, match="owner/model"), guests.from_hub(name):
        pass


@pytest.fixture
def hub(files, monkeypatch):
    """A pretended Hub with one model, ``someone/beard``; its `sizes` may lie, and `asked` is what was fetched."""
    hub = SimpleNamespace(sizes={name: path.stat().st_size for name, path in files.items()}, asked=[])

    class Api:
        def __init__(self, token):
            assert token is False

        def model_info(self, repo_id, revision, files_metadata, timeout):
            if repo_id != "someone/beard":
                raise OSError("404, and a secret address")
            siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in hub.sizes.items()]
            return SimpleNamespace(siblings=siblings, sha="abc")

    def download(repo_id, name, revision, local_dir, token):
        assert (revision, token) == ("abc", False)
        hub.asked.append(name)
        shutil.copyfile(files[name], local_dir / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return hub


def test_a_model_comes_from_the_hub_with_its_own_files_only(hub, zoo):
    hub.sizes |= {"pytorch_model.bin": 10**12, "training/state.pt": 5}
    with guests.from_hub("someone/beard") as folder:
        assert zoo.config(zoo.add_guest(folder)).name == "mine"
    assert sorted(hub.asked) == ["README.md", "config.json", "model.safetensors"]


def test_too_large_or_missing_on_the_hub_is_refused_unfetched(hub):
    hub.sizes["model.safetensors"] = guests.MAX_WEIGHTS + 1
    with pytest.raises(BadCheckpointError, match="too large"), guests.from_hub("someone/beard"):
        pass
    del hub.sizes["model.safetensors"]
    with pytest.raises(BadCheckpointError, match="no model.safetensors"), guests.from_hub("someone/beard"):
        pass
    with pytest.raises(BadCheckpointError, match="could not be had") as refused, guests.from_hub("some/one"):
        pass
    assert "secret" not in str(refused.value)
    assert not hub.asked
