"""What changes over a training, as functions of its progress in [0, 1]."""

import math

from train.config import TrainConfig


def progress(config: TrainConfig, pairs: int, seconds: float, epoch: int) -> float:
    """How much of the training is done, in [0, 1]: by the clock if it has a time budget, else by pairs seen.

    ``epoch`` is the number of images of the larger domain.
    """
    if config.hours is not None:
        return min(1.0, seconds / (config.hours * 3600))
    total = config.pairs if config.epochs is None else math.ceil(config.epochs * epoch)
    return min(1.0, (pairs + config.start_epoch * epoch) / total)


def image_size(config: TrainConfig, at: float) -> int:
    """Height in pixels of the training images."""
    return [size for size, start in config.stages if start <= at][-1]


def learning_rate(config: TrainConfig, at: float) -> float:
    """Constant, then linear to zero from ``decay_from`` on (Zhu et al. 2017, appendix 7.1)."""
    return config.lr if at <= config.decay_from else config.lr * (1 - at) / (1 - config.decay_from)


def identity_weight(config: TrainConfig, at: float) -> float:
    """Linear from ``identity`` to ``identity_end`` until ``decay_from``, constant after."""
    return config.identity + _until_decay(config, at) * (config.identity_end - config.identity)


def noise(config: TrainConfig, at: float) -> float:
    """Standard deviation of the discriminators' noise: linear from ``noise`` to 0 at ``decay_from``."""
    return config.noise * (1 - _until_decay(config, at))


def mask_area(config: TrainConfig, at: float) -> float:
    """Least share the masks must cover: ``mask_area`` until ``decay_from``, then linear to 0."""
    return config.mask_area if at <= config.decay_from else config.mask_area * (1 - at) / (1 - config.decay_from)


def _until_decay(config: TrainConfig, at: float) -> float:
    return min(1.0, at / config.decay_from) if config.decay_from else 1.0


def frozen_layers(config: TrainConfig, at: float, layers: int) -> int:
    """How many of the decoder's ``layers``, counted from its first, stay as they are for now.

    In each of ``unfreeze`` equal parts of the run all start frozen, and one after the other is freed, the last first.
    """
    if not config.unfreeze:
        return 0
    within = at * config.unfreeze % 1
    return layers - int(within * (layers + 1))
