"""Requests and files that mean harm: refused with a reason, and nothing of the server told."""

import base64
import io
import json
import os
import pickle
import socket
import struct
import threading
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported

import httpx
import pytest
import torch
from fake_translator import FakeTranslator
from helpers import identity_model, make_config, texture
from safetensors.torch import save_file
from served import file_data

from cyclegan import batch
from cyclegan.images import encode_png
from cyclegan.ui import build_demo, launch
from cyclegan.ui.limits import MAX_FILE
from cyclegan.zoo import Zoo

PHOTO = encode_png(texture(120, 160))
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def served(uploads):
    demo = build_demo(FakeTranslator(), add_models=True)
    _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True)
    yield url.rstrip("/") + "/gradio_api", demo
    demo.close(verbose=False)


@pytest.fixture
def api(served):
    with httpx.Client(base_url=served[0], timeout=60) as client:
        yield client


def call(api: httpx.Client, name: str, *data) -> tuple[bool, str]:
    """Call an endpoint as the README does with curl: whether it worked, and what it said."""
    try:
        begun = api.post(f"/call/{name}", json={"data": list(data)})
        if begun.status_code != 200:
            return False, begun.text
        answer = api.get(f"/call/{name}/{begun.json()['event_id']}").text
    except httpx.TransportError:
        return False, ""
    return "event: complete" in answer, answer


def upload(api: httpx.Client, content: bytes = PHOTO, name: str = "photo.png") -> str:
    return api.post("/upload", files={"files": (name, content)}).json()[0]


def tells_nothing(text: str, *secrets) -> bool:
    known = (str(ROOT), "site-packages", "Traceback", "/tmp/", "root:", *map(str, secrets))
    return not [secret for secret in known if secret in text]


def test_the_helpers_can_succeed(api):
    path = upload(api)
    assert call(api, "detect", file_data(path))[0]
    assert call(api, "batch", [file_data(path)], "glasses", "A2B", "all")[0]


# --- Paths ---

PATHS = [
    "/etc/passwd", "../../../../etc/passwd", "file:///etc/passwd", str(ROOT / "app.py"), "app.py", "/proc/self/environ",
    "{uploads}/../secret.png", "C:\\Windows\\win.ini", "/dev/zero", "\0", "",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["detect", "batch"])
def test_files_of_the_server_cannot_be_sent_to_an_endpoint(api, uploads, path, name):
    secret = uploads.parent / "secret.png"
    secret.write_bytes(PHOTO)
    sent = file_data(path.format(uploads=uploads), "x.png")
    worked, answer = call(api, "batch", [sent], "glasses", "A2B", "all") if name == "batch" else call(api, name, sent)
    assert not worked or '"error"' in answer
    assert "null" not in answer.partition("data:")[2] or "Upload" in answer, "refused without a reason"
    assert tells_nothing(answer.replace(path, ""), uploads)


@pytest.mark.parametrize("path", [*PATHS[:-2], "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc/passwd", "//etc/passwd"])
def test_files_of_the_server_cannot_be_downloaded(api, uploads, path):
    (uploads.parent / "secret.png").write_bytes(PHOTO)
    answer = api.get("/file=" + path.format(uploads=uploads), follow_redirects=False)
    assert answer.status_code in (400, 403, 404), answer.status_code
    assert b"root:" not in answer.content and b"\x89PNG" not in answer.content


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/evil.png", "..\\..\\evil.png", "a/../../../evil.png", "\0.png"]
)
def test_the_name_of_an_upload_cannot_lead_out_of_the_folder(api, uploads, name):
    before = {path for path in uploads.parent.rglob("*") if not path.is_relative_to(uploads)}
    answer = api.post("/upload", files={"files": (name, PHOTO)})
    if answer.status_code == 200:
        assert Path(answer.json()[0]).resolve().is_relative_to(uploads.resolve())
    assert {path for path in uploads.parent.rglob("*") if not path.is_relative_to(uploads)} == before


# --- Addresses ---


