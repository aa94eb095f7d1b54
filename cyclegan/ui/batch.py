"""The Batch tab: many photos, zips and videos at once; a zip of results out."""

import html
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import gradio as gr

from cyclegan.batch import Batch, Progress, file_name, gather, pack
from cyclegan.errors import BadImageError
from cyclegan.translator import Faces, Translator
from cyclegan.ui.components import FilesInput, SentFile, toasts
from cyclegan.ui.limits import MAX_FILE
from cyclegan.ui.sweep import work_folder

MAX_FILES = 200
"""The most files of one batch, those in zips included."""
MAX_SECONDS = 60
"""The longest video."""
MAX_RESULTS = 2**30
"""Bytes that the results of one batch may take."""

_NO_FILES = "There are no files yet. Choose photos, videos or a zip of them first."
_EVERY = 0.3  # seconds between two pictures of the progress

_EMPTY = f"""
<div class="empty">
  <p>Each file is listed here with what became of it. One that cannot be used does not stop the others.</p>
  <p>Up to {MAX_FILES} files at once, of at most {MAX_FILE // 2**20} MB each: with a larger one among them none is
  taken. Videos may last {MAX_SECONDS} seconds, and keep their sound.</p>
</div>
"""

CSS = """
#batch-tab { gap: 28px; align-items: flex-start; }
#batch-ask, #batch-answer { gap: 14px; }
#batch-files { background: var(--block-background-fill); }
#batch-status { min-width: 0; }
.batch .head { display: flex; justify-content: space-between; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 8px; }
.batch .head p { margin: 0; font-variant-numeric: tabular-nums; }
.batch .head .left, .batch .why { color: var(--body-text-color-subdued); }
.batch progress { display: block; width: 100%; height: 8px; margin: 0 0 14px; border: 0; border-radius: 4px;
  appearance: none; background: var(--neutral-200); overflow: hidden; }
.dark .batch progress { background: var(--neutral-700); }
.batch progress::-webkit-progress-bar { background: transparent; }
.batch progress::-webkit-progress-value { background: var(--primary-600); border-radius: 4px; }
.batch progress::-moz-progress-bar { background: var(--primary-600); border-radius: 4px; }
.batch .rows { max-height: 520px; overflow: auto; border: 1px solid var(--border-color-primary);
  border-radius: var(--block-radius); background: var(--block-background-fill); }
.batch table { width: 100%; margin: 0; border-collapse: collapse; font-size: var(--text-sm); }
.batch th, .batch td { padding: 9px 14px; border: 0; border-top: 1px solid var(--border-color-primary);
  text-align: left; vertical-align: top; line-height: 1.45; background: none; }
.batch thead th { position: sticky; top: 0; border-top: 0; background: var(--block-background-fill);
  color: var(--body-text-color-subdued); font-weight: 600; }
.batch tbody th { max-width: 22ch; font-weight: 500; overflow-wrap: anywhere; }
.batch .state { white-space: nowrap; }
.batch .state::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 8px;
  border-radius: 50%; background: var(--neutral-300); }
.batch .done .state::before { background: var(--primary-600); }
.batch .failed .state::before { background: #b45309; }
.batch .working .state::before { background: none; box-shadow: inset 0 0 0 2px var(--primary-600); }
.dark .batch .waiting .state::before { background: var(--neutral-600); }
#batch-status :is(table, tr) { border: 0; }
/* The bar above says that work is going on. */
#batch-status .generating { display: none; }
@media (max-width: 640px) {
  .batch thead { display: none; }
  #batch-status tr { display: grid; grid-template-columns: 1fr auto; padding: 8px 12px; gap: 2px 12px;
    border-top: 1px solid var(--border-color-primary); }
  #batch-status tr:first-child { border-top: 0; }
  .batch tbody th, .batch td { max-width: none; padding: 0; border: 0; }
  .batch .why { grid-column: 1 / -1; }
}
"""


def results(
    translator: Translator,
    files: Sequence[SentFile] | None,
    chain: Sequence[tuple[str, str]],
    faces: Faces,
    component: gr.components.Component,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Batch, Progress | None, str | None]]:
    """Run a batch under the limits of the page: (batch, progress, None) as it goes, at last (batch, None, zip file).

    The zip is one of the files of ``component`` and goes with them. Raises BadImageError without files or with too
    many, and as `Batch` does.
    """
    with work_folder() as folder:
        kept = [_kept(file.path, Path(folder) / str(number)) for number, file in enumerate(files or [])]
        sources = gather(kept, [file.name for file in files or []])
        if not sources:
            raise BadImageError(_NO_FILES)
        if len(sources) > MAX_FILES:
            raise BadImageError(f"These are {len(sources)} files; at most {MAX_FILES} are taken at once.")
        out = Path(folder) / "results"
        batch = Batch(translator, sources, out, chain, faces, max_seconds=MAX_SECONDS, max_bytes=MAX_RESULTS)
        for progress in batch.run():
            if stopped():
                batch.stop()
            yield batch, progress, None
        model, direction = chain[-1]
        words = file_name(translator.zoo.config(model).directions[direction])
        # Under a name that nobody can guess.
        target = Path(component.GRADIO_CACHE) / secrets.token_hex(16) / f"{words.replace(' ', '-').lower()}.zip"
        target.parent.mkdir(parents=True)
        component.temp_files.add(str(target))
        pack(out, target)
    yield batch, None, str(target)


def _kept(upload: str, to: Path) -> Path:
    """An upload under a second name of its own: its first is deleted within the hour, and its turn may come later."""
    try:
        os.link(upload, to)
    except OSError:  # another disk, or a disk that knows no links
        with suppress(FileNotFoundError):  # which is said when its turn comes
            shutil.copyfile(upload, to)
    return to


