"""A detector as TensorFlow functions without variables: weights are constants, batch norm is in the kernels."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from keras_detect import schema
from keras_detect.export.errors import ExportError
from keras_detect.export.folding import fold_batch_norm, remove_unused
from keras_detect.export.function_library import register_functions
from keras_detect.export.metadata import model_metadata


class FrozenDetector:
    """What an exporter writes: the detector's functions as frozen TensorFlow graphs.

    Args:
        model: `DetectionModel` under the TensorFlow backend.
        options: `ExportOptions`.
        static_image_size: whether the input has a fixed height and width; without `options.image_size` they are
            those of the resizer's canvas.

    Attributes:
        model: the detector.
        batch_size: B of the input, `None` for any.
        image_size: `(height, width)` of the input, `None` for any.
        metadata: dict for the file (`export.metadata`).

    Raises:
        ExportError: a fixed size is wanted and the resizer has none.
    """

    def __init__(self, model, options, static_image_size=True):
        self.model, self.batch_size = model, options.batch_size
        self.image_size = input_size(model, options, static_image_size)
        self.metadata = model_metadata(model, options, self.image_size)

    @functools.cached_property
    def function(self):
        """The whole detector: `images [B, H, W, 3]` uint8 -> dict of detections (`schema`), a concrete function."""
        return self.trace(self.deployable, self.images_spec("uint8"))

    def deployable(self, images):
        """`model.deployable`, with static shapes behind a resizer that has one canvas, for images of any size."""
        inputs = self.preprocess(images)
        predictions = self.model(inputs, training=False)
        return self.with_batch_size(self.model.postprocess(predictions, inputs[schema.TRUE_IMAGE_SHAPES]))

    def with_batch_size(self, outputs):
        """`outputs`, tensors by name whose first axis is B, with the static batch size where there is one."""
        for tensor in outputs.values():
            tensor.set_shape((self.batch_size, *tensor.shape[1:]))
        return outputs

    def preprocess(self, images):
        """`model.preprocess`, likewise: `{"images" [B, h, w, 3] float32, "true_image_shapes" [B, 3] int32}`."""
        inputs = self.model.preprocess(images)
        if has_one_canvas(self.model):
            inputs[schema.IMAGES].set_shape((None, *canvas_of(self.model), None))
        return inputs

    def images_spec(self, dtype):
        """`TensorSpec` of the input pixels, called "images"."""
        import tensorflow as tf

        height, width = self.image_size or (None, None)
        return tf.TensorSpec((self.batch_size, height, width, 3), dtype, name=schema.IMAGES)

    def trace(self, forward: Callable[..., dict[str, Any]], *specs):
        """Another function of the detector's, frozen.

        Args:
            forward: takes a tensor for each of `specs` and returns a dict of tensors; may call `model.preprocess`,
                `model(...)`, `model.postprocess` and TensorFlow.
            *specs: `TensorSpec`s with names.

        Returns:
            `tf.ConcreteFunction` of the same inputs and outputs, without variables.
        """
        import tensorflow as tf

        traced = tf.function(forward, input_signature=list(specs), autograph=False).get_concrete_function()
        return frozen_function(traced, specs)


def input_size(model, options, static_image_size):
    """`(height, width)` of a file's input, `None` for any; see `FrozenDetector`."""
    if options.image_size is not None or not static_image_size:
        return options.image_size
    return canvas_of(model)


def is_one_stage(model) -> bool:
    """Whether the model decodes anchors and suppresses once, as an SSD does: a final stage and none before it."""
    return hasattr(model, "final_stage") and not hasattr(model, "proposal_stage")


def has_one_canvas(model) -> bool:
    """Whether the model's resizer brings every image to one size."""
    return len(_canvases(model)) == 1


def canvas_of(model) -> tuple[int, int]:
    """`(height, width)` to which the model's resizer brings every image.

    Raises:
        ExportError: it has no fixed canvas.
    """
    sizes = _canvases(model)
    if len(sizes) != 1:
        raise ExportError(
            f"This format needs images of one size, and {model.resizer} makes them as large as they come. Received: "
            "image_size=None. Pass image_size=(height, width)."
        )
    return sizes.pop()


def _canvases(model):
    """Sizes to which the resizer brings images of several sizes."""
    try:
        return {tuple(model.resizer.output_shape(*size)) for size in ((480, 640), (640, 480), (64, 64), (999, 2000))}
    except ValueError:
        return set()


class FrozenGraph(NamedTuple):
    """A TensorFlow graph without variables.

    Attributes:
        graph_def: `tf.compat.v1.GraphDef`.
        inputs: names of tensors.
        outputs: `{name: name of the tensor}`.
        shapes: `{name: static shape of the output}`.
    """

    graph_def: Any
    inputs: list[str]
    outputs: dict[str, str]
    shapes: dict[str, Any]


def frozen_function(traced, specs):
    """A concrete function with variables as one without, batch norm folded; inputs and outputs keep their names."""
    return function_of(frozen_graph(traced), specs)


def frozen_graph(traced) -> FrozenGraph:
    """The `FrozenGraph` of a concrete function whose outputs are a dict, batch norm folded."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    constant = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    inputs = [tensor.name for tensor in constant.inputs]
    names = list(traced.structured_outputs)  # a dict: flat outputs follow its sorted keys
    outputs = dict(zip(sorted(names), [tensor.name for tensor in constant.outputs], strict=True))
    graph_def = constant_folded(constant.graph.as_graph_def(), inputs, list(outputs.values()))
    fold_batch_norm(graph_def)
    remove_unused(graph_def, [*inputs, *outputs.values()])
    return FrozenGraph(graph_def, inputs, outputs, {name: traced.structured_outputs[name].shape for name in outputs})


def function_of(graph: FrozenGraph, specs):
    """A concrete function of a graph; `specs` are `TensorSpec`s of its inputs, with names."""
    import tensorflow as tf

    register_functions(graph.graph_def)

    def run(*tensors):
        found = tf.graph_util.import_graph_def(
            graph.graph_def,
            input_map=dict(zip(graph.inputs, tensors, strict=True)),
            return_elements=list(graph.outputs.values()),
            name="detector",
        )
        for name, tensor in zip(graph.outputs, found, strict=True):
            tensor.set_shape(graph.shapes[name])
        return dict(zip(graph.outputs, found, strict=True))

    return tf.function(run, input_signature=list(specs), autograph=False).get_concrete_function()


def constant_folded(graph_def, inputs, outputs):
    """A graph whose constant expressions are constants, and which holds what the outputs need."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
    meta_graph = tf.compat.v1.train.export_meta_graph(graph_def=graph.as_graph_def(), graph=graph)
    fetches = meta_graph_pb2.CollectionDef()
    fetches.node_list.value.extend([*inputs, *outputs])
    meta_graph.collection_def["train_op"].CopyFrom(fetches)
    config = config_pb2.ConfigProto()
    rewrites = config.graph_options.rewrite_options
    rewrites.optimizers.extend(["constfold", "dependency", "constfold"])
    rewrites.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    rewrites.min_graph_nodes = -1
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def require_tensorflow():
    """Raises `ExportError` unless Keras runs on TensorFlow, whose graphs the exporters read."""
    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            "A detector is frozen under the TensorFlow backend. Received: "
            f"KERAS_BACKEND={keras.backend.backend()}. Use export_model, which starts a process with that backend."
        )
