"""The page in a process of its own, as people run it, and requests to it as browsers and other programs make them."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


class Page:
    """A running page."""

    def __init__(self, url: str, process: subprocess.Popen, log: Path, temp: Path):
        self.url, self.process, self.log, self.temp = url, process, log, temp

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def function(self, api_name: str) -> int:
        """The number under which a browser calls an endpoint."""
        with urllib.request.urlopen(f"{self.url}/config", timeout=60) as answer:
            return next(d["id"] for d in json.load(answer)["dependencies"] if d["api_name"] == api_name)


@contextmanager
def page(folder: Path, *flags: str) -> Iterator[Page]:
    """``python app.py`` with its models, on the CPU; ``folder`` takes its log and its uploads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temp = folder / "uploads"
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(temp), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--device", "cpu", *flags]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for(f"{url}/config", process, log)
            yield Page(url, process, log, temp)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.3)
    raise AssertionError("The page did not open within 3 minutes.")


def file_data(path: str, name: str | None = None) -> dict:
    """An uploaded file as an argument of an endpoint."""
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
