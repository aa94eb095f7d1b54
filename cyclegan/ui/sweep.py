"""What would outlive its hour: Gradio deletes what it remembers, and it forgets much.

An upload that breaks off, one under a name that no component has, whatever was there when the server was killed; and
the pictures that a visit last showed, which stay in memory.
"""

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from gradio.state_holder import StateHolder
from gradio.utils import get_upload_folder

_WORK = "work-"
# What Gradio calls its files there, and the folders around them: whatever else lies in that folder is not ours.
_NAMES = re.compile(r"tmp\w{6,12}|[0-9a-f]{32,64}")


def sweep(folder: Path, age: float) -> None:
    """Delete Gradio's files in ``folder`` that are older than ``age`` seconds, and its folders that are empty by then.

    What another process deletes at the same time is no error.
    """
    oldest = time.time() - age
    for path in list(folder.glob("*")):
        if not _NAMES.fullmatch(path.name) or path.is_symlink():
            continue
        for file in path.rglob("*") if path.is_dir() else [path]:
            with suppress(OSError):
                if not file.is_dir() and file.lstat().st_ctime < oldest:
                    file.unlink()
        with suppress(OSError):  # a folder that is not empty stays, as does one into which a file may be on its way
            if path.is_dir() and path.stat().st_mtime < oldest:
                path.rmdir()


def work_folder() -> tempfile.TemporaryDirectory:
    """A folder beside Gradio's files for work that may take longer than they are kept.

    It goes with the context, or, where the process is killed, when the next one begins to sweep.
    """
    folder = Path(get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f"{_WORK}{os.getpid()}-", dir=folder)


def sweep_work(folder: Path) -> None:
    """Delete what processes that are no more left of their work; this one must not have begun any."""
    for path in folder.glob(f"{_WORK}*-*"):
        pid = path.name.removeprefix(_WORK).split("-")[0]
        if pid.isdigit() and (int(pid) == os.getpid() or not Path("/proc", pid).exists()) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def forget_visits(visits: StateHolder, age: float) -> None:
    """Drop what is known of visits not used for ``age`` seconds: Gradio keeps what each of their outputs showed."""
    for visit, used in list(visits.time_last_used.items()):
        if (datetime.now() - used).total_seconds() > age:
            visits.delete_state(visit)
            with visits.lock:
                visits.session_data.pop(visit, None)
                visits.time_last_used.pop(visit, None)


def keep_swept(
    folder: Path, every: float, age: float, visits: Callable[[], StateHolder | None] = lambda: None
) -> threading.Thread:
    """Sweep now and from then on, every so many seconds, in a thread that ends with the process.

    ``visits`` are those of the page, once it is open.
    """

    def run() -> None:
        sweep_work(folder)
        while True:
            sweep(folder, age)
            if (known := visits()) is not None:
                forget_visits(known, age)
            time.sleep(every)

    thread = threading.Thread(target=run, daemon=True, name="sweep")
    thread.start()
    return thread
