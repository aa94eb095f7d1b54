"""Videos: what is kept, what is translated, what is refused. The videos are made here."""

import io
import math
import wave
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fake_translator import FakeTranslator
from helpers import draw_photo, texture

from cyclegan import video
from cyclegan.errors import BadVideoError, NoFaceError
from cyclegan.images import encode_png
from cyclegan.translator import Translator
from cyclegan.video import VideoResult, is_video, translate_video

CHAIN = [("glasses", "A2B")]
SIZE = (120, 160)
STILL = np.rint(texture(*SIZE) * 0.6 + 50).astype(np.uint8)
RATE = 20


class Untouched(FakeTranslator):
    """Finds faces and changes nothing."""

    def translate(self, photo, *args, **options):
        return replace(super().translate(photo, *args, **options), output=photo)


def make_video(
    path: Path,
    frames=12,
    codec="libx264",
    sound="aac",
    still=STILL,
    times=None,
    rotate=0,
    options=None,
    rate=48000,
) -> Path:
    """A video of a still that gets lighter, with a tone."""
    with av.open(str(path), "w") as file:
        picture = file.add_stream(codec, rate=RATE, options=options or {})
        picture.height, picture.width = still.shape[:2]
        picture.pix_fmt = "yuv420p"
        picture.bit_rate = 4_000_000
        tone = file.add_stream(sound, rate=rate) if sound else None
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.clip(still + 2 * i, 0, 255).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = times[i] if times else i, Fraction(1, RATE)
            file.mux(picture.encode(frame))
        file.mux(picture.encode(None))
        if tone:
            samples = np.sin(np.arange(rate * frames // RATE) * (440 * 2 * math.pi / rate)).astype(np.float32) * 0.4
            frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
            frame.sample_rate, frame.pts = rate, 0
            frame.time_base = Fraction(1, rate)
            file.mux(tone.encode(frame))
            file.mux(tone.encode(None))
    if rotate:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 44
        turned = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[rotate]
        for position, value in zip((0, 4, 12, 16), turned, strict=True):
            data[at + position : at + position + 4] = (value * 65536).to_bytes(4, "big", signed=True)
        path.write_bytes(data)
    return path


def translate(path: Path, translator=None, target: Path | None = None, **options) -> tuple[Path, VideoResult, list]:
    translator = translator or FakeTranslator()
    target = target or path.with_name("out.mp4")
    result = VideoResult()
    with path.open("rb") as file:
        tracker = translator.tracker()
        seen = list(translate_video(file, target, translator, tracker, CHAIN, result=result, **options))
    return target, result, seen


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in file.decode(video=0)]


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        return [round(frame.time, 3) for frame in file.decode(video=0)]


def sound_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
    # Packed samples of several channels lie one after the other.
    return np.concatenate([f.to_ndarray()[0, :: 1 if f.format.is_planar else f.layout.nb_channels] for f in frames])


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(audio=0) if packet.size]


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.mp4", "libx264", "aac"),
        ("a.mov", "libx264", "pcm_s16le"),
        ("a.webm", "libvpx-vp9", "libopus"),
        ("a.mkv", "libx264", "libmp3lame"),
        ("a.avi", "mpeg4", None),
    ],
)
def test_every_kind_keeps_its_frames_and_its_sound(tmp_path, name, codec, sound):
    source = make_video(tmp_path / name, codec=codec, sound=sound)
    target, result, seen = translate(source, Untouched())
    assert result.frames == result.frames_with_faces == 12 == len(frames_of(target)) == len(seen)
    assert result.size == (160, 120) and result.sound is bool(sound) and not result.stopped
    assert result.cycle_l1 == pytest.approx(0.032)
    assert seen == sorted(seen) and 0.8 < seen[-1] <= 1
    assert times_of(target) == pytest.approx(times_of(source), abs=0.002)
    for before, after in zip(frames_of(source), frames_of(target), strict=True):
        assert np.abs(before - after).mean() < 4 and np.abs((before - after).mean(axis=(0, 1))).max() < 2.5
    if sound in ("aac", "libopus", "libmp3lame"):
        assert packets_of(target) == packets_of(source)
    elif sound:
        before, after = sound_of(source) / 32768, sound_of(target)
        assert abs(len(before) - len(after)) < 3000
        assert np.sqrt(np.mean(after**2)) == pytest.approx(np.sqrt(np.mean(before**2)), rel=0.1)


def test_faces_are_translated_in_every_frame(tmp_path):
    source = make_video(tmp_path / "a.mp4")
    target, _, _ = translate(source)
    for before, after in zip(frames_of(source), frames_of(target), strict=True):
        assert np.abs(255 - before - after)[30:78, 22:58].mean() < 8
        assert np.abs(before - after)[95:, :].mean() < 5


