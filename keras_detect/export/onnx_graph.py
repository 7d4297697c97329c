"""A frozen detector as an ONNX model: tf2onnx converts TensorFlow's graph, our functions stand in for two operations.

Greedy suppression, a loop in TensorFlow, becomes ONNX's NonMaxSuppression; CropAndResize, which tf2onnx would make a
loop over the boxes, becomes RoiAlign.
"""

import contextlib
import logging

from keras_detect.boxes.nms_candidates import replaced_scheme
from keras_detect.export import onnx_functions
from keras_detect.export.errors import ExportError
from keras_detect.export.onnx_functions import DOMAIN, OPSET
from keras_detect.kernels import dispatch

_MARK = "keras_detect_suppress"  # in the name of the node that stands for it in TensorFlow's graph
_POOL_SIZE = 1024
_LOWEST = -3.4028234663852886e38  # float32: above -inf, the score of what is not a candidate


def to_onnx(frozen, forward, spec):
    """`forward` of a frozen detector as an `onnx.ModelProto` of operators of the standard.

    Args:
        frozen: `FrozenDetector`.
        forward: as in `FrozenDetector.trace`.
        spec: `TensorSpec` of its input.

    Raises:
        ExportError: an operation that tf2onnx does not convert.
    """
    with dispatch.never_compiled(), replaced_scheme("greedy", _greedy), replaced_scheme("soft", _refused):
        function = frozen.trace(forward, spec)
    model = _converted(function)
    _require_standard(model)
    return model


def _greedy(candidates):
    """The suppression scheme "greedy" with a node in its place that becomes a call of `onnx_functions.SUPPRESS`."""
    import tensorflow as tf

    boxes, scores = candidates.all_boxes()
    shape = tf.shape(boxes)
    flat_boxes = tf.reshape(boxes, [shape[0], shape[1] * shape[2], 4])
    has_area = tf.reshape(candidates.clipped(flat_boxes)[1], shape[:3])
    settings = candidates.settings
    numbers = [candidates.cap, candidates.limit, max(_POOL_SIZE, 4 * candidates.limit)]
    inputs = [
        boxes,
        scores,
        has_area,
        tf.constant([settings.iou_threshold], tf.float32),
        tf.constant([max(settings.score_threshold, _LOWEST)], tf.float32),
        *(tf.constant([number], tf.int64) for number in numbers),
    ]
    scores, pairs = tf.numpy_function(_never_called, inputs, (tf.float32, tf.int64), name=_MARK)
    shape = (boxes.shape[0], candidates.limit)
    scores, pairs = tf.ensure_shape(scores, shape), tf.cast(tf.ensure_shape(pairs, shape), tf.int32)
    pool = candidates.describe(scores, pairs)
    boxes, has_area = candidates.clipped(pool.boxes)
    return candidates.detections(boxes, pool, tf.logical_and(pool.candidate, has_area))


def _refused(candidates):
    raise ExportError(
        "ONNX's NonMaxSuppression does not support soft NMS. Received: "
        f"soft_nms_sigma={candidates.settings.soft_nms_sigma}. Use greedy NMS (its post-processor's "
        "nms with soft_nms_sigma=0.0, through `model.with_parts`), or export it as a SavedModel."
    )


def _never_called(*inputs):
    raise RuntimeError("This node only marks a place in a graph that is converted to ONNX.")


def _converted(function):
    import onnx.inliner

    names = {tensor.name: name for name, tensor in function.structured_outputs.items()}
    inputs = [tensor.name for tensor in function.inputs]
    with _quiet_logging() as log:
        try:
            model = _converted_graph(function.graph.as_graph_def(), inputs, names)
        except Exception as error:  # tf2onnx raises what its handlers raise: ValueError, KeyError, its own
            raise ExportError(f"tf2onnx could not convert an operation: {_first_line(log, error)}") from error
    model.functions.extend(onnx_functions.functions())
    return onnx.inliner.inline_local_functions(model)


