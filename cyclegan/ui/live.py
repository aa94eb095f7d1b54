"""The Live tab: the webcam's picture, translated frame by frame while one watches.

The browser sends a frame when the camera has a new one and fewer than two are under way, and shows what comes back: the
rate follows from what the machine can do, and nothing piles up. When answers come late it sends smaller frames.
"""

import base64
import binascii
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from cyclegan.errors import BadImageError, CycleGANError
from cyclegan.faces.detect import FaceDetector
from cyclegan.faces.track import LIVE_SIDE, FaceTracker
from cyclegan.images import encode_jpeg, load_image
from cyclegan.translator import Translator
from cyclegan.ui.components import SORRY

log = logging.getLogger(__name__)

MOST_VIEWERS = 8
"""How many may watch at once; they take turns, frame by frame."""
FULL = "Too many people are using their cameras here just now. Try again in a minute."

_FORGET = 20.0  # seconds without a frame, after which a viewer is gone
_MOST_BYTES = 2_000_000
_MOST_PIXELS = 1280 * 1280

# Settings are kept on the element of the stage, where the script finds them with every frame.
_SET = """(model, direction, view, mirror) => {
    const stage = document.querySelector("#stage .live");
    if (stage) {
        Object.assign(stage.dataset, {model, direction, view});
        stage.dataset.mirror = mirror ? "yes" : "no";
    }
    return [];
}"""


@dataclass(eq=False)
class _Viewer:
    """Someone who watches: the faces of their picture, and nothing else."""

    tracker: FaceTracker
    last: float
    """When the last frame came, in seconds of the monotonic clock."""


class LiveService:
    """Translates frames for several viewers in turn. Keeps no picture once it is answered."""

    def __init__(self, translator: Translator, detector: FaceDetector | None = None):
        """``detector`` searches at `faces.track.LIVE_SIDE`; by default one is made with the first frame."""
        self._translator = translator
        self._detector = detector
        self._viewers: dict[str, _Viewer] = {}
        self._lock = threading.Lock()
        # First come, first served: with two frames of each viewer under way, everyone gets the same share.
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="live")

    def translate(self, viewer: str, jpeg: bytes, model: str, direction: str) -> tuple[bytes, int]:
        """A frame as JPEG -> the translated frame as JPEG, and how many faces are in it.

        Without a face the bytes come back as they are. Raises a CycleGANError: `FULL`, or as `load_image` and
        `Translator.engine` do.
        """
        seen = self._viewer(viewer)
        frame = _decode(jpeg)
        output, faces = self._turns.submit(self._translate, seen, frame, model, direction).result()
        return (encode_jpeg(output) if faces else jpeg), faces

    def _translate(self, viewer: _Viewer, frame: np.ndarray, model: str, direction: str) -> tuple[np.ndarray, int]:
        faces = viewer.tracker.track(frame, time.monotonic())
        return self._translator.retouch(frame, model, direction, faces), len(faces)

    def _viewer(self, name: str) -> _Viewer:
        now = time.monotonic()
        with self._lock:
            self._viewers = {key: each for key, each in self._viewers.items() if now - each.last < _FORGET}
            if name not in self._viewers:
                if len(self._viewers) >= MOST_VIEWERS:
                    raise CycleGANError(FULL)
                if self._detector is None:
                    device = "cuda" if self._translator.device == "cuda" else "cpu"
                    self._detector = FaceDetector(device, LIVE_SIDE)
                self._viewers[name] = _Viewer(FaceTracker(self._detector), now)
            viewer = self._viewers[name]
            viewer.last = now
            return viewer


