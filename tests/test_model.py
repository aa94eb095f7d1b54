"""A model on disk and on the Hub: what goes in comes out, and whatever is not such a model is named and refused."""

import json
import pickle
import socket
import threading
from dataclasses import replace
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from helpers import TEMPLATE, copy_model, identity_model, make_config, make_model
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from cyclegan.errors import BadCheckpointError, UnknownDirectionError
from cyclegan.faces.align import Template
from cyclegan.model import DIRECTIONS, CycleGAN, Domain, ModelConfig, reverse, source, target
from cyclegan.networks import Generator, GeneratorConfig

NO_CONFIG = 'The model "{}" has no config.json.'
NO_WEIGHTS = 'The model "{}" has no model.safetensors.'
UNREADABLE_CONFIG = 'The config.json of the model "{}" cannot be read.'
DAMAGED = 'The weights of the model "{}" are cut off or damaged. Fetch model.safetensors again.'
FOREIGN = 'The weights of the model "{}" do not fit its config.json: they belong to another network.'

# What a Hugging Face folder of another family looks like.
BERT = {
    "architectures": ["BertForMaskedLM"],
    "hidden_size": 768,
    "model_type": "bert",
    "num_attention_heads": 12,
    "vocab_size": 30522,
}


@pytest.fixture(scope="module")
def model() -> CycleGAN:
    return make_model(make_config("tiny"))


