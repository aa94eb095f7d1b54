"""The Models tab: what each model is, how it was measured and where it fails; and models for one visit."""

import base64
import html
import re
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image

from cyclegan import guests
from cyclegan.errors import BadCheckpointError, BadImageError
from cyclegan.images import encode_jpeg, load_image
from cyclegan.model import CARD_FILE, DIRECTIONS, FAILURES_FILE, GRID_FILE
from cyclegan.translator import Translator
from cyclegan.ui.components import UploadedFile, plain, toasts
from cyclegan.ui.photo import PhotoTab
from cyclegan.zoo import Entry, describe

_MOST = 3  # models added in one visit
_PICTURE_SIDE = 900  # longest side in pixels at which pictures of models are shown

# Figures of `metrics` in the words of the field, and whether they are shares.
_FIGURES = {
    "images": ("Test images", False),
    "target_images": ("Real images of the target", False),
    "flip_rate": ("Flip rate", True),
    "kid": ("KID × 100", False),
    "kid_floor": ("KID, real images", False),
    "kid_copy": ("KID, inputs as they are", False),
    "kid_share": ("KID, share of the inputs'", True),
    "fid": ("FID", False),
    "fid_floor": ("FID, real images", False),
    "fid_copy": ("FID, inputs as they are", False),
    "cycle_l1": ("Cycle error", False),
    "change_l1": ("Change", False),
    "changed": ("Pixels changed", True),
    "changed_outside": ("Pixels changed outside the face", True),
    "flip_rate_f32": ("Flip rate in float32", True),
    "psnr_f32": ("PSNR against float32, dB", False),
    "split": ("Measured on", False),
    "kid_subset": ("Images in a subset of KID", False),
    "kid_subsets": ("Subsets", False),
    "classifier_accuracy": ("Classifier right on real images", True),
}

# Cards may come from strangers: no HTML of theirs, and no pictures, which could be fetched from anywhere.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")

_ADD = """
<h2>Add a model for this visit</h2>
<p>From the Hugging Face Hub, or the files of a model folder (<code>config.json</code>, <code>model.safetensors</code>
and, if there is one, <code>README.md</code>). Only you can use it, on the Photo tab, until you close the page or
somebody adds many others.</p>
"""


def models_tab(translator: Translator, photo: PhotoTab, tab: gr.Tab, add_models: bool) -> None:
    """Build the tab inside ``tab``. With ``add_models``, visitors may bring their own, which ``photo`` then offers."""
    zoo = translator.zoo
    listing = gr.HTML("<p>Loading…</p>", elem_id="models", js_on_load=None)
    # Not part of the page until somebody looks, because the grids are large; then the same for everybody.
    cards_of_all = cache(lambda: _listing(list(zoo.entries.values())))
    tab.select(cards_of_all, None, listing, queue=False, show_progress="hidden", api_visibility="private")
    if not (add_models and zoo.entries):
        return

    def leave(names: list[str]) -> None:
        for name in names:
            translator.forget(name)

    mine = gr.State([], delete_callback=leave)  # goes with the visit
    added = gr.HTML(elem_id="added", visible=False, js_on_load=None)
    shown = gr.State([])
    gr.HTML(_ADD, elem_id="add", js_on_load=None)
    with gr.Row(elem_id="add-row"):
        with gr.Column(min_width=280):
            repo = gr.Textbox(label="Model on the Hub", placeholder="owner/model", max_length=200)
            fetch = gr.Button("Add from the Hub", elem_id="fetch")
        with gr.Column(min_width=280):
            files = UploadedFile(
                label="Files of a model folder", file_count="multiple", file_types=[".json", ".safetensors", ".md"],
                height=140, elem_id="model-files",
            )  # fmt: skip

    def take_in(source, names: list[str], cards: list[str]) -> dict[gr.components.Component, Any]:
        there = [(name, card) for name, card in zip(names, cards, strict=True) if name in zoo.guests]
        names, cards = [name for name, _ in there], [card for _, card in there]  # others had to make room
        if len(names) >= _MOST:
            raise BadCheckpointError(f"You have added {_MOST} models, which is the most for one visit.")
        with source as folder:
            name = translator.add_guest(folder)
            names, cards = [*names, name], [*cards, _card(zoo.entry(name), folder)]
        gr.Info(plain(f"“{zoo.config(name).title}” can now be chosen on the Photo tab."))
        return {
            mine: names,
            shown: cards,
            added: gr.update(value=f'<h2 class="part">Added by you</h2>{"".join(cards)}', visible=True),
            **photo.offer(names),
        }

    @toasts()
    def add_from_hub(repo_id: str, names: list[str], cards: list[str]):
        return take_in(guests.from_hub(repo_id.strip()), names, cards)

    @toasts()
    def add_files(paths: list[str], names: list[str], cards: list[str]):
        return take_in(guests.from_files((Path(path).name, Path(path)) for path in paths), names, cards)

    outputs = [mine, shown, added, photo.model, photo.second, photo.third]
    calm = {"api_visibility": "private", "show_progress_on": added, "concurrency_limit": 1, "concurrency_id": "guests"}
    gr.on([fetch.click, repo.submit], add_from_hub, [repo, mine, shown], outputs, **calm)
    files.upload(add_files, [files, mine, shown], outputs, **calm).then(
        lambda: None, None, files, queue=False, show_progress="hidden", api_visibility="private"
    )


