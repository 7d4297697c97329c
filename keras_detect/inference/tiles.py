"""Detection in overlapping tiles of an image, for objects that are small beside it."""

import collections
import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from keras import ops

from keras_detect import schema
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.inference.detections import Detections, named

_AT_BORDER = 0.02  # share of a tile's side: a box that ends nearer to an inner border is taken as cut there
_COVERED = 0.7  # share of a cut box that a larger detection covers where both are one object
_POOL = 1024  # candidates that suppression looks at together

Stream = Callable[[Iterable[np.ndarray]], Iterator[Detections]]


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
        tile: `(height, width)` of a tile in pixels.
        overlap: least share of a tile that its neighbor has too.
        whole_image: whether the image as a whole is seen, too.
    """

    tile: tuple[int, int]
    overlap: float = 0.2
    whole_image: bool = True

    @classmethod
    def checked(cls, tile: Any, overlap: Any, whole_image: bool) -> "Tiling":
        """The `Tiling` of arguments as users pass them; `tile` is an int or two. Raises `ValueError`."""
        sides = (tile, tile) if isinstance(tile, numbers.Integral) else tile
        if (
            not isinstance(sides, tuple | list)
            or len(sides) != 2
            or not all(isinstance(side, numbers.Integral) and not isinstance(side, bool) for side in sides)
            or min(sides) < 1
        ):
            raise ValueError(f"tile is an int or (height, width), in pixels, 1 or more. Received: tile={tile!r}")
        if isinstance(overlap, bool) or not isinstance(overlap, int | float | np.number) or not 0 <= overlap < 1:
            raise ValueError(
                f"overlap is the share of a tile that its neighbor has too, from 0 to below 1. Received: {overlap!r}"
            )
        return cls((int(sides[0]), int(sides[1])), float(overlap), bool(whole_image))

    def windows(self, height: int, width: int) -> np.ndarray:
        """The parts of an image of `height` x `width` pixels that are seen, the whole image last.

        Returns:
            `[T, 4]` int: top, left, bottom, right, in pixels. Tiles have one size and are evenly spread.
        """
        rows, columns = (
            _starts(side, min(tile, side), self.overlap) for side, tile in zip((height, width), self.tile, strict=True)
        )
        tile_height, tile_width = min(self.tile[0], height), min(self.tile[1], width)
        windows = [(top, left, top + tile_height, left + tile_width) for top in rows for left in columns]
        if self.whole_image and len(windows) > 1:
            windows.append((0, 0, height, width))
        return np.asarray(windows, np.int64)


def _starts(side, tile, overlap):
    """Where the tiles of a side begin: the first at its start, the last at its end."""
    stride = max(1.0, tile * (1.0 - overlap))
    count = 1 + math.ceil(round((side - tile) / stride, 6))
    return np.linspace(0, side - tile, count).round().astype(int).tolist()


def detect_tiles(
    detector, images: Iterable[np.ndarray], tiling: Tiling, score_threshold: float, detect: Stream
) -> Iterator[Detections]:
    """The detections of each image in turn, merged from its tiles.

    Args:
        detector: has `class_names`, and `final_suppression` where it suppresses at all.
        images: arrays `[H, W, 3]`.
        tiling: `Tiling`.
        score_threshold: detections below it are skipped.
        detect: takes an iterable of tiles `[h, w, 3]` and yields the `Detections` of each in turn. It may read ahead;
            tiles of several images share its batches.
    """
    waiting = collections.deque[tuple[tuple[int, int], np.ndarray]]()

    def parts():
        for image in images:
            height, width = image.shape[:2]
            windows = tiling.windows(height, width)
            waiting.append(((height, width), windows))
            for top, left, bottom, right in windows:
                yield image[top:bottom, left:right]

    found = detect(parts())
    for first in found:
        size, windows = waiting.popleft()
        results = [first, *(next(found) for _ in windows[1:])]
        yield results[0] if len(results) == 1 else merged(detector, results, windows, size, score_threshold)


def merged(
    detector, parts: list[Detections], windows: np.ndarray, image_size: tuple[int, int], score_threshold: float
) -> Detections:
    """The detections of one image from those of its parts.

    Args:
        detector: see `detect_tiles`.
        parts: the detections in each window.
        windows: `[T, 4]` int: top, left, bottom, right, in pixels of the image.
        image_size: `(height, width)` of the image in pixels.
        score_threshold: detections whose score suppression lowers below it are skipped.
    """
    fields = [field for field in schema.object_fields(schema.DETECTIONS) if field.key in parts[0]]
    origin = np.repeat(np.arange(len(parts)), [len(part[schema.LABELS]) for part in parts])
    columns = {
        field.key: np.concatenate(
            [_in_image(field, part[field.key], window, image_size) for part, window in zip(parts, windows, strict=True)]
        )
        for field in fields
    }
    nms = getattr(detector, "final_suppression", None) or MulticlassNonMaxSuppression()
    cut = np.concatenate([_is_cut(p[schema.BOXES], w, image_size) for p, w in zip(parts, windows, strict=True)])
    keep = ~_covered(columns, origin, cut, nms.class_agnostic)
    columns = {key: column[keep] for key, column in columns.items()}
    rows, scores = _suppressed(nms, columns)
    strong = scores >= score_threshold
    columns = {key: column[rows[strong]] for key, column in columns.items()}
    columns[schema.SCORES] = scores[strong]
    return named(columns, detector.class_names, image_size)


def _in_image(field, values, window, image_size):
    """The values of a field in a window, moved as the table of `schema` says, so that they refer to the image."""
    corner, far = np.asarray(window[:2]), np.asarray(window[2:])
    scale = ((far - corner) / np.asarray(image_size)).astype(np.float32)
    shift = (corner / np.asarray(image_size)).astype(np.float32)
    if field.moves == schema.AS_BOX:
        return values * np.tile(scale, 2) + np.tile(shift, 2)
    if field.moves == schema.AS_POINTS:
        return values * scale + shift
    return values  # a raster lies over its box, which moves


def _is_cut(boxes, window, image_size):
    """`[n]` bool: which boxes, normalized to the window, end at a border of it that is not the image's."""
    inner_start = np.asarray(window[:2]) > 0
    inner_end = np.asarray(window[2:]) < np.asarray(image_size)
    at_start = (boxes[:, :2] <= _AT_BORDER) & inner_start
    at_end = (boxes[:, 2:] >= 1.0 - _AT_BORDER) & inner_end
    return (at_start | at_end).any(axis=1)


