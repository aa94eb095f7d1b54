"""The flags of ``python app.py``, as people who know Gradio expect them."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from fake_translator import FakeTranslator
from fastapi.testclient import TestClient

import app
from cyclegan import ui
from cyclegan.images import encode_png
from cyclegan.ui import build_demo, launch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)


def parsed(monkeypatch, *flags: str):
    monkeypatch.setattr(sys, "argv", ["app.py", *flags])
    return app.parse_args()


def test_without_flags_only_this_machine_can_open_the_page(monkeypatch):
    args = parsed(monkeypatch)
    assert (args.host, args.port, args.share, args.auth) == ("127.0.0.1", None, False, None)


def test_every_flag_reaches_gradio(monkeypatch):
    given = {}
    monkeypatch.setattr(ui, "build_demo", lambda *_: SimpleNamespace(block_thread=lambda: None))
    monkeypatch.setattr(ui, "launch", lambda demo, **options: given.update(options))
    monkeypatch.setattr(ui, "warm_up", lambda translator: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    flags = "--host 0.0.0.0 --port 9000 --root-path /faces --share --auth ann:s:e --auth bob:b --device cpu"
    monkeypatch.setattr(sys, "argv", ["app.py", *flags.split()])
    app.main()
    assert given == {
        "server_name": "0.0.0.0",
        "server_port": 9000,
        "root_path": "/faces",
        "share": True,
        "auth": [("ann", "s:e"), ("bob", "b")],
        "prevent_thread_lock": True,
    }


def test_the_environment_sets_the_defaults(monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "10.0.0.1")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "8000")
    args = parsed(monkeypatch)
    assert (args.host, args.port) == ("10.0.0.1", 8000)
    assert parsed(monkeypatch, "--port", "8001").port == 8001


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--port", "99999"), "1 to 65535"), (("--port", "0"), "1 to 65535"), (("--host", "::1"), "IPv6 is not served")],
)
def test_addresses_that_cannot_be_served(monkeypatch, capsys, flags, words):
    with pytest.raises(SystemExit) as stopped:
        parsed(monkeypatch, *flags)
    assert stopped.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("account", ["ann", ":secret", "ann:", ""])
def test_an_account_needs_user_and_password(monkeypatch, capsys, account):
    with pytest.raises(SystemExit) as stopped:
        parsed(monkeypatch, "--auth", account)
    assert stopped.value.code == 2 and "USER:PASSWORD" in capsys.readouterr().err


def test_visitors_may_add_models_only_where_nobody_else_comes(monkeypatch):
    assert parsed(monkeypatch).add_models
    for public in (["--host", "0.0.0.0"], ["--share"], ["--root-path", "/faces"]):
        assert not parsed(monkeypatch, *public).add_models
        assert parsed(monkeypatch, *public, "--add-models").add_models
    assert not parsed(monkeypatch, "--no-add-models").add_models
    with monkeypatch.context() as patch:
        patch.setenv("GRADIO_ROOT_PATH", "/faces")
        assert parsed(patch).root_path == "/faces" and not parsed(patch).add_models
    monkeypatch.setenv("SPACE_ID", "someone/faces")
    assert not parsed(monkeypatch).add_models


def test_a_mistyped_folder_of_models_is_said(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit):
        parsed(monkeypatch, "--checkpoints", str(tmp_path / "typo"))
    assert "there is no folder" in capsys.readouterr().err


@pytest.fixture
def served():
    demos = []

    def serve(**options):
        demo = build_demo(FakeTranslator())
        demos.append(demo)
        server, _, _ = launch(demo, prevent_thread_lock=True, quiet=True, **options)
        return TestClient(server)

    yield serve
    for demo in demos:
        demo.close(verbose=False)


def test_behind_a_proxy_the_page_knows_where_it_is(served):
    client = served(root_path="/faces")
    assert client.get("/config").json()["root"].endswith("/faces")


def test_with_accounts_the_page_asks_for_one(served):
    client = served(auth=[("ann", "secret"), ("bob", "other")])
    assert client.get("/config").status_code == 401
    assert client.post("/login", data={"username": "ann", "password": "other"}).status_code == 400
    assert client.post("/login", data={"username": "bob", "password": "other"}).status_code == 200
    assert client.get("/config").status_code == 200


@pytest.mark.parametrize("there", ["nothing", "folder", "file", "link"])
def test_photos_lie_where_only_this_user_sees_them(tmp_path, monkeypatch, there):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    folder = tmp_path / f"face-translation-{os.getuid()}"
    {
        "nothing": lambda: None,
        "folder": lambda: folder.mkdir(mode=0o755),
        "file": folder.touch,
        "link": lambda: folder.symlink_to(tmp_path),
    }[there]()
    app.keep_files_apart()
    chosen = Path(os.environ["GRADIO_TEMP_DIR"])
    assert chosen.is_dir() and not chosen.is_symlink() and chosen.stat().st_mode & 0o777 == 0o700
    assert chosen.parent == tmp_path and (chosen == folder) is (there in ("nothing", "folder"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/somewhere")
    app.keep_files_apart()
    assert os.environ["GRADIO_TEMP_DIR"] == "/somewhere"


def test_a_service_that_is_stopped_leaves_no_photo(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path)}
    command = [sys.executable, "app.py", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        seen = iter(process.stdout.readline, "")
        assert any("Running on local URL" in line for line in seen)
        upload = {"files": ("me.png", encode_png(np.zeros((20, 20, 3), np.uint8)))}
        httpx.post(f"http://127.0.0.1:{port}/gradio_api/upload", files=upload, timeout=60).raise_for_status()
        assert list(tmp_path.rglob("me.png"))
        process.terminate()
        assert "Traceback" not in process.communicate(timeout=60)[0] and process.returncode == 0
    finally:
        process.kill()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
