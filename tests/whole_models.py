"""Whole models of the goldens: config and checkpoint in, everything a model computes on the golden's image out."""

import json
import re

import numpy as np
from keras import ops
from PIL import Image

import keras_detect
from keras_detect import schema
from keras_detect.layers.drop_connect import DropConnect
from keras_detect.meta_architectures.ground_truth import clean_ground_truth
from keras_detect.meta_architectures.training_hooks import REGULARIZATION_LOSS
from keras_detect.tf_od_api import name_maps
from tests import goldens
from tests.networks import undrawn
from tests.weights import golden_checkpoints

SCORE_TOLERANCE = 1e-4
TIE = 1e-5  # scores of two overlapping boxes that are closer: noise decides which one suppresses the other

#: the goldens whose whole tests run in CI: one per family
QUICK = (
    "derived_ssd_mobilenet_v1_300x300",
    "ssd_mobilenet_v2_320x320_coco17_tpu-8",
    "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8",
    "ssd_efficientdet_d0_512x512_coco17_tpu-8",
)
#: the others, from the fastest to the slowest
LARGE = (
    "ssd_mobilenet_v2_320x320_coco17_tpu-8_img",
    "ssd_efficientdet_d0_512x512_coco17_tpu-8_img",
    "ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8",
    "ssd_efficientdet_d1_640x640_coco17_tpu-8",
    "ssd_resnet50_v1_fpn_640x640_coco17_tpu-8",
    "ssd_resnet152_v1_fpn_640x640_coco17_tpu-8",
    "ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8",
    "ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8",
    "ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8",
    "ssd_efficientdet_d4_1024x1024_coco17_tpu-32",
    "ssd_efficientdet_d5_1280x1280_coco17_tpu-32",
    "ssd_efficientdet_d6_1408x1408_coco17_tpu-32",
    "ssd_efficientdet_d7_1536x1536_coco17_tpu-32",
)

#: the same for upstream's TensorFlow 1
TF1_QUICK = ("ssd_mobilenet_v1_coco",)
TF1_LARGE = (
    "ssd_mobilenet_v2_coco",
    "ssdlite_mobilenet_v2_coco",
    "ssd_inception_v2_coco",
    "zoo_ssd_mobilenet_v2_coco_2018_03_29",
    "ssd_mobilenet_v1_ppn_shared_box_predictor_300x300_coco14_sync",
    "embedded_ssd_mobilenet_v1_coco",
    "derived_ssd_resnet50_v1_ppn_300x300",
    "ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync",
    "ssd_resnet50_v1_fpn_shared_box_predictor_640x640_coco14_sync",
)


def weights_name(name):
    """Golden whose config and variables `name` uses: the `_img` goldens mostly share those of the noise image."""
    return name if goldens.find(f"{name}.vars.json") else name.removesuffix("_img")


def golden_weights(name):
    """`{checkpoint key: array}` by the rule of GOLDEN.md, section 3.

    D4's combine weights were drawn by the rule of the other matrices, n * sqrt(2 / fan_in), not as 1 + 0.3 n: with
    those its feature maps, raw heads and penalties agree to 1e-6, with the others it is another network.
    """
    weights = golden_checkpoints.golden_weights(weights_name(name))
    if "efficientdet_d4" in name:
        for key, value in weights.items():
            if key.endswith("bifpn_combine_weights"):
                noise = (value - np.float32(1.0)) / np.float32(0.3)
                weights[key] = noise * np.float32(np.sqrt(2.0 / len(value)))
    return weights


def golden_image(name):
    """`[1, H, W, 3]` float32: the smooth image of the `_img` goldens, else the noise."""
    if name.endswith("_img"):
        image = np.asarray(Image.open(goldens.golden("test_image_333x500.png")).convert("RGB"))[None]
    else:
        image = np.random.RandomState(0).randint(0, 256, (1, 240, 320, 3))
    return image.astype("float32")


def build(name, folder):
    """`(model, restore report, golden weights)` by the two lines of a user: the config, then the checkpoint."""
    weights = golden_weights(name)
    with undrawn():
        model = keras_detect.from_pipeline_config(goldens.golden(f"{weights_name(name)}.config"))
    write = golden_checkpoints.write_checkpoint
    if not any(key.startswith("model/") for key in weights):
        write = golden_checkpoints.write_tf1_checkpoint
    return model, model.restore(write(weights, folder)), weights


