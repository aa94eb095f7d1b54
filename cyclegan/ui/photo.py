"""The Photo tab: one photo in, one face or all of them translated."""

import html
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np

from cyclegan.errors import BadImageError
from cyclegan.faces.detect import Face
from cyclegan.images import load_image
from cyclegan.model import ModelConfig
from cyclegan.translator import NO_FACE, Translator
from cyclegan.ui.components import PhotoInput, Upload, store, toasts
from cyclegan.ui.draw import Box, outlined, preview, preview_scale, square_around, square_box
from cyclegan.ui.results import EMPTY, cards, take_home

NO_MODELS = """
### No model yet
Put a model folder (`config.json` and `model.safetensors`) into `checkpoints/` and restart, or train one:
`python -m train --help` shows how.
"""

_SEARCHING = "<p>Looking for faces…</p>"

_WEBCAM = gr.WebcamOptions(
    constraints={"video": {"width": {"ideal": 1280}, "height": {"ideal": 720}, "facingMode": "user"}}
)
# On a phone the answer lies below the question. There is nothing to scroll to until it has been laid out.
_SHOW_ANSWER = """() => {
    const answer = document.getElementById("answer");
    const show = () => answer.scrollIntoView({behavior: "smooth"});
    if (answer.getBoundingClientRect().top > window.innerHeight / 2) setTimeout(show, 300);
    return [];
}"""


@dataclass(frozen=True, eq=False)
class Photo:
    """What the server remembers of a visitor's photo. The pixels stay in the file: memory is shared by all."""

    path: str | None
    name: str | None
    size: tuple[int, int]
    """width, height"""
    preview: bytes
    faces: list[Face]

    def pixels(self) -> np.ndarray:
        """The photo itself: uint8 [H, W, 3]. Raises BadImageError once its file has been deleted."""
        if not (self.path and Path(self.path).exists()):
            raise BadImageError("This photo was deleted from the server after an hour. Choose it again.")
        return load_image(self.path, self.name)


