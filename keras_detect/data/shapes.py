"""A synthetic data set drawn with Pillow: shapes of several classes on textured ground, with exact boxes.

It needs no download and is the same on every run. A box is the tight bound of the pixels its shape was drawn on, also
of those that a later shape covers.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from keras_detect.data.dataset import DetectionDataset
from keras_detect.registry import unknown_name

# Shapes are drawn this much larger and reduced, so that their edges are smooth.
_OVERSAMPLING = 3
# A pixel belongs to a shape if the shape covers at least half of it.
_HALF = 128
# An object that others cover by more than this is excluded from the ground truth: it could not be seen.
_HIDDEN = 0.7


def shapes_dataset(
    num_images: int,
    seed: int = 0,
    image_size: Any = (160, 192),
    class_names: Sequence[str] | None = None,
    max_objects: int = 6,
    empty_share: float = 0.05,
    noise: float = 8.0,
) -> DetectionDataset:
    """Draws a data set of shapes.

    Images differ in size and aspect ratio, ground (plain, gradient, stripes, checks, speckle), number, size, color
    and turn of the objects; objects may overlap, and one that is mostly covered is not annotated.

    Args:
        num_images: how many images.
        seed: int; image `i` depends on `seed` and `i` alone, so a longer set begins like a shorter one.
        image_size: an int for square images, or `(smallest, largest)` for sides drawn from that range, in pixels.
        class_names: a subset of `SHAPES`, in label order; None takes all.
        max_objects: most objects on an image.
        empty_share: share of images without any object.
        noise: standard deviation of the noise added to every pixel, in gray levels.

    Returns:
        `DetectionDataset` with the images in memory.

    Raises:
        ValueError: an unknown shape, or sizes below 16 pixels.
    """
    names = list(SHAPES) if class_names is None else list(class_names)
    for name in names:
        if name not in SHAPES:
            raise ValueError(unknown_name("shape", name, SHAPES))
    low, high = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not 16 <= low <= high:
        raise ValueError(f"image_size must be at least 16 pixels. Received: image_size={image_size}")
    if num_images < 1 or max_objects < 1:
        raise ValueError(
            "num_images and max_objects must be at least 1. "
            f"Received: num_images={num_images}, max_objects={max_objects}"
        )
    images = []
    for i in range(num_images):
        rng = np.random.default_rng([seed, i])
        height, width = (int(side) for side in rng.integers(low, high + 1, 2)) if low < high else (low, low)
        count = 0 if rng.uniform() < empty_share else int(rng.integers(1, max_objects + 1))
        images.append(_draw_image(rng, height, width, names, count, noise))
    drawn, boxes, labels = zip(*images, strict=True)
    file_names = [f"shapes_{seed}_{i:05d}.png" for i in range(num_images)]
    return DetectionDataset.from_arrays(drawn, boxes, labels, names, file_names=file_names)


def _draw_image(rng, height, width, names, count, noise):
    """`(image uint8 [H, W, 3], boxes [n, 4] normalized yxyx, labels [n])`."""
    canvas = _ground(rng, height, width)
    drawn = []
    for _ in range(count):
        label = int(rng.integers(len(names)))
        (top, left), coverage = _stamp(rng, height, width, SHAPES[names[label]])
        region = canvas[top : top + coverage.shape[0], left : left + coverage.shape[1]]
        solid = np.zeros((height, width), bool)
        solid[top : top + coverage.shape[0], left : left + coverage.shape[1]] = coverage >= _HALF
        if solid.sum() < 16:
            continue
        alpha = (coverage / 255.0)[:, :, None]
        under = region[coverage >= _HALF].mean(axis=0)
        region[:] = region * (1.0 - alpha) + _paint(rng, coverage.shape, under) * alpha
        for earlier in drawn:
            earlier["visible"] &= ~solid
        drawn.append({"label": label, "area": solid.sum(), "box": tight_box(solid), "visible": solid})
    kept = [entry for entry in drawn if entry["visible"].sum() >= (1.0 - _HIDDEN) * entry["area"]]
    canvas = canvas + rng.normal(0.0, noise, canvas.shape)
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    boxes = np.array([entry["box"] for entry in kept], np.float64).reshape(-1, 4) / np.array([height, width] * 2)
    return image, boxes, np.array([entry["label"] for entry in kept], np.int32)


def tight_box(mask):
    """`(ymin, xmin, ymax, xmax)` in pixels around the true entries of a boolean [H, W] mask: far edges, not indices."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _stamp(rng, height, width, outline):
    """`((top, left), coverage)`: the part of the image a shape may touch, and uint8 [h, w], 255 where it covers a
    pixel wholly. The shape may leave the image by a little."""
    radius = rng.uniform(0.07, 0.3) * min(height, width)
    squash = rng.uniform(0.75, 1.0)
    angle = rng.uniform(0.0, 2.0 * math.pi)
    center = np.array([rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    low = np.maximum(np.floor(center - radius).astype(int), 0)
    high = np.minimum(np.ceil(center + radius).astype(int) + 1, [width, height])
    image = Image.new("L", tuple(((high - low) * _OVERSAMPLING).tolist()), 0)
    pen = ImageDraw.Draw(image)
    for points, value in outline:
        placed = (np.asarray(points) * [1.0, squash] @ turn.T * radius + center - low) * _OVERSAMPLING
        pen.polygon([tuple(point) for point in placed.tolist()], fill=value)
    return (int(low[1]), int(low[0])), np.asarray(image.reduce(_OVERSAMPLING))


def _ground(rng, height, width):
    """float [H, W, 3]: two colors mixed by a texture."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    angle, period = rng.uniform(0.0, math.pi), rng.uniform(8.0, 40.0)
    along = x * math.cos(angle) + y * math.sin(angle)
    kind = int(rng.integers(5))
    if kind == 0:
        mix = np.zeros((height, width))
    elif kind == 1:
        mix = (along - along.min()) / max(float(np.ptp(along)), 1.0)
    elif kind == 2:
        mix = 0.5 + 0.5 * np.sin(2.0 * math.pi * along / period)
    elif kind == 3:
        mix = ((x // period + y // period) % 2).astype(np.float64)
    else:
        coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2)).astype(np.uint8)
        mix = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / 255.0
    first = rng.uniform(40, 215, 3)
    second = np.clip(first + rng.uniform(-50, 50, 3), 0, 255)
    return first + (second - first) * mix[:, :, None]


def _paint(rng, shape, under):
    """float [h, w, 3]: a color that stands out from what is under it, shaded along one direction."""
    color = rng.uniform(0, 255, 3)
    while np.abs(color - under).max() < 70:
        color = rng.uniform(0, 255, 3)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    angle = rng.uniform(0.0, 2.0 * math.pi)
    shade = 1.0 + 0.15 * (x * math.cos(angle) + y * math.sin(angle))
    return np.clip(color * shade[:, :, None], 0, 255)


def _regular(corners, radius=1.0, inner=None):
    """Corners of a regular polygon, or of a star where `inner` is the radius of its notches."""
    steps = corners if inner is None else 2 * corners
    angles = 2.0 * np.pi * np.arange(steps) / steps - np.pi / 2.0
    radii = np.full(steps, radius)
    if inner is not None:
        radii[1::2] = inner
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


_ARM, _REACH = 0.32, 1.0


def _cross():
    corners = [(_ARM, _REACH), (_ARM, _ARM), (_REACH, _ARM)]
    points = []
    for quarter in range(4):
        cos, sin = (1, 0, -1, 0)[quarter], (0, 1, 0, -1)[quarter]
        points += [(x * cos - y * sin, x * sin + y * cos) for x, y in reversed(corners)]
    return points


# name -> polygons drawn one over the other, each with its corners (x, y) in a circle of radius 1 and a fill: 255 adds,
# 0 cuts out again. Round shapes are polygons of 48 corners, so that they turn and squash like the others.
SHAPES = {
    "circle": ((_regular(48), 255),),
    "square": ((_regular(4), 255),),
    "triangle": ((_regular(3), 255),),
    "star": ((_regular(5, inner=0.42), 255),),
    "ring": ((_regular(48), 255), (_regular(48, radius=0.55), 0)),
    "cross": ((_cross(), 255),),
}