def live_tab(translator: Translator, service: LiveService | None = None) -> None:
    """Build the tab inside the Blocks being built; where there is no model it is empty but for a word about it."""
    names = list(translator.zoo.entries)
    # A camera shows faces, so only what starts from photographs can be offered.
    offered = {
        name: [
            (label, direction)
            for direction, label in translator.zoo.config(name).directions.items()
            if translator.needs_faces(name, direction)
        ]
        for name in names
    }
    offered = {name: directions for name, directions in offered.items() if directions}
    if not offered:
        gr.Markdown("### No model yet\nThere is no model here that starts from photographs of faces.")
        return
    service = service or LiveService(translator)
    first = next(iter(offered))

    def translate_frame(request: dict[str, Any]) -> dict[str, Any]:
        """A frame of a viewer: an answer with the picture, or with an error for people."""
        try:
            jpeg, faces = service.translate(
                str(request["viewer"])[:64], _from_url(request["image"]), request["model"], request["direction"]
            )
        except CycleGANError as error:
            return {"error": str(error)}
        except Exception:
            log.exception("A frame failed.")
            return {"error": SORRY}
        return {"image": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode(), "faces": faces}

    with gr.Row(elem_id="live-tab"):
        with gr.Column(scale=7, min_width=320):
            gr.HTML(
                _STAGE.replace("MODEL", first).replace("DIRECTION", offered[first][0][1]),
                css_template=_CSS,
                js_on_load=_SCRIPT,
                elem_id="stage",
                server_functions=[translate_frame],
            )
        with gr.Column(scale=3, min_width=260, elem_id="live-settings"):
            model = gr.Radio(
                [(translator.zoo.config(name).title, name) for name in offered],
                value=first,
                label="Model",
                elem_id="live-model",
                visible=len(offered) > 1,
            )
            direction = gr.Radio(
                offered[first], value=offered[first][0][1], label="Direction", elem_id="live-direction"
            )
            view = gr.Radio(
                [("Translation", "result"), ("Side by side", "both")], value="result", label="View", elem_id="live-view"
            )
            mirror = gr.Checkbox(True, label="Mirror", elem_id="live-mirror")
            gr.Markdown(
                "Frames are translated on the server one by one and kept nowhere. What it paints is generated.",
                elem_id="live-about",
            )

    def directions(model: str) -> dict:
        return gr.update(choices=offered[model], value=offered[model][0][1])

    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    settings = [model, direction, view, mirror]
    # The script must not ask for a direction that the model just chosen does not have: it hears of both at once.
    latest: dict[str, Any] = {"trigger_mode": "always_last"}  # a choice made while the one before is on its way counts
    model.input(directions, model, direction, **quick, **latest).then(None, settings, None, js=_SET, **quick, **latest)
    gr.on([direction.input, view.input, mirror.input], None, settings, None, js=_SET, **quick, **latest)


def _decode(jpeg: bytes) -> np.ndarray:
    if len(jpeg) > _MOST_BYTES:
        raise BadImageError("The camera's picture is too large.")
    frame = load_image(jpeg, "The camera's picture")
    if frame.shape[0] * frame.shape[1] > _MOST_PIXELS:
        raise BadImageError("The camera's picture is too large.")
    return frame


def _from_url(url: str) -> bytes:
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except (binascii.Error, AttributeError):
        raise BadImageError("The camera's picture did not arrive whole.") from None


_STAGE = """
<div class="live" data-model="MODEL" data-direction="DIRECTION" data-view="result" data-mirror="yes">
  <div class="screens">
    <video playsinline muted aria-label="Your camera"></video>
    <canvas role="img" aria-label="Your camera, translated"></canvas>
    <div class="say" role="status"><p>Switch the camera on to see yourself translated.</p></div>
  </div>
  <div class="bar">
    <button type="button" class="switch">Switch the camera on</button>
    <button type="button" class="freeze" hidden>Freeze: use as a photo</button>
    <span class="figures"></span>
  </div>
</div>
"""

