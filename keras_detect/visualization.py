"""Objects on an image, readable at any size: boxes, names, masks, keypoints; ground truth beside detections."""

import colorsys
import csv
import io
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_detect import schema
from keras_detect.data.image import as_pixels, as_uint8
from keras_detect.data.pasting import paste
from keras_detect.files import write_file

__all__ = [
    "class_color",
    "draw_boxes",
    "draw_dataset",
    "draw_gallery",
    "draw_learning_curve",
    "draw_objects",
    "draw_side_by_side",
    "draw_statistics",
]

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_GROUND = (24, 24, 24)
# Smaller letters than this cannot be read, so an image that would need them is enlarged first.
_SMALLEST_FONT = 11
_SMALLEST_SIDE = 320
_CLASSES_SHOWN = 30
_MASK_OPACITY = 0.45


def class_color(label: int) -> tuple[int, ...]:
    """The color of a class, an RGB triple in 0...255: the same on every image, and far from its neighbors'.

    Hues follow the golden ratio, which keeps any first n of them apart; lightness alternates.
    """
    hue = (0.02 + label * 0.61803398875) % 1.0
    saturation, value = ((0.85, 0.95), (0.65, 1.0), (1.0, 0.7))[label % 3]
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))


def draw_boxes(
    image: Any,
    boxes: Any,
    labels: Any,
    scores: Any = None,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.0,
    enlarge: bool = True,
) -> Image.Image:
    """`draw_objects` of boxes alone.

    Args:
        image: see `draw_objects`.
        boxes: [n, 4] normalized yxyx.
        labels: [n] int; rows below 0 are padding and skipped.
        scores: [n] float, or None.
        class_names, score_threshold, enlarge: see `draw_objects`.

    Returns:
        A new Pillow image, RGB.

    Raises:
        ValueError: boxes, labels and scores of different number, or not an image.
    """
    objects = {schema.BOXES: boxes, schema.LABELS: labels, schema.SCORES: scores}
    return draw_objects(image, objects, class_names, score_threshold, enlarge=enlarge)


def draw_objects(
    image: Any,
    objects: dict[str, Any],
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.0,
    skeleton: Sequence[tuple[int, int]] = (),
    enlarge: bool = True,
) -> Image.Image:
    """Draws objects with their class names and scores, and with masks, keypoints and other fields that have a place.

    Boxes are outlined, masks translucent with a contour, keypoints are dots (hollow where the annotation says hidden),
    joined by the skeleton. Line width and letters grow with the image; a name never leaves it, and names avoid one
    another where there is room. An image smaller than 320 pixels is enlarged by a whole factor so that the names can be
    read.

    Args:
        image: an array [H, W, 3] in 0...255, a Pillow image, a path,
            bytes or an open file, turned upright as its EXIF orientation says.
        objects: dict of rows of `schema.object_fields`, of an example, of one image of y or of detections: `"boxes"`
            [n, 4] normalized yxyx, `"labels"` [n] int (rows below 0 are padding and skipped), optional `"scores"` [n],
            `"masks"` [n, h, w] over the image or, of objects with scores (detections), over the boxes, `"keypoints"`
            [n, N, 2] normalized yx with `"keypoint_visibility"` or `"keypoint_scores"` [n, N] (0: not drawn),
            `"track_ids"` [n]. Others are drawn as they move: box, points, raster. `"num_detections"` is respected.
        class_names: names by label; a label without one is written as its number.
        score_threshold: rows with a lower score are skipped.
        skeleton: pairs `(first, last)` of keypoints that a line joins, such as a data set's `skeleton`.
        enlarge: whether a small image is enlarged.

    Returns:
        A new Pillow image, RGB.

    Raises:
        ValueError: fields of different numbers of rows, or not an image.
    """
    image = _to_image(image)
    factor = math.ceil(_SMALLEST_SIDE / max(image.size)) if enlarge else 1
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    fields = {field.key: field for field in schema.object_fields() if objects.get(field.key) is not None}
    columns = _columns(objects, fields)
    rows, scores = _shown_rows(columns, score_threshold), columns.get(schema.SCORES)
    line, font = _line_width(image), _font(image)
    colors = {i: class_color(int(columns[schema.LABELS][i])) for i in rows}
    for key, field in fields.items():
        if field.moves == schema.AS_RASTER:
            boxes = None if scores is None else columns[schema.BOXES]
            image = _with_rasters(image, columns[key], boxes, rows, colors, line)
    pen = ImageDraw.Draw(image)
    corners = {i: _pixel_corners(columns[schema.BOXES][i], image.size) for i in rows}
    for key, field in fields.items():
        for i in rows if field.moves == schema.AS_BOX else ():
            if np.isfinite(columns[key][i]).all():
                _outline(pen, _pixel_corners(columns[key][i], image.size), colors[i], line)
    for key, field in fields.items():
        for i in rows if field.moves == schema.AS_POINTS else ():
            seen = columns[field.visibility][i] if field.visibility in columns else None
            if key == schema.KEYPOINTS and schema.KEYPOINT_SCORES in columns:  # 0: the object has no such point
                seen = np.where(columns[schema.KEYPOINT_SCORES][i] > 0, 2, 0)
            lines = skeleton if key == schema.KEYPOINTS else ()
            _points(pen, columns[key][i].reshape(-1, 2), seen, lines, colors[i], line, image.size)
    taken: list[Any] = []
    for i in reversed(rows):
        text = _caption(int(columns[schema.LABELS][i]), None if scores is None else scores[i], class_names)
        track = columns.get(schema.TRACK_IDS)
        text += f" #{int(track[i])}" if track is not None and track[i] >= 0 else ""
        _tag(pen, corners[i], text, colors[i], font, image.size, taken)
    return image


