"""The Photo tab: one photo in; one face, all of them or a part chosen by hand translated."""

import html
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from gradio.events import Dependency

from cyclegan.errors import BadImageError, CycleGANError
from cyclegan.model import DIRECTIONS, ModelConfig
from cyclegan.translator import NO_FACE, Result, Translator
from cyclegan.ui.components import PhotoInput, Upload, UploadedFile, plain, store, toasts
from cyclegan.ui.draw import Box, outlined, preview, preview_scale, square_around, square_box
from cyclegan.ui.examples import Examples
from cyclegan.ui.kept import GONE, Answer, Photo, zipped
from cyclegan.ui.links import COPIED_FOR_A_WHILE, COPY_LABEL, COPY_LINK, THE_LINK, as_step, from_step, parse
from cyclegan.ui.results import EMPTY, Chain, compare, gallery, title_of, visit

NO_MODELS = """
## No model yet
Put a model folder (`config.json` and `model.safetensors`) into `checkpoints/`, or into the folder that
`--checkpoints` names, and restart. Or train one:
`python -m train --help` shows how.
"""

REMEMBERED = 24
"""How many translations of a visit can be shown again."""

_SEARCHING = "<p>Looking for faces…</p>"
_BY_HAND = ("By hand", "hand")
_WEBCAM = gr.WebcamOptions(
    constraints={"video": {"width": {"ideal": 1280}, "height": {"ideal": 720}, "facingMode": "user"}}
)

# --- What the browser does by itself ---

# On a phone the answer lies below the question. There is nothing to scroll to until it has been laid out.
_SHOW_ANSWER = """() => {
    const answer = document.getElementById("answer");
    const show = () => answer.scrollIntoView({behavior: "smooth"});
    if (answer.getBoundingClientRect().top > window.innerHeight / 2) setTimeout(show, 300);
    return [];
}"""
# The same from the gallery, which may be longer than the screen.
_SHOW_PICKED = """() => {
    const show = () => document.getElementById("compare").scrollIntoView({behavior: "smooth", block: "nearest"});
    setTimeout(show, 300);
    return [];
}"""
# A click on a picture in a list becomes a select event.
_PICK = """element.addEventListener("click", (event) => {
    const tile = event.target.closest("button[data-index]");
    if (tile) trigger("select", {index: Number(tile.dataset.index), value: null});
});"""
_SLIDE = """element.addEventListener("input", (event) => {
    const share = event.target.value;
    event.target.closest(".stage").style.setProperty("--at", share + "%");
    event.target.setAttribute("aria-valuetext", share + "% before");
});"""
_BLEND = """(strength) => {
    document.querySelector("#compare .stage")?.style.setProperty("--strength", strength / 100);
    return [];
}"""
_SAVE = """(file) => {
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name;
    link.click();
    return [];
}"""

Values = dict[gr.components.Component, Any]
"""What the visitor set: the value of each component that a function asked for."""
Updates = dict[gr.components.Component, Any]
"""What changes in the page: a value or an update for each component concerned."""