@pytest.fixture
def inside():
    """A server as it might run beside ours, which nobody outside may reach; and the requests it got."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PHOTO)

        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


ADDRESSES = ["http://{0}/a.png", "https://{0}/a.png", "HTTP://{0}/a.png", "http://user@{0}/a.png", "ftp://{0}/a.png",
             "//{0}/a.png", "http://169.254.169.254/latest/meta-data", "http://[::1]/a.png"]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_are_never_fetched(api, inside, address):
    host, asked = inside
    address = address.format(host)
    for sent in (
        file_data(address, "a.png"),
        {"path": "", "url": address, "meta": {"_type": "gradio.FileData"}},
        {"path": None, "url": address, "meta": {"_type": "gradio.FileData"}},
        {"path": "a.png", "url": address, "is_stream": True, "meta": {"_type": "gradio.FileData"}},
    ):
        assert not call(api, "detect", sent)[0]
        worked, answer = call(api, "batch", [sent], "glasses", "A2B", "all")
        assert not worked or '"error"' in answer
    assert asked == []


def test_the_refusal_of_an_address_says_what_to_do(api):
    answer = call(api, "detect", file_data("http://example.com/a.png", "a.png"))[1]
    assert "Files are not fetched from addresses. Send the file itself." in answer


def test_every_component_that_takes_files_refuses_addresses(served):
    """Also those of other tabs: whatever is the input of a function can be named in a request."""
    demo = served[1]
    inputs = {block for function in demo.fns.values() for block in function.inputs}
    takes_files = [b for b in inputs if (model := getattr(b, "data_model", None)) and "path" in str(model.model_fields)]
    assert takes_files
    for block in takes_files:
        assert type(block).async_move_resource_to_block_cache.__name__ == "only_uploads", f"{block} {block.elem_id}"


@pytest.mark.parametrize("path", ["proxy=http://{0}/a", "proxy=https://evil.hf.space/a", "file=http://{0}/a.png"])
def test_the_page_is_no_proxy(api, inside, path):
    host, asked = inside
    answer = api.get("/" + path.format(host), follow_redirects=False)
    assert answer.status_code >= 300 and asked == []
    assert b"\x89PNG" not in answer.content


def test_other_sites_cannot_call_a_page_on_this_machine(api):
    answer = api.post("/call/models", json={"data": []}, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


# --- Endpoints ---


def test_only_the_four_endpoints_are_public(api):
    named = api.get("/info").json()
    assert set(named["named_endpoints"]) == {"/models", "/detect", "/translate", "/batch"}
    assert not named["unnamed_endpoints"]


def test_what_is_not_public_cannot_be_called_by_name(served, api):
    private = {d["api_name"] for d in served[1].get_config_file()["dependencies"] if d["api_visibility"] == "private"}
    assert len(private) > 10
    for name in [*private, "nowhere", "_run", "0", "-1", "__init__", "v2/nowhere", "v2/begin", "begin/", ""]:
        answer = api.post(f"/call/{name}", json={"data": []})
        assert answer.status_code == 404 and "There is no endpoint" in answer.json()["detail"], name
        assert "/translate" in answer.json()["detail"]
        for way in ("run", "api"):  # which would pass by the queue, too
            assert api.post(f"/{way}/{name}", json={"data": []}).status_code >= 400, (way, name)
    for way in ("run", "api"):
        assert api.post(f"/{way}/translate", json={"data": []}).status_code >= 400
    for request in (api.post("/process_recording", content=b"x"), api.get("/deep_link?session_hash=x")):
        assert request.status_code == 404 and request.json() == {"detail": "There is nothing here."}
    assert api.get("/file=/tmp/call/x.png").status_code == 403  # a file in a folder of that name is a file


def test_private_functions_take_no_nonsense(served, api):
    """The page itself has to call them by number, so others can, too; but only with what the page would send."""
    private = [d["id"] for d in served[1].get_config_file()["dependencies"] if d["api_visibility"] == "private"]
    for number in private:
        for data in ([], ["/etc/passwd"] * 9, [file_data("/etc/passwd")] * 9):
            sent = {"data": data, "fn_index": number, "session_hash": f"nonsense{number}"}
            begun = api.post("/queue/join", json=sent)
            assert begun.status_code == 200
            answer = api.get("/queue/data", params={"session_hash": sent["session_hash"]}).text
            assert "process_completed" in answer and tells_nothing(answer.replace("/etc/passwd", ""))
    assert call(api, "models")[0]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"data": 1}', b'{"data": []}', b'{"data": [1, 2, 3, 4, 5, 6]}', b"\xff\xfe",
             b'{"data": [' + b"[" * 5000 + b"]" * 5000 + b"]}", b'{"data": [{"path": {"path": 1}}]}']
)  # fmt: skip
def test_nonsense_is_refused_and_tells_nothing(api, body):
    begun = api.post("/call/detect", content=body, headers={"Content-Type": "application/json"})
    text = begun.text
    if begun.status_code == 200:
        answer = api.get(f"/call/detect/{begun.json()['event_id']}").text
        assert "event: complete" not in answer
        text += answer
    assert tells_nothing(text)
    assert call(api, "models")[0]


# --- Sizes ---


def test_a_file_beyond_the_limit_is_refused(api):
    answer = api.post("/upload", files={"files": ("big.png", bytes(MAX_FILE + 2**20))})
    assert answer.status_code == 413


def test_a_body_beyond_the_limit_is_refused_by_what_it_announces(api):
    big = b'{"data": ["' + b"x" * (MAX_FILE * 4 // 3 + 2**21) + b'"]}'
    answer = api.post("/call/detect", content=big, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and "larger than 41 MB" in answer.text


def test_a_body_beyond_the_limit_is_refused_while_it_arrives(api):
    def endless():
        for _ in range(200):
            yield b"x" * 2**20

    try:
        answer = api.post("/call/detect", content=endless(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
    except httpx.TransportError:  # the server may close the door while we are still talking
        pass
    assert call(api, "models")[0]


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"99999999999999999999", b"\xb2"])
def test_a_lying_length_is_refused(served, length):
    host, port = served[0].split("/")[2].split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(
            b"POST /gradio_api/call/detect HTTP/1.1\r\nHost: " + host.encode() + b"\r\nContent-Type: application/json"
            b"\r\nContent-Length: " + length + b'\r\n\r\n{"data": []}'
        )
        assert connection.recv(100).split()[1] in (b"400", b"413")


def test_a_picture_that_unpacks_to_gigabytes_is_refused(api):
    """50,000 x 50,000 pixels in a file of a few kilobytes."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = bytearray(PHOTO)
    data[16:29] = header
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    answer = call(api, "detect", file_data(upload(api, bytes(data)), "bomb.png"))[1]
    assert "bomb.png is 50000 x 50000 pixels; at most 64 megapixels" in answer
    inline = "data:image/png;base64," + base64.b64encode(data).decode()
    assert "64 megapixels" in call(api, "detect", {"url": inline, "meta": {"_type": "gradio.FileData"}})[1]


