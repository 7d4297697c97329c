"""Trains the packaged preset `frcnn_inception_v100` on the blood cells of BCCD.

    python examples/frcnn_inception_v100/train.py --data path/to/bccd --output runs/frcnn

The folder of BCCD is https://github.com/Shenggan/BCCD_Dataset with its splits (MIT license); `examples/bccd` uses the
same. First the backbone learns in an SSD, where every cell of three feature maps gives it a gradient; the Faster R-CNN
starts from that backbone. `--epochs 1 --ssd_epochs 1` is a trial of a minute or two.
"""

import json
import pathlib
import time

import keras
from absl import app, flags

import keras_detect
from keras_detect.anchors import (
    ArgMaxMatcher,
    BalancedPositiveNegativeSampler,
    FasterRcnnBoxCoder,
    GridAnchorGenerator,
    IouSimilarity,
    TargetAssigner,
)
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.callbacks import BestModel, COCOEvaluation, HistoryFile
from keras_detect.heads import RegionProposalPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.meta_architectures.two_stage import BoxStage, ProposalStage
from keras_detect.metrics import evaluate_coco
from keras_detect.presets.store import save_preset
from keras_detect.training import Recipe
from keras_detect.transforms import (
    FixedShapeResizer,
    KeepAspectRatioResizer,
    RandomColor,
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomRotation90,
    RandomVerticalFlip,
)

DATA = flags.DEFINE_string("data", None, "folder of BCCD", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder for models, histories, metrics and the preset", required=True)
SSD_EPOCHS = flags.DEFINE_integer("ssd_epochs", 50, "epochs of the backbone's training in an SSD")
EPOCHS = flags.DEFINE_integer("epochs", 80, "epochs of the Faster R-CNN")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "images per step")
SEED = flags.DEFINE_integer("seed", 0, "of weights, order, augmentation and samplers")

HEIGHT, WIDTH = 336, 448  # 0.7 of BCCD's 480 x 640
ANCHOR_SIDES = (28.0, 72.0, 140.0)  # platelets, red and white cells in these images
PROPOSALS = 100  # the fullest image has 30 cells
AUGMENTATION = (
    RandomHorizontalFlip(),
    RandomVerticalFlip(),
    RandomRotation90(),
    RandomIoUCrop(probability=0.5),
    RandomColor(),
)


def build_faster_rcnn(class_names):
    """The Faster R-CNN that the preset is; images are stretched to one size while it trains."""
    coder = FasterRcnnBoxCoder(scale_factors=(10.0, 10.0, 5.0, 5.0))
    anchors = GridAnchorGenerator(
        scales=ANCHOR_SIDES,
        aspect_ratios=(0.5, 1.0, 2.0),
        base_anchor_size=(1.0, 1.0),
        anchor_stride=(16.0, 16.0),
        anchor_offset=(8.0, 8.0),  # a cell's middle
    )
    proposals = MulticlassNonMaxSuppression(
        iou_threshold=0.6,  # 0.7 leaves so many of each red cell that platelets find no place among the best
        max_detections_per_class=PROPOSALS,
        max_total_detections=PROPOSALS,
        change_coordinate_frame=False,
    )
    detections = MulticlassNonMaxSuppression(
        score_threshold=0.01, iou_threshold=0.5, max_detections_per_class=100, max_total_detections=100
    )
    # the anchors of a platelet lie up to 8 of its 27 pixels away: only the forced match makes one positive. A lower
    # threshold would not mend that, it would bring more anchors of red cells into the sample
    matcher = ArgMaxMatcher(matched_threshold=0.7, unmatched_threshold=0.3, force_match_for_each_row=True)
    return keras_detect.FasterRCNN.from_backbone(
        "inception_v100",
        weights=None,
        class_names=class_names,
        resizer=FixedShapeResizer(height=HEIGHT, width=WIDTH),
        region_predictor=RegionProposalPredictor(
            num_anchors_per_location=anchors.num_anchors_per_location(),
            depth=256,
            hyperparams=ConvHyperparams(kernel_initializer=initializer("truncated_normal", stddev=0.01)),
            name="region_predictor",
        ),
        proposal_stage=ProposalStage(
            anchor_generator=anchors,
            target_assigner=TargetAssigner(similarity=IouSimilarity(), matcher=matcher, box_coder=coder),
            postprocessor=Postprocessor(nms=proposals, score_converter="softmax"),
            localization_weight=2.0,
        ),
        box_stage=BoxStage(
            target_assigner=TargetAssigner(
                similarity=IouSimilarity(), matcher=ArgMaxMatcher(matched_threshold=0.5), box_coder=coder
            ),
            postprocessor=Postprocessor(nms=detections, score_converter="softmax"),
            sampler=BalancedPositiveNegativeSampler(positive_fraction=0.5),
            batch_size=48,
            localization_weight=2.0,
        ),
        seed=SEED.value,
    )


