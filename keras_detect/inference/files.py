"""Detection in files: every image is drawn, and what was found is written to one JSON file."""

import os
import pathlib
from collections.abc import Iterable

from tqdm import tqdm

from keras_detect import schema
from keras_detect.data.image import as_pixels, is_image_name
from keras_detect.data.json_values import json_value
from keras_detect.data.paths import FILE, FOLDER, kind_of
from keras_detect.files import replacing_files, write_json
from keras_detect.inference.detections import CLASS_NAMES
from keras_detect.inference.images import detect
from keras_detect.visualization import draw_objects, save_image

_DETECTIONS = "detections.json"


def detect_files(
    model,
    images: str | os.PathLike | Iterable[str | os.PathLike],
    output: str | os.PathLike,
    *,
    score_threshold: float | None = None,
    batch_size: int = 8,
    progress: bool = True,
    max_pixels: int | None = None,
) -> tuple[dict, list[Exception]]:
    """Detects in image files, draws each and writes `detections.json`; `keras-detect predict` is this function.

    Args:
        model: a `DetectionModel`.
        images: files, or folders of images.
        output: folder for the drawn images (JPEG) and `detections.json`; created if absent.
        score_threshold: detections below it are left out; None for `model.score_threshold`, 0.3 if that is None.
        batch_size: images per batch.
        progress: whether to show a progress bar.
        max_pixels: height times width of the largest image that is decoded, None for that of
            `keras_detect.data.pixel_limit`.

    The drawn images and `detections.json` appear together when all are finished; if that fails, as on a full disk, the
    folder is as it was.

    Returns:
        `(images, errors)`: what `detections.json` holds under `"images"`, `{name of the drawn image: {"image" (path),
        "boxes" (normalised yxyx), "scores", "labels", "class_names"}}` with every further
        per-object field of `schema` that the model outputs (masks as COCO's run lengths); and the error of each image
        that could not be read, which does not stop the others.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without images, or not one of the images can be read.
        OSError: the disk is full, or cannot be written to.
    """
    paths = image_files(images)
    with replacing_files(pathlib.Path(output).expanduser(), last=_DETECTIONS) as part:
        found, unreadable = _detect_and_draw(model, paths, part, score_threshold, batch_size, progress, max_pixels)
        content = {"boxes": "ymin, xmin, ymax, xmax, 0 to 1", "images": found}
        write_json(part / _DETECTIONS, content)
    return found, unreadable


def _detect_and_draw(model, paths, folder, score_threshold, batch_size, progress, max_pixels):
    """Draws every image into `folder`; returns what `detect_files` does."""
    found: dict[str, dict] = {}
    unreadable: list[Exception] = []
    with tqdm(total=len(paths), desc="predict", unit="image", disable=None if progress else True) as bar:
        for start in range(0, len(paths), batch_size):
            readable, errors = _read(paths[start : start + batch_size], max_pixels)
            unreadable += errors
            results = detect(model, [image for _, image in readable], score_threshold, batch_size)
            for (path, image), result in zip(readable, results, strict=True):
                name = f"{path.stem}.jpg" if f"{path.stem}.jpg" not in found else f"{path.stem}_{len(found)}.jpg"
                drawn = draw_objects(image, result, model.class_names)
                save_image(drawn, folder / name, quality=92)
                found[name] = {"image": str(path), **_plain(result)}
            bar.update(min(batch_size, len(paths) - start))
    if not found:
        raise unreadable[0]
    return found, unreadable


def _read(paths, max_pixels):
    """`([(path, pixels)], [error])`: one file that cannot be read does not stop the others."""
    readable, errors = [], []
    for path in paths:
        try:
            readable.append((path, as_pixels(path, max_pixels)))
        except (OSError, ValueError) as error:
            errors.append(error)
    return readable, errors


def _plain(result):
    """The detections of one image as JSON holds them, five digits of a float; masks as COCO's run lengths."""
    fields = [field for field in schema.object_fields(schema.DETECTIONS) if field.key in result]
    plain = {field.key: [json_value(field, value, digits=5) for value in result[field.key]] for field in fields}
    return {**plain, CLASS_NAMES: result[CLASS_NAMES]}


def image_files(names: str | os.PathLike | Iterable[str | os.PathLike]) -> list[pathlib.Path]:
    """The files among `names`, and the images in the folders among them, sorted by name.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without images, or `DataPathError` for a pipe, a device or a broken link.
    """
    paths = []
    for name in [names] if isinstance(names, str | os.PathLike) else names:
        path = pathlib.Path(name).expanduser()
        kind = kind_of(path)
        if kind == FOLDER:
            inside = sorted(entry for entry in path.iterdir() if is_image_name(entry.name))
            if not inside:
                raise ValueError(f"The folder {path} holds no image.")
            paths += inside
        elif kind == FILE:
            paths.append(path)
        else:
            raise FileNotFoundError(f"No such image or folder: {path}")
    return paths
