"""The same faces from frame to frame: cheaply, and without trembling.

A search with all of MTCNN takes tens of milliseconds. `FaceTracker` searches only for faces it does not have, and
follows those it has with MTCNN's last stage, which looks at a square and says whether a face is in it and where.
"""

import math
from dataclasses import dataclass

import numpy as np

from cyclegan.faces import align
from cyclegan.faces.detect import Face, FaceDetector

LIVE_SIDE = 320
"""Long side in pixels at which moving pictures are searched: what is smaller there is too small to translate."""

_SIDE = 48  # what the last stage looks at
_WIDER = 54  # what is cut out; five looks at slightly different parts of it more than halve the noise of one
_LOOKS = ((0, 0), (6, 0), (3, 3), (0, 6), (6, 6))
_ZOOM = 0.95  # side of a look as a share of the face's square; as MTCNN's stages before it would place it
# MTCNN gives its points from the edge of the first pixel, not from its middle (half a pixel), and cuts off the fraction
# of where a crop begins but not of where its points are counted from (half a pixel on average). Models are trained on
# crops that it placed, so faces are followed to where it would see them. In pixels.
_OFFSET = 1.0

_SCORE = 0.8  # under which a face is lost: 0.96 and more on faces in plain view
_HOLD = 0.5  # seconds during which a lost face is expected where it was
_SEARCH_LOST, _SEARCH_MORE = 0.2, 1.0  # seconds between searches: with a face lost or none there, and otherwise
_JUMP = 0.08  # a move, as a share of the face's square, after which it is looked at again from its new place


class OneEuroFilter:
    """Smooths what rests and follows what moves (Casiez, Roussel and Vogel 2012, "1 € Filter").

    A low-pass filter whose cutoff frequency grows with speed: ``cutoff = min_cutoff + beta * |speed|``.
    """

    def __init__(self, min_cutoff: float, beta: float, speed_cutoff: float = 1.0):
        """``min_cutoff`` and ``speed_cutoff`` in hertz; ``beta`` in hertz per unit of speed."""
        self.min_cutoff, self.beta, self.speed_cutoff = min_cutoff, beta, speed_cutoff
        self._time: float | None = None

    def __call__(self, values: np.ndarray, time: float, unit: float = 1.0) -> np.ndarray:
        """The smoothed values [...] at this time in seconds; speed is measured in ``unit`` per second."""
        if self._time is None:
            self._value, self._speed = values, np.zeros_like(values)
        elif time > self._time:
            passed = time - self._time
            speed = (values - self._value) / passed
            self._speed = self._speed + _weight(self.speed_cutoff, passed) * (speed - self._speed)
            cutoff = self.min_cutoff + self.beta * np.abs(self._speed) / unit
            self._value = self._value + _weight(cutoff, passed) * (values - self._value)
        self._time = time
        return self._value