class PhotoTab:
    """The tab, built inside the Blocks being built. Holds its components, and nothing of any visit."""

    def __init__(self, translator: Translator):
        self.translator, self.zoo = translator, translator.zoo
        if not self.zoo.entries:
            gr.Markdown(NO_MODELS, elem_id="no-models")
            _problems(self.zoo.problems)
            return
        self.examples = Examples(translator)
        self.kept = gr.State(None, time_to_live=3600)  # Photo: what is on the left
        self.shown = gr.State(None, time_to_live=3600)  # Answer: what is on the right
        self.every = gr.State([], time_to_live=3600)  # list[Answer]: the gallery
        self.past = gr.State([], time_to_live=3600)  # list[Answer]: this visit, oldest first
        with gr.Row(elem_id="photo-tab"):
            with gr.Column(scale=5, min_width=320, elem_id="ask"):
                self._ask()
            with gr.Column(scale=6, min_width=320, elem_id="answer"):
                self._answer()
        self.settings = {
            self.kept, self.model, self.direction, self.second, self.third, self.face, self.side, self.across,
            self.down, self.strength,
        }  # fmt: skip
        self._wire()

    # --- Layout: the question on the left, the answer on the right; one below the other on a phone ---

    def _ask(self) -> None:
        names = list(self.zoo.entries)
        self.photo = PhotoInput(
            label="Photo",
            elem_id="photo",
            height=360,
            buttons=[],
            webcam_options=_WEBCAM,
            placeholder="Drop a photo here\nor click to choose one",
            show_label=False,
            alt_text="Your photo, with the faces found outlined",
        )
        self.example = gr.HTML(
            self.examples.html(), elem_id="examples", visible=bool(self.examples.all), js_on_load=_PICK
        )
        self.hint = gr.HTML(elem_id="hint", visible=False, js_on_load=None)
        self.face = gr.Radio([("All faces", "all")], value="all", label="Face", visible=False, elem_id="face")
        with gr.Column(visible=False, elem_id="square") as self.square:
            self.side = gr.Slider(10, 100, 100, step=1, label="Size of the square (%)", buttons=[])
            with gr.Row():
                self.across = gr.Slider(0, 100, 50, step=1, label="Across (%)", min_width=120, buttons=[])
                self.down = gr.Slider(0, 100, 50, step=1, label="Down (%)", min_width=120, buttons=[])
        self.model = gr.Radio(self._models([]), value=names[0], label="Model", elem_id="model", visible=len(names) > 1)
        self.direction = gr.Radio(self._directions(names[0]), value="A2B", label="Direction", elem_id="direction")
        with gr.Accordion("Add steps", open=False, elem_id="chain") as self.chain:
            steps = self._steps([])
            self.second = gr.Dropdown(steps, value="", label="Then", elem_id="second", filterable=False)
            self.third = gr.Dropdown(steps, value="", label="Then", elem_id="third", filterable=False, visible=False)
        with gr.Row(elem_id="go"):
            self.button = gr.Button("Translate", variant="primary", interactive=False, scale=3, elem_id="translate")
            self.all = gr.Button("All directions", interactive=False, scale=2, min_width=140, elem_id="all")
        self.about = gr.HTML(_about(self.zoo.config(names[0])), elem_id="about", js_on_load=None)
        self.link = gr.Button(COPY_LABEL, size="sm", elem_id="link", elem_classes="quiet")
        self.search = gr.Textbox(visible=False)
        _problems(self.zoo.problems)

    def _answer(self) -> None:
        self.gallery = gr.HTML(elem_id="gallery", visible=False, js_on_load=_PICK)
        self.download_all = gr.Button("Download all", visible=False, elem_id="download-all")
        self.compare = gr.HTML(elem_id="compare", visible=False, js_on_load=_SLIDE)
        with gr.Row(visible=False, elem_id="take") as self.take:
            self.strength = gr.Slider(0, 100, 100, step=1, label="Strength (%)", scale=3, min_width=240, buttons=[])
            self.download = gr.Button("Download PNG", scale=2, min_width=140, elem_id="download")
        self.details = gr.HTML(EMPTY, elem_id="details", js_on_load=None)
        self.visit = gr.HTML(elem_id="visit", visible=False, js_on_load=_PICK)
        self.file = UploadedFile(visible=False)  # what the browser saves

    # --- Choices, in the words of the models' configs ---

    def _models(self, guests: Sequence[str]) -> list[tuple[str, str]]:
        own = [(self.zoo.config(name).title, name) for name in self.zoo.entries]
        return own + [(f"{self.zoo.config(name).title} (added)", name) for name in guests]

    def _directions(self, model: str) -> list[tuple[str, str]]:
        return [(label, direction) for direction, label in self.zoo.config(model).directions.items()]

    def _steps(self, guests: Sequence[str]) -> list[tuple[str, str]]:
        steps = [(name, direction) for _, name in self._models(guests) for direction in DIRECTIONS]
        return [("Nothing more", ""), *((title_of(self.zoo, (step,)), as_step(*step)) for step in steps)]

    def offer(self, guests: Sequence[str]) -> Updates:
        """The updates with which these guests of the zoo can be chosen, besides its own models."""
        models, steps = self._models(guests), self._steps(guests)
        return {
            self.model: gr.update(choices=models, visible=len(models) > 1),
            self.second: gr.update(choices=steps),
            self.third: gr.update(choices=steps),
        }

    # --- What was asked ---

    def _chain(self, values: Values) -> Chain:
        second, third = values[self.second], values[self.third]
        later = [from_step(step) for step in (second, second and third) if step]
        return ((values[self.model], values[self.direction]), *later)

    def _needs_faces(self, values: Values) -> bool:
        return self.translator.needs_faces(values[self.model], values[self.direction])

    def _square(self, values: Values) -> Box | None:
        """The part chosen by hand; None where faces are asked for."""
        if self._needs_faces(values) and values[self.face] != "hand":
            return None
        size = values[self.kept].size
        return square_box(*size, values[self.side], values[self.across], values[self.down])

    # --- A photo comes ---

    @toasts()
    def add_upload(self, values: Values) -> Updates:
        """A file, a snapshot or a paste."""
        upload: Upload | None = values[self.photo]
        if upload is None:  # taken away in the meantime
            return {self.hint: gr.update(visible=False)}
        return self._add(Photo.of(upload, self.translator.detect(upload.pixels)), values)

    @toasts()
    def add_example(self, values: Values, event: gr.EventData) -> Updates:
        """One of the pictures to try."""
        return self._add(self.examples.photo(int(event.index)), values)

    def _everything(self) -> list[gr.components.Component]:
        """All that a new photo changes."""
        return [self.photo, self.kept, self.example, self.hint, self.face, self.square, self.button, self.all,
                *self._answer_parts()]  # fmt: skip

    def _answer_parts(self) -> list[gr.components.Component]:
        return [self.shown, self.every, self.gallery, self.download_all, self.compare, self.take, self.details]

    def _add(self, photo: Photo, values: Values) -> Updates:
        faces = [(f"Face {i + 1}", str(i)) for i in range(len(photo.faces))]
        choices = [*([("All faces", "all")] if len(faces) > 1 else []), *faces, _BY_HAND]
        values = {**values, self.kept: photo, self.face: choices[0][1]}
        updates = self._arrange(values)
        return {
            **self._cleared(),
            **updates,
            self.kept: photo,
            self.example: gr.update(visible=False),
            self.face: gr.update(choices=choices, value=choices[0][1], visible=updates[self.face]["visible"]),
            self.button: gr.update(value="Translate", interactive=True),
            self.all: gr.update(interactive=True),
        }

    def refuse(self, values: Values) -> Updates:
        """The page without the photo that could not be used; as it is where another one has come in the meantime."""
        if values[self.kept] is not None:
            return {self.hint: gr.skip()}
        return {**self.forget(), self.photo: None}

    def forget(self) -> Updates:
        """What else changes when the photo has been taken away; this visit's translations stay."""
        return {
            **self._cleared(),
            self.kept: None,
            self.example: gr.update(visible=bool(self.examples.all)),
            self.hint: gr.update(visible=False),
            self.face: gr.update(visible=False),
            self.square: gr.update(visible=False),
            self.button: gr.update(value="Translate", interactive=False),
            self.all: gr.update(interactive=False),
        }

    def _cleared(self) -> Updates:
        """The answer side as it is before anything was translated."""
        gone = gr.update(visible=False)
        return {
            self.shown: None,
            self.every: [],
            self.gallery: gone,
            self.download_all: gone,
            self.compare: gone,
            self.take: gone,
            self.details: gr.update(value=EMPTY, visible=True),
        }

    # --- A setting changes ---

    @toasts()
    def outline(self, values: Values) -> Updates:
        """The photo with what will be translated outlined, and the square's controls where they are needed."""
        photo = values[self.kept]
        if photo is None:
            return {self.photo: None, self.square: gr.update(visible=False)}
        square = self._square(values)
        if square:
            boxes, chosen = [square], {0}
        else:
            boxes = [face.box for face in photo.faces]
            chosen = range(len(boxes)) if values[self.face] == "all" else {int(values[self.face])}
        scaled: list[Box] = [tuple(x * preview_scale(*photo.size) for x in box) for box in boxes]
        picture = outlined(photo.preview, scaled, chosen, numbered=square is None)
        return {self.photo: store(self.photo, picture, "photo.jpg"), self.square: gr.update(visible=square is not None)}

    def _arrange(self, values: Values) -> Updates:
        """The controls that this photo and direction need: a face to pick, a square to place, or a word of help."""
        photo, needs_faces = values[self.kept], self._needs_faces(values)
        words = _hint(len(photo.faces), needs_faces) if photo else ""
        return {
            **self.outline(values),
            self.hint: gr.update(value=words, visible=bool(words)),
            self.face: gr.update(visible=bool(photo and photo.faces and needs_faces)),
        }

    @toasts()
    def choose_model(self, values: Values) -> Updates:
        """Its directions, what it is, and what it needs."""
        model = values[self.model]
        return {
            self.direction: gr.update(choices=self._directions(model), value=values[self.direction]),
            self.about: _about(self.zoo.config(model)),
            **self._arrange(values),
        }

    @toasts()
    def choose_direction(self, values: Values) -> Updates:
        """What it needs."""
        return self._arrange(values)

    @toasts()
    def pick(self, values: Values, event: gr.SelectData) -> Updates:
        """A click on the photo picks a face, or all again; where the part is chosen by hand it moves the square."""
        photo = values[self.kept]
        if photo is None:
            return {self.photo: gr.skip()}
        x, y = (at / preview_scale(*photo.size) for at in event.index)
        if self._square(values) is None:
            hit = next((str(i) for i, f in enumerate(photo.faces) if _inside(f.box, x, y)), "all")
            face = "all" if hit == values[self.face] else hit
            values[self.face] = face if len(photo.faces) > 1 else "0"
        else:
            values[self.across], values[self.down] = square_around(*photo.size, values[self.side], x, y)
        return {**self.outline(values), **{part: values[part] for part in (self.face, self.across, self.down)}}

    def open_link(self, event: Dependency) -> None:
        """After ``event``, a page that has just been loaded, restore the settings of its link."""
        restored = [self.model, self.direction, self.about, self.second, self.third, self.chain, self.strength]
        # A hidden field gets its value from the browser in one event and is read in the next.
        event.then(None, None, self.search, js=THE_LINK, api_visibility="private").then(
            self.restore, {self.search}, restored, show_progress="hidden", api_visibility="private"
        )

    @toasts()
    def restore(self, values: Values) -> Updates:
        """The settings of the link with which the page was opened."""
        try:
            settings = parse(values[self.search], self.zoo)
        except CycleGANError as error:  # a warning, because the page is as good without a link
            gr.Warning(plain(error))
            settings = None
        if settings is None:
            return {self.model: gr.skip()}
        (model, direction), *then = settings.chain
        second, third, *_ = *(as_step(*step) for step in then), "", ""
        return {
            self.model: model,
            self.direction: gr.update(choices=self._directions(model), value=direction),
            self.about: _about(self.zoo.config(model)),
            self.second: second,
            self.third: gr.update(value=third, visible=bool(second)),
            self.chain: gr.update(open=bool(second)),
            self.strength: settings.strength,
        }

    # --- Answers ---

    def _translate(self, values: Values, chain: Chain, faces: str | int) -> Result:
        photo, square = values[self.kept], self._square(values)
        known = self.examples.translate(photo, chain, faces, square)
        (model, direction), *then = chain
        return known or self.translator.translate(
            photo.pixels(), model, direction, faces=faces, then=then, square=square, found=photo.faces
        )

    @toasts()
    def translate_one(self, values: Values) -> Updates:
        """The Translate button."""
        photo = _there(values[self.kept])
        chain, face = self._chain(values), values[self.face]
        result = self._translate(values, chain, int(face) if face.isdecimal() else "all")
        answer = Answer.of(photo, result, self.zoo, chain, self.file)
        return {
            self.every: [],
            self.gallery: gr.update(visible=False),
            self.download_all: gr.update(visible=False),
            **self._show(answer, preview(result.output), values),
        }

    def translate_all(self, values: Values) -> Iterator[Updates]:
        """Every direction for one face, shown as they come."""
        with toasts():
            photo = _there(values[self.kept])
            names = [values[self.model], *(name for name in self.zoo.entries if name != values[self.model])]
            every = [(name, direction) for name in names for direction in DIRECTIONS]
            by_hand = self._square(values) is not None
            fitting = [step for step in every if self.translator.needs_faces(*step) == self._needs_faces(values)]
            left_out = [title_of(self.zoo, (step,)) for step in every if step not in fitting]
            # Of many faces the largest: with all of them in each picture nobody could tell what changed.
            face = int(values[self.face]) if values[self.face].isdecimal() else 0
            who = "The part you chose" if by_hand else f"Face {face + 1}"
            cleared = {**self._cleared(), self.details: gr.update(visible=False)}
            answers: list[Answer] = []
            yield {**cleared, self.gallery: gr.update(value=gallery([], len(fitting), who, []), visible=True)}
            for step in fitting:
                answers.append(Answer.of(photo, self._translate(values, (step,), face), self.zoo, (step,), self.file))
                tiles = gallery(answers, len(fitting), who, left_out, self._needs_faces(values))
                yield {self.gallery: tiles, self.every: list(answers)}
            yield {self.download_all: gr.update(visible=True)}

    @toasts()
    def open_tile(self, values: Values, event: gr.EventData) -> Updates:
        """Show an answer of the gallery large."""
        answer = _at(values[self.every], event)
        return self._show(answer, preview(answer.picture()), values)

    @toasts()
    def open_past(self, values: Values, event: gr.EventData) -> Updates:
        """Show an answer of this visit again."""
        answer = _at(values[self.past], event)
        return self._show(answer, preview(answer.picture()), values)

    def _show(self, answer: Answer, after: bytes, values: Values) -> Updates:
        past = [each for each in values[self.past] if each.is_there()]  # of others the hour is over
        if answer not in past:
            past = [*past, answer][-REMEMBERED:]
        photo = answer.photo
        picture = compare(photo.preview, after, photo.size, answer.title, values[self.strength])
        return {
            self.shown: answer,
            self.past: past,
            self.compare: gr.update(value=picture, visible=True),
            self.take: gr.update(visible=True),
            self.details: gr.update(value=answer.words(), visible=True),
            self.visit: gr.update(value=visit(past), visible=len(past) > 1),
        }

    @toasts()
    def save(self, values: Values) -> str:
        """The answer as a file, made only now because large photos take a while."""
        return store(self.file, *_there(values[self.shown]).file(values[self.strength] / 100))

    @toasts()
    def save_all(self, values: Values) -> str:
        """The gallery as a zip."""
        answers = _there(values[self.every])
        return store(self.file, zipped(answers, values[self.strength] / 100), "all-directions.zip")

    # --- Which event calls which function ---

    def _wire(self) -> None:
        # Only what is queued can say what went wrong.
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        calm = {"show_progress": "hidden", "api_visibility": "private"}
        # Where the last choice counts, also one that is made while the one before is still on its way.
        latest = {"trigger_mode": "always_last"}
        working = {
            "show_progress_on": self.details,
            "concurrency_limit": 2,
            "concurrency_id": "translate",
            "api_visibility": "private",
        }
        everything, settings = self._everything(), self.settings
        picture = [self.photo, self.square, self.hint, self.face]
        answer = [*self._answer_parts(), self.past, self.visit]
        asked, buttons = {self.past, *settings}, [self.button, self.all]

        # A photo. Files, snapshots and pastes all are uploads. Another source, or a file dropped on a photo, clears.
        found = {"trigger_mode": "multiple"}
        searching = self.photo.upload(
            lambda: gr.update(value=_SEARCHING, visible=True), None, self.hint, **quick, **found
        )
        added = searching.then(self.add_upload, {self.photo, *settings}, everything, **calm, **found)
        added.failure(self.refuse, {self.kept}, everything, **quick)
        # Without the photo itself: another one may be there by now.
        self.photo.clear(self.forget, None, [part for part in everything if part is not self.photo], **quick)
        tried = self.example.select(self.add_example, settings, everything, **calm)

        # Settings
        self.photo.select(self.pick, settings, [*picture, self.across, self.down], **calm, **latest)
        moved = [self.face.input, self.side.release, self.across.release, self.down.release]
        gr.on(moved, self.outline, settings, [self.photo, self.square], **calm, **latest)
        self.model.input(self.choose_model, settings, [self.direction, self.about, *picture], **calm, **latest)
        self.direction.input(self.choose_direction, settings, picture, **calm, **latest)
        self.second.input(lambda step: gr.update(visible=bool(step)), self.second, self.third, **quick, **latest)
        self.strength.change(None, self.strength, None, js=_BLEND, api_visibility="private")

        # Links
        linked = [self.model, self.direction, self.second, self.third, self.strength]
        copied = self.link.click(None, linked, self.link, js=COPY_LINK, api_visibility="private")
        copied.then(None, None, self.link, js=COPIED_FOR_A_WHILE, api_visibility="private")

        # Answers. The buttons rest until there is one; another photo gives up the one under way.
        def busy() -> tuple[dict, dict]:
            return gr.update(value="Translating…", interactive=False), gr.update(interactive=False)

        def ready() -> tuple[dict, dict]:
            return gr.update(value="Translate", interactive=True), gr.update(interactive=True)

        runs = []
        for event, function in (
            (self.button.click(busy, None, buttons, **quick), self.translate_one),
            (self.all.click(busy, None, buttons, **quick), self.translate_all),
            (tried.success(busy, None, buttons, **quick), self.translate_one),
        ):
            run = event.then(function, asked, answer, **working)
            run.success(ready, None, buttons, js=_SHOW_ANSWER, **quick)
            run.failure(ready, None, buttons, **quick)
            runs.append(run)
        self.photo.clear(None, None, None, cancels=[*runs, added, tried], **quick)

        self.gallery.select(self.open_tile, {self.every, *asked}, answer, js=None, **calm).success(
            None, None, None, js=_SHOW_PICKED, api_visibility="private"
        )
        self.visit.select(self.open_past, asked, answer, **calm).success(
            None, None, None, js=_SHOW_PICKED, api_visibility="private"
        )
        for button, function, source in (
            (self.download, self.save, self.shown),
            (self.download_all, self.save_all, self.every),
        ):
            saved = button.click(function, {source, self.strength}, self.file, **calm)
            saved.success(None, self.file, None, js=_SAVE, api_visibility="private")


