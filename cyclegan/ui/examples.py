"""Faces to try, free to show because no camera took them: generated ones, cut from the grids of the models."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from cyclegan.errors import BadImageError
from cyclegan.images import load_image
from cyclegan.zoo import Zoo

GRID_FILE = "grid.png"
SIDE = 480
"""Width and height in pixels of an example."""

_WHITE = 250  # what separates the pictures of a grid
_LEAST = 48  # side in pixels below which a cell shows no face


def examples(zoo: Zoo, count: int = 6) -> list[np.ndarray]:
    """Up to ``count`` generated faces, taken in turn from the grids of all models: uint8 [SIDE, SIDE, 3] each."""
    folders = tuple(str(entry.folder) for entry in zoo.entries.values())
    return list(_gather(folders, count))


@lru_cache(maxsize=8)
def _gather(folders: tuple[str, ...], count: int) -> tuple[np.ndarray, ...]:
    cells = [_spread(_cells(Path(folder) / GRID_FILE), count) for folder in folders]
    in_turn = [each[i] for i in range(count) for each in cells if i < len(each)]
    return tuple(cv2.resize(cell, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for cell in in_turn[:count])


def _spread(cells: list[np.ndarray], count: int) -> list[np.ndarray]:
    """``count`` of them, evenly spaced; all if there are fewer."""
    return [cells[i * len(cells) // count] for i in range(count)] if len(cells) > count else cells


def _cells(grid: Path) -> list[np.ndarray]:
    """The last picture of each block of a grid, row by row; blocks lie apart on white, pictures in them touch.

    In the grids of this project the last is the reconstruction: a face like those of the domain it started from.
    """
    try:
        pixels = load_image(grid)
    except BadImageError:  # most likely there is no grid; examples are an extra
        return []
    white = (pixels >= _WHITE).all(axis=2)
    cells = []
    for top, bottom in _runs(~white.all(axis=1)):
        for left, right in _runs(~white[top:bottom].all(axis=0)):
            side = bottom - top
            if side >= _LEAST and (right - left) % side == 0:
                cells.append(pixels[top:bottom, right - side : right])
    return cells


def _runs(line: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each run of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, line.astype(np.int8), 0]))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
