"""Trains a small Mask R-CNN on a handful of photos and measures its masks.

    python examples/coco_masks/train.py --data path/to/coco_free --output runs/coco_masks

Two questions: does it overfit 39 photos (AP50 of masks on the images it was trained on), and do its masks say
more than an ellipse on photos it has not seen? For the second, masks are predicted inside the annotated boxes, so that
nothing but the third stage is measured. `--epochs 2` is a trial.
"""

import json
import pathlib
import time

import keras
import numpy as np
from absl import app, flags

import keras_detect
from keras_detect.callbacks import HistoryFile
from keras_detect.heads import MaskPredictor, SharedRegionProposalPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.metrics import evaluate_coco
from keras_detect.necks import FeaturePyramid
from keras_detect.training import Recipe
from keras_detect.transforms import RandomColor, RandomHorizontalFlip
from keras_detect.visualization import draw_learning_curve, draw_objects, save_image

DATA = flags.DEFINE_string("data", None, "folder of photos with masks, with the splits train and val", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder for the model, the history, metrics and images", required=True)
EPOCHS = flags.DEFINE_integer("epochs", 150, "passes over the training images")
SIZE = flags.DEFINE_integer("image_size", 320, "side of the square to which images are stretched")
SEED = flags.DEFINE_integer("seed", 0, "of weights, order, augmentation and samplers")

BATCH_SIZE = 3
DEPTH = 96  # of the pyramid and of the heads: two CPU cores
PLAIN = ConvHyperparams(activation="relu", batch_norm=False)  # three images say little about a batch's statistics
HEADS = ConvHyperparams(kernel_initializer=initializer("truncated_normal", stddev=0.01))


def build(class_names):
    """MobileNetV2 as in the packaged detector, a narrow pyramid, and one mask per region of any class."""
    return keras_detect.MaskRCNN.from_backbone(
        "mobilenet_v2",
        weights="packaged",
        class_names=class_names,
        image_size=(SIZE.value, SIZE.value),
        neck=FeaturePyramid(levels=("C2", "C3", "C4", "C5"), coarse_levels=1, depth=DEPTH, hyperparams=PLAIN),
        region_predictor=SharedRegionProposalPredictor(
            num_anchors_per_location=(6,) * 5, depth=DEPTH, hyperparams=HEADS, name="region_predictor"
        ),
        # Most classes have few objects among 39 photos; what they look like inside a box is much the same for all.
        mask_predictor=MaskPredictor(
            num_classes=len(class_names), depth=DEPTH, class_agnostic=True, name="mask_predictor"
        ),
        freeze_batchnorm="backbone",
        seed=SEED.value,
    )


def masks_in_boxes(model, image, boxes, labels):
    """`[n, h, w]` in 0...1: the masks of an image's `boxes [n, 4]`, which are given instead of found."""
    inputs = model.preprocess(image[None])
    maps = model.feature_extractor.extract_proposal_features(inputs["images"], training=False)
    boxes, labels = np.asarray(boxes, "float32")[None], np.asarray(labels, "int32")[None]
    logits = model.mask_logits(maps, boxes, labels, inputs["images"].shape[1:3], training=False)
    return keras.ops.convert_to_numpy(keras.ops.sigmoid(logits[0]))


def inscribed_ellipse(cells=28):
    """`[cells, cells]`: the ellipse that touches the sides of its box; 0.5 on its outline."""
    line = np.linspace(-1.0, 1.0, cells)
    return np.clip(1.5 - np.hypot(line[:, None], line), 0.0, 1.0)


def iou_in_boxes(model, data):
    """Mean IoU with the annotated masks, `(of the model's masks, of ellipses, number of objects)`."""
    found, ellipses = [], []
    for example in data:
        rows = example["masks"].any(axis=(1, 2)) & ~example["is_crowd"]  # an object without a mask has no pixels
        if not rows.any():
            continue
        image, boxes, annotated = example["image"], example["boxes"][rows], example["masks"][rows]
        size = image.shape[:2]
        masks = masks_in_boxes(model, image, boxes, example["labels"][rows])
        for answers, kept in ((masks, found), (np.stack([inscribed_ellipse()] * len(boxes)), ellipses)):
            pasted = keras_detect.masks.paste(answers, boxes, size)
            union = (pasted | annotated).sum(axis=(1, 2))
            kept += list((pasted & annotated).sum(axis=(1, 2)) / np.maximum(union, 1))
    return float(np.mean(found)), float(np.mean(ellipses)), len(found)


def fit(model, data, folder):
    """Trains `model` with the recipe of Mask R-CNN at a higher rate; returns the minutes."""
    recipe = Recipe.for_model(
        model,
        len(data),
        batch_size=BATCH_SIZE,
        epochs=EPOCHS.value,
        learning_rate=1e-3,
        augment=(RandomHorizontalFlip(), RandomColor()),
    )
    print(recipe)
    batches = data.batches(
        model,
        recipe.batch_size,
        augment=recipe.augment,
        shuffle=True,
        seed=SEED.value,
        cache=True,
    )
    recipe.compile(model, steps_per_epoch=len(batches))
    started = time.monotonic()
    callbacks = [*recipe.callbacks(), HistoryFile(folder / "history.csv")]
    model.fit(batches, epochs=recipe.epochs, callbacks=callbacks, verbose=2)
    return (time.monotonic() - started) / 60


def main(_):
    keras.utils.set_random_seed(SEED.value)
    folder = pathlib.Path(OUTPUT.value).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    training = keras_detect.load_dataset(DATA.value, "train")
    validation = keras_detect.load_dataset(DATA.value, "val", class_names=training.class_names)
    model = build(training.class_names)
    print(f"{model.count_params():,} parameters, {model.started_from}, {len(training)} photos")
    minutes, processor = fit(model, training, folder), time.process_time() / 60
    model.save(folder / "model.keras")
    draw_learning_curve(folder / "history.csv", folder / "curve.png")
    trained = evaluate_coco(model, training)
    of_masks, of_ellipses, number = iou_in_boxes(model, validation)
    result = {
        "minutes": round(minutes, 1),
        "processor_minutes": round(processor, 1),
        "train_mask_map_50": trained["mask_map_50"],
        "train_mask_map": trained["mask_map"],
        "train_map_50": trained["map_50"],
        "val_objects": number,
        "val_iou_in_boxes": of_masks,
        "val_iou_of_ellipses": of_ellipses,
    }
    (folder / "metrics.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    image = validation[0]["image"]
    drawn = draw_objects(image, model.detect(image), class_names=training.class_names)
    save_image(drawn, folder / "val.jpg", quality=85)


if __name__ == "__main__":
    app.run(main)
