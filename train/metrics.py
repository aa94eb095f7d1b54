"""How far two sets of images are apart: KID and FID, and the networks in whose features they are measured."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from cyclegan.images import to_tensor
from train.errors import TrainingError

KID_SUBSETS = 100
KID_SUBSET = 100

_BATCH = 64  # images a feature network sees at once


def kid(x: np.ndarray, y: np.ndarray, subset: int = KID_SUBSET, subsets: int = KID_SUBSETS, seed: int = 0) -> float:
    """Kernel Inception distance x 100 (Binkowski et al. 2018) between features [N, d] and [M, d].

    KID = E k(x, x') + E k(y, y') - 2 E k(x, y), k(a, b) = (a . b / d + 1)^3, without the pairs of an image with itself:
    unbiased at any N, so equal distributions give 0 on average, and single values fall below it.
    The mean over ``subsets`` random subsets of ``subset`` images of each set, or of all of the smaller set if it has
    fewer. Independent of the scale of nothing: features are taken as they are. Raises ValueError for under 2 images.
    """
    size = min(subset, len(x), len(y))
    if size < 2:
        raise ValueError("KID needs at least 2 images on each side.")
    rng = np.random.default_rng(seed)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    chosen_x, chosen_y = (_subsets(rng, len(each), size, subsets) for each in (x, y))
    return 100 * float(np.mean([_mmd(x[i], y[j]) for i, j in zip(chosen_x, chosen_y, strict=True)]))