def _converted_graph(graph_def, inputs, names):
    """`tf2onnx.convert.from_graph_def` without its copies of the weights, two for each of some forty passes."""
    import onnx.helper
    import tensorflow as tf
    from tf2onnx import optimizer, tf_loader, tfonnx

    with tf.Graph().as_default():
        frozen = tf_loader.tf_optimize(inputs, list(names), graph_def)
    with tf.Graph().as_default() as graph, _constants_not_rebuilt():
        tf.import_graph_def(frozen, name="")
        converted = tfonnx.process_tf_graph(
            graph,
            continue_on_error=True,
            opset=OPSET,
            input_names=inputs,
            output_names=list(names),
            custom_op_handlers={"PyFunc": (_call_of_suppress, []), "CropAndResize": (_call_of_crop, [])},
            extra_opset=[onnx.helper.make_opsetid(DOMAIN, 1)],
            tensors_to_rename={**{name: name.split(":")[0] for name in inputs}, **names},
        )
        return optimizer.optimize_graph(converted, catch_errors=False).make_model(DOMAIN)


@contextlib.contextmanager
def _constants_not_rebuilt():
    """tf2onnx rebuilds every node after every pass, and protobuf frees none of the old ones: 7 GB of weights.

    A pass that changes a constant sets its value itself.
    """
    from tf2onnx.graph import Node

    rebuild = Node.update_proto

    def rebuild_others(node, *arguments, **options):
        if not node.is_const():
            rebuild(node, *arguments, **options)

    Node.update_proto = rebuild_others
    try:
        yield
    finally:
        Node.update_proto = rebuild


@contextlib.contextmanager
def _quiet_logging():
    """tf2onnx' errors are collected in place of being printed: they become an `ExportError`."""
    log, logger = [], logging.getLogger("tf2onnx")
    handler = logging.Handler()
    handler.emit = log.append
    kept = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    try:
        yield log
    finally:
        logger.handlers, logger.propagate = kept[:2]
        logger.setLevel(kept[2])


def _first_line(log, error):
    lines = [record.getMessage().splitlines()[0] for record in log if record.levelno >= logging.ERROR]
    return lines[0] if lines else str(error).splitlines()[0]


def _call_of_suppress(graph, node, name, args):
    if _MARK not in name:
        raise ExportError(f"tf.numpy_function cannot be converted: {name}")
    outputs = [graph.get_dtype(output) for output in node.output], [graph.get_shape(output) for output in node.output]
    inputs, names = list(node.input), list(node.output)
    graph.remove_node(name)
    _add_call(graph, onnx_functions.SUPPRESS, inputs, *outputs, name=name, outputs=names)


def _call_of_crop(graph, node, name, args):
    features, boxes, images, size = node.input
    height, width = (int(side) for side in node.inputs[3].get_tensor_value())
    padded = node.inputs[0].type in ("Pad", "PadV2", "MirrorPad")  # by `kernels.roi`, so that every sample is inside
    kinds = [graph.get_dtype(node.output[0])], [graph.get_shape(node.output[0])]
    names = list(node.output)
    graph.remove_node(name)
    size = graph.make_node("Cast", [size], attr={"to": 7}).output[0]
    attributes = {"height": height, "width": width}
    inputs = [features, boxes, images, size]
    if padded:
        _add_call(graph, onnx_functions.CROP_AND_RESIZE, inputs, *kinds, attr=attributes, name=name, outputs=names)
        return
    crops = _add_call(graph, onnx_functions.CROP_AND_RESIZE, inputs, *kinds, attr=attributes)
    mask = _add_call(graph, onnx_functions.INSIDE, [features, boxes, size], kinds[0], [[-1, height, width, 1]])
    graph.make_node("Mul", [crops, mask], name=name, outputs=names, dtypes=kinds[0], shapes=kinds[1])


def _add_call(graph, function, inputs, dtypes, shapes, **options):
    call = graph.make_node(
        function, inputs, domain=DOMAIN, dtypes=dtypes, shapes=shapes, infer_shape_dtype=False, **options
    )
    return call.output[0]


def _require_standard(model):
    """Raises `ExportError` for an operation that tf2onnx left as it was."""
    strange = sorted({node.op_type for node in _nodes(model.graph) if not _is_standard(node)})
    if strange:
        raise ExportError(
            f"ONNX (opset {OPSET}) has no operator for {', '.join(strange)}, which this model's graph holds. Replace "
            "the part that uses it (`model.with_parts`), or export as a SavedModel, which takes every operation."
        )


def _nodes(graph):
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _is_standard(node):
    import onnx.defs

    try:
        onnx.defs.get_schema(node.op_type, OPSET, node.domain)
    except onnx.defs.SchemaError:
        return False
    return True