def photo_tab(translator: Translator) -> None:
    """Build the tab inside the Blocks being built."""
    zoo = translator.zoo
    names = list(zoo.entries)
    if not names:
        gr.Markdown(NO_MODELS, elem_id="no-models")
        _problems(zoo.problems)
        return

    def directions(model: str) -> list[tuple[str, str]]:
        return [(label, direction) for direction, label in zoo.config(model).directions.items()]

    # --- Layout: the question on the left, the answer on the right; one below the other on a phone. ---
    first = zoo.config(names[0])
    state = gr.State(None, time_to_live=3600)
    with gr.Row(elem_id="photo-tab"):
        with gr.Column(scale=5, min_width=320, elem_id="ask"):
            photo = PhotoInput(
                label="Photo",
                elem_id="photo",
                height=360,
                buttons=[],
                webcam_options=_WEBCAM,
                placeholder="Drop a photo here\nor click to choose one",
                show_label=False,
                alt_text="Your photo, with the faces found outlined",
            )
            hint = gr.HTML(elem_id="hint", visible=False, js_on_load=None)
            face = gr.Radio([("All faces", "all")], value="all", label="Face", visible=False, elem_id="face")
            with gr.Column(visible=False, elem_id="square") as square:
                side = gr.Slider(10, 100, 100, step=1, label="Size of the square (%)", buttons=[])
                with gr.Row():
                    across = gr.Slider(0, 100, 50, step=1, label="Across (%)", min_width=120, buttons=[])
                    down = gr.Slider(0, 100, 50, step=1, label="Down (%)", min_width=120, buttons=[])
            model = gr.Radio(
                [(zoo.config(name).title, name) for name in names],
                value=names[0],
                label="Model",
                elem_id="model",
                visible=len(names) > 1,
            )
            direction = gr.Radio(directions(names[0]), value="A2B", label="Direction", elem_id="direction")
            button = gr.Button("Translate", variant="primary", interactive=False, elem_id="translate")
            about = gr.Markdown(_about(first), elem_id="about")
            _problems(zoo.problems)
        with gr.Column(scale=6, min_width=320, elem_id="answer"):
            output = gr.Image(
                label="Result",
                alt_text="Your photo with the translated faces",
                elem_id="result",
                show_label=False,
                buttons=["fullscreen"],
                interactive=False,
                visible=False,
            )
            download = gr.DownloadButton("Download PNG", visible=False, size="md", elem_id="download")
            details = gr.HTML(EMPTY, elem_id="details", js_on_load=None)
    settings = [state, model, direction, face, side, across, down]
    picture = [photo, hint, face, square]
    answer = [output, details, download]

    # --- What happens: every function below answers one thing a visitor does. ---
    @toasts()
    def outline(kept: Photo | None, model, direction, face, side, across, down):
        """The photo with what will be translated outlined."""
        if kept is None:
            return None
        if not translator.needs_faces(model, direction):
            boxes, chosen, numbered = [square_box(*kept.size, side, across, down)], {0}, False
        else:
            boxes, numbered = [f.box for f in kept.faces], True
            chosen = range(len(boxes)) if face == "all" else {int(face)}
        scaled: list[Box] = [tuple(x * preview_scale(*kept.size) for x in box) for box in boxes]
        return store(photo, outlined(kept.preview, scaled, chosen, numbered), "photo.jpg")

    @toasts()
    def arrange(kept: Photo | None, model, direction, face, side, across, down):
        """The controls that this photo and direction need: a face to pick, a square to place, or a word of help."""
        needs_faces = translator.needs_faces(model, direction)
        count = len(kept.faces) if kept else 0
        words = _hint(count, needs_faces) if kept else ""
        return (
            gr.update(value=outline(kept, model, direction, face, side, across, down)),
            gr.update(value=words, visible=bool(words)),
            gr.update(visible=needs_faces and count > 1),
            gr.update(visible=bool(kept) and not needs_faces),
        )

    @toasts()
    def add_photo(upload: Upload, model, direction, side, across, down):
        height, width = upload.pixels.shape[:2]
        faces = translator.detect(upload.pixels)
        kept = Photo(upload.path, upload.name, (width, height), preview(upload.pixels), faces)
        shown, words, picker, placer = arrange(kept, model, direction, "all", side, across, down)
        choices = [("All faces", "all"), *((f"Face {i + 1}", str(i)) for i in range(len(faces)))]
        picker = gr.update(choices=choices, value="all", visible=picker["visible"])
        return shown, kept, words, picker, placer, gr.update(interactive=True), *_cleared()

    @toasts()
    def choose_model(kept, model, direction, face, side, across, down):
        return (
            gr.update(choices=directions(model), value=direction),
            _about(zoo.config(model)),
            *arrange(kept, model, direction, face, side, across, down),
        )

    @toasts()
    def pick(event: gr.SelectData, kept: Photo | None, model, direction, face, side, across, down):
        """A click on the photo picks a face, or all again; for a drawing it moves the square."""
        if kept is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        x, y = (at / preview_scale(*kept.size) for at in event.index)
        if translator.needs_faces(model, direction):
            hit = next((str(i) for i, f in enumerate(kept.faces) if _inside(f.box, x, y)), "all")
            face = "all" if hit == face or len(kept.faces) < 2 else hit
        else:
            across, down = square_around(*kept.size, side, x, y)
        return outline(kept, model, direction, face, side, across, down), face, across, down

    @toasts()
    def answer_for(kept: Photo | None, model, direction, face, side, across, down):
        if kept is None:
            raise BadImageError("There is no photo yet. Choose one first.")
        config = zoo.config(model)
        result = translator.translate(
            kept.pixels(),
            model,
            direction,
            faces="all" if face == "all" else int(face),
            square=None if translator.needs_faces(model, direction) else square_box(*kept.size, side, across, down),
            found=kept.faces,
        )
        return (
            gr.update(value=store(output, preview(result.output), "result.jpg"), visible=True),
            cards(result, config, direction),
            gr.update(value=store(download, *take_home(result, config, direction, kept.name)), visible=True),
        )

    # --- Which event calls which function. ---
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    # Files, snapshots and pastes all are uploads. Another source, or a file dropped on a photo, clears first.
    everything = [state, hint, face, square, button, *answer]
    searching = photo.upload(lambda: gr.update(value=_SEARCHING, visible=True), None, hint, **quick)
    added = searching.then(
        add_photo,
        [photo, model, direction, side, across, down],
        [photo, *everything],
        show_progress="hidden",
        api_visibility="private",
    )
    added.failure(lambda: (None, *_forgotten()), None, [photo, *everything], **quick)
    photo.clear(_forgotten, None, everything, **quick)
    photo.select(pick, settings, [photo, face, across, down], **quick)
    gr.on([face.input, side.release, across.release, down.release], outline, settings, photo, **quick)
    model.input(choose_model, settings, [direction, about, *picture], **quick)
    direction.input(arrange, settings, picture, **quick)
    working = button.click(lambda: gr.update(value="Translating…", interactive=False), None, button, **quick)
    answered = working.then(
        answer_for,
        settings,
        answer,
        show_progress_on=details,
        concurrency_limit=2,
        concurrency_id="translate",
        api_visibility="private",
    )
    answered.success(_ready, None, button, js=_SHOW_ANSWER, **quick)
    answered.failure(_ready, None, button, **quick)


def _ready() -> dict:
    """The Translate button between two translations."""
    return gr.update(value="Translate", interactive=True)


def _forgotten() -> tuple:
    """Everything but the photo input as it is before there was a photo."""
    hidden = [gr.update(visible=False) for _ in range(3)]
    return None, *hidden, gr.update(interactive=False), *_cleared()


def _cleared() -> tuple:
    """The answer side as it is before anything was translated."""
    return gr.update(value=None, visible=False), EMPTY, gr.update(value=None, visible=False)


def _hint(count: int, needs_faces: bool) -> str:
    if not needs_faces:
        return "<p>This direction starts from a drawing. Click on it or move the square to choose the part to use.</p>"
    if count == 0:
        return f'<p class="warn">{NO_FACE}</p>'
    return "<p>1 face found.</p>" if count == 1 else f"<p>{count} faces found. Pick one here or in the photo.</p>"


def _about(config: ModelConfig) -> str:
    """What the model is, in Markdown."""
    terms = f" · {config.license}" if config.license else ""
    size = f"{config.image_size} × {config.image_size} pixels per face"
    return f"**{config.title}.** {config.description}\n\n{size}{terms}"


def _problems(problems: dict[str, str]) -> None:
    """Name the model folders that cannot be used, out of the way."""
    if problems:
        rows = "".join(f"<li><b>{html.escape(n)}</b>: {html.escape(message)}</li>" for n, message in problems.items())
        title = "1 model could not be loaded" if len(problems) == 1 else f"{len(problems)} models could not be loaded"
        gr.HTML(f"<details><summary>{title}</summary><ul>{rows}</ul></details>", elem_id="problems", js_on_load=None)


def _inside(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]