def _listing(entries: list[Entry]) -> str:
    return "".join(_card(entry, entry.folder) for entry in entries) or "<p>There is no model yet.</p>"


def _card(entry: Entry, folder: Path) -> str:
    """HTML: one model; ``folder`` holds its card and its grid, if it has them."""
    config, row = entry.config, describe(entry)
    text = _read_card(folder)
    title, limits = html.escape(config.title), _limitations(text)
    directions = " · ".join(html.escape(label) for label in config.directions.values())
    facts = [
        f"{config.image_size} × {config.image_size} pixels per face",
        f"{row['parameters'] / 1e6:.1f} M weights and {row['macs'] / 1e9:.1f} GMAC per direction",
        f"revision <code>{entry.revision}</code>",
    ]
    terms = f'<p class="terms">{html.escape(config.license)}</p>' if config.license else ""
    grid = _figure(folder / GRID_FILE, f"Sample faces of the model {title}, as its card describes them")
    failures = _figure(folder / FAILURES_FILE, f"Faces on which the model {title} fails, as its card describes them")
    figures = _figures(config.metrics, config.directions)
    return (
        f'<article class="model"><header><h2>{title}</h2><p class="directions">{directions}</p>'
        f"<p>{html.escape(config.description)}</p></header>{grid}"
        f'<div class="columns"><div>'
        + (f"<h3>Limitations</h3>{failures}{limits}" if limits else failures)
        + (f"<details><summary>The whole card</summary>{_render(_parse(text))}</details>" if text else "")
        + f'{terms}<p class="facts">{" · ".join(facts)}</p></div>'
        + (f"<div>{figures}</div>" if figures else "")
        + "</div></article>"
    )


def _figures(metrics: dict[str, Any], labels: dict[str, str]) -> str:
    """A table of figures by direction, and what else is known about them below."""
    by_direction = {way: metrics[way] for way in DIRECTIONS if isinstance(metrics.get(way), dict)}
    rest = {key: value for key, value in metrics.items() if key not in by_direction}
    keys = dict.fromkeys(key for figures in by_direction.values() for key in figures)
    ordered = [*(key for key in _FIGURES if key in keys), *(key for key in keys if key not in _FIGURES)]
    table = ""
    if ordered:
        heads = "".join(f'<th scope="col">{html.escape(labels[way])}</th>' for way in by_direction)
        rows = "".join(
            f'<tr><th scope="row">{html.escape(_named(key))}</th>'
            + "".join(f"<td>{_value(key, figures.get(key))}</td>" for figures in by_direction.values())
            + "</tr>"
            for key in ordered
        )
        table = (
            f'<div class="table" tabindex="0" role="group" aria-label="Figures"><table><thead><tr><th scope="col">'
            f"On held-out images</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        )
    note = " · ".join(f"{html.escape(_named(key))}: {_value(key, value)}" for key, value in rest.items())
    return table + (f'<p class="facts">{note}</p>' if note else "")


def _named(key: str) -> str:
    return _FIGURES[key][0] if key in _FIGURES else key.replace("_", " ").capitalize()


def _value(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.1%}" if key in _FIGURES and _FIGURES[key][1] else f"{value:.3g}"
    return html.escape(str(value)[:80])


def _read_card(folder: Path) -> str:
    """The Markdown of a model card without its front matter and its comments; empty if there is none."""
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return re.sub(r"\A---\n.*?\n---\n|<!--.*?-->\n?", "", text, flags=re.DOTALL)


def _limitations(text: str) -> str:
    """The HTML of the section on limitations, without its heading."""
    tokens = _parse(text)
    for start, token in enumerate(tokens):
        if token.type == "heading_open" and tokens[start + 1].content.lower().startswith("limitation"):
            after = range(start + 3, len(tokens))
            end = next((i for i in after if tokens[i].type == "heading_open" and tokens[i].tag <= token.tag), None)
            return _render(tokens[start + 3 : end])
    return ""


def _parse(text: str) -> list[Token]:
    """Tokens of a card: its title and its pictures left out, headings lowered to fit under the model's own."""
    tokens = _MARKDOWN.parse(text)
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        tokens = tokens[3:]
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
        if token.children:
            token.children = [child for child in token.children if child.type != "image"]
            for child in token.children:
                if child.type == "link_open":
                    child.attrs.update(target="_blank", rel="noopener noreferrer")
    return tokens


def _render(tokens: list[Token]) -> str:
    return _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})


def _figure(file: Path, description: str) -> str:
    """HTML: a picture of the model folder, described in HTML too; empty if it is not there."""
    try:
        picture = Image.fromarray(load_image(file))
    except BadImageError:
        return ""
    picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    content = base64.b64encode(encode_jpeg(np.asarray(picture))).decode()
    return f'<figure><img src="data:image/jpeg;base64,{content}" loading="lazy" alt="{description}"></figure>'