_CSS = """
.screens { display: grid; grid-template-columns: 1fr; gap: 8px; position: relative; min-height: 300px; }
.screens video, .screens canvas { width: 100%; max-height: 70vh; object-fit: contain; display: none;
  border-radius: var(--radius-lg); background: #0b1117; }
.live.on canvas { display: block; }
.live.on .screens { min-height: 0; }
.live.on[data-view="both"] .screens { grid-template-columns: 1fr 1fr; align-items: start; }
.live.on[data-view="both"] video { display: block; }
.live[data-mirror="yes"] :is(video, canvas) { transform: scaleX(-1); }
.say { display: grid; place-content: center; position: absolute; inset: 0; padding: 24px; text-align: center;
  border: 1px dashed var(--border-color-primary); border-radius: var(--radius-lg); }
.say p { margin: 0; max-width: 44ch; color: var(--body-text-color-subdued); line-height: 1.5; }
.say:empty { display: none; }
.live.on .say { inset: auto 12px 12px 12px; padding: 8px 12px; border: 0; background: rgb(11 17 23 / .78); }
.live.on .say p { color: #f1f5f9; max-width: none; }
.bar { display: flex; flex-wrap: wrap; align-items: center; gap: 10px; margin-top: 12px; }
.bar button { padding: 9px 16px; border-radius: var(--radius-lg); font-weight: 600; cursor: pointer;
  border: 1px solid var(--border-color-primary); color: var(--body-text-color);
  background: var(--block-background-fill); }
.bar .switch { border-color: transparent; color: var(--button-primary-text-color);
  background: var(--button-primary-background-fill); }
.live.on .switch { border-color: var(--border-color-primary); color: var(--body-text-color);
  background: var(--block-background-fill); }
.figures { margin-left: auto; font-size: var(--text-sm); color: var(--body-text-color-subdued);
  font-variant-numeric: tabular-nums; }
@media (max-width: 640px) { .live.on[data-view="both"] .screens { grid-template-columns: 1fr; }
  .bar button { padding: 9px 12px; font-size: var(--text-sm); } .figures { margin-left: 0; width: 100%; } }
"""

