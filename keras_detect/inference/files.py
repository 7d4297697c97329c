"""Detection in files: every image is drawn, and what was found is written to one JSON file."""

import os
import pathlib
from collections.abc import Iterable

from tqdm import tqdm

from keras_detect.data.image import is_picture_name, read_picture
from keras_detect.files import write_json
from keras_detect.visualization import draw_boxes


def detect_files(
    model,
    images: str | os.PathLike | Iterable[str | os.PathLike],
    output: str | os.PathLike,
    *,
    score_threshold: float = 0.3,
    batch_size: int = 8,
    progress: bool = True,
) -> tuple[dict, list[Exception]]:
    """Detects in image files, draws each and writes `detections.json`; `keras-detect predict` is this function.

    Args:
        model: a `DetectionModel`.
        images: files, or folders of images.
        output: folder for the drawn images (JPEG) and `detections.json`; created if absent.
        score_threshold: detections below it are left out.
        batch_size: images per batch.
        progress: whether to show a progress bar.

    Returns:
        `(images, errors)`: what `detections.json` holds under `"images"`, `{name of the drawn image: {"image" (path),
        "boxes" (normalised yxyx), "scores", "labels", "class_names"}}`; and the error of each image that could not be
        read, which does not stop the others.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without images, or not one of the images can be read.
    """
    paths = image_files(images)
    output = pathlib.Path(output).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    found, unreadable = {}, []
    for path in tqdm(paths, desc="predict", unit="image", disable=not progress):
        try:
            image = read_picture(path)
        except (OSError, ValueError) as error:  # the other images are not lost for it
            unreadable.append(error)
            continue
        result = model.detect(image, score_threshold=score_threshold)
        drawn = draw_boxes(image, result["boxes"], result["labels"], result["scores"], model.class_names)
        name = f"{path.stem}.jpg" if f"{path.stem}.jpg" not in found else f"{path.stem}_{len(found)}.jpg"
        drawn.save(output / name, quality=92)
        found[name] = {
            "image": str(path),
            "boxes": [[round(float(side), 5) for side in box] for box in result["boxes"]],
            "scores": [round(float(score), 5) for score in result["scores"]],
            "labels": [int(label) for label in result["labels"]],
            "class_names": result["class_names"],
        }
    if not found:
        raise unreadable[0]
    content = {"boxes": "ymin, xmin, ymax, xmax, 0 to 1", "images": found}
    write_json(output / "detections.json", content)
    return found, unreadable


def image_files(names: str | os.PathLike | Iterable[str | os.PathLike]) -> list[pathlib.Path]:
    """The files among `names`, and the images in the folders among them, sorted by name.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without images.
    """
    paths = []
    for name in [names] if isinstance(names, str | os.PathLike) else names:
        path = pathlib.Path(name).expanduser()
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if is_picture_name(entry.name))
            if not inside:
                raise ValueError(f"The folder {path} holds no image.")
            paths += inside
        elif path.is_file():
            paths.append(path)
        else:
            raise FileNotFoundError(f"No such image or folder: {path}")
    return paths
