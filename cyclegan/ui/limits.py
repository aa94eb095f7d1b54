"""What strangers cannot do: send bodies beyond all measure, call what is not public, fill the memory."""

import contextlib
import ctypes
import json
import re
import sys
from collections.abc import Collection

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_FILE = 30 * 2**20
"""Bytes of the largest file that is taken."""
MAX_UPLOAD = 2**30
"""Bytes of all files of one upload together; they go to the disk."""

_M_MMAP_THRESHOLD = -3  # of mallopt(3)

# Files are served under /file=PATH, whatever folders they lie in.
_CALL = re.compile(r"[^=]*/(?:call/(?:v2/)?|run/|api/)([^/]*)")
# What Gradio offers besides and this page does not use: to convert a recording, and to store a visit for a link.
_UNUSED = re.compile(r"[^=]*/(?:process_recording|deep_link)/?")
# By this name the page runs functions by number, for what needs no queue.
_BY_NUMBER = "predict"


class PublicOnly:
    """ASGI middleware that answers 404 to calls by name of what is not public, and to what no page here asks for.

    Gradio would run the functions of the page's own buttons for anybody who guesses their names, and hang up without a
    word on names that it does not know.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]):
        """``names`` of the endpoints that are public, without a slash."""
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_http = scope["type"] == "http"
        called = _CALL.match(scope["path"]) if is_http else None
        if is_http and _UNUSED.fullmatch(scope["path"]):
            await _refuse(send, 404, "There is nothing here.")
        elif called and called[1] not in (*self.names, _BY_NUMBER):
            known = ", ".join(f"/{name}" for name in sorted(self.names))
            await _refuse(send, 404, f'There is no endpoint "{called[1][:80]}". There are: {known}.')
        else:
            await self.app(scope, receive, send)


class BodyLimit:
    """ASGI middleware that answers 413 to requests whose body is too large, whatever their headers say.

    Gradio limits single files only; anything else would be read into memory whole.
    """

    def __init__(self, app: ASGIApp, file: int):
        """``file`` is the size in bytes of the largest file, which other programs may send inline in base64."""
        self.app = app
        self.inline = file * 4 // 3 + 2**20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = MAX_UPLOAD if scope["path"].endswith("/upload") else self.inline
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > limit:
            await _too_large(send, limit)
            return
        read, refused = 0, False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return message if read <= limit else {"type": "http.disconnect"}

        async def answer(message: Message) -> None:
            nonlocal refused
            if read <= limit:
                await send(message)
            elif not refused:
                refused = True
                await _too_large(send, limit)

        try:
            await self.app(scope, counted, answer)
        except ClientDisconnect:  # whoever sent it has gone, or is being told below
            pass
        except Exception:
            if read <= limit:
                raise
        if read > limit and not refused:
            await _too_large(send, limit)


def give_memory_back() -> None:
    """Have freed pictures returned to the system, where glibc would keep them for what comes next.

    It raises the size from which a block is mapped by itself, and so can go by itself, with every large one that is
    freed; once set, it stays. Elsewhere nothing is done.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # other C libraries
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 * 2**20)


async def _too_large(send: Send, limit: int) -> None:
    await _refuse(send, 413, f"The request is larger than {limit // 2**20} MB.")


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": reason}).encode()})