@pytest.fixture
def folder(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def refusal(path_or_repo_id) -> str:
    with pytest.raises(BadCheckpointError) as caught:
        CycleGAN.from_pretrained(path_or_repo_id)
    return str(caught.value)


def rewrite(folder: Path, change) -> None:
    """Apply ``change`` to the dict of weights in a folder."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


# Directions


def test_directions():
    assert DIRECTIONS == ("A2B", "B2A")
    assert [source(d) for d in DIRECTIONS] == ["A", "B"]
    assert [target(d) for d in DIRECTIONS] == ["B", "A"]
    assert [reverse(d) for d in DIRECTIONS] == ["B2A", "A2B"]


@pytest.mark.parametrize("wrong", ["a2b", "A2A", "AB", "", None, 0])
@pytest.mark.parametrize("ask", [source, target, reverse])
def test_another_direction_is_refused(ask, wrong):
    with pytest.raises(UnknownDirectionError) as caught:
        ask(wrong)
    assert str(caught.value) == f'There is no direction "{wrong}". Choose A2B or B2A.'


def test_each_direction_has_its_own_generator(model):
    x = torch.rand(1, 3, 32, 48) * 2 - 1
    there, back = model.translate(x, "A2B"), model.translate(x, "B2A")
    assert there.shape == x.shape
    assert torch.equal(there, model.G_AB(x)) and torch.equal(back, model.G_BA(x))
    assert not torch.equal(there, back)
    with pytest.raises(UnknownDirectionError):
        model.translate(x, "B2B")


# Config


@pytest.mark.parametrize(
    "config",
    [
        make_config(),
        make_config("anime", ("mtcnn", "square"), image_size=128, description="Größer, 日本", metrics={}, training={}),
        make_config(
            "paper",
            generator=GeneratorConfig(filters=64, blocks=9, upsample="transposed"),
            template=Template(TEMPLATE.landmarks, 1.3),
        ),
    ],
    ids=lambda config: config.name,
)
def test_config_round_trip(config):
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_entries_with_defaults_may_be_left_out():
    data = make_config().to_json()
    for key in ("description", "license", "metrics", "training"):
        del data[key]
    for key in ("stem", "mask", "channels"):
        del data["generator"][key]
    del data["domains"]["A"]["faces"]
    config = ModelConfig.from_json(data)
    assert config.generator == GeneratorConfig(filters=2, blocks=1)
    assert config.domains["A"] == Domain("plain", "mtcnn")
    assert config.description == "" and config.metrics == {}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": 66}, "image_size must be divisible by 4 and from 16 to 1024, not 66."),
        ({"image_size": 12}, "image_size must be divisible by 4 and from 16 to 1024, not 12."),
        ({"image_size": 2048}, "image_size must be divisible by 4 and from 16 to 1024, not 2048."),
        ({"image_size": 64.0}, "image_size must be divisible by 4 and from 16 to 1024, not 64.0."),
        ({"domains": {"A": Domain("x")}}, "A model has domains A and B and directions A2B and B2A."),
        ({"directions": {"A2B": "x"}}, "A model has domains A and B and directions A2B and B2A."),
        ({"generator": GeneratorConfig(channels=1)}, "The generators of a model work on images of 3 channels."),
    ],
    ids=str,
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError) as caught:
        make_config(**changes)
    assert str(caught.value) == message


def test_a_domain_finds_faces_in_one_of_two_ways():
    with pytest.raises(ValueError, match='domain faces must be "mtcnn" or "square", not \'cascade\'.'):
        Domain("photo", "cascade")


# Folders


def test_a_folder_holds_a_config_and_weights_of_half_size(folder, model):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["title"] == "Tiny"
    stored = load_file(folder / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert stored.keys() == model.state_dict().keys()


def test_weights_that_half_precision_holds_come_back_exactly(folder, model):
    loaded = CycleGAN.from_pretrained(folder)
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_loaded_model_is_ready_to_use(folder):
    loaded = CycleGAN.from_pretrained(str(folder))
    assert not loaded.training
    assert all(not p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu" for p in loaded.parameters())


def test_other_weights_come_back_to_half_precision(tmp_path):
    model = CycleGAN(make_config())
    model.save_pretrained(tmp_path / "tiny")
    loaded = CycleGAN.from_pretrained(tmp_path / "tiny")
    for name, value in model.state_dict().items():
        # Eleven bits of mantissa; below 6e-5 half precision has fixed steps of 6e-8.
        assert torch.allclose(loaded.state_dict()[name], value, rtol=2**-11, atol=6e-8), name
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    assert (loaded.translate(x, "A2B") - model.translate(x, "A2B")).abs().max() < 1 / 127.5  # a grey level


def test_full_precision_can_be_kept(tmp_path):
    model = CycleGAN(make_config())
    model.save_pretrained(tmp_path / "tiny", dtype=torch.float32)
    loaded = CycleGAN.from_pretrained(tmp_path / "tiny")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())


def test_saving_again_replaces_the_model(folder, model):
    renamed = make_model(replace(model.config, title="Second"), seed=5)
    renamed.save_pretrained(folder)
    loaded = CycleGAN.from_pretrained(folder)
    assert loaded.config.title == "Second"
    assert torch.equal(loaded.G_AB.head[0].weight, renamed.G_AB.head[0].weight)
    assert len(list(folder.iterdir())) == 2


def test_a_failed_save_leaves_the_old_model(folder, model, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cyclegan.model.save_file", full_disk)
    with pytest.raises(OSError):
        make_model(model.config, seed=5).save_pretrained(folder)
    assert torch.equal(CycleGAN.from_pretrained(folder).G_AB.head[0].weight, model.G_AB.head[0].weight)


# Folders that are not a model


def test_an_empty_folder(tmp_path):
    (tmp_path / "hollow").mkdir()
    assert refusal(tmp_path / "hollow") == NO_CONFIG.format("hollow")


@pytest.mark.parametrize("file, message", [("config.json", NO_CONFIG), ("model.safetensors", NO_WEIGHTS)])
def test_a_missing_file(folder, file, message):
    (folder / file).unlink()
    assert refusal(folder) == message.format("tiny")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b'{"name": "ti'], ids=["empty", "open", "binary", "cut"]
)
def test_an_unreadable_config(folder, content):
    (folder / "config.json").write_bytes(content)
    assert refusal(folder) == UNREADABLE_CONFIG.format("tiny")


def test_a_config_of_another_family(folder):
    (folder / "config.json").write_text(json.dumps(BERT))
    assert refusal(folder) == (
        'The config.json of the model "tiny" is not ours: unknown entries: architectures, hidden_size, model_type, '
        "num_attention_heads, vocab_size."
    )


@pytest.mark.parametrize("part", ["generator", "domains"])
def test_entries_of_a_later_version_are_named(folder, part):
    config = json.loads((folder / "config.json").read_text())
    (config["generator"] if part == "generator" else config["domains"]["A"])["attention"] = True
    (folder / "config.json").write_text(json.dumps(config))
    assert refusal(folder) == 'The config.json of the model "tiny" is not ours: unknown entries: attention.'


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("generator"),
        lambda data: data.pop("title"),
        lambda data: data.update(generator={"filters": 2, "attention": True}),
        lambda data: data.update(generator={"filters": "2"}),
        lambda data: data.update(generator={"filters": 2.5}),
        lambda data: data.update(image_size="64"),
        lambda data: data.update(image_size=64.0),
        lambda data: data.update(image_size=None),
        lambda data: data.update(domains=["A", "B"]),
        lambda data: data.update(domains={"A": {"label": "x", "faces": "haar"}, "B": {"label": "y"}}),
        lambda data: data.update(template=None),
        lambda data: data["template"].update(landmarks=[[0.5, 0.5]] * 5),
        lambda data: data["template"].update(landmarks=[[0.5, float("nan")], *data["template"]["landmarks"][1:]]),
        lambda data: data["template"].update(landmarks=data["template"]["landmarks"][:4]),
        lambda data: data["template"].update(scale=0),
        lambda data: data["template"].update(scale=float("inf")),
    ],
)
def test_a_config_with_an_impossible_entry(folder, change):
    data = json.loads((folder / "config.json").read_text())
    change(data)
    (folder / "config.json").write_text(json.dumps(data))
    assert refusal(folder).startswith('The config.json of the model "tiny" is not ours: ')


@pytest.mark.parametrize("content", ["null", "[]", "[1, 2]", '"glasses"', "7", "{}"])
def test_a_config_that_is_no_config(folder, content):
    (folder / "config.json").write_text(content)
    assert refusal(folder).startswith('The config.json of the model "tiny" is not ours: ')


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop("G_BA.head.0.bias"),
        lambda weights: weights.update({"G_AB.extra.weight": torch.zeros(2)}),
        lambda weights: weights.update({"G_AB.head.0.bias": torch.zeros(2)}),
        lambda weights: weights.update({"G_AB.head.0.weight": weights["G_AB.head.0.weight"][:, :, :, :1].clone()}),
        lambda weights: weights.clear(),
    ],
    ids=["missing", "extra", "misshapen bias", "misshapen weight", "none"],
)
def test_weights_of_another_network(folder, change):
    rewrite(folder, change)
    assert refusal(folder) == FOREIGN.format("tiny")


def test_a_config_that_describes_another_network(folder):
    data = json.loads((folder / "config.json").read_text())
    data["generator"]["blocks"] = 2
    (folder / "config.json").write_text(json.dumps(data))
    assert refusal(folder) == FOREIGN.format("tiny")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1], ids=lambda keep: f"keep {keep}")
def test_truncated_weights(folder, keep):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(keep * len(content)) if keep == 0.5 else keep])
    assert refusal(folder) == DAMAGED.format("tiny")


def test_a_web_page_in_place_of_the_weights(folder):
    (folder / "model.safetensors").write_text("<html>404 Not Found</html>" * 100)
    assert refusal(folder) == DAMAGED.format("tiny")


def test_a_git_lfs_pointer_in_place_of_the_weights(folder):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234\n"
    (folder / "model.safetensors").write_text(pointer)
    assert refusal(folder) == DAMAGED.format("tiny")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize(
    "write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))], ids=["torch", "plain"]
)
def test_a_pickle_is_refused_and_not_run(folder, tmp_path, write):
    trap = Trap(tmp_path / "sprung")
    write(trap, folder / "model.safetensors")
    assert refusal(folder) == DAMAGED.format("tiny")
    assert not trap.folder.exists()
    if write is not torch.save:  # the trap works where someone steps into it
        pickle.loads((folder / "model.safetensors").read_bytes())
        assert trap.folder.exists()


def test_pickles_beside_the_weights_are_not_read(folder, tmp_path):
    trap = Trap(tmp_path / "sprung")
    for name in ("pytorch_model.bin", "model.pt", "model.pth", "checkpoint.ckpt"):
        torch.save(trap, folder / name)
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == NO_WEIGHTS.format("tiny")
    assert not trap.folder.exists()


def test_a_folder_that_does_not_exist(tmp_path):
    message = refusal(tmp_path / "secret" / "nowhere")
    assert message == 'There is no model folder "nowhere".'


# The Hub


class FakeHub(ThreadingHTTPServer):
    """As much of the Hub as a download asks for: two commits of ``someone/tiny``."""

    daemon_threads = True

    def __init__(self, folders: dict[str, Path]):
        super().__init__(("127.0.0.1", 0), FakeHubHandler)
        self.commits = {name: sha1(name.encode()).hexdigest() for name in folders}
        self.folders = {self.commits[name]: folder for name, folder in folders.items()}
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class FakeHubHandler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(self.path)
        path = self.path.split("?")[0].strip("/").split("/")
        if (
            path[:4] == ["api", "models", "someone", "tiny"]
            and path[4] == "revision"
            and path[5] in self.server.commits
        ):
            sha = self.server.commits[path[5]]
            siblings = [{"rfilename": file.name} for file in self.server.folders[sha].iterdir()]
            self.answer(json.dumps({"id": "someone/tiny", "sha": sha, "siblings": siblings}).encode())
        elif path[:5] == ["api", "models", "someone", "tiny", "tree"]:
            files = self.server.folders[path[5]].iterdir()
            self.answer(json.dumps([self.entry(file) for file in files]).encode())
        elif path[:3] == ["someone", "tiny", "resolve"] and (self.server.folders[path[3]] / path[4]).is_file():
            content = (self.server.folders[path[3]] / path[4]).read_bytes()
            self.answer(content, {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": path[3]})
        else:
            self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

    @staticmethod
    def entry(file: Path) -> dict:
        return {
            "type": "file",
            "path": file.name,
            "size": file.stat().st_size,
            "oid": sha1(file.read_bytes()).hexdigest(),
        }

    def answer(self, content: bytes, headers: dict | None = None, status: int = 200):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def endpoint(monkeypatch, tmp_path):
    """A function that points the Hub client at an address, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def point(url: str) -> None:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE
        template = template.replace(constants.ENDPOINT, url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", url)

    return point


@pytest.fixture
def hub(endpoint, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    make_model(make_config("tiny", title="First")).save_pretrained(first)
    (first / "README.md").write_text("# Tiny")
    (first / "pytorch_model.bin").write_bytes(b"not wanted")
    identity_model(make_config("tiny", title="Second")).save_pretrained(second)
    with FakeHub({"main": first, "v2": second}) as server:
        endpoint(server.url)
        yield server
        server.shutdown()


def test_a_model_from_the_hub_is_downloaded_once(hub, tmp_path):
    loaded = CycleGAN.from_pretrained("someone/tiny")
    assert loaded.config.title == "First"
    local = CycleGAN.from_pretrained(tmp_path / "first")
    assert torch.equal(loaded.G_AB.head[0].weight, local.G_AB.head[0].weight)
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    assert any("README.md" in path for path in hub.asked)

    hub.asked.clear()
    assert CycleGAN.from_pretrained("someone/tiny").config.title == "First"
    assert hub.asked == []  # the cache answers first


def test_a_downloaded_model_loads_without_the_hub(hub):
    CycleGAN.from_pretrained("someone/tiny")
    hub.shutdown()
    hub.server_close()
    assert CycleGAN.from_pretrained("someone/tiny").config.title == "First"


def test_a_download_that_was_interrupted_is_taken_up_again(hub):
    CycleGAN.from_pretrained("someone/tiny")
    (weights,) = Path(constants.HF_HUB_CACHE).rglob("model.safetensors")
    weights.unlink()
    assert CycleGAN.from_pretrained("someone/tiny").config.title == "First"


def test_a_revision_can_be_asked_for(hub):
    assert CycleGAN.from_pretrained("someone/tiny", revision="v2").config.title == "Second"
    assert CycleGAN.from_pretrained("someone/tiny").config.title == "First"
    commit = hub.commits["v2"]
    assert CycleGAN.from_pretrained("someone/tiny", revision=commit).config.title == "Second"


def test_a_local_folder_comes_before_the_hub(hub, folder, monkeypatch):
    copy_model(folder, folder.parent / "someone" / "tiny")
    monkeypatch.chdir(folder.parent)
    assert CycleGAN.from_pretrained("someone/tiny").config.title == "Tiny"
    assert hub.asked == []


@pytest.mark.parametrize("file, message", [("config.json", NO_CONFIG), ("model.safetensors", NO_WEIGHTS)])
def test_an_incomplete_model_on_the_hub_is_named_by_its_name(hub, tmp_path, file, message):
    (tmp_path / "first" / file).unlink()
    assert refusal("someone/tiny") == message.format("tiny")


def test_a_damaged_model_on_the_hub_is_named_by_its_name(hub, tmp_path):
    (tmp_path / "first" / "model.safetensors").write_bytes(b"<html>")
    assert refusal("someone/tiny") == DAMAGED.format("tiny")


UNKNOWN = 'There is no model folder "nothing" here, and no model "nobody/nothing" could be had from the Hub.'


def test_a_model_the_hub_does_not_have(hub):
    assert refusal("nobody/nothing") == UNKNOWN


def test_a_hub_out_of_reach(endpoint):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    endpoint(f"http://127.0.0.1:{port}")  # nobody listens there any more
    assert refusal("nobody/nothing") == UNKNOWN


def test_a_hub_that_hangs_up(endpoint):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert refusal("nobody/nothing") == UNKNOWN
        listener.shutdown(socket.SHUT_RDWR)


def test_working_offline(endpoint, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal("nobody/nothing") == UNKNOWN


def test_a_model_is_two_generators_of_its_config():
    model = CycleGAN(make_config())
    assert isinstance(model.G_AB, Generator) and isinstance(model.G_BA, Generator)
    assert model.G_AB is not model.G_BA
    assert model.generator("A2B") is model.G_AB and model.generator("B2A") is model.G_BA
