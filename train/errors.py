"""The one error of training that a person can act on."""

from cyclegan.errors import CycleGANError


class TrainingError(CycleGANError):
    """The data, the settings or the run directory cannot be used; the message says what to change."""
