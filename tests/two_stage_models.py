"""Whole two-stage models of the goldens: config and checkpoint in, everything both stages compute out."""

import dataclasses

import numpy as np
from keras import ops

from keras_detect import schema
from keras_detect.boxes.anchor_generators import GridAnchorGenerator
from keras_detect.meta_architectures.ground_truth import clean_ground_truth
from keras_detect.meta_architectures.rfcn import RFCN
from keras_detect.meta_architectures.training_hooks import REGULARIZATION_LOSS
from keras_detect.meta_architectures.two_stage import ProposalStage
from tests import goldens, whole_models

#: the golden whose whole test runs in CI
QUICK = ("faster_rcnn_resnet50_v1_640x640_coco17_tpu-8",)
#: the same of TensorFlow 1's graphs
TF1_QUICK = ("faster_rcnn_inception_v2_coco",)
TF1_LARGE = (
    "rfcn_resnet101_coco",
    "faster_rcnn_resnet50_coco",
    "faster_rcnn_resnet101_coco",
    "mask_rcnn_inception_v2_coco",
    "faster_rcnn_resnet101_atrous_coco",
    "mask_rcnn_resnet50_atrous_coco",
    "faster_rcnn_inception_resnet_v2_atrous_coco",
    "mask_rcnn_inception_resnet_v2_atrous_coco",
)
#: the others, from the fastest to the slowest
LARGE = (
    "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8_img",
    "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8",
    "faster_rcnn_resnet152_v1_640x640_coco17_tpu-8",
    "faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8",
    "faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8_img",
    "faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8",
    "faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8",
    "faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8",
    "derived_faster_rcnn_inception_resnet_v2_640x640",
    "mask_rcnn_inception_resnet_v2_1024x1024_coco17_gpu-8",
)


class InPixels:
    """A target assigner that matches in the pixels of the preprocessed image, with upstream's rounding.

    The goldens' ground-truth boxes are whole pixels and so are most anchors: many have an IoU of 0.7 or 0.3, the
    thresholds, or share the largest one, and rounding decides what they are. Numbers divided by the size of the image,
    and ground truth by that of the true image, round differently.

    Args:
        stage: `ProposalStage` whose assigner this is.
        shapes: `[(height, width), ...]` of its feature maps.
        image_shape: `(height, width)` of the preprocessed image.
        boxes: `[B, M, 4]`, the golden's ground truth, normalized to the preprocessed image.
        training: whether anchors across the image's edge take no part, where they are not clipped to it.
    """

    def __init__(self, stage, shapes, image_shape, boxes, training=False):
        self.assigner, self.box_coder = stage.target_assigner, stage.target_assigner.box_coder
        side = np.tile(np.asarray(image_shape, "float32"), 2)
        if isinstance(stage.anchor_generator, GridAnchorGenerator):  # normalized to one pixel
            anchors = stage.anchor_generator(shapes, (1, 1))
            self.anchors = np.clip(anchors, 0.0, side)
            if training and not stage.clip_anchors:
                self.anchors = np.where((self.anchors == anchors).all(axis=-1, keepdims=True), anchors, 0.0)
        else:
            self.anchors = stage.anchors(shapes, image_shape, training=training) * side
        # `clean_ground_truth` adds a row of padding
        self.boxes = np.pad(boxes * side, ((0, 0), (0, 1), (0, 0))).astype("float32")

    def __call__(self, anchors, boxes, *others):
        assert anchors.shape == self.anchors.shape and tuple(boxes.shape) == self.boxes.shape
        return self.assigner(self.anchors, self.boxes, *others)


def match_all_anchors(model, shapes, image_shape, boxes, training=False):
    """`model`, whose first stage counts every anchor that is not ignored, matched in pixels (GOLDEN.md, section 4)."""
    stage = model.proposal_stage
    assigner = InPixels(stage, shapes, image_shape, boxes, training)
    model.proposal_stage = dataclasses.replace(stage, target_assigner=assigner, batch_size=10**6)
    return model


class StaticProposals(ProposalStage):
    """A first stage that always proposes P boxes, as upstream's `use_static_shapes` has it in training.

    Where clipping leaves fewer, the first one stands again in their places; it is classified and counted so often.
    Ours are zeros that count nothing, as upstream's are at inference.
    """

    def propose(self, predictions, window):
        boxes, number = super().propose(predictions, window)
        exists = ops.arange(boxes.shape[1])[None] < number[:, None]
        return ops.where(exists[..., None], boxes, boxes[:, :1]), ops.full_like(number, boxes.shape[1])