def without_drop_connect(model):
    """`model` with every drop-connect rate 0, as the training goldens were made."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, DropConnect):
            layer.rate = 0.0
    return model


def ignored_penalties(model, weights, name):
    """`{checkpoint key: L2 penalty}` of the variables upstream regularizes though no detector uses them.

    They are those that our written rule ignores; their factors are the L2 factors of `<name>.layers.json`.
    """
    patterns = [pattern for pattern, _ in name_maps.ignored_keys(model)]
    if not patterns:
        return {}
    rows = json.loads(goldens.golden(f"{weights_name(name)}.layers.json").read_text())
    factors = {}
    for row in rows:
        for variable in ("kernel", "bias"):
            factors[f"{row['key']}/{variable}"] = row.get(f"{variable}_regularizer")
    return {
        key: factors[key] * float(np.sum(np.square(value, dtype=np.float64)))
        for key, value in weights.items()
        if factors.get(key) and any(re.fullmatch(pattern, key) for pattern in patterns)
    }


def settle_ties(anchors, boxes, positive, threshold=0.5, noise=1e-6):
    """`(indices of ties, anchors)`: anchors as upstream's rounding saw those whose IoU is the threshold itself.

    A square of area 0.02 inside a ground-truth box of area 0.04 has IoU 0.5, the threshold: rounding decides whether it
    is positive. Each such anchor is grown or shrunk by a few roundings toward what `positive`, upstream's list, says.
    """
    anchors = np.asarray(anchors, np.float64)
    best = _best_iou(anchors, boxes)
    ties = np.flatnonzero(np.abs(best - threshold) <= noise)
    middle, half = (anchors[ties, :2] + anchors[ties, 2:]) / 2, (anchors[ties, 2:] - anchors[ties, :2]) / 2
    settled = anchors.copy()
    grown, shrunk = (
        np.concatenate([middle - half * factor, middle + half * factor], axis=-1)
        for factor in (1 + 3 * noise, 1 - 3 * noise)
    )
    larger = _best_iou(grown, boxes) > _best_iou(shrunk, boxes)
    settled[ties] = np.where((larger == np.isin(ties, positive))[:, None], grown, shrunk)
    return ties, settled.astype("float32")


def _best_iou(anchors, boxes):
    low = np.maximum(anchors[:, None, :2], boxes[None, :, :2])
    high = np.minimum(anchors[:, None, 2:], boxes[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(corners[:, 2:] - corners[:, :2], axis=-1) for corners in (anchors, boxes)]
    return np.max(common / (areas[0][:, None] + areas[1][None] - common), axis=-1, initial=0.0)


def _map_shapes(golden):
    """`[(height, width), ...]` of the golden's feature maps."""
    shapes = []
    while f"pred/feature_maps[{len(shapes)}]#shape" in golden:
        shapes.append(tuple(int(side) for side in golden[f"pred/feature_maps[{len(shapes)}]#shape"][1:3]))
    return shapes


class Compared:
    """What has a `golden` to be compared with."""

    def error(self, key, ours):
        """Relative error against the golden array `key`, whole or sampled."""
        shape = self.golden.get(f"{key}#shape")
        assert shape is None or tuple(shape) == ours.shape, f"{key}: {ours.shape}, upstream has {tuple(shape)}"
        if key in self.golden:
            return goldens.relative_error(ours, self.golden[key])
        return goldens.relative_error(ours.ravel()[self.golden[f"{key}#idx"]], self.golden[f"{key}#val"])


