"""TensorFlow's SavedModel with the signatures of the TensorFlow Object Detection API."""

import json
import pathlib
from typing import Any

from keras_detect import schema
from keras_detect.export import upstream_outputs
from keras_detect.export.exporter import Exporter, ExportOptions, Runner
from keras_detect.export.metadata import METADATA_NAME
from keras_detect.registry import register_exporter

_EXTRA = "assets.extra"  # where TensorFlow expects files of others in a SavedModel
_SERVING = "serving_default"
_INPUT = "input_tensor"
_NETWORK = ("images", "true_image_shapes")
#: upstream's input types; the one that `signature` names is the default one of the file
SIGNATURES = ("image_tensor", "float_image_tensor", "encoded_image_string_tensor", "tf_example")


@register_exporter("saved_model")
class SavedModelExporter(Exporter):
    """A folder that `tf.saved_model.load` opens, with upstream's inputs and outputs; weights are constants.

    Every file has a signature for each of upstream's input types; `signature` says which of them is
    "serving_default" and what the loaded object does when it is called ("default": "image_tensor").
    """

    suffix = ""
    signatures = ("default", *SIGNATURES)
    static_image_size = False

    def write(self, frozen, path: pathlib.Path, options: ExportOptions) -> dict[str, Any]:
        import tensorflow as tf

        functions = _functions(frozen)
        default = functions["image_tensor" if options.signature == "default" else options.signature]
        module = tf.Module()
        module.__call__ = default  # upstream's users call the loaded object
        signatures = {name: function.get_concrete_function() for name, function in functions.items()}
        signatures[_SERVING] = default.get_concrete_function()
        save_options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # it cannot be trained
        tf.saved_model.save(module, str(path), signatures=signatures, options=save_options)
        extra = path / _EXTRA
        extra.mkdir(exist_ok=True)
        (extra / METADATA_NAME).write_text(json.dumps(frozen.metadata, indent=1), encoding="utf-8")
        return {}

    def open(self, path: pathlib.Path) -> Runner:
        return SavedModelRunner(path)


class SavedModelRunner(Runner):
    """A loaded SavedModel, called through its signature "image_tensor"."""

    def __init__(self, path):
        import tensorflow as tf

        if not (path / "saved_model.pb").exists():
            raise ValueError(f"A SavedModel is a folder with saved_model.pb. Received: {path}")
        self._loaded = tf.saved_model.load(str(path))  # keeps the variables and functions of the signature alive
        self._function = self._loaded.signatures["image_tensor"]
        self.batch_size, height, width, _ = self._function.structured_input_signature[1][_INPUT].shape
        self.image_size = None if height is None else (height, width)
        metadata = path / _EXTRA / METADATA_NAME
        self.metadata = json.loads(metadata.read_text(encoding="utf-8")) if metadata.exists() else {}

    def __call__(self, images):
        import tensorflow as tf

        outputs = self._function(**{_INPUT: tf.constant(images)})
        return upstream_outputs.as_schema({name: value.numpy() for name, value in outputs.items()})


def _functions(frozen):
    """`{input type: tf.function}`: each brings its input to preprocessed images, and all call one frozen detector."""
    import tensorflow as tf

    batch = frozen.batch_size
    height, width = frozen.image_size or (None, None)
    pixels = tf.TensorSpec((batch, height, width, 3), tf.float32, name=_INPUT)
    strings = tf.TensorSpec((batch,), tf.string, name=_INPUT)
    preprocess = frozen.trace(frozen.preprocess, pixels)
    preprocess_one = frozen.trace(frozen.preprocess, tf.TensorSpec((1, height, width, 3), tf.float32, name=_INPUT))
    specs = [preprocess.structured_outputs[key] for key in (schema.IMAGES, schema.TRUE_IMAGE_SHAPES)]
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name) for tensor, name in zip(specs, _NETWORK, strict=True)]

    def detect(images, true_image_shapes):
        return frozen.with_batch_size(upstream_outputs.detect(frozen.model, images, true_image_shapes))

    detector = frozen.trace(detect, *specs)

    def on_images(input_tensor):
        inputs = preprocess(tf.cast(input_tensor, tf.float32))
        return detector(inputs[schema.IMAGES], inputs[schema.TRUE_IMAGE_SHAPES])

    def on_strings(decode, input_tensor):
        def one(string):
            inputs = preprocess_one(tf.cast(decode(string), tf.float32)[None])
            return inputs[schema.IMAGES][0], inputs[schema.TRUE_IMAGE_SHAPES][0]

        kinds = [tf.TensorSpec(spec.shape[1:], spec.dtype) for spec in specs]
        return detector(*tf.map_fn(one, input_tensor, fn_output_signature=tuple(kinds)))

    def function(call, spec):
        return tf.function(call, input_signature=[spec], autograph=False)

    return {
        "image_tensor": function(on_images, tf.TensorSpec(pixels.shape, tf.uint8, name=_INPUT)),
        "float_image_tensor": function(on_images, pixels),
        "encoded_image_string_tensor": function(lambda input_tensor: on_strings(_decoded, input_tensor), strings),
        "tf_example": function(lambda input_tensor: on_strings(_decoded_example, input_tensor), strings),
    }


def _decoded(string):
    """`[H, W, 3]` uint8 of the bytes of an image file."""
    import tensorflow as tf

    return tf.ensure_shape(tf.io.decode_image(string, channels=3, expand_animations=False), (None, None, 3))


def _decoded_example(string):
    """The image of a serialized `tf.train.Example`, which stands under "image/encoded"."""
    import tensorflow as tf

    features = tf.io.parse_single_example(string, {"image/encoded": tf.io.FixedLenFeature((), tf.string)})
    return _decoded(features["image/encoded"])
