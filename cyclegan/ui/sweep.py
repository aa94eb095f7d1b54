"""Files that would outlive their hour: Gradio deletes what it remembers, and it forgets much.

An upload that breaks off, one under a name that no component has, whatever was there when the server was killed.
"""

import re
import threading
import time
from contextlib import suppress
from pathlib import Path

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


def keep_swept(folder: Path, every: float, age: float) -> threading.Thread:
    """Sweep now and from then on, every so many seconds, in a thread that ends with the process."""

    def run() -> None:
        while True:
            sweep(folder, age)
            time.sleep(every)

    thread = threading.Thread(target=run, daemon=True, name="sweep")
    thread.start()
    return thread
