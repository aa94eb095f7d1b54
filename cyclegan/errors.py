"""The errors a person can act on.

Every message is a complete sentence for the person who made the request: it names what was wrong and what to
do, and holds no server path. The command line prints it, the page shows it in a toast.
"""


class CycleGANError(Exception):
    """Base of every error below; ``str(error)`` is safe to show to anyone."""


class BadImageError(CycleGANError):
    """The file is not an image we can read, or its size is out of bounds."""


class BadSizeError(BadImageError):
    """The image has too few or too many pixels."""


class BadVideoError(CycleGANError):
    """The file is not a video we can read, or its size or length is out of bounds."""


class BadArchiveError(CycleGANError):
    """The zip file cannot be read, is encrypted, or holds more than it should."""


class NoFaceError(CycleGANError):
    """No face was found, or the face asked for does not exist."""


class UnknownModelError(CycleGANError):
    """No model has this name; the message lists those that exist."""


class UnknownDirectionError(CycleGANError):
    """A direction other than ``A2B`` or ``B2A``."""


class BadCheckpointError(CycleGANError):
    """A model folder that is missing, incomplete, damaged or not ours."""


class DeviceError(CycleGANError):
    """The device asked for is not present on this machine."""
