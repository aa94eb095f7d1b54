"""`cyclegan.ui.sweep`: what Gradio forgets is deleted within the hour, and nothing else."""

import os
import socket
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import gradio as gr
import pytest
from fake_translator import FakeTranslator
from gradio.state_holder import StateHolder

from cyclegan.ui import build_demo, launch
from cyclegan.ui.sweep import forget_visits, keep_swept, sweep, sweep_work, work_folder

HASH = 64 * "a"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_uploads_and_results_go_and_what_is_not_gradios_stays(tmp_path):
    make(tmp_path, "tmpxs64o9tq", f"{HASH}/me.jpg", f"{32 * 'b'}/glasses.zip", "letters/mine.txt", "tmp.txt", "notes")
    sweep(tmp_path, age=3600)
    assert {"tmpxs64o9tq", f"{HASH}/me.jpg"} < files(tmp_path)  # they are young
    sweep(tmp_path, age=-1)
    assert {"letters", "letters/mine.txt", "tmp.txt", "notes"} == files(tmp_path) - {HASH, 32 * "b"}
    sweep(tmp_path, age=-1)
    assert files(tmp_path) == {"letters", "letters/mine.txt", "tmp.txt", "notes"}


def test_links_are_not_followed(tmp_path):
    make(tmp_path / "home", "photo.jpg")
    (tmp_path / "temp").mkdir()
    (tmp_path / "temp" / HASH).symlink_to(tmp_path / "home")
    sweep(tmp_path / "temp", age=-1)
    assert (tmp_path / "home" / "photo.jpg").exists()


def test_work_of_processes_that_were_killed_goes_and_that_of_others_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getpid(), 1):  # this process has not begun any, so it is of one before with its number
        make(tmp_path, f"work-{pid}-abc/photo.jpg")
    make(tmp_path, "work-x")
    sweep_work(tmp_path)
    assert files(tmp_path) == {"work-1-abc", "work-1-abc/photo.jpg", "work-x"}
    with work_folder() as folder:
        sweep(tmp_path, age=-1)  # however long it takes
        assert Path(folder).is_dir() and Path(folder).parent == tmp_path
    assert not Path(folder).exists()


def test_a_visit_is_forgotten_with_all_that_it_was_shown():
    left = []
    with gr.Blocks() as page:
        photo = gr.State("photo", delete_callback=left.append)
        page.state_session_capacity = 10
    visits = StateHolder()
    visits.set_blocks(page)
    for name in ("old", "new"):
        visits[name][photo._id] = "photo"
    visits.time_last_used["old"] -= timedelta(seconds=100)
    forget_visits(visits, age=60)
    assert "old" not in visits and "new" in visits and set(visits.time_last_used) == {"new"}
    assert left == ["photo"]


def test_a_folder_that_is_not_there_is_no_error(tmp_path):
    sweep(tmp_path / "nowhere", age=-1)


def test_it_sweeps_at_once_and_again(tmp_path):
    make(tmp_path, "tmpaaaaaaaa")
    keep_swept(tmp_path, every=0.05, age=-1)
    _wait_until_empty(tmp_path)
    make(tmp_path, "tmpbbbbbbbb")
    _wait_until_empty(tmp_path)


def _wait_until_empty(folder: Path) -> None:
    for _ in range(200):
        if not files(folder):
            return
        time.sleep(0.05)
    pytest.fail(f"left: {files(folder)}")


def test_an_upload_that_breaks_off_does_not_stay(tmp_path, monkeypatch):
    """Gradio has forgotten it by then, and would keep it for good."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr("cyclegan.ui.page._DELETE", (0.2, -1))
    demo = build_demo(FakeTranslator())
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True)
    try:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        head = (
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 2000000\r\n"
            "Content-Type: multipart/form-data; boundary=edge\r\n\r\n--edge\r\nContent-Disposition: form-data; "
            'name="files"; filename="me.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        )
        with socket.create_connection((host, int(port)), timeout=20) as half:
            half.sendall(head.encode() + os.urandom(900_000))
            time.sleep(0.5)
        time.sleep(0.5)
        for _ in range(100):
            if not [name for name in files(tmp_path) if name.startswith("tmp")]:
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"left: {files(tmp_path)}")
    finally:
        demo.close(verbose=False)
