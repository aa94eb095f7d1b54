"""Video in, video out: every frame's faces translated, the sound as it was.

Files come from strangers. A container is recognised by its signature and opened with that one reader, which never
follows a reference: playlists and other formats that name further files or addresses are not read at all.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO, Protocol

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange

from cyclegan.errors import BadVideoError, NoFaceError
from cyclegan.faces.detect import Face
from cyclegan.translator import Faces, Translator, choose
from cyclegan.zoo import provenance

MAX_FRAME_PIXELS = 9_000_000
"""The most pixels (width times height) of a frame: a little more than 4K."""

NO_FACE_IN_VIDEO = (
    "No face was found in this video. Try one where the face is larger, brighter or turned to the camera."
)

NO_SUCH_FACE_IN_VIDEO = "No frame of this video shows as many faces as the number asked for. Use all, largest or 1."

# Signature -> FFmpeg's name of the one reader that may open the file. HEIC and AVIF pictures are MP4 containers, too.
_CONTAINERS = {
    "mov": re.compile(rb"....ftyp(?!avi[fs]|hei|hev|mif1|msf1)|....(?:moov|mdat|wide|free|skip)", re.DOTALL),
    "matroska": re.compile(rb"\x1a\x45\xdf\xa3"),
    "avi": re.compile(rb"RIFF....AVI ", re.DOTALL),
}
_MOST_FRAMES = 60  # per second, where the length is limited
_SOUND_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # of AAC; it has higher ones, too
# Sound that an MP4 file may hold as it is, bit for bit; any other is made AAC.
_SOUND_KEPT = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")


class Tracker(Protocol):
    """Finds the faces of a video, frame by frame, in order; one tracker per video."""

    def track(self, frame: np.ndarray, time: float) -> list[Face]:
        """The faces of the next frame (uint8 [H, W, 3]), which is shown at ``time`` in seconds."""


@dataclass
class VideoResult:
    """What became of a video; filled while it is being translated."""

    size: tuple[int, int] = (0, 0)
    """width, height, upright, in pixels."""
    frames: int = 0
    """Frames written."""
    frames_with_faces: int = 0
    """Frames in which a face was translated."""
    cycle_l1: float = 0.0
    """Mean cycle error of all translated faces, pixels in [0, 1]."""
    boxes: dict[float, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    """Where faces were translated, once a second: seconds from the start -> boxes, as `Translation.box`."""
    sound: bool = False
    """Whether there is sound."""
    stopped: bool = False
    """Whether it ends before the source does."""
    other_faces: bool = False
    """Whether there were faces, but not the one asked for."""


def is_video(head: bytes) -> bool:
    """Whether a file that begins with these bytes (12 are enough) is a video that `translate_video` reads."""
    return _container(head) is not None


def translate_video(
    source: BinaryIO,
    target: str | os.PathLike[str],
    translator: Translator,
    tracker: Tracker,
    chain: Sequence[tuple[str, str]],
    faces: Faces = "all",
    max_seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    result: VideoResult | None = None,
) -> Iterator[float]:
    """Translate an MP4, MOV, WebM, MKV or AVI file into an MP4 file (H.264), yielding progress from 0 to 1 per frame.

    Frames keep their time stamps, so sound and picture stay together. Frames without the face asked for stay as they
    are. The file's comment says that it is AI-generated, by which models and directions.

    Args:
        source: the file, open for reading, seekable.
        target: path of the MP4 file to write; whatever comes of a failed translation is deleted.
        chain: (model, direction) pairs, applied in order.
        faces: as in `Translator.translate`. The first of the tracker counts as the largest, so that the choice does not
            jump from face to face.
        max_seconds: longer videos are refused.
        stop: asked before each frame; once it says yes, the file is finished with what there is.
        result: filled in as frames are written.

    Raises BadVideoError, NoFaceError (no face in any frame), and what `Translator.translate` raises; OSError where
    the file cannot be written.
    """
    result = VideoResult() if result is None else result
    try:
        with ExitStack() as files:
            reader = _open(source, files)
            picture, sound = _streams(reader, max_seconds)
            writer = files.enter_context(av.open(os.fspath(target), "w", "mp4", options={"movflags": "faststart"}))
            text = provenance(translator.zoo, chain)
            writer.metadata["comment"] = ", ".join(f"{key}: {value}" for key, value in text.items())
            yield from _Copy(reader, picture, sound, writer, max_seconds).run(
                lambda frame, at: _translate_frame(frame, at, translator, tracker, chain, faces, result), stop, result
            )
        if not result.frames:
            raise _damaged()
        if not result.frames_with_faces and not result.stopped:
            raise NoFaceError(NO_SUCH_FACE_IN_VIDEO if result.other_faces else NO_FACE_IN_VIDEO)
    except FFmpegError as error:
        _remove(target)
        if error.errno == errno.ENOSPC:
            raise OSError(error.errno, os.strerror(error.errno)) from error
        raise _damaged() from error
    except BaseException:
        _remove(target)
        raise


def _translate_frame(
    frame: np.ndarray,
    at: float,
    translator: Translator,
    tracker: Tracker,
    chain: Sequence[tuple[str, str]],
    faces: Faces,
    result: VideoResult,
) -> np.ndarray:
    (model, direction), *then = chain
    found: list[Face] = []
    if translator.needs_faces(model, direction):
        found = tracker.track(frame, at)
        try:
            faces = choose(faces, len(found))
        except NoFaceError:
            result.other_faces |= bool(found)
            return frame
    translated = translator.translate(frame, model, direction, faces, then, found=found)
    errors = [each.cycle_l1 for each in translated.translations]
    result.frames_with_faces += 1
    if not result.boxes or at >= max(result.boxes) + 1:
        result.boxes[round(at, 3)] = [each.box for each in translated.translations]
    result.cycle_l1 += (float(np.mean(errors)) - result.cycle_l1) / result.frames_with_faces
    return translated.output


class _Copy:
    """One video on its way from a reader to a writer."""

    def __init__(self, reader, picture, sound, writer, max_seconds: float | None):
        self.reader, self.picture, self.sound, self.writer = reader, picture, sound, writer
        self.max_seconds = max_seconds
        self.length = _seconds(reader, picture)
        self.rate = picture.average_rate or picture.guessed_rate or Fraction(25)
        self.out_picture: Any = None
        self.out_sound: Any = None
        self.keep_sound = sound is not None and sound.codec_context.codec.canonical_name in _SOUND_KEPT
        if self.keep_sound:
            self.out_sound = writer.add_stream_from_template(sound)
        elif sound is not None:
            rate = sound.codec_context.sample_rate
            self.out_sound = writer.add_stream("aac", rate=rate if rate in _SOUND_RATES else 48000)
        # A writer wants all streams before the first packet, and the picture is made with the first frame: until then
        # sound waits.
        self.waiting: list = []
        # AVI files number their frames as they are stored, which is not the order in which they are shown.
        self.numbered = reader.format.name == "avi"
        self.last_pts: int | None = None

    def run(self, change, stop: Callable[[], bool], result: VideoResult) -> Iterator[float]:
        result.sound = self.sound is not None
        at, first = 0.0, None
        for packet in self.reader.demux([s for s in (self.picture, self.sound) if s is not None]):
            if packet.stream is self.sound:
                self._write_sound(packet)
                continue
            for frame in _decoded(packet):
                if stop():
                    result.stopped = True
                    self._finish()
                    return
                if self.numbered or frame.pts is None:
                    frame.pts, frame.time_base = result.frames, 1 / self.rate
                first = frame.time if first is None else first
                # Time does not run backwards, whatever a file says.
                at = max(at, float(frame.time - first))
                if self.max_seconds and at > self.max_seconds + 1:  # whatever the header said
                    raise _too_long(self.max_seconds)
                if self.max_seconds and result.frames > (most := int(self.max_seconds * _MOST_FRAMES)):
                    raise BadVideoError(
                        f"The video has more than {most:,} frames. Cut it, or save it with fewer a second."
                    )
                self._write_picture(frame, at, change, result)
                yield min(1.0, at / self.length) if self.length else 0.0
        self._finish()

    def _write_picture(self, frame, at: float, change, result: VideoResult) -> None:
        pixels = _upright(frame)
        if self.out_picture is None:
            self._start(frame, pixels)
        width, height = self.out_picture.width, self.out_picture.height
        pixels = np.ascontiguousarray(pixels[:height, :width])
        if pixels.shape[:2] != (height, width):  # a file may change its size on the way; what is smaller is left out
            return
        changed = av.VideoFrame.from_ndarray(change(pixels, at), "rgb24")
        changed = changed.reformat(format="yuv420p", dst_colorspace=_matrix(frame), dst_color_range=ColorRange.MPEG)
        changed.pts, changed.time_base = frame.pts, frame.time_base
        if self.last_pts is not None:  # a writer takes no two frames for one moment
            changed.pts = max(changed.pts, self.last_pts + 1)
        self.last_pts = changed.pts
        result.size = (width, height)
        result.frames += 1
        self.writer.mux(self.out_picture.encode(changed))

    def _start(self, frame, pixels: np.ndarray) -> None:
        out = self.writer.add_stream("libx264", rate=self.rate, options={"crf": "18", "preset": "veryfast"})
        out.width, out.height = pixels.shape[1] // 2 * 2, pixels.shape[0] // 2 * 2  # this format halves colour
        out.pix_fmt = "yuv420p"
        context = out.codec_context
        context.time_base = frame.time_base or 1 / self.rate
        context.colorspace, context.color_range = _matrix(frame), ColorRange.MPEG
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        if self.picture.sample_aspect_ratio and frame.rotation % 180 == 0:
            context.sample_aspect_ratio = self.picture.sample_aspect_ratio
        self.out_picture = out
        waiting, self.waiting = self.waiting, []
        for packet in waiting:
            self._write_sound(packet)

    def _write_sound(self, packet) -> None:
        if self.out_picture is None:
            self.waiting.append(packet)
        elif self.keep_sound:
            if packet.dts is not None:  # the last packet only says that there are no more
                packet.stream = self.out_sound
                self.writer.mux(packet)
        else:
            for frame in _decoded(packet):
                self.writer.mux(self.out_sound.encode(frame))

    def _finish(self) -> None:
        if self.out_picture is not None:
            self.writer.mux(self.out_picture.encode(None))
            if self.out_sound is not None and not self.keep_sound:
                self.writer.mux(self.out_sound.encode(None))


def _open(source: BinaryIO, files: ExitStack):
    head = source.read(64)
    source.seek(0)
    container = _container(head)
    if container is None:
        raise BadVideoError("The file is not a video we can read. Use an MP4, MOV, WebM, MKV or AVI file.")
    return files.enter_context(av.open(source, "r", container, metadata_errors="replace"))


def _container(head: bytes) -> str | None:
    return next((name for name, signature in _CONTAINERS.items() if signature.match(head)), None)


def _streams(reader, max_seconds: float | None) -> tuple:
    pictures = [s for s in reader.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not pictures:
        raise BadVideoError("The file holds no picture, only sound. Choose a video.")
    picture = pictures[0]
    width, height = picture.width, picture.height
    if width * height > MAX_FRAME_PIXELS:
        raise BadVideoError(f"The video is {width} x {height} pixels; at most 4K is accepted. Make it smaller.")
    length = _seconds(reader, picture)
    if max_seconds and length and length > max_seconds:
        raise _too_long(max_seconds)
    picture.thread_type = "AUTO"
    sound = next((s for s in reader.streams.audio if s.codec_context is not None and s.codec_context.sample_rate), None)
    return picture, sound


def _seconds(reader, picture) -> float | None:
    if picture.duration:
        return float(picture.duration * picture.time_base)
    if not reader.duration:
        return None
    start = reader.start_time or 0  # Matroska counts from zero, wherever the video begins
    return (reader.duration - (start if 0 < start < reader.duration else 0)) / av.time_base


def _decoded(packet) -> Iterator:
    """The frames of a packet; a damaged packet has none, as in every player."""
    try:
        yield from packet.decode()
    except (FFmpegError, ValueError):
        return


def _upright(frame) -> np.ndarray:
    """A frame as RGB uint8 [H, W, 3], turned as its file asks."""
    if frame.width * frame.height > MAX_FRAME_PIXELS:
        raise BadVideoError("The frames of the video are larger than 4K. Make it smaller.")
    rgb = frame.reformat(format="rgb24", src_colorspace=_matrix(frame)).to_ndarray()
    return np.rot90(rgb, round(frame.rotation / 90))


def _matrix(frame) -> int:
    """The matrix between YUV and RGB: what the frame says, else what players assume for its size."""
    known = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
    return known.get(int(frame.colorspace), 1 if frame.height >= 720 else 5)


def _damaged() -> BadVideoError:
    return BadVideoError("The video is cut off or damaged. Save it again and try once more.")


def _too_long(max_seconds: float) -> BadVideoError:
    return BadVideoError(f"The video is longer than {max_seconds:.0f} seconds. Cut it and try again.")


def _remove(target: str | os.PathLike[str]) -> None:
    try:
        os.remove(target)
    except FileNotFoundError:
        pass