def _columns(objects, fields):
    """The fields as arrays of one length, without the rows past `"num_detections"`."""
    columns = {key: np.asarray(objects[key]) for key in fields}
    columns[schema.BOXES] = columns[schema.BOXES].astype(np.float64).reshape(-1, 4)
    columns[schema.LABELS] = columns[schema.LABELS].reshape(-1)
    if len({len(column) for column in columns.values()}) > 1:
        counts = ", ".join(f"{len(column)} {key}" for key, column in columns.items())
        raise ValueError(f"Every box needs a label, and a row of every further field. Received: {counts}")
    if schema.NUM_DETECTIONS in objects:
        count = int(np.reshape(np.asarray(objects[schema.NUM_DETECTIONS]), -1)[0])
        columns = {key: column[:count] for key, column in columns.items()}
    return columns


def _shown_rows(columns, score_threshold):
    """Indices of the objects to draw; the best are drawn last, on top of the others."""
    boxes, labels, scores = (columns.get(key) for key in (schema.BOXES, schema.LABELS, schema.SCORES))
    rows = [i for i in range(len(boxes)) if labels[i] >= 0 and np.isfinite(boxes[i]).all()]
    if scores is not None:
        rows = sorted((i for i in rows if scores[i] >= score_threshold), key=lambda i: scores[i])
    return rows


def _with_rasters(image, rasters, boxes, rows, colors, line):
    """The image with each mask, over it or over its box, as a translucent color within a contour of `line` pixels."""
    pixels = np.asarray(image).astype(np.float32)
    for i in rows:
        if boxes is not None:
            mask = paste(rasters[i : i + 1], boxes[i : i + 1], image.size[::-1])[0] > 0
        else:
            mask = Image.fromarray((rasters[i] >= 0.5).astype(np.uint8) * 255)
            mask = np.asarray(mask.resize(image.size, Image.Resampling.NEAREST)) > 0
        inner = np.pad(mask, 1)
        for _ in range(line):
            middle = inner[1:-1, 1:-1]
            inner[1:-1, 1:-1] = middle & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        color = np.array(colors[i], np.float32)
        pixels[mask] += _MASK_OPACITY * (color - pixels[mask])
        pixels[mask & ~inner[1:-1, 1:-1]] = color
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _points(pen, points, visibility, skeleton, color, line, size):
    """Dots at [N, 2] normalized yx points and the lines between them; what is not annotated is skipped."""
    shown = np.isfinite(points).all(axis=1)
    shown &= True if visibility is None else np.reshape(visibility, -1) > 0
    places = np.where(shown[:, None], points, 0.0)[:, ::-1] * np.array(size)
    for first, last in skeleton:
        if max(first, last) < len(shown) and shown[first] and shown[last]:
            pen.line([*places[first], *places[last]], fill=color, width=line)
    radius = 1.5 * line
    for i in np.flatnonzero(shown):
        x, y = places[i]
        hidden = visibility is not None and np.reshape(visibility, -1)[i] == 1
        dot = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(dot, fill=None if hidden else color, outline=color if hidden else _BLACK)