class Run(Compared):
    """A restored model and, as numpy arrays, everything it computes on its golden's image.

    `inputs`, `feature_maps`, `predictions`, `raw_boxes`, `detections`, `targets`, `match` and `losses` come from one
    compiled function, so that each backend compiles a network once.
    """

    def __init__(self, name, folder):
        self.name = name
        with np.load(goldens.golden(f"{name}.npz")) as archive:
            self.golden = {key: archive[key] for key in archive.files}
        self.model, self.report, self.weights = build(name, folder)
        self.image = golden_image(name)
        boxes, padded = self.golden["gt/boxes"], tuple(int(side) for side in self.golden["preprocessed#shape"][1:3])
        self.ground_truth = {
            schema.BOXES: true_frame(boxes[None], self.golden["true_image_shapes"], padded),
            schema.LABELS: self.golden["gt/classes_zero_based"][None],
        }
        anchors = self.model.anchor_generator(_map_shapes(self.golden), padded)
        self.ties, self.anchors_without_ties = settle_ties(anchors, boxes, self.golden["targets/matched_anchor_idx"])
        found = goldens.compiled(self._everything)(ops.convert_to_tensor(self.image))
        for key, value in found.items():
            setattr(self, key, to_numpy(value))

    def _everything(self, image):
        model = self.model
        inputs = model.preprocess(image)
        feature_maps = model.feature_extractor(inputs[schema.IMAGES], training=False)
        predictions = model(inputs, training=False)
        ground_truth = clean_ground_truth(self.ground_truth)
        matched = predictions | {schema.ANCHORS: ops.convert_to_tensor(self.anchors_without_ties)}
        targets = model.assign_targets(ground_truth, matched, inputs)
        return {
            "inputs": inputs,
            "feature_maps": list(feature_maps),
            "predictions": predictions,
            "raw_boxes": model.box_coder.decode(predictions[schema.BOX_ENCODINGS], predictions[schema.ANCHORS]),
            "detections": model.postprocess(predictions, inputs[schema.TRUE_IMAGE_SHAPES]),
            "targets": {key: value for key, value in targets._asdict().items() if key != "match"},
            "match": targets.match._asdict(),
            "losses": model.compute_losses(ground_truth, matched, inputs, training=False)
            | {REGULARIZATION_LOSS: sum(ops.sum(loss) for loss in model.losses)},
        }

    def heads(self):
        """`{golden key: our array}` of the raw heads."""
        return {
            "pred/box_encodings": self.predictions[schema.BOX_ENCODINGS],
            "pred/class_predictions_with_background": self.predictions[schema.CLASS_LOGITS],
        }


def assert_same_detections(golden, ours, iou_threshold, tolerance):
    """Scores by rank; boxes and labels as a set, since scores that tie closer than the noise may swap places."""
    count = int(golden["post/num_detections"][0])
    assert ours[schema.NUM_DETECTIONS][0] == count
    theirs = [golden[f"post/detection_{key}"][0, :count] for key in ("boxes", "scores", "classes")]
    boxes, scores, labels = theirs
    np.testing.assert_allclose(ours[schema.SCORES][0, :count], scores, atol=SCORE_TOLERANCE)
    unmatched = set(range(count))
    detections = [ours[key][0, :count] for key in (schema.BOXES, schema.SCORES, schema.LABELS)]
    for found in zip(*detections, strict=True):
        box, score, label = found
        twins = [
            index
            for index in sorted(unmatched)
            if labels[index] == label
            and abs(scores[index] - score) <= SCORE_TOLERANCE
            and np.abs(boxes[index] - box).max() <= tolerance
        ]
        twins = twins or [index for index in sorted(unmatched) if _rivals(theirs, index, found, iou_threshold)]
        assert twins, f"no detection of upstream is like {box} {score} {label}"
        unmatched.remove(twins[0])


def _rivals(theirs, index, found, iou_threshold):
    """Whether a detection of upstream has one score with ours but for noise, and either suppresses the other."""
    (theirs, their_score, their_label), (box, score, label) = (column[index] for column in theirs), found
    low, high = np.maximum(theirs[:2], box[:2]), np.minimum(theirs[2:], box[2:])
    common = np.prod(np.clip(high - low, 0, None))
    union = sum(np.prod(corners[2:] - corners[:2]) for corners in (theirs, box)) - common
    return bool(abs(their_score - score) <= TIE and common / union > iou_threshold and their_label == label)


def true_frame(boxes, true_image_shapes, padded_shape):
    """`boxes [B, M, 4]` of the padded image, which upstream's models take, in the frame of the true image."""
    extent = np.asarray(true_image_shapes)[:, :2] / np.asarray(padded_shape)
    return (boxes / np.tile(extent, 2)[:, None]).astype("float32")


def to_numpy(value):
    """Dicts and lists of tensors as dicts and lists of numpy arrays."""
    if isinstance(value, dict):
        return {key: to_numpy(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [to_numpy(entry) for entry in value]
    return ops.convert_to_numpy(value)
