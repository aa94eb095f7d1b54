"""Uploads to a Hub that listens on this machine, and what is said when it does not."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from helpers import identity_model, make_config

from cyclegan.errors import BadCheckpointError
from train.__main__ import main
from train.card import write_card
from train.errors import TrainingError
from train.push import model_files, push

ROOT = Path(__file__).resolve().parents[1]


class FakeHub(ThreadingHTTPServer):
    """As much of the Hub as an upload of small files needs; it keeps what it was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), FakeHubHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict] = []
        self.tokens: set[str | None] = set()
        self.commits: list[dict[str, bytes]] = []
        self.refusal: tuple[int, str] | None = None
        self.public = False
        self.errors: list[dict[str, str]] = []


class FakeHubHandler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self):
        if self.path.startswith("/api/models/me/"):
            return self.answer(200, {"id": self.path.removeprefix("/api/models/"), "private": not self.server.public})
        return self.answer(404, {"error": f"no {self.path}"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        if self.server.refusal:
            status, reason = self.server.refusal
            return self.answer(status, {"error": reason})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.created.append(asked)
            owner = asked.get("organization") or "me"
            return self.answer(200, {"url": f"{self.server.url}/{owner}/{asked['name']}"})
        if self.path == "/api/validate-yaml":
            return self.answer(400 if self.server.errors else 200, {"errors": self.server.errors, "warnings": []})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self.answer(200, {"files": files})
        if "/commit/" in self.path:
            lines = [json.loads(line)["value"] for line in body.splitlines() if json.loads(line)["key"] == "file"]
            self.server.commits.append({line["path"]: base64.b64decode(line["content"]) for line in lines})
            url = f"{self.server.url}/me/hats/commit/abc123"
            return self.answer(200, {"success": True, "commitOid": "abc123", "commitUrl": url})
        return self.answer(404, {"error": f"no {self.path}"})

    def answer(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path):
    """A model folder with a grid, and with things that do not belong to the model."""
    folder = tmp_path / "hats"
    identity_model(make_config("hats")).save_pretrained(folder)
    (folder / "grid.png").write_bytes(b"picture")
    (folder / "failures.jpg").write_bytes(b"another")
    write_card(folder)
    (folder / "notes.txt").write_text("private")
    (folder / ".secret").write_text("private")
    return folder


NAMES = ("config.json", "model.safetensors", "README.md", "grid.png", "failures.jpg")


def test_a_model_arrives_whole_in_one_commit_and_nothing_else_does(hub, folder):
    assert push(folder, "me/hats") == f"{hub.url}/me/hats/commit/abc123"
    assert hub.commits == [{name: (folder / name).read_bytes() for name in NAMES}]
    assert len(hub.created) == 1 and hub.created[0]["name"] == "hats" and hub.created[0]["organization"] == "me"
    assert "visibility" not in hub.created[0]  # as the owner has set it
    assert hub.tokens == {"Bearer hf_test"}


def test_a_private_repository_is_asked_for_and_a_bare_name_is_ones_own(hub, folder):
    push(folder, "hats", private=True)
    assert hub.created[0]["visibility"] == "private" and len(hub.commits) == 1


def test_what_is_meant_to_be_private_does_not_go_to_a_public_repository(hub, folder):
    hub.public = True
    with pytest.raises(TrainingError, match="me/hats exists and is public"):
        push(folder, "hats", private=True)
    assert not hub.commits


def test_a_card_that_the_hub_does_not_accept_is_named(hub, folder):
    hub.errors = [{"message": '"license" must be a string'}]
    with pytest.raises(TrainingError, match="(?s)The Hub does not accept .*README.md.*license") as caught:
        push(folder, "me/hats")
    assert "later" not in str(caught.value) and not hub.commits


def test_pictures_that_the_card_no_longer_shows_stay(hub, folder):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("![Where it fails](failures.jpg)", ""))
    push(folder, "me/hats")
    assert "failures.jpg" not in hub.commits[0] and "grid.png" in hub.commits[0]


def test_the_command_uploads_to_the_endpoint_of_the_environment(hub, folder):
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_other"}
    done = subprocess.run(
        [sys.executable, "-m", "train", "push", "--model", folder, "--repo", "me/hats"],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{hub.url}/me/hats/commit/abc123"]
    assert set(hub.commits[0]) == set(NAMES) and hub.tokens == {"Bearer hf_other"}


def test_a_dry_run_shows_what_would_go_and_sends_nothing(hub, folder, capsys):
    import hashlib

    assert main(["push", "--model", str(folder), "--repo", "me/hats", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == list(NAMES) and "me/hats" in lines[5]
    assert hashlib.sha256(b"picture").hexdigest() in lines[3] and " 7 bytes" in lines[3]
    assert not hub.tokens


def test_a_model_without_pictures_goes_without(folder):
    (folder / "grid.png").unlink()
    (folder / "failures.jpg").unlink()
    write_card(folder)
    assert [file.path.name for file in model_files(folder)] == list(NAMES[:3])


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda f: (f / "README.md").unlink(), TrainingError, "no README.md"),
        (lambda f: (f / "README.md").write_text("# Hats\n"), TrainingError, "metadata"),
        (lambda f: (f / "README.md").write_bytes("---\n---\nHüte".encode("cp1252")), TrainingError, "UTF-8"),
        (lambda f: (f / "grid.png").unlink(), TrainingError, "grid.png"),
        (lambda f: (f / "failures.jpg").unlink(), TrainingError, "failures.jpg"),
        (lambda f: (f / "model.safetensors").write_bytes(b"cut"), BadCheckpointError, "damaged"),
        (lambda f: (f / "config.json").unlink(), BadCheckpointError, "config.json"),
    ],
)
def test_an_unfinished_model_does_not_leave(hub, folder, spoil, error, words):
    spoil(folder)
    with pytest.raises(error, match=words):
        push(folder, "me/hats")
    assert not hub.tokens


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(hub, tmp_path):
    with pytest.raises(TrainingError, match="no model folder"):
        push(tmp_path / "nothing", "me/hats")
    assert not hub.tokens


def test_without_a_token_nothing_is_tried(hub, folder, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert main(["push", "--model", str(folder), "--repo", "me/hats"]) == 1
    assert "hf auth login" in capsys.readouterr().err
    assert not hub.tokens


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (401, "Invalid credentials", "does not accept your token"),
        (403, "Forbidden", 'may not write to "me/hats"'),
        (400, "You are out of storage", "out of storage"),
    ],
)
def test_a_refusal_says_why(hub, folder, status, reason, words):
    hub.refusal = status, reason
    with pytest.raises(TrainingError, match=words):
        push(folder, "me/hats")
    assert not hub.commits


def test_a_name_that_no_repository_can_have_is_said(hub, folder):
    with pytest.raises(TrainingError, match="a/b/c"):
        push(folder, "a/b/c")


def test_no_connection_is_said(hub, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match="could not be reached"):
        push(folder, "me/hats")