def test_zips_that_mean_harm_are_listed_with_their_reasons(api, monkeypatch):
    """The core's own tests know every kind; here they come over the network."""
    monkeypatch.setattr(batch, "MAX_ZIP_BYTES", 3 * 2**20)  # to spare this machine the gigabytes
    bomb, slip = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"{i}.png", bytes(2**20))
    with zipfile.ZipFile(slip, "w") as archive:
        archive.writestr("../../../../tmp/evil.png", PHOTO)
    files = [file_data(upload(api, z.getvalue(), n), n) for z, n in ((bomb, "bomb.zip"), (slip, "slip.zip"))]
    worked, answer = call(api, "batch", files, "glasses", "A2B", "all")
    assert worked
    manifest = json.loads(answer.split("event: complete\ndata: ")[1])[1]
    assert "Unpacked, this zip would take more than" in manifest["files"][0]["error"]
    assert manifest["files"][1]["output"] == "evil.png" and not Path("/tmp/evil.png").exists()


def test_too_many_files_are_refused(api):
    one = file_data(upload(api))
    assert "at most 200" in call(api, "batch", [one] * 201, "glasses", "A2B", "all")[1]
    assert "There are no files yet" in call(api, "batch", [], "glasses", "A2B", "all")[1]


# --- Checkpoints ---


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def model(tmp_path):
    identity_model(make_config("evil")).save_pretrained(tmp_path / "models" / "evil")
    identity_model(make_config("good")).save_pretrained(tmp_path / "models" / "good")
    return tmp_path / "models" / "evil"


def problem(model: Path) -> str:
    """What the zoo says of the model; the other one still works."""
    zoo = Zoo(model.parent)
    assert list(zoo.entries) == ["good"] and zoo.load("good")
    reason = zoo.problems["evil"]
    assert str(model.parent) not in reason and "evil" in reason
    return reason


def test_a_pickle_is_never_read(model, tmp_path):
    mark = tmp_path / "ran"
    for content in (pickle.dumps(Touch(mark)), None):
        if content is None:
            torch.save(Touch(mark), model / "model.safetensors")
        else:
            (model / "model.safetensors").write_bytes(content)
        assert "cut off or damaged" in problem(model)
        (model / "pytorch_model.bin").write_bytes((model / "model.safetensors").read_bytes())
    assert not mark.exists()


@pytest.mark.parametrize("size", [2**63, 2**40, 2**32, 101 * 10**6])
def test_a_huge_header_is_refused(model, size):
    (model / "model.safetensors").write_bytes(struct.pack("<Q", size) + b'{"a":' + b" " * 1000)
    assert "cut off or damaged" in problem(model)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**60]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": {"format": "pt"}},
        [],
    ],
)
def test_a_lying_header_is_refused(model, header):
    text = json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    assert "evil" in problem(model)


def test_weights_of_another_shape_are_refused(model):
    weights = {"G_AB.head.0.weight": torch.zeros(1)}
    save_file(weights, model / "model.safetensors")
    assert "belong to another network" in problem(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 2**40},
        {"image_size": -64},
        {"image_size": "64"},
        {"generator": {"filters": 10**9}},
        {"generator": {"filters": 10**4, "blocks": 10**6}},
        {"generator": {"__class__": "os.system"}},
        {"domains": {"A": {"label": "x"}}},
        {"template": {"landmarks": [[float("nan")] * 2] * 5, "scale": 1}},
        {"name": ["evil"]},
    ],
)
def test_a_config_that_asks_for_too_much_is_refused(model, changes):
    config = json.loads((model / "config.json").read_text())
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    if "domains" in changes:
        config["domains"] = changes["domains"]
    (model / "config.json").write_text(json.dumps(config))
    assert problem(model)


def test_a_config_of_gigabytes_of_nesting_is_refused(model):
    (model / "config.json").write_text("[" * 100_000)
    assert "config.json" in problem(model)