def _weight(cutoff, passed: float):
    """How much a new value counts after ``passed`` seconds: 1 / (1 + tau / T_e) with tau = 1 / (2 pi cutoff)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * passed))


@dataclass(eq=False)
class _Track:
    """A face being followed."""

    centre: np.ndarray
    """Of its square in the frame, float64 [2]."""
    side: float
    roll: np.ndarray
    """Unit vector [2] from the left eye to the right: faces are looked at upright."""
    landmarks: np.ndarray
    """As measured in the last frame: float64 [5, 2]."""
    score: float
    smooth: OneEuroFilter
    seen: float
    """When it was last in view, in seconds."""
    box: align.Box = (0.0, 0.0, 0.0, 0.0)


class FaceTracker:
    """Follows up to a few faces of one moving picture. One viewer, one tracker; the detector may be shared."""

    def __init__(self, detector: FaceDetector, most: int = 3):
        """``detector`` searches at `LIVE_SIDE`; ``most`` faces are followed, the largest."""
        self._detector = detector
        self._most = most
        self._tracks: list[_Track] = []
        self._searched = -math.inf

    def track(self, frame: np.ndarray, time: float) -> list[Face]:
        """The faces of the next frame (uint8 [H, W, 3]), the longest followed first; none is an empty list.

        ``time`` in seconds, of any clock that does not run backwards.
        """
        for track in self._tracks:
            self._follow(track, frame, time)
        self._tracks = _apart([track for track in self._tracks if time - track.seen <= _HOLD])
        missing = not self._tracks or any(track.seen < time for track in self._tracks)
        wait = _SEARCH_LOST if missing else _SEARCH_MORE
        if (missing or len(self._tracks) < self._most) and time - self._searched >= wait:
            self._search(frame, time)
        return [_face(track, time) for track in self._tracks if track.seen == time]

    def _search(self, frame: np.ndarray, time: float) -> None:
        self._searched = time
        for face in self._detector.detect(frame):
            landmarks = face.landmarks.astype(np.float64)
            track = _Track(
                centre=np.reshape(face.box, (2, 2)).mean(0),
                side=max(face.box[2] - face.box[0], face.box[3] - face.box[1]),
                roll=_roll(landmarks),
                landmarks=landmarks,
                score=face.score,
                smooth=OneEuroFilter(min_cutoff=1.5, beta=60.0, speed_cutoff=3.0),
                seen=-math.inf,
            )
            near = next((old for old in self._tracks if _same(old, track)), None)
            if near and near.seen == time:
                continue  # it is being followed
            # From the first frame on as it will be followed: a face that only the search sees would come and go.
            self._follow(track, frame, time)
            if track.seen != time:
                continue
            if near:
                self._tracks[self._tracks.index(near)] = track
            elif len(self._tracks) < self._most:
                self._tracks.append(track)

    def _follow(self, track: _Track, frame: np.ndarray, time: float) -> None:
        """Look for the face around where it was; where it is not, the track stays as it was."""
        centre, side, roll = track.centre, track.side, track.roll
        for _ in range(2):
            before = centre
            score, centre, side, landmarks = self._look(frame, centre, side, roll)
            if score < _SCORE:
                return
            if np.abs(centre - before).max() < _JUMP * side:
                break
        track.centre, track.side, track.roll, track.score = centre, side, _roll(landmarks), score
        track.landmarks, track.seen = landmarks, time
        track.box = _upright(centre, side)

    def _look(
        self, frame: np.ndarray, centre: np.ndarray, side: float, roll: np.ndarray
    ) -> tuple[float, np.ndarray, float, np.ndarray]:
        """Score, centre, side and landmarks of the face in a square of the frame."""
        scale = _SIDE / (_ZOOM * side)
        turn = scale * np.array([[roll[0], roll[1]], [-roll[1], roll[0]]])
        matrix = np.column_stack([turn, (_WIDER - 1) / 2 - turn @ centre])
        wide = align.crop(frame, matrix, _WIDER)
        looks = np.stack([wide[y : y + _SIDE, x : x + _SIDE] for x, y in _LOOKS])
        boxes, landmarks, scores = self._detector.inspect(looks)
        corners = np.asarray(_LOOKS, np.float64)[:, None] - 0.5
        box = (boxes.reshape(-1, 2, 2) * _SIDE + corners).mean(0)
        points = (landmarks * _SIDE + corners).mean(0)
        back = align.invert(matrix)
        return (
            float(scores.mean()),
            box.mean(0) @ back[:, :2].T + back[:, 2],
            float((box[1] - box[0]).max() / scale),
            points @ back[:, :2].T + back[:, 2] + _OFFSET,
        )


def _roll(landmarks: np.ndarray) -> np.ndarray:
    """Which way is right for this face: a unit vector [2]."""
    across = landmarks[1] - landmarks[0] + landmarks[4] - landmarks[3]
    return across / max(float(np.hypot(*across)), 1e-6)


def _upright(centre: np.ndarray, side: float) -> align.Box:
    left, top = (centre - side / 2).tolist()
    return left, top, left + side, top + side


def _same(track: _Track, other: _Track) -> bool:
    """Whether two squares are about one face."""
    return bool(np.abs(track.centre - other.centre).max() < 0.4 * max(track.side, other.side))


def _apart(tracks: list[_Track]) -> list[_Track]:
    """The tracks without those that have come to follow another's face; faces in view count more, then older tracks."""
    kept: list[_Track] = []
    for track in sorted(tracks, key=lambda track: -track.seen):
        if not any(_same(track, other) for other in kept):
            kept.append(track)
    return kept


def _face(track: _Track, time: float) -> Face:
    landmarks = track.smooth(track.landmarks, time, unit=track.side)  # near and far faces are smoothed alike
    return Face(track.box, landmarks.astype(np.float32), track.score)
