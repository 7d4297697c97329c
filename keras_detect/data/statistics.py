"""What a data set looks like in numbers: classes, sizes, aspect ratios, and anchors that would fit its objects."""

import os
import pathlib
from typing import Any

import numpy as np

from keras_detect import schema
from keras_detect.files import replacing_files, write_json
from keras_detect.visualization import draw_dataset, draw_statistics, save_image

# COCO's bounds between small, medium and large objects: areas in pixels.
_SMALL, _LARGE = 32.0**2, 96.0**2
_THRESHOLD = 0.5
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)
# More objects say nothing new about shapes.
_MOST = 20_000
_PAIRS = 1_000_000


def dataset_statistics(
    dataset: Any, model: Any = None, num_anchors: int = 9, image_size: Any = None, seed: int = 0
) -> dict[str, Any]:
    """Counts and distributions of a data set's objects.

    Sizes are measured in the image the network sees: resized by the model's resizer, or to `image_size`, else as
    stored. Anchors are proposed by k-means over heights and widths with the distance 1 - IoU of boxes about one center
    (Redmon and Farhadi 2017, section 2).

    Args:
        dataset: `DetectionDataset`.
        model: a model whose anchors are compared with the proposed ones, or None.
        num_anchors: how many shapes to propose.
        image_size: `(height, width)` or one side in pixels that images are stretched to; None without a model: as
            stored.
        seed: int, of the start of k-means.

    Returns:
        dict: `"images"`, `"boxes"`, `"crowds"`, `"empty_images"`; `"boxes_per_class"` `{name: count}`;
        `"boxes_per_image"`, `"object_sides"` (root of the area, pixels) and `"aspect_ratios"` (width / height) as
        `{"0%": ..., ..., "100%": ...}`; `"sizes"` `{"small", "medium", "large"}`, as COCO counts, on stored images;
        `"proposed_anchors"` [[height, width], ...] in pixels, the smallest first, `"matched_by_proposed"` the share of
        objects whose shape has an IoU of 0.5 or more with one of them; with a model `"matched_by_model_shapes"`, the
        same for the shapes of its own anchors, and `"matched_by_model"`, the share of objects that one of its anchors
        overlaps by its matcher's threshold where it stands (`"model_threshold"`). `"heights"` and `"widths"`: [n]
        arrays in pixels.

    Raises:
        ValueError: the data set has no object, or `num_anchors` is below 1.
    """
    if num_anchors < 1:
        raise ValueError(f"num_anchors must be at least 1. Received: num_anchors={num_anchors}")
    shapes, stored = _shapes(dataset, model, image_size)
    if not len(shapes):
        raise ValueError("Statistics need at least one object. Received a data set without any.")
    counts = np.bincount(np.concatenate([record.labels for record in dataset.records]), minlength=1)
    counts = np.pad(counts, (0, len(dataset.class_names) - len(counts)))
    per_image = np.array([len(record.boxes) for record in dataset.records])
    stored_areas = stored.prod(axis=1)
    small, large = int((stored_areas < _SMALL).sum()), int((stored_areas >= _LARGE).sum())
    anchors = propose_anchors(shapes, num_anchors, seed)
    result = {
        "images": len(dataset),
        "boxes": len(shapes),
        "crowds": int(sum(record.is_crowd.sum() for record in dataset.records)),
        "empty_images": int((per_image == 0).sum()),
        "boxes_per_class": {name: int(count) for name, count in zip(dataset.class_names, counts, strict=True)},
        "boxes_per_image": _quantiles(per_image),
        "object_sides": _quantiles(np.sqrt(shapes.prod(axis=1))),
        "aspect_ratios": _quantiles(shapes[:, 1] / shapes[:, 0]),
        "sizes": {"small": small, "medium": len(shapes) - small - large, "large": large},
        "proposed_anchors": anchors.round(1).tolist(),
        "matched_by_proposed": _share(_best_shape_iou(shapes, anchors) >= _THRESHOLD),
        "heights": shapes[:, 0],
        "widths": shapes[:, 1],
    }
    return result if model is None else result | _of_model(dataset, model, shapes)