def _covered(columns, origin, cut, class_agnostic):
    """`[n]` bool: the cut boxes that a larger detection of the same class in another part covers."""
    boxes, labels = columns[schema.BOXES].astype(np.float64), columns[schema.LABELS]
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    covered = np.zeros(len(boxes), bool)
    for row in np.flatnonzero(cut):
        sides = np.minimum(boxes[row, 2:], boxes[:, 2:]) - np.maximum(boxes[row, :2], boxes[:, :2])
        shared = np.prod(np.maximum(sides, 0.0), axis=1)
        other = (origin != origin[row]) & (areas > areas[row])
        if not class_agnostic:
            other &= labels == labels[row]
        covered[row] = (shared[other] >= _COVERED * areas[row]).any()
    return covered


def _suppressed(nms, columns):
    """`(rows, scores)` of what suppression leaves, best first."""
    boxes, scores, labels = columns[schema.BOXES], columns[schema.SCORES], columns[schema.LABELS]
    count = len(boxes)
    if not count:
        return np.zeros(0, np.int64), scores
    present, column = np.unique(labels, return_inverse=True)
    rows = _power_of_two(count)  # few shapes, since each may be compiled
    classes = np.full((rows, _power_of_two(len(present))), -np.inf, np.float32)
    classes[np.arange(count), column] = scores
    padded = np.zeros((rows, 4), np.float32)
    padded[:count] = boxes
    nms = dataclasses.replace(nms, max_detections_per_class=rows, max_total_detections=rows, pool_size=min(rows, _POOL))
    found = nms(padded[None], classes[None], num_valid=np.asarray([count], np.int32))
    number = int(ops.convert_to_numpy(found.num_detections)[0])
    indices, kept = (ops.convert_to_numpy(value)[0, :number] for value in (found.indices, found.scores))
    return indices.astype(np.int64), kept


def _power_of_two(number):
    return 1 << (number - 1).bit_length()