def test_the_boxes_of_every_second_are_kept(tmp_path):
    source = make_video(tmp_path / "a.mp4", frames=50)
    _, result, _ = translate(source)
    assert list(result.boxes) == pytest.approx([0, 1, 2], abs=0.1)
    assert all(len(boxes) == 2 and all(len(box) == 4 for box in boxes) for boxes in result.boxes.values())


def test_the_file_says_that_it_is_generated(tmp_path):
    target, _, _ = translate(make_video(tmp_path / "a.mp4"))
    with av.open(str(target)) as file:
        comment = file.metadata["comment"]
    assert "AI-generated" in comment and "Model: glasses" in comment and "A2B (Add glasses)" in comment
    assert FakeTranslator().zoo.entry("glasses").revision in comment


@pytest.mark.parametrize("rotate", [90, 180, 270])
def test_a_video_from_a_phone_comes_out_upright(tmp_path, rotate):
    target, result, _ = translate(make_video(tmp_path / "a.mp4", rotate=rotate), Untouched())
    upright = np.rot90(STILL, -rotate // 90)
    assert result.size == upright.shape[1::-1]
    assert np.abs(frames_of(target)[0] - upright).mean() < 6


def test_uneven_frame_times_are_kept(tmp_path):
    source = make_video(tmp_path / "a.mp4", frames=5, sound=None, times=[0, 1, 5, 6, 12])
    target, _, _ = translate(source)
    assert times_of(target) == times_of(source) == [0, 0.05, 0.25, 0.3, 0.6]


def test_odd_sizes_lose_at_most_a_line(tmp_path):
    source = make_video(tmp_path / "a.avi", codec="mpeg4", sound=None, still=STILL[:119, :159])
    target, result, _ = translate(source, Untouched())
    assert result.size == (158, 118)
    assert np.abs(frames_of(target)[0] - STILL[:118, :158]).mean() < 6


def test_frames_without_a_face_stay_as_they_are(tmp_path):
    class Sometimes(FakeTranslator):
        seen = 0

        def detect(self, photo):
            self.seen += 1
            return super().detect(photo) if self.seen % 3 == 0 else []

    target, result, _ = translate(make_video(tmp_path / "a.mp4"), Sometimes())
    assert (result.frames, result.frames_with_faces) == (12, 4)
    changed = [np.abs(frame - STILL)[30:78, 22:58].mean() > 40 for frame in frames_of(target)]
    assert changed == [False, False, True] * 4


def test_a_video_without_any_face_is_refused(tmp_path):
    source = make_video(tmp_path / "a.mp4", still=np.zeros((*SIZE, 3), np.uint8), frames=1)
    with pytest.raises(NoFaceError, match="in this video"):
        translate(source)
    assert not (tmp_path / "out.mp4").exists()


def test_stopping_keeps_the_frames_that_are_done(tmp_path):
    source = make_video(tmp_path / "a.mp4", frames=40)
    asked = []
    target, result, _ = translate(source, stop=lambda: len(asked) == 15 or asked.append(None))
    assert result.stopped and result.frames == 15 == len(frames_of(target))
    assert len(sound_of(target)) > 0


def test_a_translation_that_is_given_up_leaves_no_file(tmp_path):
    source = make_video(tmp_path / "a.mp4")
    translator = FakeTranslator()
    with source.open("rb") as file:
        steps = translate_video(file, tmp_path / "out.mp4", translator, translator.tracker(), CHAIN)
        next(steps)
        steps.close()
    assert not (tmp_path / "out.mp4").exists()


def test_long_videos_are_refused_where_that_is_asked_for(tmp_path):
    source = make_video(tmp_path / "a.mp4", frames=60)
    with pytest.raises(BadVideoError, match="longer than 2 seconds"):
        translate(source, max_seconds=2)
    assert translate(source, max_seconds=3)[1].frames == 60


def test_a_header_cannot_hide_the_length(tmp_path):
    source = make_video(tmp_path / "a.mp4", frames=60, sound=None)
    data = bytearray(source.read_bytes())
    for box, at in ((b"mvhd", 20), (b"mdhd", 20)):  # both durations: one unit of time
        data[data.index(box) + at : data.index(box) + at + 4] = (1).to_bytes(4, "big")
    source.write_bytes(data)
    with pytest.raises(BadVideoError, match="longer than 1 seconds"):
        translate(source, max_seconds=1)
    assert not (tmp_path / "out.mp4").exists()


PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Dear diary",
        PLAYLIST,
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(2000),
        b"\x1a\x45\xdf\xa3" + bytes(2000),
        b"RIFF\x10\0\0\0AVI " + bytes(2000),
        b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + PLAYLIST,
    ],
)
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(BadVideoError):
        translate(path)
    assert not (tmp_path / "out.mp4").exists()