def statistics_table(statistics):
    """The result of `dataset_statistics` as lines of text."""
    rows = [(key, statistics[key]) for key in ("images", "empty_images", "boxes", "crowds")]
    rows += [(f"{name} objects (COCO)", count) for name, count in statistics["sizes"].items()]
    rows += [(f"boxes of {name}", count) for name, count in statistics["boxes_per_class"].items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}} {count:>9}" for name, count in rows]
    heads = list(statistics["object_sides"])
    lines += ["", f"{'quantile':<{width}} " + " ".join(f"{head:>9}" for head in heads)]
    for key, title in (
        ("boxes_per_image", "boxes per image"),
        ("object_sides", "side, pixels"),
        ("aspect_ratios", "width / height"),
    ):
        lines.append(f"{title:<{width}} " + " ".join(f"{value:>9.4g}" for value in statistics[key].values()))
    shapes = ", ".join(f"{height:g} x {width_:g}" for height, width_ in statistics["proposed_anchors"])
    lines += ["", f"k-means anchors, height x width in pixels: {shapes}"]
    lines.append(f"objects whose shape they match (IoU 0.5): {statistics['matched_by_proposed']:.1%}")
    if "matched_by_model" in statistics:
        lines.append(f"... the model's current anchors: {statistics['matched_by_model_shapes']:.1%}")
        threshold = f"{statistics['model_threshold']:g}"
        lines.append(f"... at their actual positions (IoU {threshold}): {statistics['matched_by_model']:.1%}")
    return "\n".join(lines)


def propose_anchors(shapes, count, seed=0, steps=100):
    """[k, 2] shapes that fit [n, 2] shapes (height, width), k = `count` or the number of different ones if fewer.

    Lloyd's algorithm with the distance 1 - IoU and the median as a cluster's center, started as k-means++ does; the
    smallest area first. The same seed gives the same anchors.
    """
    rng = np.random.default_rng(seed)
    shapes = np.asarray(shapes, np.float64)
    if len(shapes) > _MOST:
        shapes = shapes[rng.choice(len(shapes), _MOST, replace=False)]
    centers = shapes[rng.integers(len(shapes))][None]
    while len(centers) < count:
        far = (1.0 - shape_iou(shapes, centers).max(axis=1)).clip(0.0) ** 2
        if far.sum() <= 1e-12:
            break
        centers = np.concatenate([centers, shapes[rng.choice(len(shapes), p=far / far.sum())][None]])
    nearest = None
    for _ in range(steps):
        before, nearest = nearest, shape_iou(shapes, centers).argmax(axis=1)
        if before is not None and (before == nearest).all():
            break
        groups = [shapes[nearest == number] for number in range(len(centers))]
        medians = [np.median(group, axis=0) if len(group) else centers[i] for i, group in enumerate(groups)]
        centers = np.stack(medians)
    return centers[np.argsort(centers.prod(axis=1), kind="stable")]


def shape_iou(first, second):
    """[n, m] IoU of boxes about one center, of [n, 2] and [m, 2] heights and widths."""
    both = np.minimum(first[:, None], second[None]).prod(axis=-1)
    union = first.prod(axis=-1)[:, None] + second.prod(axis=-1)[None] - both
    return both / np.maximum(union, 1e-12)


