"""Finding faces with MTCNN (Zhang et al. 2016), at a bounded working size."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from cyclegan.faces.align import Box

PHOTO_SIDE = 800
"""Long side in pixels at which photos are searched: faces down to about 2.5 % of it are found."""

_LEAST_SIDE = 20  # MTCNN's smallest face; it fails on a picture smaller than that
_FILLS = 0.4  # a box covering more of its picture than this leaves MTCNN too little around it
_GREY = (127, 127, 127)  # landmarks spread less beside it than beside repeated edge pixels (p90 3.7 % against 6.9 %)
_SURROUNDINGS = 1 / 3  # what is then put around the picture on every side, as a share of its long side


@dataclass(frozen=True, eq=False)
class Face:
    """One face in a photo, in the photo's pixels."""

    box: Box
    landmarks: np.ndarray
    """float32 [5, 2]: left eye, right eye, nose, left and right mouth corner (x, y), as seen in the image."""
    score: float
    """MTCNN's confidence, 0..1."""

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


class FaceDetector:
    """MTCNN behind one method. Holds no state between calls, so threads may share it."""

    def __init__(self, device: str = "cpu", long_side: int = PHOTO_SIDE, min_score: float = 0.9):
        """``device`` is a torch device; faces scoring under ``min_score`` (mostly false or cut off) are dropped."""
        from facenet_pytorch import MTCNN  # slow to import, and the page should open before it is needed

        self.long_side = long_side
        self.min_score = min_score
        self._mtcnn = MTCNN(keep_all=True, device=device, post_process=False)

    def detect(self, photo: np.ndarray) -> list[Face]:
        """Return the faces of a photo (uint8 [H, W, 3]), largest first; none is an empty list."""
        height, width = photo.shape[:2]
        faces = self._search(photo)
        if not faces or max(face.area for face in faces) > _FILLS * height * width:
            # MTCNN misses a face that fills its picture, or squeezes its landmarks into the frame (their spread on
            # tight crops is 4.2 % of the side without surroundings, 1.7 % with): give it some.
            faces = self._search(photo, _SURROUNDINGS) or faces
        return sorted((_clip(face, height, width) for face in faces), key=lambda face: face.area, reverse=True)

    @torch.inference_mode()
    def inspect(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """MTCNN's last stage (O-Net) alone, on squares in which faces are expected: uint8 [N, 48, 48, 3].

        About a millisecond, where a search takes tens: enough to follow a face from frame to frame.

        Returns, in fractions of the square's side, boxes float32 [N, 4] (left, top, right, bottom) and landmarks
        [N, 5, 2], and scores [N].
        """
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).to(self._mtcnn.device, torch.float32)
        edges, points, scores = self._mtcnn.onet((x - 127.5) / 128)
        boxes = edges + torch.tensor([0, 0, 1, 1], device=edges.device)
        landmarks = points.reshape(-1, 2, 5).transpose(1, 2)
        return boxes.cpu().numpy(), landmarks.cpu().numpy(), scores[:, 1].cpu().numpy()

    def _search(self, photo: np.ndarray, surroundings: float = 0.0) -> list[Face]:
        height, width = photo.shape[:2]
        scale = min(1.0, self.long_side / (max(height, width) * (1 + 2 * surroundings)))
        small = photo
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        # Around the small picture, not the photo: the frame of a long panorama would take gigabytes.
        margin = round(max(small.shape[:2]) * surroundings)
        framed = cv2.copyMakeBorder(small, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=_GREY)
        if min(framed.shape[:2]) < _LEAST_SIDE:
            return []
        boxes, scores, landmarks = self._mtcnn.detect(framed, landmarks=True)
        if boxes is None:
            return []
        stretch = np.array([width / small.shape[1], height / small.shape[0]])
        return [
            Face(
                box=_box((box.reshape(2, 2) - margin) * stretch),
                landmarks=((points - margin) * stretch).astype(np.float32),
                score=float(score),
            )
            for box, score, points in zip(boxes, scores, landmarks, strict=True)
            if score >= self.min_score
        ]


def _box(values: np.ndarray) -> Box:
    left, top, right, bottom = (float(value) for value in values.flat)
    return left, top, right, bottom


def _clip(face: Face, height: int, width: int) -> Face:
    left, top, right, bottom = face.box
    box = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
    return Face(box, face.landmarks, face.score)
