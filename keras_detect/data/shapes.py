"""Synthetic data sets drawn with Pillow: shapes of several classes, and stick figures with keypoints, with exact boxes.

It needs no download and is the same on every run. A box is the tight bound of the pixels its shape was drawn on, also
of those that a later shape covers.
"""

import math
import pathlib
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


# --- stick figures ---------------------------------------------------------------------------------------------------

KEYPOINT_NAMES = ("head", "neck", "hip", "left_hand", "right_hand", "left_foot", "right_foot")
SKELETON = ((0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6))
# The smallest and the largest figure, as parts of the shorter side of the image: 1 : 8.
_HEIGHTS = (0.11, 0.88)
_LINE, _HEAD, _END = 0.035, 0.1, 0.045  # half the width of a line, and the radii of head and hands, by the height
_SHOWN = 0.6  # of a figure's pixels, at least
_TRIALS = 20
_OCCLUDED = 0.3  # share of the figures that something is put in front of


def figures_dataset(
    num_images: int,
    seed: int = 0,
    image_size: Any = (192, 224),
    max_figures: int = 4,
    photo_share: float = 0.7,
    noise: float = 5.0,
) -> DetectionDataset:
    """Draws a data set of stick figures with seven keypoints each, on pieces of a photo and on drawn ground.

    A figure's height is drawn from 0.11 to 0.88 of the image's shorter side, on a logarithmic scale. Figures bend
    their limbs, lean, overlap, and stand behind pieces of the background; of each, at least 60 % can be seen. They face
    the viewer: the left hand is at the right side of the image. A keypoint that something is in front of has the
    visibility 1, others 2.

    Args:
        num_images: how many images.
        seed: int; image `i` depends on `seed` and `i` alone, so a longer set begins like a shorter one.
        image_size: an int for square images, or `(smallest, largest)` for sides drawn from that range, in pixels.
        max_figures: most figures on an image.
        photo_share: share of images on a piece of the photo that ships with the package.
        noise: standard deviation of the noise added to every pixel, in gray levels.

    Returns:
        `DetectionDataset` of the class "figure" with the images in memory, `KEYPOINT_NAMES` and `SKELETON`.

    Raises:
        ValueError: sizes below 64 pixels, or no images or figures.
    """
    low, high = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not 64 <= low <= high:
        raise ValueError(f"image_size must be at least 64 pixels. Received: image_size={image_size}")
    if num_images < 1 or max_figures < 1:
        raise ValueError(
            "num_images and max_figures must be at least 1. "
            f"Received: num_images={num_images}, max_figures={max_figures}"
        )
    photo = _photo()
    examples: list[dict[str, Any]] = []
    for i in range(num_images):
        rng = np.random.default_rng([seed, i])
        height, width = (int(side) for side in rng.integers(low, high + 1, 2)) if low < high else (low, low)
        on_photo = rng.uniform() < photo_share
        canvas = _piece(rng, photo, height, width) if on_photo else _ground(rng, height, width)
        figures = _draw_figures(rng, canvas, int(rng.integers(1, max_figures + 1)))
        canvas += rng.normal(0.0, noise, canvas.shape)
        examples.append(
            {
                "image": np.clip(np.rint(canvas), 0, 255).astype(np.uint8),
                "boxes": np.reshape([figure["box"] for figure in figures], (-1, 4)),
                "labels": np.zeros(len(figures), np.int32),
                "keypoints": np.reshape([figure["points"] for figure in figures], (-1, len(KEYPOINT_NAMES), 2)),
                "keypoint_visibility": np.reshape(
                    [figure["visibility"] for figure in figures], (-1, len(KEYPOINT_NAMES))
                ),
                "file_name": f"figures_{seed}_{i:05d}.png",
            }
        )
    return DetectionDataset.from_examples(examples, ["figure"], keypoint_names=KEYPOINT_NAMES, skeleton=SKELETON)


def _photo():
    path = pathlib.Path(__file__).parents[1] / "photos" / "control_room.jpg"
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _piece(rng, photo, height, width):
    """float [height, width, 3]: a piece of the photo at another scale, perhaps mirrored, darker or brighter."""
    most = min(photo.shape[0] / height, photo.shape[1] / width)
    scale = rng.uniform(min(0.5, most), min(1.4, most))
    sides = (np.array([height, width]) * scale).astype(int)
    top, left = (int(rng.integers(0, room + 1)) for room in np.array(photo.shape[:2]) - sides)
    piece = Image.fromarray(photo[top : top + sides[0], left : left + sides[1]])
    pixels = np.asarray(piece.resize((width, height), Image.Resampling.BILINEAR), np.float64)
    pixels = pixels[:, :: int(rng.choice([-1, 1]))]
    return np.clip((pixels - 128.0) * rng.uniform(0.6, 1.1) + 128.0 + rng.uniform(-30, 30), 0, 255)


