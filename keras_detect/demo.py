"""`keras-detect demo`: the whole way, offline, in about two minutes on two CPU cores."""

import os
import time

import keras
import numpy as np

from keras_detect import fields
from keras_detect.backbones.mobilenet_v2 import MobileNetV2
from keras_detect.data.shapes import shapes_dataset
from keras_detect.evaluation.callback import evaluate_coco
from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.preprocessing import RandomHorizontalFlip, RandomVerticalFlip
from keras_detect.training.recipe import Recipe
from keras_detect.visualization import draw_gallery, draw_side_by_side

CLASS_NAMES = ("circle", "square", "triangle")
IMAGE_SIZE = 160
TRAINING_PICTURES, HELD_OUT_PICTURES, DRAWN_PICTURES = 960, 80, 6
RECIPE = Recipe(epochs=14, batch_size=16, learning_rate=3e-3, warmup_fraction=0.1)


def run_demo(output, seed=0):
    """Draws pictures, trains an SSD on them from random weights, measures, draws, saves, loads again and compares.

    Args:
        output: existing folder (`pathlib.Path`) for `detections.png`, `model.keras` and one picture per drawn example.
        seed: of pictures, weights, order and augmentation.

    Returns:
        Exit status: 0, or 1 if the re-loaded model detects something else.
    """
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    sizes = (128, 192)
    print(f"1/5 drawing {TRAINING_PICTURES + HELD_OUT_PICTURES} pictures of {', '.join(CLASS_NAMES)}")
    settings = {"image_size": sizes, "class_names": CLASS_NAMES, "max_objects": 4}
    training = shapes_dataset(TRAINING_PICTURES, seed=2 * seed, **settings)
    held_out = shapes_dataset(HELD_OUT_PICTURES, seed=2 * seed + 1, **settings)

    print(f"2/5 training an SSD with a slim MobileNetV2 from random weights, {RECIPE.epochs} epochs")
    model = _build_model()
    augment = (RandomHorizontalFlip(), RandomVerticalFlip())
    batches = training.batches(
        model, RECIPE.batch_size, augment=augment, shuffle=True, seed=seed, drop_remainder=True, cache=True
    )
    RECIPE.compile(model, steps_per_epoch=len(batches)).fit(batches, epochs=RECIPE.epochs, verbose=2)

    print(f"3/5 COCO metrics on {len(held_out)} held-out pictures")
    result = evaluate_coco(model, held_out, progress=False)
    print(f"    AP {result['map']:.3f}   AP50 {result['map_50']:.3f}   AP75 {result['map_75']:.3f}")
    print("    " + "   ".join(f"{name} {ap:.3f}" for name, ap in result["map_per_class"].items()))

    print(f"4/5 drawing truth beside detections: {output / 'detections.png'}")
    _draw(model, held_out, output)

    path = output / "model.keras"
    part = output / "part_of_model.keras"
    model.save(part)
    os.replace(part, path)
    same = _detects_the_same(model, keras.saving.load_model(path), held_out)
    print(f"5/5 saved {path}; loaded again, it detects {'exactly the same' if same else 'SOMETHING ELSE'}")
    print(f"done in {time.monotonic() - started:.0f} s. Now with your own pictures: keras-detect train --help")
    return 0 if same else 1


def _build_model():
    # a short run: statistics that follow quickly
    hyperparams = ConvHyperparams(activation="relu6", batch_norm_momentum=0.95)
    backbone = MobileNetV2(width_multiplier=0.35, hyperparams=hyperparams, name="backbone")
    return SSD.from_backbone(backbone, image_size=IMAGE_SIZE, class_names=CLASS_NAMES)


def _draw(model, dataset, output):
    """Each of the first pictures with objects as a file, and all of them on one sheet."""
    examples = [example for example in dataset[: 3 * DRAWN_PICTURES] if len(example[fields.LABELS])][:DRAWN_PICTURES]
    found = model.detect([example["image"] for example in examples], score_threshold=0.3)
    sheets = [
        draw_side_by_side(example["image"], example, detections, CLASS_NAMES)
        for example, detections in zip(examples, found, strict=True)
    ]
    for index, sheet in enumerate(sheets):
        sheet.save(output / f"detection_{index}.png")
    draw_gallery(sheets, columns=2, cell_size=sheets[0].size).save(output / "detections.png")


def _detects_the_same(model, loaded, dataset):
    x, _ = next(iter(dataset.batches(model, 8)))
    images = np.asarray(x)
    before, after = model.predict_on_batch(images), loaded.predict_on_batch(images)
    return all(np.array_equal(before[key], after[key]) for key in before)
