"""Many people at once on one page.

``CYCLEGAN_STRESS=180 python -m pytest tests/test_stress.py -s`` keeps 30 people clicking for three minutes and prints
figures; otherwise each clicks once.
"""

import asyncio
import io
import json
import os
import secrets
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest
from helpers import draw_photo
from served import Page, file_data, page

from cyclegan import Translator, Zoo
from cyclegan.images import encode_png, load_image

PEOPLE = 30
SECONDS = float(os.environ.get("CYCLEGAN_STRESS", 0))
FULL = "CYCLEGAN_STRESS" in os.environ

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Memory is read from /proc.")


@dataclass
class Person:
    """A visitor with a photo of their own, who knows what must come back."""

    number: int
    photo: np.ndarray
    expected: np.ndarray
    waits: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)

    async def join(self, api: httpx.AsyncClient, function: int) -> tuple[str, str]:
        """Upload the photo and press Translate, as a browser does. The session and the direction."""
        name = f"person{self.number}.png"
        sent = await api.post("/upload", files={"files": (name, encode_png(self.photo))})
        direction = "A2B" if self.number % 2 else "B2A"
        session = secrets.token_hex(8)
        data = [file_data(sent.raise_for_status().json()[0], name), "glasses", direction, "all"]
        body = {"data": data, "fn_index": function, "session_hash": session}
        (await api.post("/queue/join", json=body)).raise_for_status()
        return session, direction

    async def click(self, api: httpx.AsyncClient, function: int) -> None:
        """Join, wait for the answer, and check it."""
        started = time.monotonic()
        session, direction = await self.join(api, function)
        output = None
        async with api.stream("GET", "/queue/data", params={"session_hash": session}) as events:
            async for line in events.aiter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "estimation":
                    self.ranks.append(message["rank"])
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    output = message["output"]["data"]
                    break
        picture, report = output
        file = (await api.get(picture["url"].split("/gradio_api")[1])).raise_for_status().content
        result = load_image(io.BytesIO(file))
        assert report["direction"] == direction and report["size"] == [self.photo.shape[1], self.photo.shape[0]]
        assert result.shape == self.expected.shape, f"person {self.number} got somebody else's picture"
        # The engine may sum in another order when it shares the processor.
        assert np.abs(result.astype(int) - self.expected).max() <= 2, f"person {self.number} got another picture"
        self.waits.append(time.monotonic() - started)


def people() -> list[Person]:
    """Everyone's photo has its own size, place of the face and colour of the wall."""
    translator = Translator(Zoo(), device="cpu")
    crowd = []
    for number in range(PEOPLE):
        photo = draw_photo((10 + number, 5 + number, 150), width=240 + 2 * number, height=220 + number)
        photo[-20:] = (8 * number, 255 - 8 * number, 90)
        result = translator.translate(photo, "glasses", "A2B" if number % 2 else "B2A")
        crowd.append(Person(number, photo, result.output))
    return crowd


async def slow(served: Page, session: str, stop: asyncio.Event) -> None:
    """Somebody whose line is bad: an upload that trickles in, and an answer that is read a byte at a time."""
    host, port = served.url.split("/")[2].split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: {}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    writer.write((head + "Content-Length: 100000\r\n\r\n--x\r\n").format(host).encode())
    reader, asking = await asyncio.open_connection(host, int(port))
    asking.write(f"GET /gradio_api/queue/data?session_hash={session} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    while not stop.is_set():
        writer.write(b"C")
        await reader.read(1)
        await asyncio.sleep(0.5)
    writer.close()
    asking.close()


async def crowd_at(served: Page, crowd: list[Person]) -> list[float]:
    """Everybody clicks at once, again and again until the time is over. Memory in MB, sampled."""
    function, memory, stop = served.function("translate"), [], asyncio.Event()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"{served.url}/gradio_api", timeout=300, limits=limits) as api:
        await crowd[0].click(api, function)  # loads what is loaded on first use
        for person in crowd:
            person.waits.clear()
        sessions = [(await crowd[number].join(api, function))[0] for number in range(3)]
        slow_ones = [asyncio.create_task(slow(served, session, stop)) for session in sessions]
        until = time.monotonic() + SECONDS

        async def visit(person: Person) -> None:
            await person.click(api, function)
            while time.monotonic() < until:
                await person.click(api, function)
                memory.append(served.memory())

        await asyncio.gather(*map(visit, crowd))
        memory.append(served.memory())
        stop.set()
        for task in slow_ones:
            task.cancel()
    return memory


def test_thirty_people_click_translate(tmp_path):
    crowd = people()
    with page(tmp_path) as served:
        # In a thread of its own: the browser tests leave an event loop running in this one.
        with ThreadPoolExecutor(1) as thread:
            memory = thread.submit(asyncio.run, crowd_at(served, crowd)).result()
        assert served.alive
    waits = sorted(wait for person in crowd for wait in person.waits)
    if FULL:
        settled = memory[len(memory) // 4 :]
        print(
            f"\n{len(waits)} translations by {PEOPLE} people in {SECONDS:.0f} s, "
            f"per person {min(len(p.waits) for p in crowd)} to {max(len(p.waits) for p in crowd)}; "
            f"wait median {statistics.median(waits):.1f} s, 95 % {waits[int(0.95 * len(waits))]:.1f} s, "
            f"longest {waits[-1]:.1f} s; memory {memory[0]:.0f} MB at first, then {min(settled):.0f} to "
            f"{max(settled):.0f}, at last {memory[-1]:.0f}; places in the queue up to {max(map(max_rank, crowd))}"
        )
        assert memory[-1] < statistics.median(memory[: len(memory) // 4]) * 1.25
    assert all(person.waits for person in crowd)
    assert max(map(max_rank, crowd)) >= 10, "people who wait are told their place"
    assert "Traceback" not in served.log.read_text()


def max_rank(person: Person) -> int:
    return max(person.ranks, default=0)
