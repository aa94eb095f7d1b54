"""Pure geometry: from five landmarks to an aligned crop and back into the photo.

Points are (x, y) in pixels with pixel centres at whole numbers, as OpenCV has them. A crop is described by one
similarity matrix ``photo_to_crop``, float64 [2, 3]: ``crop_xy = M[:, :2] @ photo_xy + M[:, 2]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of the photo; right and bottom lie outside."""

_FEATHER = 0.16  # width of the soft edge as a share of the crop: wide enough that no seam shows on skin
_NEARER = 4  # power of the masks by which overlapping crops share a pixel: mostly to the one it lies deeper in
_KEEP, _REPLACE = 8.0, 40.0  # grey levels of change below which the photo's detail stays, above which it goes


@dataclass(frozen=True)
class Template:
    """Where the five landmarks lie in a crop; each model has its own in its ``config.json``."""

    landmarks: tuple[tuple[float, float], ...]
    """Left eye, right eye, nose, left and right mouth corner as fractions (x, y) of the crop's side."""
    scale: float = 1.0
    """Side of the crop in units of the landmarks' own frame: above 1 shows more surroundings."""

    def __post_init__(self):
        if np.shape(self.landmarks) != (5, 2) or not 0 < self.scale < np.inf:
            raise ValueError("A template has five (x, y) landmarks and a positive scale.")
        if not np.isfinite(self.landmarks).all() or not np.ptp(self.landmarks, axis=0).any():
            raise ValueError("The landmarks of a template are finite and lie apart.")

    def points(self, size: int) -> np.ndarray:
        """Landmark positions in a crop of ``size`` pixels: float64 [5, 2]."""
        fractions = (np.asarray(self.landmarks, np.float64) - 0.5) / self.scale + 0.5
        return fractions * size - 0.5


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, uniform scale and shift from source to target points: [N, 2] x 2 -> [2, 3].

    Umeyama 1991, without reflections. With complex numbers z = x + iy the problem is linear: w = a z + b.
    """
    z, w = (points[:, 0] + 1j * points[:, 1] for points in np.asarray([source, target], np.float64))
    z_mean, w_mean = z.mean(), w.mean()
    spread = np.sum(np.abs(z - z_mean) ** 2)
    if spread == 0:
        raise ValueError("The source points coincide.")
    a = np.sum(np.conj(z - z_mean) * (w - w_mean)) / spread
    b = w_mean - a * z_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def photo_to_crop(landmarks: np.ndarray, template: Template, size: int) -> np.ndarray:
    """The matrix that carries photo landmarks [5, 2] onto the template in a crop of ``size`` pixels."""
    return similarity(landmarks, template.points(size))


def face_ellipse(template: Template, size: int) -> np.ndarray:
    """Where the face of an aligned crop is: bool [size, size].

    An ellipse from the hairline to the chin and from ear to ear. In units of the distance from the eyes to the mouth it
    ends 1.0 above the eyes and 0.65 below the mouth; in units of the distance between the eyes, 1.1 to either side.
    """
    left_eye, right_eye, _, left_mouth, right_mouth = template.points(size)
    eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    length, width = np.linalg.norm(mouth - eyes), np.linalg.norm(right_eye - left_eye)
    centre = eyes[0], eyes[1] + 0.325 * length
    y, x = np.mgrid[:size, :size]
    return ((x - centre[0]) / (1.1 * width)) ** 2 + ((y - centre[1]) / (1.325 * length)) ** 2 <= 1


def square_to_crop(box: Box, size: int) -> np.ndarray:
    """The matrix that carries an upright square of the photo onto a whole crop of ``size`` pixels."""
    left, top, right, _ = box
    scale = size / (right - left)
    return np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])


def centred_square(height: int, width: int) -> Box:
    """The largest square in the middle of a picture."""
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a similarity matrix: ``crop_to_photo`` from ``photo_to_crop``."""
    return cv2.invertAffineTransform(matrix)


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One matrix that does ``first``, then ``second``."""
    square = np.vstack([first, [0, 0, 1]])
    return second @ square


def resized(matrix: np.ndarray, factor: float) -> np.ndarray:
    """The matrix of the same crop with its side multiplied by ``factor``."""
    grown = matrix * factor
    grown[:, 2] += (factor - 1) / 2  # pixel centres: the corner of the crop lies at -0.5
    return grown


def scale_of(matrix: np.ndarray) -> float:
    """Crop pixels per photo pixel."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def crop_corners(matrix: np.ndarray, size: int) -> np.ndarray:
    """Corners of the crop in the photo, float64 [4, 2], clockwise from the crop's top left."""
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]]) - 0.5
    back = invert(matrix)
    return corners @ back[:, :2].T + back[:, 2]


def bounding_box(matrix: np.ndarray, size: int) -> Box:
    """The upright box around the crop in the photo; it may reach outside the photo."""
    corners = crop_corners(matrix, size)
    left, top = corners.min(0) + 0.5
    right, bottom = corners.max(0) + 0.5
    return float(left), float(top), float(right), float(bottom)