def train(model, training, validation, recipe, folder, every_n_epochs=5):
    """Fits `model`, keeps its best epoch on `validation` in `folder` and returns that; with it, the minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    batches = training.batches(
        model,
        recipe.batch_size,
        augment=AUGMENTATION,
        shuffle=True,
        seed=SEED.value,
        drop_remainder=True,
        cache=True,
    )
    recipe.compile(model, steps_per_epoch=len(batches))
    best = BestModel(folder / "model.keras")
    callbacks = [
        *recipe.callbacks(),
        COCOEvaluation(validation, every_n_epochs=every_n_epochs),
        best,
        HistoryFile(folder / "history.csv"),
    ]
    started = time.monotonic()
    model.fit(batches, epochs=recipe.epochs, callbacks=callbacks, verbose=2)
    minutes = (time.monotonic() - started) / 60
    images = recipe.epochs * len(batches) * recipe.batch_size
    print(f"{images:,} image presentations in {minutes:.0f} minutes; best of them: epoch {best.best_epoch + 1}")
    return keras.models.load_model(folder / "model.keras"), minutes


def ship(model, folder, test, minutes):
    """Writes the preset: images keep their aspect ratio, weights are stored as float16. Measures what is stored."""
    shipped = model.with_parts(resizer=KeepAspectRatioResizer(min_dimension=HEIGHT, max_dimension=WIDTH))
    save_preset(shipped, folder, weights_dtype="float16")
    stored = keras_detect.Model.from_preset(str(folder))
    result = evaluate_coco(stored, test)
    return save_preset(stored, folder, card(result, minutes), weights_dtype="float16"), result


def card(result, minutes):
    """What a preset says of itself in `metadata.json`."""
    return {
        "name": "frcnn_inception_v100",
        "source": "examples/frcnn_inception_v100/train.py",
        "license": "Apache-2.0",
        "data": "BCCD (blood cells), https://github.com/Shenggan/BCCD_Dataset; 205 photos trained, 87 chose the epoch",
        "data_license": "MIT",
        "recipe": "backbone in an SSD, then Faster R-CNN; AdamW 1e-3, cosine, batch 8, flips, turns, crops, colors",
        "hardware": "two CPU cores",
        "training_minutes": round(minutes),
        "measured": {"split": "BCCD test, 72 photos", **result},
    }


def main(_):
    keras.utils.set_random_seed(SEED.value)
    output = pathlib.Path(OUTPUT.value).expanduser()
    training = keras_detect.load_dataset(DATA.value, "train")
    names = training.class_names
    validation, test = (keras_detect.load_dataset(DATA.value, split, class_names=names) for split in ("val", "test"))

    settings = {"batch_size": BATCH_SIZE.value, "learning_rate": 1e-3, "ema_momentum": 0.98}
    minutes = 0.0
    model = build_faster_rcnn(names)
    print(f"{model.count_params():,} parameters")
    backbone = output / "backbone.weights.h5"
    if SSD_EPOCHS.value and not backbone.exists():
        size = (HEIGHT, WIDTH)
        ssd = keras_detect.SSD.from_backbone("inception_v100", weights=None, class_names=names, image_size=size)
        recipe = Recipe(epochs=SSD_EPOCHS.value, **settings)
        ssd, minutes = train(ssd, training, validation, recipe, output / "ssd", every_n_epochs=10)
        ssd.feature_extractor.backbone.save_weights(backbone)
    if backbone.exists():
        model.feature_extractor.backbone.load_weights(backbone)
    recipe = Recipe(epochs=EPOCHS.value, **settings)
    model, more = train(model, training, validation, recipe, output)
    folder, result = ship(model, output / "preset", test, minutes + more)
    (output / "test_metrics.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{folder}: AP {result['map']:.3f}, AP50 {result['map_50']:.3f} on the test split")


if __name__ == "__main__":
    app.run(main)
