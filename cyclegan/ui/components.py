"""What every tab needs: a photo input that decodes as the command line does, and errors as toasts."""

import base64
import binascii
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.data_classes import FileData, ImageData, ListFiles
from gradio.processing_utils import save_bytes_to_cache
from gradio_client.utils import is_http_url_like

from cyclegan.errors import BadImageError, CycleGANError
from cyclegan.images import load_image

log = logging.getLogger(__name__)

NO_PHOTO = "No photo was sent. Choose a photo and try again."
SORRY = "Something went wrong on our side. Please try again."


@contextmanager
def toasts() -> Iterator[None]:
    """Turn errors into toasts: ours with their message, all others logged and without details.

    Serves as a decorator, too.
    """
    try:
        yield
    except gr.Error:
        raise
    except CycleGANError as error:
        raise gr.Error(plain(error), print_exception=False) from None
    except Exception:
        log.exception("A request failed.")
        raise gr.Error(SORRY, print_exception=False) from None


def plain(message: object) -> str:
    """A message for a toast: Gradio shows those as HTML, and the names in it may be anybody's words."""
    return str(message).replace("<", "‹").replace(">", "›")


@dataclass(frozen=True, eq=False)
class Upload:
    """A decoded photo and where its file lies, so that it can be decoded again instead of being kept in memory."""

    path: str | None
    """None for a photo that was sent inline, which only other programs do."""
    name: str | None
    pixels: np.ndarray
    """RGB uint8 [H, W, 3]."""


async def only_uploads(component: gr.blocks.Block, url_or_file_path: str | Path | None) -> str | None:
    """Make a component take files that were uploaded, as its ``async_move_resource_to_block_cache``.

    Gradio would also fetch any address that a request names, from this server.
    """
    if is_http_url_like(url_or_file_path):
        raise gr.Error("Files are not fetched from addresses. Send the file itself.", print_exception=False)
    return await gr.blocks.Block.async_move_resource_to_block_cache(component, url_or_file_path)


@dataclass(frozen=True)
class SentFile:
    """A file as it was sent."""

    path: str
    name: str
    """What its sender calls it."""


class UploadedFile(gr.File):
    """`gr.File` wherever it is the input of a function."""

    is_template = True  # look like gr.File in the browser
    async_move_resource_to_block_cache = only_uploads


class FilesInput(gr.File):
    """`gr.File` for several files that gives a list of `SentFile`; whether they are any good shows one by one."""

    is_template = True  # look like gr.File in the browser
    async_move_resource_to_block_cache = only_uploads

    def preprocess(self, payload: ListFiles | FileData | None) -> list[SentFile]:
        """What Gradio passes to the page's functions."""
        sent = payload.root if isinstance(payload, ListFiles) else [payload] if payload else []
        return [SentFile(file.path, file.orig_name or Path(file.path).name) for file in sent]


class PhotoInput(gr.Image):
    """`gr.Image` that gives an `Upload`, decoded by `cyclegan.images.load_image` with its messages.

    Gradio's own decoding turns bad files into silent failures, skips EXIF or alpha, and allows any size.
    """

    is_template = True  # look like gr.Image in the browser
    async_move_resource_to_block_cache = only_uploads

    def preprocess(self, payload: ImageData | None) -> Upload | None:
        """What Gradio passes to the page's functions; bad files become toasts. None when there is no photo."""
        if payload is None:
            return None
        with toasts():
            # Without a name from the sender the message must not show the one in our cache.
            name = payload.orig_name or "The photo"
            if payload.path:
                return Upload(payload.path, name, load_image(payload.path, name))
            if payload.url and payload.url.startswith("data:"):
                return Upload(None, name, load_image(_data_url(payload.url), name))
            raise BadImageError(NO_PHOTO)


def store(component: gr.components.Component, data: bytes, name: str) -> str:
    """Write a file to show or offer in a component and see that it is deleted in time. Returns its path.

    Gradio would write pictures itself, but it loses track of those it writes for a component whose settings have
    changed in a session: they would stay on the server. The folder's name comes from the content.
    """
    path = save_bytes_to_cache(data, name, component.GRADIO_CACHE)
    component.temp_files.add(path)
    return path


def _data_url(url: str) -> bytes:
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except binascii.Error:
        raise BadImageError("The photo was not sent as valid base64. Send it as a file instead.") from None
