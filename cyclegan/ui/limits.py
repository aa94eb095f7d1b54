"""How much of a request is read. Gradio limits single files only; anything else would be read into memory whole."""

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UPLOAD = 2**30
"""Bytes of all files of one upload together; they go to the disk."""


class BodyLimit:
    """ASGI middleware that answers 413 to requests whose body is too large, whatever their headers say."""

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
            await _refuse(send, limit)
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
                await _refuse(send, limit)

        try:
            await self.app(scope, counted, answer)
        except Exception:
            if read <= limit:
                raise
        if read > limit and not refused:
            await _refuse(send, limit)


async def _refuse(send: Send, limit: int) -> None:
    body = json.dumps({"detail": f"The request is larger than {limit // 2**20} MB."}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