def crop(photo: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Cut the crop out of the photo: uint8 [H, W, 3] -> uint8 [size, size, 3].

    Shrinking samples on a finer grid and averages, so that large faces do not alias. Beyond the photo's edge the
    edge pixels repeat.
    """
    fine = max(1, int(np.ceil(1 / scale_of(matrix))))
    side = size * fine
    grid = cv2.warpAffine(
        photo, resized(matrix, fine), (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return grid if fine == 1 else _averaged(grid, size)


def _averaged(picture: np.ndarray, size: int) -> np.ndarray:
    """A square picture made smaller without aliasing."""
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def feather(size: int) -> np.ndarray:
    """The paste-back mask of a crop: float32 [size, size], 1 in the middle, falling smoothly to 0 at the border."""
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) / (size * _FEATHER)
    ramp = np.clip(distance, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.outer(ramp, ramp).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Change:
    """A crop and what became of it."""

    before: np.ndarray
    """uint8 [S, S, 3]."""
    after: np.ndarray
    """uint8 [S, S, 3]."""
    matrix: np.ndarray
    """``photo_to_crop``."""
    detail: bool
    """As for `paste`."""


def paste_all(photo: np.ndarray, faces: Sequence[Sequence[Change]]) -> np.ndarray:
    """Put the changed crops of several faces back, for each face one on top of the other: photo uint8 [H, W, 3] -> a
    new photo.

    The order of the faces does not matter: where their crops overlap, each has its share of the change, the larger the
    deeper a pixel lies in its crop.
    """
    if len(faces) == 1:
        return _pasted(photo, faces[0])
    height, width = photo.shape[:2]
    depths = [_depth(face, height, width) for face in faces]
    total = np.zeros((height, width), np.float32)
    for (rows, columns), depth in depths:
        total[rows, columns] += depth
    result = photo.copy()
    for face, ((rows, columns), depth) in zip(faces, depths, strict=True):
        share = (depth / np.maximum(total[rows, columns], 1e-12))[..., None]
        # One copy of the photo at a time: a group's would fill the memory.
        change = _pasted(photo, face)[rows, columns].astype(np.float32) - photo[rows, columns]
        result[rows, columns] = np.clip(np.rint(result[rows, columns] + share * change), 0, 255).astype(np.uint8)
    return result


def _pasted(photo: np.ndarray, face: Sequence[Change]) -> np.ndarray:
    """A new photo, uint8 [H, W, 3], with the changes of one face, the first below."""
    for change in face:
        photo = paste(photo, change.before, change.after, change.matrix, change.detail)
    return photo


def _depth(face: Sequence[Change], height: int, width: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """(part of the photo, float32 [h, w] in it): how deep each pixel lies in the crops of a face, 0 at their border."""
    boxes = np.array([bounding_box(change.matrix, len(change.before)) for change in face])
    (left, top), (right, bottom) = np.floor(boxes[:, :2].min(0)), np.ceil(boxes[:, 2:].max(0))
    x0, x1 = (int(np.clip(x, 0, width)) for x in (left, right))
    y0, y1 = (int(np.clip(y, 0, height)) for y in (top, bottom))
    depth = np.zeros((y1 - y0, x1 - x0), np.float32)
    for change in face if depth.size else ():
        to_region = compose(invert(change.matrix), np.array([[1.0, 0, -x0], [0, 1.0, -y0]]))
        mask = cv2.warpAffine(feather(len(change.before)), to_region, depth.shape[::-1], flags=cv2.INTER_LINEAR)
        np.maximum(depth, mask**_NEARER, out=depth)
    return (slice(y0, y1), slice(x0, x1)), depth


def paste(photo: np.ndarray, before: np.ndarray, after: np.ndarray, matrix: np.ndarray, detail: bool) -> np.ndarray:
    """Put a changed crop back: photo uint8 [H, W, 3], crops uint8 [S, S, 3] -> a new photo.

    ``detail`` adds the enlarged change (after - before) to the photo where the network changed little, so that skin
    keeps the photo's own resolution, and moves over to the enlarged crop itself where it changed much, so that
    nothing removed (a frame, say) leaves its fine edges behind. Without it the crop replaces the photo.
    Pixels outside the feathered mask are bit-identical to the input.
    """
    height, width = photo.shape[:2]
    size = before.shape[0]
    if scale_of(matrix) >= 2:  # a small face: sampling the large crop would drop its fine lines or make them jagged
        smaller = round(size / scale_of(matrix))
        before, after = (_averaged(crop, smaller) for crop in (before, after))
        matrix, size = resized(matrix, smaller / size), smaller
    left, top, right, bottom = bounding_box(matrix, size)
    x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    x1, y1 = min(width, int(np.ceil(right))), min(height, int(np.ceil(bottom)))
    if x0 >= x1 or y0 >= y1:
        return photo.copy()

    to_region = compose(invert(matrix), np.array([[1.0, 0, -x0], [0, 1.0, -y0]]))
    region_size = (x1 - x0, y1 - y0)

    def enlarge(values: np.ndarray, interpolation: int, border: int) -> np.ndarray:
        return cv2.warpAffine(values, to_region, region_size, flags=interpolation, borderMode=border)

    mask = enlarge(feather(size), cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)[..., None]
    region = photo[y0:y1, x0:x1].astype(np.float32)
    painted = enlarge(after.astype(np.float32), cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    if detail:
        change = after.astype(np.float32) - before
        # What was painted differs from its surroundings; a shift of colour over the whole face does not, and leaves the
        # photo's detail as it was. A single pixel is noisy, so its neighbourhood decides.
        painted_on = change - cv2.GaussianBlur(change, (0, 0), size / 12)
        strength = cv2.GaussianBlur(np.abs(painted_on).max(2), (0, 0), size / 64)
        share = np.clip((strength - _KEEP) / (_REPLACE - _KEEP), 0, 1)
        share = enlarge(share, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)[..., None]
        carried = region + enlarge(change, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
        painted = carried + share * (painted - carried)

    blended = np.clip(np.rint(region + mask * (painted - region)), 0, 255).astype(np.uint8)
    result = photo.copy()
    result[y0:y1, x0:x1] = np.where(mask > 0, blended, photo[y0:y1, x0:x1])
    return result