def batch_tab(translator: Translator) -> None:
    """Build the tab inside the Blocks being built."""
    zoo = translator.zoo
    names = list(zoo.entries)
    if not names:
        gr.Markdown("There is no model yet: see the Photo tab.")
        return

    def directions(model: str) -> list[tuple[str, str]]:
        return [(label, direction) for direction, label in zoo.config(model).directions.items()]

    # --- Layout ---
    running = gr.State(None)
    with gr.Row(elem_id="batch-tab"):
        with gr.Column(scale=4, min_width=300, elem_id="batch-ask"):
            files = FilesInput(label="Photos, videos or zips", file_count="multiple", height=220, elem_id="batch-files")
            model = gr.Radio([(zoo.config(n).title, n) for n in names], value=names[0], label="Model",
                             elem_id="batch-model", visible=len(names) > 1)  # fmt: skip
            direction = gr.Radio(directions(names[0]), value="A2B", label="Direction", elem_id="batch-direction")
            faces = gr.Radio([("All faces", "all"), ("Largest face", "largest")], value="all", label="In each file",
                             elem_id="batch-faces")  # fmt: skip
            start = gr.Button("Translate all", variant="primary", interactive=False, elem_id="batch-start")
            stop = gr.Button("Stop and keep what is done", visible=False, elem_id="batch-stop")
        with gr.Column(scale=6, min_width=300, elem_id="batch-answer"):
            status = gr.HTML(_EMPTY, elem_id="batch-status", js_on_load=None)
            download = gr.DownloadButton("Download results", visible=False, size="md", elem_id="batch-download")

    # --- What happens ---
    def begin():
        return (
            threading.Event(),
            gr.update(visible=False),
            gr.update(visible=True, interactive=True),
            gr.update(value=None, visible=False),
        )

    def run(stopping: threading.Event, files, model, direction, faces):
        with toasts():
            shown = 0.0
            for batch, progress, path in results(
                translator, files, [(model, direction)], faces, download, stopping.is_set
            ):
                if progress is None:
                    yield _table(batch, None), gr.update(value=path, visible=bool(batch.rows))
                elif time.monotonic() - shown > _EVERY:
                    shown = time.monotonic()
                    yield _table(batch, progress), gr.skip()

    def ask_to_stop(stopping: threading.Event | None):
        if stopping is not None:
            stopping.set()
        return gr.update(value="Stopping…", interactive=False)

    def ready():
        return (
            gr.update(visible=True),
            gr.update(value="Stop and keep what is done", visible=False),
        )

    # --- Which event calls which function ---
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    latest = {"trigger_mode": "always_last"}  # a choice made while the one before is on its way counts
    model.input(lambda model, way: gr.update(choices=directions(model), value=way), [model, direction], direction,
                **quick, **latest)  # fmt: skip
    files.change(lambda files: gr.update(interactive=bool(files)), files, start, **quick, **latest)
    begun = start.click(begin, None, [running, start, stop, download], **quick)
    done = begun.then(
        run,
        [running, files, model, direction, faces],
        [status, download],
        show_progress_on=status,
        concurrency_limit=2,
        concurrency_id="batch",
        api_visibility="private",
    )
    done.success(ready, None, [start, stop], **quick)
    done.failure(ready, None, [start, stop], **quick)
    stop.click(ask_to_stop, running, stop, **quick)


def _table(batch: Batch, progress: Progress | None) -> str:
    """HTML: how far the batch is, and a row for every file."""
    total, done = len(batch.sources), len(batch.rows)
    failed = sum("error" in row for row in batch.rows)
    if progress is None:
        words = f"{done - failed} of {total} translated"
        words = f"Stopped. {words}" if batch.stopped else f"Done. {words}"
        left = f"{failed} could not be used" if failed else ""
        share = done / total
    else:
        words = f"{done} of {total} files"
        left = _left(progress.seconds_left)
        share = (done + progress.share) / total
    rows = [_row(row) for row in batch.rows]
    for position, source in enumerate(batch.sources[done:]):
        if progress and position == 0 and progress.current:
            state = ("working", f"{progress.share:.0%}" if progress.share else "Working", "")
        elif progress is None:
            state = ("waiting", "Not begun", "")
        else:
            state = ("waiting", "Waiting", "")
        rows.append(_cells(source.name, *state))
    bar = "" if progress is None else f'<progress value="{share:.4f}" max="1" aria-label="Progress"></progress>'
    return (
        f'<div class="batch"><div class="head"><p role="status"><b>{words}</b></p><p class="left">{left}</p></div>{bar}'
        '<div class="rows" tabindex="0" role="group" aria-label="Files"><table><thead><tr><th scope="col">File</th>'
        '<th scope="col">State</th><th scope="col">Result</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="generated">Results are AI-generated. The zip holds a manifest that says how each was made.</p></div>'
    )


def _row(row: dict) -> str:
    if "error" in row:
        return _cells(row["photo"], "failed", "Not used", row["error"])
    if "frames" in row:
        words = f"Video of {row['frames']} frames, {row['frames_with_faces']} with a face"
        return _cells(row["photo"], "done", "Stopped" if row["stopped"] else "Done", words)
    faces = row["faces"]
    words = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
    worst = max(face["cycle_l1"] for face in faces)
    return _cells(row["photo"], "done", "Done", f"{words}, cycle error {worst:.3f}")


def _cells(name: str, kind: str, state: str, words: str) -> str:
    return (
        f'<tr class="{kind}"><th scope="row">{html.escape(name)}</th><td class="state">{state}</td>'
        f'<td class="why">{html.escape(words)}</td></tr>'
    )


def _left(seconds: float | None) -> str:
    """A duration for people: ``"about 3 minutes left"``."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    return f"about {round(seconds / 60)} minutes left"
