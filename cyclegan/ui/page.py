"""The whole page: heading, tabs, endpoints, and how it is served."""

import itertools
import logging
import threading
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.exceptions import InvalidPathError
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from cyclegan.faces.detect import Face
from cyclegan.model import DIRECTIONS
from cyclegan.translator import Translator
from cyclegan.ui.api import add_endpoints
from cyclegan.ui.batch import CSS as BATCH_CSS
from cyclegan.ui.batch import batch_tab
from cyclegan.ui.kept import GONE
from cyclegan.ui.limits import MAX_FILE, BodyLimit, PublicOnly, give_memory_back
from cyclegan.ui.live import live_tab
from cyclegan.ui.models import models_tab
from cyclegan.ui.photo import PhotoTab
from cyclegan.ui.sweep import keep_swept
from cyclegan.ui.theme import CSS, THEME

log = logging.getLogger(__name__)

TITLE = "Face translation"
# Every five minutes, files older than 55 minutes go: none is older than the hour that the heading promises.
_DELETE = (300, 3300)

# Visits that are remembered at a time, at a quarter of a megabyte each; by default Gradio keeps 10,000.
_SESSIONS = 300

_HEADING = f"""
<h1>{TITLE}</h1>
<p>Choose a photo, a model and a direction. Every change is generated, and nothing is kept: photos and results are
deleted from the server after an hour.</p>
"""


class Page(gr.Blocks):
    """`gradio.Blocks` that says why it refuses what a request sends, where Gradio only logs it and answers "null"."""

    async def preprocess_data(self, block_fn: Any, *args: Any, **options: Any) -> list[Any]:
        """What a function gets for the values of a request."""
        try:
            return await super().preprocess_data(block_fn, *args, **options)
        except gr.Error as error:
            # Gradio's own words are for programs. People meet them when a server that restarted has forgotten what
            # there was to choose from.
            if error.print_exception and block_fn.api_visibility != "public":
                raise gr.Error(GONE, print_exception=False) from None
            raise
        except InvalidPathError:
            reason = "Only files that were uploaded here can be used. Upload the file first."
            raise gr.Error(reason, print_exception=False) from None
        except Exception:
            log.warning("A request did not fit its function.", exc_info=True)
            raise gr.Error("The request does not fit this function of the page.", print_exception=False) from None


def build_demo(translator: Translator, add_models: bool = False) -> gr.Blocks:
    """The page and its endpoints around a translator; any object with the same methods will do in tests.

    With ``add_models`` visitors may add models for their visit: for pages that only people one trusts can open.
    """
    with Page(title=TITLE, analytics_enabled=False, delete_cache=_DELETE) as demo:
        gr.HTML(_HEADING, elem_id="heading", js_on_load=None)
        with gr.Tabs(selected="photo", elem_id="tabs"):
            with gr.Tab("Photo", id="photo"):
                photo = PhotoTab(translator)
            with gr.Tab("Live", id="live"):
                live_tab(translator)
            with gr.Tab("Batch", id="batch"):
                batch_tab(translator)
            with gr.Tab("Models", id="models") as tab:
                models_tab(translator, photo, tab, add_models)
        if translator.zoo.entries:
            photo.open_link(demo.load(None, None, None))
        add_endpoints(translator)
    # A bounded queue tells people to come back rather than letting them wait for minutes.
    return demo.queue(max_size=64, default_concurrency_limit=4, api_open=False)


def launch(demo: gr.Blocks, **options) -> tuple:
    """Serve the page with its theme and limits; ``options`` go to `gradio.Blocks.launch`, whose answer is returned."""
    give_memory_back()
    keep_swept(Path(get_upload_folder()), *_DELETE, visits=lambda: getattr(demo, "state_holder", None))
    public = {function.api_name for function in demo.fns.values() if function.api_visibility == "public"}
    return demo.launch(
        theme=THEME,
        css=CSS + BATCH_CSS,
        footer_links=["api"],
        state_session_capacity=_SESSIONS,
        run_history=False,  # it would store faces in the visitor's browser
        show_error=False,  # it would show tracebacks and server paths
        max_file_size=MAX_FILE,
        app_kwargs={"middleware": [Middleware(PublicOnly, names=public), Middleware(BodyLimit, file=MAX_FILE)]},
        **options,
    )


def warm_up(translator: Translator) -> threading.Thread:
    """Load the detector and the models in the background, so that visitors do not wait for them."""

    def run() -> None:
        grey = np.full((256, 256, 3), 127, np.uint8)
        landmarks = np.array([(100, 110), (156, 110), (128, 140), (106, 165), (150, 165)], np.float32)
        try:
            translator.detect(grey)
            for name in list(translator.zoo.entries)[:1]:
                translator.translate(grey, name, "A2B", found=[Face((70, 60, 186, 200), landmarks, 1.0)])
            translator.zoo.describe()  # the Models tab needs it, and the first count takes seconds
        except Exception:  # visitors will meet the same error, with a message
            log.exception("The first model could not be warmed up.")
        for name, direction in itertools.product(translator.zoo.entries, DIRECTIONS):
            try:
                translator.engine(name, direction)
            except Exception:
                log.exception("The model %s could not be warmed up.", name)

    thread = threading.Thread(target=run, daemon=True, name="warm-up")
    thread.start()
    return thread