def _best_shape_iou(shapes, others):
    """[n] largest `shape_iou` of each of [n, 2] shapes, a million pairs at a time: clipped anchors have many shapes."""
    step = max(1, _PAIRS // len(others))
    parts = [shape_iou(shapes[start : start + step], others).max(axis=1) for start in range(0, len(shapes), step)]
    return np.concatenate(parts)


def model_anchors(model, dataset):
    """`(anchors [A, 4] in pixels yxyx, (height, width) of the canvas)` of a model on the images of a data set.

    Raises:
        ValueError: the model has no anchors.
    """
    import keras

    height = max(record.image.height for record in dataset.records)
    width = max(record.image.width for record in dataset.records)
    canvas = tuple(int(side) for side in model.resizer.output_shape(height, width, padded=True))
    predictions = model(np.zeros((1, *canvas, 3), np.float32), training=False)
    if schema.ANCHORS not in predictions:
        raise ValueError(f"The model has no anchors to compare the objects with. Received: {type(model).__name__}")
    anchors = np.asarray(keras.ops.convert_to_numpy(predictions[schema.ANCHORS]), np.float64).reshape(-1, 4)
    return anchors * np.array([*canvas, *canvas]), canvas


def matched_threshold(model):
    """The IoU from which the model's matcher calls an anchor positive; 0.5 where it has none.

    Of two stages it is the first one's, which has the anchors.
    """
    stage = getattr(model, "proposal_stage", model)
    matcher = getattr(getattr(stage, "target_assigner", None), "matcher", None)
    return getattr(matcher, "matched_threshold", None) or _THRESHOLD


def best_overlaps(dataset, model):
    """Yields `(record, [n] largest IoU of each object with an anchor)` for the records with objects; no crowds."""
    anchors, _ = model_anchors(model, dataset)
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(axis=1)
    for record in dataset.records:
        rows = ~record.is_crowd
        if not rows.any():
            continue
        size = model.resizer.resized_size(record.image.height, record.image.width)
        boxes = record.boxes[rows].astype(np.float64) * np.array([*size, *size])
        best = []
        for box in boxes:
            sides = np.minimum(anchors[:, 2:], box[2:]) - np.maximum(anchors[:, :2], box[:2])
            both = sides.clip(0.0).prod(axis=1)
            best.append((both / np.maximum(areas + (box[2:] - box[:2]).prod() - both, 1e-12)).max())
        yield record, np.array(best)


def _of_model(dataset, model, shapes):
    anchors, _ = model_anchors(model, dataset)
    own = np.unique((anchors[:, 2:] - anchors[:, :2]).round(3), axis=0)
    threshold = matched_threshold(model)
    best = np.concatenate([overlaps for _, overlaps in best_overlaps(dataset, model)] or [np.zeros(0)])
    return {
        "model_anchor_shapes": len(own),
        "matched_by_model_shapes": _share(_best_shape_iou(shapes, own) >= _THRESHOLD),
        "matched_by_model": _share(best >= threshold),
        "model_threshold": float(threshold),
    }


def _shapes(dataset, model, image_size):
    """`([n, 2], [n, 2])`: heights and widths of the objects (no crowds) as the network sees them, and as stored."""
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    seen, stored = [], []
    for record in dataset.records:
        own = (record.image.height, record.image.width)
        frame = model.resizer.resized_size(*own) if model is not None else size or own
        sides = (record.boxes[:, 2:] - record.boxes[:, :2])[~record.is_crowd].astype(np.float64)
        seen.append(sides * np.array(frame))
        stored.append(sides * np.array(own))
    return np.concatenate(seen), np.concatenate(stored)


def _quantiles(values):
    found = np.percentile(np.asarray(values, np.float64), _QUANTILES)
    return {f"{share}%": round(float(value), 4) for share, value in zip(_QUANTILES, found, strict=True)}


def _share(matched):
    return float(np.mean(matched)) if len(matched) else 0.0


def write_statistics(
    dataset: Any, output: str | os.PathLike[str], model: Any = None, num_anchors: int = 9
) -> dict[str, Any]:
    """`dataset_statistics` as files: `statistics.json`, `statistics.png` and a `gallery.png` of some images.

    They appear together when all are finished.

    Args:
        dataset, model, num_anchors: see `dataset_statistics`.
        output: the folder; created if absent.

    Returns:
        What `dataset_statistics` returns.
    """
    output = pathlib.Path(output).expanduser()
    found = dataset_statistics(dataset, model=model, num_anchors=num_anchors)
    plain = {key: value for key, value in found.items() if not isinstance(value, np.ndarray)}
    with replacing_files(output, last="statistics.json") as part:
        draw_statistics(found, part / "statistics.png")
        save_image(draw_dataset(dataset), part / "gallery.png")
        write_json(part / "statistics.json", plain)
    return found
