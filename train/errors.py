"""What training says to a person: the one error to act on, and warnings."""

import os
import sys

from tqdm import tqdm

from cyclegan.errors import CycleGANError


class TrainingError(CycleGANError):
    """The data, the settings or the run directory cannot be used; the message says what to change."""


def as_text(name: str) -> str:
    """The name of a file or a command line as text, which it need not be: what is none in it is escaped."""
    return name.encode(errors="backslashreplace").decode()


def warn(message: str) -> None:
    """Print to stderr, above any progress bar, what is odd but stops nothing; of several processes the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(message, file=sys.stderr)