_SCRIPT = """
const live = element.querySelector(".live"), video = live.querySelector("video");
const canvas = live.querySelector("canvas"), paper = canvas.getContext("2d");
const say = live.querySelector(".say"), figures = live.querySelector(".figures");
const switchButton = live.querySelector(".switch"), freezeButton = live.querySelector(".freeze");
const viewer = Array.from(crypto.getRandomValues(new Uint8Array(16)), (x) => x.toString(16).padStart(2, "0")).join("");
const WIDTHS = [640, 480, 320], UNDER_WAY = 2, SLOW = 250, QUICK = 90;

let stream = null, underWay = 0, sent = 0, shown = 0, size = 0, steady = 0, notBefore = 0;
let answers = [];  // of the last two seconds: when shown, and how long after the camera had the frame

function tell(words) {
    say.replaceChildren();
    if (words) say.appendChild(document.createElement("p")).textContent = words;
}

function why(error) {
    if (!navigator.mediaDevices)
        return "Browsers give cameras only to pages opened over https or from this machine. Photos work everywhere: " +
            "use the Photo tab.";
    if (error.name === "NotAllowedError")
        return "The browser does not let this page use the camera. Allow it beside the address, then switch on again.";
    if (error.name === "NotFoundError" || error.name === "OverconstrainedError")
        return "No camera was found. Connect one and switch on again, or use a picture in the Photo tab.";
    return "The camera cannot be used: another program may have it. Close that, then switch on again.";
}

async function start() {
    switchButton.disabled = true;
    tell("Waiting for the camera…");
    try {
        stream = await navigator.mediaDevices.getUserMedia({audio: false, video: {
            width: {ideal: 640}, height: {ideal: 480}, frameRate: {ideal: 30}, facingMode: "user"}});
        video.srcObject = stream;
        await video.play();
    } catch (error) {
        stop(why(error));
        return;
    } finally {
        switchButton.disabled = false;
    }
    stream.getVideoTracks()[0].addEventListener("ended", () => stop("The camera was switched off or taken away."));
    answers = []; size = 0; steady = 0; notBefore = 0;
    tell("The first frame is on its way…");
    live.classList.add("on");
    switchButton.textContent = "Switch off";
    freezeButton.hidden = false;
    wait(stream);
}

function stop(words) {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    video.srcObject = null;
    live.classList.remove("on");
    switchButton.textContent = "Switch the camera on";
    freezeButton.hidden = true;
    figures.textContent = "";
    tell(words ?? "Switch the camera on to see yourself translated.");
}

// Once for every new frame of the camera; nothing is sent while nobody can see it.
function wait(mine) {
    const next = video.requestVideoFrameCallback?.bind(video) ?? requestAnimationFrame;
    next(() => {
        if (stream !== mine) return;
        wait(mine);
        const seen = !document.hidden && live.offsetParent !== null;
        if (seen && underWay < UNDER_WAY && performance.now() >= notBefore) send(mine);
    });
}

async function send(mine) {
    const number = ++sent, began = performance.now(), {model, direction} = live.dataset;
    const scale = Math.min(1, WIDTHS[size] / video.videoWidth);
    const shot = document.createElement("canvas");
    shot.width = Math.round(video.videoWidth * scale);
    shot.height = Math.round(video.videoHeight * scale);
    shot.getContext("2d").drawImage(video, 0, 0, shot.width, shot.height);
    underWay++;
    try {
        const answer = await server.translate_frame(
            {viewer, model, direction, image: shot.toDataURL("image/jpeg", 0.85)});
        if (stream !== mine || number < shown) return;
        if (answer.error) {
            notBefore = performance.now() + 1000;
            tell(answer.error);
            return;
        }
        const picture = new Image();
        picture.src = answer.image;
        await picture.decode();
        if (stream !== mine || number < shown) return;
        shown = number;
        if (canvas.width !== picture.width || canvas.height !== picture.height)
            [canvas.width, canvas.height] = [picture.width, picture.height];
        paper.drawImage(picture, 0, 0);
        Object.assign(canvas.dataset, {frame: number, faces: answer.faces, direction, model});
        tell(answer.faces ? "" : "No face in view: the picture is shown as it is.");
        count(performance.now(), performance.now() - began, picture);
    } catch (error) {
        notBefore = performance.now() + 1000;
        tell("The server does not answer. Trying again…");
    } finally {
        underWay--;
    }
}

function count(now, lag, picture) {
    answers = answers.filter((answer) => now - answer.at < 2000).concat({at: now, lag});
    const lags = answers.map((answer) => answer.lag).sort((a, b) => a - b);
    const middle = lags[lags.length >> 1];
    const rate = answers.length > 1 ? (answers.length - 1) * 1000 / (now - answers[0].at) : 0;
    figures.textContent = `${rate.toFixed(0)} frames per second · ${middle.toFixed(0)} ms behind · ` +
        `${picture.width} × ${picture.height}`;
    Object.assign(live.dataset, {rate: rate.toFixed(1), lag: middle.toFixed(0)});
    // Smaller frames where answers come late, larger ones again after a good while of quick ones.
    if (middle > SLOW && answers.length > 4 && size < WIDTHS.length - 1) { size++; answers = []; steady = now + 10000; }
    else if (middle > QUICK) steady = Math.max(steady, now + 5000);
    else if (size > 0 && now > steady) { size--; answers = []; steady = now + 20000; }
}

// The frame goes the way of a file that a visitor drops on the Photo tab.
async function freeze() {
    const shot = document.createElement("canvas");
    [shot.width, shot.height] = [video.videoWidth, video.videoHeight];
    shot.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => shot.toBlob(done, "image/jpeg", 0.95));
    stop();
    const tab = [...document.querySelectorAll("[role=tab]")].find((each) => each.textContent.trim() === "Photo");
    tab?.click();
    document.querySelector('#photo button[aria-label="Remove Image"]')?.click();
    // What the server says of the photo before is gone with its hint; until then it would wipe the new one away, too.
    for (let i = 0; i < 200; i++) {
        const input = document.querySelector("#photo input[type=file]");
        if (input && (i > 100 || !document.querySelector("#hint"))) {
            const files = new DataTransfer();
            files.items.add(new File([blob], "camera.jpg", {type: "image/jpeg"}));
            input.files = files.files;
            input.dispatchEvent(new Event("change", {bubbles: true}));
            return;
        }
        await new Promise((done) => setTimeout(done, 50));
    }
}

switchButton.addEventListener("click", () => stream ? stop() : start());
freezeButton.addEventListener("click", freeze);
"""