def _draw_figures(rng, canvas, count):
    """Draws figures onto the canvas, the largest first, and returns a dict of each: box, points, visibility."""
    height, width = canvas.shape[:2]
    bounds = np.log(np.array(_HEIGHTS) * min(height, width))
    drawn: list[dict[str, Any]] = []
    for tall in sorted(np.exp(rng.uniform(*bounds, count)), reverse=True):
        for _ in range(_TRIALS):
            points = _pose(rng) * tall
            room = np.array([height, width]) - np.ptp(points, axis=0) - 2 * _HEAD * tall
            if (room < 0).any():
                continue
            points += rng.uniform(0, 1, 2) * room - points.min(axis=0) + _HEAD * tall
            coverage = _figure(points, tall, height, width)
            solid = coverage >= _HALF
            if solid.any() and all(_shows(figure, solid) for figure in drawn):
                _put(canvas, coverage, _color(rng, canvas[solid].mean(axis=0)))
                for figure in drawn:
                    figure["visible"] &= ~solid
                drawn.append({"points": points, "visible": solid, "area": solid.sum(), "box": tight_box(solid)})
                _occlude(rng, canvas, drawn, tall)
                break
    sides = np.array([height, width])
    return [
        {
            "box": np.array(figure["box"]) / np.tile(sides, 2),
            "points": figure["points"] / sides,
            "visibility": [2 if _seen(figure["visible"], point) else 1 for point in figure["points"]],
        }
        for figure in drawn
    ]


def _pose(rng):
    """[7, 2] float64, y and x of the keypoints of a figure of height 1."""
    arms, legs = rng.uniform(-1.2, 1.2, 2), rng.uniform(0.1, 0.7, 2)
    neck, hip = np.array([-0.28, 0.0]), np.array([0.08, 0.0])
    hands = [
        neck + 0.36 * np.array([np.sin(angle), side * np.cos(angle)]) for angle, side in zip(arms, (1, -1), strict=True)
    ]
    feet = [
        hip + 0.44 * np.array([np.cos(angle), side * np.sin(angle)]) for angle, side in zip(legs, (1, -1), strict=True)
    ]
    points = np.array([[-0.4, 0.0], neck, hip, *hands, *feet])
    lean = rng.uniform(-0.45, 0.45)
    turn = np.array([[math.cos(lean), -math.sin(lean)], [math.sin(lean), math.cos(lean)]])
    return points @ turn.T


def _figure(points, tall, height, width):
    """uint8 [height, width], 255 where the figure covers a pixel wholly."""
    low = np.maximum(np.floor(points.min(axis=0) - _HEAD * tall).astype(int) - 1, 0)
    high = np.minimum(np.ceil(points.max(axis=0) + _HEAD * tall).astype(int) + 2, [height, width])
    image = Image.new("L", tuple(((high - low) * _OVERSAMPLING)[::-1].tolist()), 0)
    pen = ImageDraw.Draw(image)
    places = ((points - low) * _OVERSAMPLING)[:, ::-1]
    line = max(2 * _LINE * tall, 1.6) * _OVERSAMPLING
    for first, last in SKELETON:
        pen.line([*places[first], *places[last]], fill=255, width=round(line))
    radii = [_HEAD, _LINE, _LINE, *[_END] * 4]
    for (x, y), radius in zip(places, radii, strict=True):
        reach = max(radius * tall * _OVERSAMPLING, line / 2)
        pen.ellipse([x - reach, y - reach, x + reach, y + reach], fill=255)
    coverage = np.zeros((height, width), np.uint8)
    coverage[low[0] : high[0], low[1] : high[1]] = np.asarray(image.reduce(_OVERSAMPLING))
    return coverage


def _color(rng, under):
    """float [3]: a color that stands out from what is under it."""
    color = rng.uniform(0, 255, 3)
    while np.abs(color - under).max() < 90:
        color = rng.uniform(0, 255, 3)
    return color


def _put(canvas, coverage, color):
    alpha = (coverage / 255.0)[:, :, None]
    canvas[:] = canvas * (1.0 - alpha) + color * alpha


def _occlude(rng, canvas, drawn, tall):
    """Sometimes puts a patch of one color in front of the last figure, where all of them can still be seen."""
    if rng.uniform() >= _OCCLUDED:
        return
    middle = drawn[-1]["points"][rng.integers(len(KEYPOINT_NAMES))]
    half = rng.uniform(0.08, 0.16, 2) * tall
    top, left = np.maximum(np.round(middle - half).astype(int), 0)
    bottom, right = np.round(middle + half).astype(int)
    patch = np.zeros(canvas.shape[:2], bool)
    patch[top:bottom, left:right] = True
    if patch.any() and all(_shows(figure, patch) for figure in drawn):
        canvas[patch] = rng.uniform(0, 255, 3)
        for figure in drawn:
            figure["visible"] &= ~patch


def _shows(figure, over):
    return (figure["visible"] & ~over).sum() >= _SHOWN * figure["area"]


def _seen(visible, point):
    row, column = np.minimum(np.floor(point).astype(int), np.array(visible.shape) - 1)
    return bool(visible[row, column])
