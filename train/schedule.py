"""What changes over a training, as functions of its progress in [0, 1]."""

from train.config import TrainConfig


def progress(config: TrainConfig, pairs: int, seconds: float) -> float:
    """How much of the training is done, in [0, 1]: by the clock if it has a time budget, else by pairs seen."""
    done = pairs / config.pairs if config.hours is None else seconds / (config.hours * 3600)
    return min(1.0, done)


def image_size(config: TrainConfig, at: float) -> int:
    """Side in pixels of the training images."""
    return [size for size, start in config.stages if start <= at][-1]


def learning_rate(config: TrainConfig, at: float) -> float:
    """Constant, then linear to zero from ``decay_from`` on (Zhu et al. 2017, appendix 7.1)."""
    return config.lr * min(1.0, (1 - at) / (1 - config.decay_from))


def identity_weight(config: TrainConfig, at: float) -> float:
    """Linear from ``identity`` to ``identity_end`` until ``decay_from``, constant after."""
    if config.decay_from == 0:
        return config.identity_end
    share = min(1.0, at / config.decay_from)
    return config.identity + share * (config.identity_end - config.identity)