def _there(kept: Any) -> Any:
    """What the server should remember of this visit, which it does for an hour."""
    if not kept:
        raise BadImageError(GONE)
    return kept


def _at(answers: list[Answer], event: gr.EventData) -> Answer:
    return _there(answers[int(event.index) : int(event.index) + 1])[0]


def _hint(count: int, needs_faces: bool) -> str:
    if not needs_faces:
        return "<p>This direction starts from a drawing. Click on it or move the square to choose the part to use.</p>"
    if count == 0:
        return f'<p class="warn">{NO_FACE} Or click on the photo to place the square around a face by hand.</p>'
    return "<p>1 face found.</p>" if count == 1 else f"<p>{count} faces found. Pick one here or in the photo.</p>"


def _about(config: ModelConfig) -> str:
    """HTML: what the model is."""
    terms = f" · {html.escape(config.license)}" if config.license else ""
    size = f"{config.image_size} × {config.image_size} pixels per face"
    words = f"<strong>{html.escape(config.title)}.</strong> {html.escape(config.description)}"
    return f"<p>{words}</p><p>{size}{terms}</p>"


def _problems(problems: dict[str, str]) -> None:
    """Name the model folders that cannot be used, out of the way."""
    if problems:
        rows = "".join(f"<li><b>{html.escape(n)}</b>: {html.escape(message)}</li>" for n, message in problems.items())
        title = "1 model could not be loaded" if len(problems) == 1 else f"{len(problems)} models could not be loaded"
        gr.HTML(f"<details><summary>{title}</summary><ul>{rows}</ul></details>", elem_id="problems", js_on_load=None)


def _inside(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]
