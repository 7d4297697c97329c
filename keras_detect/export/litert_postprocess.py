"""Upstream's contract for LiteRT files: the operator TFLite_Detection_PostProcess, and what it cannot express."""

import numpy as np

from keras_detect import schema
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.export.errors import ExportError
from keras_detect.export.litert_graph import LiteRTGraph
from keras_detect.export.litert_pieces import Network, converted, trace

OPERATOR = "TFLite_Detection_PostProcess"
INPUT = "normalized_input_image_tensor"
#: the outputs in their order, by their names in the signature, which upstream numbers from the last one
OUTPUTS = ("output_3", "output_2", "output_1", "output_0")
#: names of the tensors, from which upstream's clients tell the order
TENSOR_NAMES = {
    schema.IMAGES: INPUT,
    **{name: f"{OPERATOR}:{index}" if index else OPERATOR for index, name in enumerate(OUTPUTS)},
}
_SCORES = "scores"
_WAY_OUT = "Pass signature='default', which detects what predict detects."


def append_postprocess(graph: LiteRTGraph, frozen, network: Network) -> None:
    """Puts upstream's operator behind the network's predictions.

    Its boxes `[1, D, 4]` (yxyx, normalized to the image) are not clipped, its classes are numbered from 0. It
    suppresses class by class as `predict` does, or across classes if the model's suppression is class agnostic.

    Raises:
        ExportError: the model has no final stage of an SSD, or settings that the operator lacks.
    """
    if not {schema.BOX_ENCODINGS, schema.CLASS_LOGITS} <= set(network.outputs):
        raise needs_one_stage(frozen.model)
    stage = frozen.model.final_stage(network.predictions(network.specs()), network.true_image_shapes)
    _check(frozen.model, stage, network)
    logits = next(spec for spec in network.specs() if spec.name == schema.CLASS_LOGITS)
    function = trace(lambda class_logits: {_SCORES: stage.postprocessor.all_scores(class_logits)}, logits)
    graph.append(LiteRTGraph(converted(function)))
    anchors = graph.add_constant("anchors", _center_size(np.asarray(stage.anchors)))
    inputs = [graph.outputs[schema.BOX_ENCODINGS], graph.outputs[_SCORES], anchors]
    count = stage.postprocessor.nms.max_total_detections
    shapes = ((1, count, 4), (1, count), (1, count), (1,))
    graph.add_custom(
        OPERATOR, _options(stage, frozen.model.num_classes), inputs, dict(zip(OUTPUTS, shapes, strict=True))
    )


def needs_one_stage(model) -> ExportError:
    """The error for a model whose predictions are not those of a one-stage detector."""
    return ExportError(
        f"The operator {OPERATOR} takes the box codes and class logits of a one-stage detector. Received: a "
        f"{type(model).__name__}. {_WAY_OUT}"
    )


def _check(model, stage, network):
    nms, coder = stage.postprocessor.nms, stage.box_coder
    codes = next(spec for spec in network.specs() if spec.name == schema.BOX_ENCODINGS)
    received = None
    if not isinstance(coder, FasterRcnnBoxCoder):
        received = f"box_coder={coder}"
    elif len(codes.shape) != 3:
        received = f"a box per class (codes of shape {tuple(codes.shape)})"
    elif nms.soft_nms_sigma > 0.0:
        received = f"soft_nms_sigma={nms.soft_nms_sigma}"
    elif nms.scheme not in (None, "greedy"):
        received = f"the suppression scheme {nms.scheme!r}"
    elif nms.clip_first or stage.postprocessor.candidates_per_level or stage.postprocessor.suppress_by_level:
        received = "boxes that are clipped, chosen or suppressed by feature map before suppression"
    if received is not None:
        raise ExportError(
            f"The operator {OPERATOR} decodes one box per anchor as FasterRcnnBoxCoder does and suppresses greedily. "
            f"Received: {received} in {model.name}. {_WAY_OUT}"
        )


def _options(stage, num_classes):
    """The operator's settings as a FlexBuffer."""
    from flatbuffers import flexbuffers

    nms = stage.postprocessor.nms
    scales = stage.box_coder.scale_factors or (1.0, 1.0, 1.0, 1.0)
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Int("max_detections", nms.max_total_detections)
        builder.Int("max_classes_per_detection", 1)
        builder.Int("detections_per_class", nms.max_detections_per_class)
        builder.Bool("use_regular_nms", not nms.class_agnostic)
        # the operator keeps scores from its threshold on, the package those above it
        builder.Float("nms_score_threshold", float(np.nextafter(np.float32(nms.score_threshold), np.float32(np.inf))))
        builder.Float("nms_iou_threshold", nms.iou_threshold)
        builder.Int("num_classes", num_classes)
        for name, scale in zip(("y_scale", "x_scale", "h_scale", "w_scale"), scales, strict=True):
            builder.Float(name, float(scale))
    return bytes(builder.Finish())


def _center_size(anchors):
    """Corners `[A, 4]` to the operator's `[ycenter, xcenter, height, width]`."""
    low, high = anchors[:, :2], anchors[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def as_detections(boxes, classes, scores, count) -> dict[str, np.ndarray]:
    """The operator's four outputs as detections of `schema`: boxes clipped, those without area dropped.

    Args:
        boxes: `[1, D, 4]` float32, yxyx, normalized to the image.
        classes: `[1, D]` float32, from 0.
        scores: `[1, D]` float32.
        count: `[1]` float32: how many rows are detections.
    """
    boxes, rows = np.clip(boxes, 0.0, 1.0), boxes.shape[1]
    sides = boxes[..., 2:] - boxes[..., :2]
    kept = (np.arange(rows) < count[:, None]) & (sides[..., 0] * sides[..., 1] > 0.0)
    order = np.argsort(~kept, axis=1, kind="stable")
    kept = np.take_along_axis(kept, order, axis=1)
    labels = np.take_along_axis(classes, order, axis=1).astype(np.int32)
    return {
        schema.BOXES: np.where(kept[..., None], np.take_along_axis(boxes, order[..., None], axis=1), 0.0),
        schema.SCORES: np.where(kept, np.take_along_axis(scores, order, axis=1), 0.0),
        schema.LABELS: np.where(kept, labels, schema.PADDING_LABEL).astype(np.int32),
        schema.NUM_DETECTIONS: kept.sum(axis=1).astype(np.int32),
    }