class Run:
    """A restored model and, as numpy arrays, everything it computes on its golden's image.

    `inputs`, `feature_maps`, `region_features`, `predictions`, `crop_features`, `detections` and `losses` come from one
    compiled function, in which each network runs once.
    """

    def __init__(self, name, folder):
        self.name = name
        with np.load(goldens.golden(f"{name}.npz")) as archive:
            self.golden = {key: archive[key] for key in archive.files}
        self.model, self.report, self.weights = whole_models.build(name, folder)
        self.on_whole_map = isinstance(self.model, RFCN)  # whose second stage sees no single proposal
        self.image_shape = tuple(int(side) for side in self.golden["preprocessed#shape"][1:3])
        self.side = np.tile(np.asarray(self.image_shape, "float32"), 2)
        self.image = whole_models.golden_image(name)
        boxes = self.golden["gt/boxes"][None]
        self.ground_truth = {
            schema.BOXES: whole_models.true_frame(boxes, self.golden["true_image_shapes"], self.image_shape),
            schema.LABELS: self.golden["gt/classes_zero_based"][None],
        }
        if "mask_loss" in self.model.loss_names:  # GOLDEN.md, section 4
            noise = np.random.RandomState(7).rand(boxes.shape[1], *self.image_shape)
            self.ground_truth[schema.MASKS] = (noise > 0.5)[None].astype(np.uint8)
        match_all_anchors(self.model, self._map_shapes(), self.image_shape, boxes)
        found = goldens.compiled(self._everything)(ops.convert_to_tensor(self.image))
        for key, value in found.items():
            setattr(self, key, whole_models.to_numpy(value))

    def _map_shapes(self):
        keys = [f"pred/rpn_features_to_crop[{index}]#shape" for index in range(5)]
        return [tuple(int(side) for side in self.golden[key][1:3]) for key in keys if key in self.golden]

    def _everything(self, image):
        model, kept = self.model, {}
        for part, method, key in (
            (model.feature_extractor, "extract_proposal_features", "feature_maps"),
            (model.region_predictor, "features", "region_features"),
            (model.feature_extractor, "extract_box_classifier_features", "crop_features"),
        ):
            setattr(part, method, _keeping(getattr(part, method), kept, key))
        inputs = model.preprocess(image)
        predictions = model(inputs, training=False)
        return {
            **kept,
            "inputs": inputs,
            "predictions": predictions,
            "detections": model.postprocess(predictions, inputs[schema.TRUE_IMAGE_SHAPES]),
            "losses": model.compute_losses(clean_ground_truth(self.ground_truth), predictions, inputs, training=False)
            | {REGULARIZATION_LOSS: sum([ops.sum(loss) for loss in model.losses], ops.zeros(()))},
        }

    def error(self, key, ours):
        """Relative error against the golden array `key`, whole or sampled; axes of length 1 may be missing."""
        shape = self.golden.get(f"{key}#shape")
        squeezed = [tuple(side for side in sides if side != 1) for sides in (ours.shape, shape) if sides is not None]
        assert len(set(squeezed)) == 1, f"{key}: {ours.shape}, upstream has {shape}"
        if key in self.golden:
            return goldens.relative_error(ours, self.golden[key])
        return goldens.relative_error(ours.ravel()[self.golden[f"{key}#idx"]], self.golden[f"{key}#val"])

    def heads(self):
        """`{golden key: our array}` of the heads of both stages, proposals in upstream's order."""
        rows = self.upstream_order()
        return {
            "pred/rpn_box_encodings": self.predictions[schema.RPN_BOX_ENCODINGS],
            "pred/rpn_objectness_predictions_with_background": self.predictions[schema.RPN_OBJECTNESS],
            "pred/box_classifier_features": self.crop_features if self.on_whole_map else self.crop_features[rows],
            "pred/refined_box_encodings": self.predictions[schema.BOX_ENCODINGS][0, rows],
            "pred/class_predictions_with_background": self.predictions[schema.CLASS_LOGITS][0, rows],
        }

    def upstream_order(self):
        """Our row of each of upstream's proposals: proposals whose scores tie but for noise swap places."""
        ours, theirs = self.predictions[schema.PROPOSALS][0] * self.side, self.golden["pred/proposal_boxes"][0]
        count = int(self.golden["pred/num_proposals"][0])
        rows, unused = [], list(range(count))
        for box in theirs[:count]:
            nearest = min(unused, key=lambda row: np.abs(ours[row] - box).max())
            rows.append(nearest)
            unused.remove(nearest)
        return np.array([*rows, *range(count, len(theirs))])


def _keeping(method, kept, key):
    """`method`, whose first result is put into `kept` under `key`."""

    def call(*args, **kwargs):
        found = method(*args, **kwargs)
        kept.setdefault(key, found)
        return found

    return call
