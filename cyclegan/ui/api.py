"""The endpoints for other programs: /models, /detect, /translate and /batch."""

from collections.abc import Iterator

import gradio as gr

from cyclegan.errors import BadImageError, NoFaceError
from cyclegan.faces.detect import Face
from cyclegan.images import encode_png
from cyclegan.translator import Translator
from cyclegan.ui.batch import results
from cyclegan.ui.components import NO_PHOTO, FilesInput, PhotoInput, SentFile, Upload, store, toasts
from cyclegan.ui.results import file_name
from cyclegan.zoo import provenance


def add_endpoints(translator: Translator) -> None:
    """Add the endpoints to the page being built. Their errors carry the messages of `cyclegan.errors`."""
    names = list(translator.zoo.entries)

    @toasts()
    def models() -> list[dict]:
        """The models that can be used: name, title, domains, direction labels, image size, metrics and licence."""
        return translator.zoo.describe()

    @toasts()
    def detect(photo: Upload) -> dict:
        """Find faces, largest first: box (left, top, right, bottom) and landmarks in pixels, and score."""
        _require(photo)
        return {"size": _size(photo), "faces": [_describe(face) for face in translator.detect(photo.pixels)]}

    @toasts()
    def translate(photo: Upload, model: str, direction: str, face: str) -> tuple[str, dict]:
        """Translate one face or all, and paste them back: the photo as PNG, and each face with its cycle error.

        `direction` is A2B or B2A (see /models). `face` is all, largest, or a number from 1 in the order of /detect.
        """
        _require(photo)
        result = translator.translate(photo.pixels, model, direction, faces=_which(face))
        config = translator.zoo.config(model)
        faces = [
            {
                "face": t.index + 1,
                "box": [round(float(x), 1) for x in t.box],
                "cycle_l1": round(float(t.cycle_l1), 5),
                **(_describe(t.face) if t.face else {}),
            }
            for t in result.translations
        ]
        png = encode_png(result.output, provenance(translator.zoo, [(model, direction)]))
        path = store(output, png, file_name(photo.name, config.directions[direction]))
        return path, {
            "model": model,
            "direction": direction,
            "size": _size(photo),
            "faces": faces,
            "seconds": round(result.seconds, 3),
        }

    def batch(files: list[SentFile], model: str, direction: str, face: str) -> Iterator[tuple[str | None, dict]]:
        """Translate many photos, zips of photos and videos: a zip of results, and its manifest.

        `direction` and `face` as for /translate. A file that cannot be used is listed in the manifest with its error
        and stops nothing. Until the last answer there is no zip, and the report says how far it is; cancelling the job
        ends it.
        """
        with toasts():
            for run, progress, path in results(translator, files, [(model, direction)], _which(face), archive):
                if progress is None:
                    yield path, run.manifest()
                else:
                    left = progress.seconds_left
                    yield None, {"done": progress.done, "total": progress.total, "current": progress.current,
                                 "seconds_left": None if left is None else round(left, 1)}  # fmt: skip

    # Components give the endpoints their types; nobody sees them.
    with gr.Column(visible=False):
        photo = PhotoInput(label="Photo: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF")
        model = gr.Dropdown(names, value=names[0] if names else None, label="Model name", allow_custom_value=True)
        direction = gr.Dropdown(["A2B", "B2A"], value="A2B", label="Direction", allow_custom_value=True)
        face = gr.Textbox("all", label="all, largest, or the number of a face from 1")
        output = gr.Image(label="Photo with the translated faces", format="png")
        report = gr.JSON(label="Report")
        files = FilesInput(label="Photos, zips of photos, and videos", file_count="multiple")
        archive = gr.File(label="Zip of results with manifest.json")
    gr.on([], models, None, report, api_name="models", queue=False)
    gr.on([], detect, photo, report, api_name="detect")
    gr.on([], translate, [photo, model, direction, face], [output, report], api_name="translate",
          concurrency_limit=2, concurrency_id="translate")  # fmt: skip
    gr.on([], batch, [files, model, direction, face], [archive, report], api_name="batch",
          concurrency_limit=2, concurrency_id="batch")  # fmt: skip


def _which(face: str) -> str | int:
    if face in ("all", "largest"):
        return face
    if face.isdecimal() and int(face) >= 1:
        return int(face) - 1
    raise NoFaceError("The face must be all, largest, or a number from 1.")


def _require(photo: Upload | None) -> None:
    if photo is None:
        raise BadImageError(NO_PHOTO)


def _size(photo: Upload) -> list[int]:
    return [photo.pixels.shape[1], photo.pixels.shape[0]]


def _describe(face: Face) -> dict:
    return {
        "box": [round(float(x), 1) for x in face.box],
        "landmarks": [[round(float(x), 1) for x in point] for point in face.landmarks],
        "score": round(float(face.score), 4),
    }