def draw_side_by_side(
    image: Any,
    ground_truth: dict[str, Any],
    detections: dict[str, Any],
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.3,
    skeleton: Sequence[tuple[int, int]] = (),
) -> Image.Image:
    """The annotated image with its ground truth at the left and what a model found at the right, each with a caption.

    Args:
        image: see `draw_objects`.
        ground_truth: the objects of one image, see `draw_objects`.
        detections: what was found on it, with `"scores"`; see `draw_objects`.
        class_names: names by label.
        score_threshold: detections below it are skipped.
        skeleton: see `draw_objects`.

    Returns:
        A Pillow image, RGB.
    """
    left = draw_objects(image, ground_truth, class_names, skeleton=skeleton)
    right = draw_objects(image, detections, class_names, score_threshold, skeleton)
    found = {field.key: field for field in schema.object_fields() if detections.get(field.key) is not None}
    objects = int(np.sum(np.asarray(ground_truth[schema.LABELS]) >= 0))
    shown = len(_shown_rows(_columns(detections, found), score_threshold))
    captions = [f"ground truth: {objects}", f"found: {shown} (score from {score_threshold:g})"]
    return draw_gallery([left, right], captions=captions, columns=2)


def draw_gallery(
    images: Sequence[Any],
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    cell_size: tuple[int, int] | None = None,
) -> Image.Image:
    """Images in a grid, each scaled into its cell with its aspect ratio kept, and a caption over it.

    Args:
        images: sequence of images, see `draw_boxes`.
        captions: a line per image, or None.
        columns: images in a row; default: about as many as rows.
        cell_size: `(width, height)` of a cell in pixels; default: large enough for every image, up to 1600.

    Returns:
        A Pillow image, RGB.

    Raises:
        ValueError: no images, or another number of captions.
    """
    images = [_to_image(image) for image in images]
    if not images:
        raise ValueError("A gallery needs at least one image. Received none.")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"One caption per image is needed. Received: {len(images)} images, {len(captions)} captions")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    width, height = cell_size or (
        min(1600, max(image.width for image in images)),
        min(1600, max(image.height for image in images)),
    )
    font = ImageFont.load_default(max(_SMALLEST_FONT + 2, round(width / 26)))
    gap = max(4, round(width / 60))
    head = _text_size("", font)[1] + gap if captions is not None else 0
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + head + gap) + gap), _GROUND)
    pen = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        left, top = gap + (i % columns) * (width + gap), gap + (i // columns) * (height + head + gap)
        if captions is not None:
            pen.text((left, top), _shorten(captions[i], font, width), fill=_WHITE, font=font)
        scale = min(width / image.width, height / image.height)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        fitted = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(fitted, (left + (width - size[0]) // 2, top + head + (height - size[1]) // 2))
    return sheet


def draw_dataset(
    dataset: Any, count: int = 16, seed: int = 0, cell_size: tuple[int, int] | None = (480, 360)
) -> Image.Image:
    """A gallery of images of a data set, drawn at random, with their boxes and class names.

    Args:
        dataset: `DetectionDataset`.
        count: how many images, at most as many as there are.
        seed: int, of the choice.
        cell_size: see `draw_gallery`.

    Returns:
        A Pillow image, RGB.
    """
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.choice(len(dataset), min(count, len(dataset)), replace=False).tolist())
    examples = [dataset[i] for i in chosen]
    skeleton = getattr(dataset, "skeleton", ())
    drawn = [draw_objects(e["image"], e, dataset.class_names, skeleton=skeleton) for e in examples]
    captions = [f"{e['file_name']}: {len(e[schema.BOXES])}" for e in examples]
    return draw_gallery(drawn, captions=captions, cell_size=cell_size)


def draw_learning_curve(history: Any, path: str | os.PathLike[str]) -> None:
    """Plots the columns of a training history: losses at the left, validation metrics at the right.

    Args:
        history: dict of lists, as `fit` returns it in `History.history`, or the path of a CSV file
            with a row per epoch.
        path: the image to write (the suffix chooses the format).

    Raises:
        ValueError: a history without an epoch.
    """
    import matplotlib.figure  # the object interface: no window system, no global state

    columns = _read_history(history) if isinstance(history, str | os.PathLike) else dict(history)
    epochs = max((len(values) for values in columns.values()), default=0)
    if not epochs:
        raise ValueError(f"A learning curve needs at least one epoch. Received an empty history: {history}")
    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    losses, metrics = figure.subplots(1, 2)
    for name, values in columns.items():
        axes = losses if name.endswith("loss") else metrics if name.startswith("val_") else None
        points = [(epoch + 1, value) for epoch, value in enumerate(values) if value is not None]
        if axes is not None and points:
            axes.plot(*zip(*points, strict=True), label=name, marker="." if epochs < 40 else None)
    for axes, title in ((losses, "losses"), (metrics, "validation metrics")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    losses.set_yscale("log")
    save_figure(figure, path, dpi=110)


def draw_statistics(statistics: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Plots a data set: boxes per class, sides, aspect ratios, and the objects' shapes with the proposed anchors.

    Args:
        statistics: what `keras_detect.data.dataset_statistics` returns.
        path: the image to write (the suffix chooses the format).
    """
    import matplotlib.figure
    import matplotlib.ticker

    figure = matplotlib.figure.Figure(figsize=(12, 8), layout="constrained")
    (classes, sides), (ratios, shapes) = figure.subplots(2, 2)
    counts = sorted(statistics["boxes_per_class"].items(), key=lambda entry: -entry[1])
    shown = counts[:_CLASSES_SHOWN]
    classes.barh([_clipped(name) for name, _ in reversed(shown)], [count for _, count in reversed(shown)])
    more = f" (the first {len(shown)} of {len(counts)})" if len(counts) > len(shown) else ""
    classes.set(title=f"boxes per class{more}", xlabel="boxes")
    classes.tick_params(axis="y", labelsize=8)
    heights, widths = np.asarray(statistics["heights"]), np.asarray(statistics["widths"])
    for axes, values, title in (
        (sides, np.sqrt(heights * widths), "side of an object, root of its area, in pixels"),
        (ratios, widths / heights, "aspect ratio, width / height"),
    ):
        low, high = max(values.min(), 1e-3), max(values.max(), 2e-3)
        axes.hist(values, bins=np.geomspace(low * 0.99, high * 1.01, 40))
        axes.set(title=title, xscale="log", ylabel="objects")
    shapes.scatter(widths, heights, s=4, alpha=0.3, linewidths=0)
    anchors = np.asarray(statistics["proposed_anchors"])
    share = f"proposed anchors, match {statistics['matched_by_proposed']:.0%}"
    shapes.scatter(anchors[:, 1], anchors[:, 0], marker="x", color="black", label=share)
    if "matched_by_model" in statistics:
        label = f"today's {statistics['model_anchor_shapes']} shapes match {statistics['matched_by_model_shapes']:.0%}"
        shapes.plot([], [], " ", label=label)
    shapes.set(title="shapes, in pixels", xlabel="width", ylabel="height", xscale="log", yscale="log")
    shapes.legend(loc="lower right", fontsize=8)
    for axis in (sides.xaxis, ratios.xaxis, shapes.xaxis, shapes.yaxis):
        axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    save_figure(figure, path, dpi=110)


def save_image(image, path, **options):
    """Writes a Pillow image to a file, whole or not at all; the suffix chooses the format, `options` are Pillow's.

    Raises:
        ValueError: a suffix that Pillow does not know.
        OSError: the disk is full, or cannot be written to.
    """
    content = io.BytesIO()  # in memory first: Pillow does not notice that a file ends early
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in Image.registered_extensions():
        raise ValueError(f"An image is written as .png, .jpg or another format of Pillow's. Received: {path}")
    image.save(content, Image.registered_extensions()[suffix], **options)
    write_file(path, content.getvalue())


def save_figure(figure, path, **options):
    """Writes a matplotlib figure to a file, whole or not at all; the suffix chooses the format, .png without one.

    An open binary file is written to as it is.
    """
    if hasattr(path, "write"):
        figure.savefig(path, **options)
        return
    path = pathlib.Path(path)
    path = path if path.suffix else path.with_suffix(".png")
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], **options)
    write_file(path, content.getvalue())


def _clipped(name):
    return name if len(name) <= 24 else f"{name[:21]}..."


def _read_history(path):
    """Columns of a CSV file of a training run; an empty field is None."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = rows[0] if rows else ()
    return {name: [float(row[name]) if row[name] else None for row in rows] for name in names}


def _to_image(image):
    """A new RGB Pillow image, upright."""
    return Image.fromarray(as_uint8(as_pixels(image)))


def _line_width(image):
    return max(1, round(max(image.size) / 256))


def _font(image):
    return ImageFont.load_default(max(_SMALLEST_FONT, round(max(image.size) / 42)))


def _pixel_corners(box, size):
    """`(left, top, right, bottom)`: the box's first and last pixels inside the image."""
    width, height = size
    top, left, bottom, right = np.clip(box, 0.0, 1.0) * [height, width, height, width]
    left, top = min(math.floor(left), width - 1), min(math.floor(top), height - 1)
    return left, top, max(left, math.ceil(right) - 1), max(top, math.ceil(bottom) - 1)


def _outline(pen, corners, color, line):
    """The box in its color, with a dark rim where there is room, so that it shows on any ground."""
    left, top, right, bottom = corners
    if line > 1 and min(right - left, bottom - top) > 4 * line:
        pen.rectangle(corners, outline=_BLACK, width=line + max(1, line // 2))
    pen.rectangle(corners, outline=color, width=line)


def _caption(label, score, class_names):
    known = class_names is not None and label < len(class_names)
    name = str(class_names[label]) if known else f"class {label}"
    return name if score is None else f"{name} {score:.2f}"


def _tag(pen, corners, text, color, font, size, taken):
    """Writes `text` on a filled tag at the box: over it, else inside, else under it; never off the image."""
    margin = max(1, round(font.size / 6))
    text = _shorten(text, font, size[0] - 2 * margin)
    width, height = _text_size(text, font)
    width += 2 * margin
    left, top, _, bottom = corners
    x = max(0, min(left, size[0] - width))
    places = [(x, max(0, min(y, size[1] - height))) for y in (top - height, top, bottom - height, bottom)]
    tags = [(x, y, x + width, y + height) for x, y in places]
    tag = next((tag for tag in tags if not any(_meet(tag, other) for other in taken)), tags[0])
    taken.append(tag)
    pen.rectangle((tag[0], tag[1], tag[2] - 1, tag[3] - 1), fill=color)
    pen.text((tag[0] + margin, tag[1]), text, fill=_ink(color), font=font, anchor="la")


def _ink(color):
    """Black or white, whichever stands out more from `color` (relative luminance, WCAG 2.1)."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Contrast with black is (L + 0.05) / 0.05, with white 1.05 / (L + 0.05): equal at L = 0.179.
    return _BLACK if luminance > 0.179 else _WHITE


def _text_size(text, font):
    """`(width, height)` in pixels; the height is the font's, so that all tags are equally high."""
    return math.ceil(font.getlength(text)), sum(font.getmetrics())


def _shorten(text, font, width):
    """`text`, cut with an ellipsis where it is wider than `width` pixels."""
    if _text_size(text, font)[0] <= width:
        return text
    while text and _text_size(text + "…", font)[0] > width:
        text = text[:-1]
    return text + "…" if text else ""


def _meet(first, second):
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def __dir__():
    return __all__
