"""`keras-detect demo`: detects in a photo, then fine-tunes on drawn shapes, offline, in minutes on two CPU cores."""

import collections
import contextlib
import os
import pathlib
import time
from typing import Any

import keras
import numpy as np
from absl import logging

from keras_detect import schema
from keras_detect.data.shapes import shapes_dataset
from keras_detect.evaluation.callback import evaluate_coco
from keras_detect.evaluation.thresholds import ScoreThresholds
from keras_detect.files import replacing_file
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.training.recipe import Recipe
from keras_detect.training.start import Start
from keras_detect.transforms import RandomHorizontalFlip, RandomVerticalFlip
from keras_detect.visualization import draw_boxes, draw_gallery, draw_side_by_side, save_image

PRESET = "ssd_mobilenet_v2_oidv4"  # everyday objects in 23 classes
PHOTO = pathlib.Path(__file__).parents[1] / "photos" / "control_room.jpg"
PHOTO_THRESHOLD = 0.45
CLASS_NAMES = ("circle", "square", "triangle", "star")
IMAGE_SIZE = 160
TRAINING_IMAGES, HELD_OUT_IMAGES, DRAWN_IMAGES = 480, 60, 6
FROZEN = ("backbone/stem_*", "backbone/block_?_*", "backbone/block_10_*")  # 11 of the 17 blocks
RECIPE = Recipe(epochs=4, batch_size=8, learning_rate=2e-3, warmup_fraction=0.1)


def run_demo(output: str | os.PathLike, seed: int = 0) -> bool:
    """Detects in a photo; then draws images, fine-tunes the detector on them, measures, draws, saves and re-loads.

    The first blocks of its backbone are frozen: edges and textures learned from photos serve drawings too, and a step
    is shorter without their gradients.

    Args:
        output: folder for `photo.png`, `detections.png`, `model.keras` and one image per drawn example; created if
            absent.
        seed: of images, weights, order and augmentation.

    Returns:
        Whether the re-loaded model detects exactly the same.
    """
    started = time.monotonic()
    output = pathlib.Path(output).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    detector = _detect_in_a_photo(output)
    keras.utils.set_random_seed(seed)
    sizes = (128, 192)
    print(f"2/6 drawing {TRAINING_IMAGES + HELD_OUT_IMAGES} images of {', '.join(CLASS_NAMES)}")
    settings: dict[str, Any] = {"image_size": sizes, "class_names": CLASS_NAMES, "max_objects": 4}
    training = shapes_dataset(TRAINING_IMAGES, seed=2 * seed, **settings)
    held_out = shapes_dataset(HELD_OUT_IMAGES, seed=2 * seed + 1, **settings)

    with _quiet():  # of the class heads, which are new
        model, _ = Start(model=detector, image_size=IMAGE_SIZE, freeze=FROZEN).build(training, verbose=0)
    augment = (RandomHorizontalFlip(), RandomVerticalFlip())
    batches = training.batches(
        model, RECIPE.batch_size, augment=augment, shuffle=True, seed=seed, drop_remainder=True, cache=True
    )
    print(f"3/6 fine-tuning {PRESET} on them, the first blocks frozen: {RECIPE.epochs} epochs of {len(batches)} steps")
    RECIPE.compile(model, steps_per_epoch=len(batches))
    before = evaluate_coco(model, held_out, progress=False)["map_50"]
    model.fit(batches, epochs=RECIPE.epochs, verbose=2)

    print(f"4/6 COCO metrics on {len(held_out)} held-out images")
    thresholds = ScoreThresholds(CLASS_NAMES)
    result = evaluate_coco(model, held_out, progress=False, evaluators=[thresholds])
    model.score_threshold = max(0.0, thresholds.result()["score_threshold"])
    print(f"    AP50 {before:.3f} before, {result['map_50']:.3f} after; AP {result['map']:.3f}")
    print("    AP of " + "   ".join(f"{name} {ap:.3f}" for name, ap in result["map_per_class"].items()))

    print(f"5/6 drawing ground truth beside detections of the largest F1: {output / 'detections.png'}")
    _draw(model, held_out, output)

    path = output / "model.keras"
    with replacing_file(path) as part:
        model.save(part, include_optimizer=False)
    same = _detects_the_same(model, keras.saving.load_model(path), held_out)
    print(f"6/6 saved {path}; loaded again, it detects {'exactly the same' if same else 'SOMETHING ELSE'}")
    print(f"done in {time.monotonic() - started:.0f} s. Now with your own images: keras-detect train --help")
    return same


def _detect_in_a_photo(output):
    """The packaged detector; what it finds in the photo that ships with the package is printed and drawn."""
    print(f"1/6 detecting in {PHOTO.name} with {PRESET}")
    model = DetectionModel.from_preset(PRESET)
    found = model.detect(PHOTO, score_threshold=PHOTO_THRESHOLD)
    counts = collections.Counter(found["class_names"])
    print("    found " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    columns = (found[key] for key in (schema.BOXES, schema.LABELS, schema.SCORES))
    save_image(draw_boxes(PHOTO, *columns, class_names=model.class_names), output / "photo.png")
    return model


@contextlib.contextmanager
def _quiet():
    """Context without warnings in the log."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _draw(model, dataset, output):
    """Each of the first images with objects as a file, and all of them on one sheet."""
    examples = [example for example in dataset[: 3 * DRAWN_IMAGES] if len(example[schema.LABELS])][:DRAWN_IMAGES]
    found = model.detect([example["image"] for example in examples])
    sheets = [
        draw_side_by_side(example["image"], example, detections, CLASS_NAMES, round(model.score_threshold, 3))
        for example, detections in zip(examples, found, strict=True)
    ]
    for index, sheet in enumerate(sheets):
        save_image(sheet, output / f"detection_{index}.png")
    save_image(draw_gallery(sheets, columns=2, cell_size=sheets[0].size), output / "detections.png")


def _detects_the_same(model, loaded, dataset):
    x, _ = next(iter(dataset.batches(model, 8)))
    x = keras.tree.map_structure(np.asarray, x)
    before, after = model.predict_on_batch(x), loaded.predict_on_batch(x)
    return all(np.array_equal(before[key], after[key]) for key in before)
