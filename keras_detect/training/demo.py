"""`keras-detect demo`: detects in a photo, then fine-tunes on drawn shapes, offline, in minutes on two CPU cores."""

import collections
import dataclasses
import os
import pathlib
import time

import keras
import numpy as np

from keras_detect import schema
from keras_detect.data.shapes import shapes_dataset
from keras_detect.evaluation.callback import evaluate_coco
from keras_detect.files import replacing_file
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.training.recipe import Recipe
from keras_detect.transforms import RandomHorizontalFlip, RandomVerticalFlip
from keras_detect.transforms.resizers import KeepAspectRatioResizer
from keras_detect.visualization import draw_boxes, draw_gallery, draw_side_by_side, save_image

DETECTOR = "ssd_mobilenet_v2_oidv4"  # everyday objects in 23 classes
PHOTO = pathlib.Path(__file__).parents[1] / "photos" / "control_room.jpg"
PHOTO_THRESHOLD = 0.45
PRESET = "frcnn_inception_v100"  # blood cells in three classes
CLASS_NAMES = ("circle", "square", "triangle", "star")
IMAGE_SIZE = 160
SAMPLED_PROPOSALS = 8  # per image and step: at most four objects are on it
TRAINING_IMAGES, HELD_OUT_IMAGES, DRAWN_IMAGES = 480, 60, 6
RECIPE = Recipe(epochs=7, batch_size=8, learning_rate=2e-3, warmup_fraction=0.1)


def run_demo(output: str | os.PathLike, seed: int = 0) -> bool:
    """Detects in a photo; then draws images, fine-tunes a packaged preset on them, measures, draws, saves and re-loads.

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
    _detect_in_a_photo(output)
    keras.utils.set_random_seed(seed)
    sizes = (128, 192)
    print(f"2/6 drawing {TRAINING_IMAGES + HELD_OUT_IMAGES} images of {', '.join(CLASS_NAMES)}")
    settings = {"image_size": sizes, "class_names": CLASS_NAMES, "max_objects": 4}
    training = shapes_dataset(TRAINING_IMAGES, seed=2 * seed, **settings)
    held_out = shapes_dataset(HELD_OUT_IMAGES, seed=2 * seed + 1, **settings)

    model = _model()
    before = evaluate_coco(model, held_out, progress=False)["map_50"]
    augment = (RandomHorizontalFlip(), RandomVerticalFlip())
    batches = training.batches(
        model, RECIPE.batch_size, augment=augment, shuffle=True, seed=seed, drop_remainder=True, cache=True
    )
    print(f"3/6 fine-tuning {PRESET} on them: {RECIPE.epochs} epochs of {len(batches)} steps")
    RECIPE.compile(model, steps_per_epoch=len(batches)).fit(batches, epochs=RECIPE.epochs, verbose=2)

    print(f"4/6 COCO metrics on {len(held_out)} held-out images")
    result = evaluate_coco(model, held_out, progress=False)
    print(f"    AP50 {before:.3f} before, {result['map_50']:.3f} after; AP {result['map']:.3f}")
    print("    AP of " + "   ".join(f"{name} {ap:.3f}" for name, ap in result["map_per_class"].items()))

    print(f"5/6 drawing ground truth beside detections: {output / 'detections.png'}")
    _draw(model, held_out, output)

    path = output / "model.keras"
    with replacing_file(path) as part:
        model.save(part)
    same = _detects_the_same(model, keras.saving.load_model(path), held_out)
    print(f"6/6 saved {path}; loaded again, it detects {'exactly the same' if same else 'SOMETHING ELSE'}")
    print(f"done in {time.monotonic() - started:.0f} s. Now with your own images: keras-detect train --help")
    return same


def _detect_in_a_photo(output):
    """What the packaged detector finds in the photo that ships with the package, printed and drawn."""
    print(f"1/6 detecting in {PHOTO.name} with {DETECTOR}")
    model = DetectionModel.from_preset(DETECTOR)
    found = model.detect(PHOTO, score_threshold=PHOTO_THRESHOLD)
    counts = collections.Counter(found["class_names"])
    print("    found " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    columns = (found[key] for key in (schema.BOXES, schema.LABELS, schema.SCORES))
    save_image(draw_boxes(PHOTO, *columns, class_names=model.class_names), output / "photo.png")


def _model():
    """The preset with new heads, for small images with few objects; as it is, a step would take six times as long."""
    model = DetectionModel.from_preset(PRESET, class_names=CLASS_NAMES)
    model.resizer = KeepAspectRatioResizer(
        min_dimension=IMAGE_SIZE, max_dimension=IMAGE_SIZE, pad_to_max_dimension=True
    )
    model.box_stage = dataclasses.replace(model.box_stage, batch_size=SAMPLED_PROPOSALS)
    return model


def _draw(model, dataset, output):
    """Each of the first images with objects as a file, and all of them on one sheet."""
    examples = [example for example in dataset[: 3 * DRAWN_IMAGES] if len(example[schema.LABELS])][:DRAWN_IMAGES]
    found = model.detect([example["image"] for example in examples], score_threshold=0.3)
    sheets = [
        draw_side_by_side(example["image"], example, detections, CLASS_NAMES)
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
