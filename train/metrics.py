"""How far two sets of images are apart: KID and FID, and the networks in whose features they are measured."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan.images import to_tensor
from train.errors import TrainingError, warn

FEATURES = ("auto", "inception", "onet")
KID_SUBSETS = 100
KID_SUBSET = 100

_BATCH = 32  # images a feature network sees at once


def kid(x: np.ndarray, y: np.ndarray, subset: int = KID_SUBSET, subsets: int = KID_SUBSETS, seed: int = 0) -> float:
    """Kernel Inception distance x 100 (Binkowski et al. 2018) between features [N, d] and [M, d].

    KID = E k(x, x') + E k(y, y') - 2 E k(x, y), k(a, b) = (a . b / d + 1)^3, without the pairs of an image with itself:
    unbiased at any N, so that equal distributions give 0 on average, and half of the time a little less.
    The mean over ``subsets`` random subsets of ``subset`` images of each set, or of as many as the smaller set has.
    Raises ValueError for fewer than 2 images.
    """
    size = min(subset, len(x), len(y))
    if size < 2:
        raise ValueError("KID needs at least 2 images on each side.")
    rng = np.random.default_rng(seed)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    drawn = ((rng.choice(len(x), size, replace=False), rng.choice(len(y), size, replace=False)) for _ in range(subsets))
    return 100 * float(np.mean([_mmd(x[i], y[j]) for i, j in drawn]))


def _mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy of two sets of the same size n (Gretton et al. 2012, lemma 6)."""
    n, d = x.shape
    xx, yy, xy = ((a @ b.T / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = sum((kernel.sum() - np.trace(kernel)) / (n * (n - 1)) for kernel in (xx, yy))
    return within - 2 * xy.mean()


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Fréchet inception distance (Heusel et al. 2017) between features [N, d] and [M, d].

    FID = |mean x - mean y|^2 + tr(C_x + C_y - 2 (C_x C_y)^1/2). Biased upwards for small N: compare at equal N only.
    Raises ValueError for fewer than 2 images.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError("FID needs at least 2 images on each side.")
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    apart = x.mean(0) - y.mean(0)
    # With rows scaled so that C = X'X, the trace of the root is the sum of the singular values of XY': exact, and a
    # matrix of at most d x d, as X'X = R'R for the R of X = QR, which has at most d rows.
    x, y = ((each - each.mean(0)) / np.sqrt(len(each) - 1) for each in (x, y))
    x, y = (np.asarray(np.linalg.qr(each, mode="r")) for each in (x, y))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(apart @ apart + np.sum(x * x) + np.sum(y * y) - 2 * root)


@dataclass(frozen=True)
class Features:
    """A network that describes images, and the name that its distances go by."""

    name: str
    """``"Inception"``, or ``"O-Net"`` where that cannot be had: figures of the two cannot be compared."""
    _net: Callable[[Tensor], Tensor]
    _device: str

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, S, S, 3] -> float32 [N, d]."""
        batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        return np.concatenate([self._net(to_tensor(batch).to(self._device)).cpu().numpy() for batch in batches])


def load_features(which: str, device: str) -> Features:
    """The feature network: ``"inception"``, ``"onet"``, or ``"auto"``: Inception where nothing need be fetched for it.

    "inception" needs torch-fidelity, and fetches its weights once (95 MB) if torch.hub does not have them yet, which it
    says before. Raises TrainingError where either cannot be had.
    """
    if which not in FEATURES:
        raise TrainingError(f'There are no features "{which}". Choose {", ".join(FEATURES)}.')
    installed = importlib.util.find_spec("torch_fidelity") is not None
    if which == "onet" or (which == "auto" and not (installed and _inception_file().exists())):
        return Features("O-Net", ONetFeatures().to(device), device)
    if not installed:
        raise TrainingError("Inception features need one more package: pip install torch-fidelity")
    return Features("Inception", _inception(device), device)


class ONetFeatures(nn.Module):
    """float [B, 3, S, S] in [-1, 1] -> [B, 192]: what the last network of MTCNN (Zhang et al. 2016) sees in a face.

    The mean responses of its last two convolutions, at twice the size that it detects faces in (48 pixels), where
    blur and checkerboards still show. Its weights are inside the package of the face detector. On real images of 128
    pixels the KID of the identity copy is 24 (age), 37 (gender), 54 (glasses), 97 (ethnicity) and 390 (anime) times the
    spread of the real-against-real floor; the fully connected layer behind them separates worst.
    """

    _SIDE = 96
    _SCALE = 4  # to a mean square of about 1, so that the cubic terms of KID's kernel count as they do for Inception

    def __init__(self) -> None:
        super().__init__()
        from facenet_pytorch.models.mtcnn import ONet

        self.net = ONet().eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        x = F.interpolate(x, (self._SIDE, self._SIDE), mode="bilinear", antialias=True)
        x = net.pool1(net.prelu1(net.conv1(x)))
        x = net.pool2(net.prelu2(net.conv2(x)))
        third = net.prelu3(net.conv3(x))
        fourth = net.prelu4(net.conv4(net.pool3(third)))
        return self._SCALE * torch.cat([third.mean((2, 3)), fourth.mean((2, 3))], 1)


def _inception_file() -> Path:
    """Where torch.hub keeps the weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name


def _inception(device: str) -> Callable[[Tensor], Tensor]:
    """float [B, 3, S, S] in [-1, 1] -> [B, 2048]: the last pooling of the Inception network that FID is defined on."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if not _inception_file().exists():
        warn(f"Fetching the weights of the Inception network (95 MB) to {_inception_file().parent} ...")
    try:
        net = FeatureExtractorInceptionV3("inception", ["2048"]).to(device)
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f"The weights of the Inception network cannot be had ({error}). Connect to the internet, or choose "
            "--features onet."
        ) from error
    return lambda x: net(((x + 1) * 127.5).round().to(torch.uint8))[0]