def test_a_damaged_video_gives_what_can_be_read_or_an_error(tmp_path):
    whole = make_video(tmp_path / "a.mkv", frames=30).read_bytes()
    rng = np.random.default_rng(0)
    for number in range(25):
        data = bytearray(whole[: int(rng.integers(40, len(whole)))])
        for at in rng.integers(0, len(data), 8):
            data[at] = rng.integers(0, 256)
        path = tmp_path / "damaged.mkv"
        path.write_bytes(data)
        target = tmp_path / f"{number}.mp4"
        try:
            _, result, _ = translate(path, target=target)
        except (BadVideoError, NoFaceError):
            assert not target.exists()
        else:
            assert len(frames_of(target)) == result.frames > 0


def test_sound_alone_is_no_video(tmp_path):
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(8000), sound.writeframes(bytes(8000))
    assert not is_video(file.getvalue())
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "flt", "mono")
        frame.sample_rate = 48000
        target.mux(stream.encode(frame)), target.mux(stream.encode(None))
    with pytest.raises(BadVideoError, match="only sound"):
        translate(path)


def test_pictures_are_no_videos():
    assert not is_video(encode_png(STILL)[:64])
    for brand in (b"avif", b"heic", b"mif1"):
        assert not is_video(b"\0\0\0\x20ftyp" + brand + bytes(50))


def test_a_real_face_is_followed_through_a_video(zoo, tmp_path):
    """The real tracker and a real model, on a drawn face that moves."""
    path = tmp_path / "moving.mp4"
    with av.open(str(path), "w") as file:
        picture = file.add_stream("libx264", rate=RATE)
        picture.width, picture.height, picture.pix_fmt = 320, 240, "yuv420p"
        for i in range(24):
            frame = av.VideoFrame.from_ndarray(draw_photo((20 + 3 * i, 30, 180), width=320, height=240), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            file.mux(picture.encode(frame))
        file.mux(picture.encode(None))
    translator = Translator(zoo, device="cpu", engine="torch")
    result = VideoResult()
    with path.open("rb") as file:
        list(
            translate_video(
                file, tmp_path / "out.mp4", translator, translator.tracker(), [("red", "A2B")], result=result
            )
        )
    assert result.frames == 24 and result.frames_with_faces >= 22
    for i, (before, after) in enumerate(zip(frames_of(path), frames_of(tmp_path / "out.mp4"), strict=True)):
        change = (before - after)[..., 1]
        x = 20 + 3 * i + 90
        assert i < 2 or change[100:140, x - 20 : x + 20].mean() > 25, f"frame {i}"
        assert abs(change[:20, -30:].mean()) < 4


def test_an_avi_whose_frames_are_stored_in_another_order(tmp_path):
    """H.264 with frames that refer to later ones: AVI stamps them as they are stored."""
    source = make_video(tmp_path / "a.avi", frames=24, sound=None, options={"bf": "2", "b_strategy": "0"})
    target, result, _ = translate(source, Untouched())
    light = [frame.mean() for frame in frames_of(target)]
    assert result.frames == len(light) == 24 and light == sorted(light)
    assert times_of(target) == pytest.approx([i / RATE for i in range(24)], abs=0.01)


def test_sound_at_a_rate_that_aac_does_not_have(tmp_path):
    source = make_video(tmp_path / "a.mov", sound="pcm_s16le", rate=22254)
    target, result, _ = translate(source)
    assert result.sound and np.abs(sound_of(target)).max() > 0.1


def test_a_video_may_begin_at_any_time(tmp_path):
    source = make_video(tmp_path / "a.mkv", frames=20, sound=None, times=[2000 + i for i in range(20)])
    assert translate(source, max_seconds=2)[1].frames == 20
    assert min(translate(source)[1].boxes) == 0


def test_too_many_frames_are_not_called_too_many_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_MOST_FRAMES", 10)
    source = make_video(tmp_path / "a.mp4", frames=30, sound=None)
    with pytest.raises(BadVideoError, match="more than 20 frames. Cut it, or save it with fewer a second"):
        translate(source, max_seconds=2)


def test_a_face_that_is_never_there_is_not_called_no_face(tmp_path):
    source = make_video(tmp_path / "a.mp4", sound=None)
    with pytest.raises(NoFaceError, match="as many faces as the number asked for"):
        translate(source, faces=7)
