"""Any functional Keras model as a backbone: keras.applications, KerasCV, KerasHub, or your own.

`SSD.from_backbone(keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(None, None, 3)),
num_classes=3, neck="fpn")` wraps the model by itself; `from_keras_model` is for levels and pixel scaling by hand.
"""

import dataclasses
import json
import math
import re
from typing import Any

import keras
from keras import ops

from keras_detect import compat
from keras_detect.backbones.backbone import Backbone
from keras_detect.backbones.keras_cv_models import PREFIX, describe, is_keras_cv, keras_cv_model, rebuild
from keras_detect.registry import part, resolves, serializable, unknown_name

STRIDES = (4, 8, 16, 32)
PROBE = 512  # side of the image whose map sizes tell the strides


@part
class PixelScaling:
    """Pixels 0...255 to what a network takes: `pixels * scale + offset`, after an exchange of red and blue if `bgr`.

    Args:
        scale: number, or one for each channel.
        offset: number, or one for each channel.
        bgr: whether the network takes its channels in the order blue, green, red.
    """

    scale: float | tuple = 1.0
    offset: float | tuple = 0.0
    bgr: bool = False

    def __call__(self, images: Any) -> Any:
        """`images [B, H, W, 3]`, float RGB, to the same shape."""
        images = ops.flip(images, axis=-1) if self.bgr else images
        return images * ops.convert_to_tensor(self.scale, images.dtype) + ops.convert_to_tensor(
            self.offset, images.dtype
        )


#: the modes of keras.applications' `preprocess_input`, and two that others use
SCALINGS = {
    "none": PixelScaling(),  # the model scales inside
    "unit": PixelScaling(scale=1.0 / 255.0),  # 0...1
    "tf": PixelScaling(scale=1.0 / 127.5, offset=-1.0),  # -1...1
    "torch": PixelScaling(
        scale=(1.0 / (255 * 0.229), 1.0 / (255 * 0.224), 1.0 / (255 * 0.225)),
        offset=(-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
    ),
    "caffe": PixelScaling(offset=(-103.939, -116.779, -123.68), bgr=True),
}

#: `(regex of a model's name, mode)` of the keras.applications that do not scale inside, or were told not to
FAMILIES = (
    (r"resnet(50|101|152)v2", "tf"),
    (r"resnet(50|101|152)|vgg(16|19)", "caffe"),
    (r"densenet\d+|convnext.*|efficientnetv2-b\d", "torch"),
    (r"mobilenet.*|inception.*|xception|nasnet.*|efficientnetv2-[sml]", "tf"),
)


@serializable
class KerasBackbone(Backbone):
    """The levels of a functional Keras model, whose layers and weights it shares.

    A level of stride s is `ceil(H / s)` high for any image. For that, sides that are not multiples of the coarsest
    stride are padded behind with zeros and the levels are cut; a level of a network that loses its border (valid
    convolutions, as in InceptionV3) is padded evenly with zeros.

    Args:
        model: functional model `[B, H, W, 3]` -> anything, of no fixed image size.
        levels: `{"C3": layer name, ...}`, finest first.
        scaling: `PixelScaling`.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: an unknown layer, a level that is not a feature map, or whose stride is not what its name says.
    """

    def __init__(self, *, model: Any, levels: Any, scaling: Any, **kwargs):
        inner = keras.Model(
            model.inputs, {level: layer_output(model, layer) for level, layer in levels.items()}, name=model.name
        )
        _check_feature_maps(inner.output, levels)
        strides = dict(zip(inner.output, measured_strides(model, list(inner.output.values())), strict=True))
        inputs = keras.Input((None, None, 3), name="images")
        features = inner(PadToMultiple(max(strides.values()), name="pad")(inputs))
        outputs = {
            level: FitToStride(strides[level], max(strides.values()), name=f"fit_{level}")(features[level], inputs)
            for level in levels
        }
        super().__init__(inputs=inputs, outputs=outputs, strides=strides, **kwargs)
        self.model, self.levels, self.scaling = inner, dict(levels), scaling
        # text, because Keras would track a dict; the layers that no level needs are not kept
        self._description = json.dumps(describe(model)) if is_keras_cv(model) else None

    def preprocess(self, images: Any) -> Any:
        """Float RGB pixels 0...255 `[B, H, W, 3]` to what the model takes."""
        return self.scaling(images)

    def split_points(self) -> Any:
        """The levels inside the wrapped model, before they are cropped or padded to the image's size."""
        return self.model.output

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "model": self._model_config(),
            "levels": self.levels,
            "scaling": keras.saving.serialize_keras_object(self.scaling),
        }

    def _model_config(self):
        if self._description is None:
            return keras.saving.serialize_keras_object(self.model)
        frozen = [layer.name for layer in compat.inner_layers(self.model) if not layer.trainable]
        return {**json.loads(self._description), "frozen_layers": frozen}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        model = config["model"]
        if "keras_cv_class" in model:
            config = {**config, "model": rebuild(model)}
        return super().from_config(config, custom_objects)


def from_keras_model(
    model: Any, levels: Any = None, preprocess: Any = None, *, weights: Any = None, name: str | None = "backbone"
) -> KerasBackbone:
    """Wraps a Keras model as a `Backbone`.

    The wrapped model keeps its layers: training the detector trains it, and its weights are loaded before or after.

    Args:
        model: functional Keras model built with `input_shape=(None, None, 3)`; or the name of one in
            `keras.applications` ("MobileNetV3Small"), or of a class or preset of KerasCV ("keras_cv/resnet50").
        levels: `{"C3": layer name, ...}` or a list of layer names, finest first. `None` takes what a KerasCV
            (`pyramid_level_inputs`) or KerasHub (`pyramid_outputs`) backbone offers, else the outputs of a model
            that has several, else the last tensor of stride 4, 8, 16 and 32 through which all that follows passes.
        preprocess: how pixels 0...255 become the model's input: "none" (the model scales inside), "unit" (0...1),
            "tf" (-1...1), "torch" (ImageNet's mean and deviation), "caffe" (BGR minus ImageNet's mean), or a
            `PixelScaling`. `None`: "none" for a model that begins with a Rescaling or Normalization layer, else what
            keras.applications' `preprocess_input` of that family does, found by the model's name.
        weights: for a name in `keras.applications` only: `None` (random) or what that takes ("imagenet" is
            downloaded).
        name: of the backbone.

    Returns:
        `KerasBackbone`.

    Raises:
        ValueError: an unknown name or layer, `weights` for anything but a name in `keras.applications`, a model that is
            not functional or has a fixed image size, no level of stride 8, or a model whose pixel scaling is not known.
    """
    if weights is not None and (not isinstance(model, str) or model.startswith(PREFIX)):
        raise ValueError(
            f"`weights` is for names in keras.applications. Received: weights={weights!r} for "
            f"{model if isinstance(model, str) else type(model).__name__}, which brings its own. Remove the argument."
        )
    if isinstance(model, str):
        model = keras_cv_model(model) if model.startswith(PREFIX) else application(model, weights)
    _check_model(model)
    levels = find_levels(model) if levels is None else _named_levels(model, levels)
    return KerasBackbone(model=model, levels=levels, scaling=find_scaling(model, preprocess), name=name)


def application_names():
    """Names of the networks in `keras.applications`."""
    return sorted(name for name in dir(keras.applications) if name[0].isupper())


@resolves(
    "network of keras.applications",
    role="backbone",
    names=application_names,
    use="SSD.from_backbone({name!r}, ...)",
)
@resolves(
    "backbone of KerasCV",
    role="backbone",
    names=tuple,  # KerasCV is imported for its own names alone
    opens=lambda name: str(name).startswith(PREFIX),
    use="SSD.from_backbone({name!r}, ...)",
)
def _by_name(name, preprocess=None):
    return from_keras_model(name, preprocess=preprocess)


def application(name, weights=None):
    """The network `name` of `keras.applications`, without classifier, for images of any size."""
    if name not in application_names():
        raise ValueError(unknown_name("model of keras.applications", name, application_names()))
    return getattr(keras.applications, name)(include_top=False, weights=weights, input_shape=(None, None, 3))


# --- pixel scaling -----------------------------------------------------------------------------------------------


def find_scaling(model, preprocess=None):
    """`PixelScaling` for `preprocess` as in `from_keras_model`."""
    if isinstance(preprocess, PixelScaling):
        return preprocess
    if preprocess is None:
        preprocess = "none" if _scales_inside(model) else _mode_of_family(model)
    if preprocess not in SCALINGS:
        raise ValueError(f"{unknown_name('pixel scaling', preprocess, SCALINGS)} Or pass a PixelScaling.")
    return SCALINGS[preprocess]


def _scales_inside(model):
    first = {id(tensor) for tensor in model.inputs}
    return any(
        isinstance(node.operation, keras.layers.Rescaling | keras.layers.Normalization)
        and any(id(tensor) in first for tensor in node.input_tensors)
        for node in compat.calls(model)
    )


def _mode_of_family(model):
    for pattern, mode in FAMILIES:
        if re.fullmatch(rf"(?:{pattern})(_.*)?", model.name.lower()):
            return mode
    raise ValueError(
        f"The pixel scaling of '{model.name}' is unknown: it has no Rescaling layer and its name is not one of "
        f"keras.applications. Pass it as from_keras_model(model, preprocess=...): one of {', '.join(SCALINGS)}, or a "
        "PixelScaling."
    )


# --- levels ------------------------------------------------------------------------------------------------------


def find_levels(model):
    """`{"C3": layer name, ...}`, finest first, as in `from_keras_model`.

    Raises `ValueError` if the model has no level of stride 8.
    """
    offered = getattr(model, "pyramid_level_inputs", None) or getattr(model, "pyramid_outputs", None)
    if offered:
        named = {int(level[1:]): _layer_name(tensor) for level, tensor in offered.items()}
        found = {2**number: layer for number, layer in sorted(named.items())}
    elif len(model.outputs) > 1:
        tensors = [tensor for tensor in model.outputs if len(tensor.shape) == 4]
        found = _by_stride(zip(measured_strides(model, tensors), map(_layer_name, tensors), strict=True))
    else:
        found = _last_of_each_stride(model)
    levels = {f"C{stride.bit_length() - 1}": found[stride] for stride in STRIDES if stride in found}
    if "C3" not in levels:
        raise ValueError(
            f"A detector needs a level of stride 8. '{model.name}' has levels of stride "
            f"{sorted(found) or 'none'}. Name the layers yourself: from_keras_model(model, levels={{'C3': ...}})."
        )
    return levels


def _by_stride(pairs):
    """The last one of each stride."""
    return dict(sorted(dict(pairs).items()))


@dataclasses.dataclass(frozen=True)
class _Candidate:
    layer: str
    cut: bool  # everything that follows is computed from it alone
    merge: bool


def _last_of_each_stride(model):
    """`{stride: layer name}`.

    A tensor inside a branch is a poor level. So the last cut of the graph is taken, else (NASNet hands two tensors from
    cell to cell) the last sum or concatenation, else the last tensor. Zero padding has no size of its own.
    """
    nodes = [node for node in compat.calls(model) if node.input_tensors]
    last_use = {}
    for position, node in enumerate(nodes):
        last_use.update({id(tensor): position for tensor in node.input_tensors})
    tensors, candidates, open_until = [], [], -1
    for position, node in enumerate(nodes):
        tensor = node.outputs[0]
        if len(tensor.shape) == 4 and not isinstance(node.operation, keras.layers.ZeroPadding2D):
            merge = isinstance(node.operation, keras.layers.Add | keras.layers.Concatenate)
            tensors.append(tensor)
            candidates.append(_Candidate(node.operation.name, open_until <= position, merge))
        open_until = max(open_until, *(last_use.get(id(output), -1) for output in node.outputs))
    strides = measured_strides(model, tensors)
    found = {}
    for stride in sorted(set(strides) & set(STRIDES)):
        here = [candidate for candidate, other in zip(candidates, strides, strict=True) if other == stride]
        best = [c for c in here if c.cut] or [c for c in here if c.merge] or here
        found[stride] = best[-1].layer
    return found


def measured_strides(model, tensors):
    """Strides of Keras tensors `[B, h, w, c]` inside `model`, as powers of two."""
    try:
        shapes = keras.Model(model.inputs, list(tensors)).compute_output_shape((1, PROBE, PROBE, 3)) if tensors else ()
    except ValueError as error:  # NASNet, built without a size
        raise ValueError(
            f"'{model.name}' cannot take an image of {PROBE} x {PROBE}, so it takes no image of any size: {error}"
        ) from error
    return [2 ** round(math.log2(PROBE / max(shape[1], 1))) for shape in shapes]


def layer_output(model, name):
    """Output tensor of the layer called `name`. Raises `ValueError` with similar names if there is none."""
    for node in reversed(compat.calls(model)):
        if node.operation.name == name:
            return node.outputs[0]
    known = [node.operation.name for node in compat.calls(model)]
    raise ValueError(unknown_name(f"layer of '{model.name}'", name, known))


def _named_levels(model, levels):
    if isinstance(levels, dict):
        return dict(levels)
    tensors = [layer_output(model, layer) for layer in levels]
    _check_feature_maps(dict(zip(levels, tensors, strict=True)), dict(zip(levels, levels, strict=True)))
    strides = measured_strides(model, tensors)
    if len(set(strides)) != len(strides):
        raise ValueError(
            f"Levels must differ in stride. Received: levels={list(levels)} with strides {strides}. Keep one of each."
        )
    return {f"C{stride.bit_length() - 1}": layer for stride, layer in sorted(zip(strides, levels, strict=True))}


def _layer_name(tensor):
    """KerasCV gives names of layers, KerasHub tensors."""
    return tensor if isinstance(tensor, str) else compat.producer(tensor).operation.name


def _check_model(model):
    if not compat.is_functional(model):
        kind = type(model).__name__
        raise ValueError(
            "A backbone is made of a functional Keras model, whose inner tensors can be read. Received: "
            f"{kind}. Build a Sequential or subclassed model as keras.Model(inputs, outputs), or subclass "
            "keras_detect.Backbone."
        )
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise ValueError(f"A backbone has one input [B, H, W, 3]. '{model.name}' has inputs of shape {shapes}.")
    if shapes[0][1:3] != (None, None):
        raise ValueError(
            f"'{model.name}' was built for images of {shapes[0][1]} x {shapes[0][2]} only. Build it with "
            "input_shape=(None, None, 3) and without classifier (include_top=False)."
        )


def _check_feature_maps(tensors, layers):
    for level, tensor in tensors.items():
        if len(tensor.shape) != 4:
            raise ValueError(
                f"A level must be a feature map [B, h, w, c]. The layer '{layers[level]}' gives {tuple(tensor.shape)}. "
                "Take a layer before the pooling and dense layers."
            )


# --- sizes -------------------------------------------------------------------------------------------------------


@serializable
class PadToMultiple(keras.layers.Layer):
    """Zeros behind `[B, H, W, C]` until both sides are multiples of `multiple`.

    Args:
        multiple: int.
        **kwargs: Keras' own `name`, `dtype`.
    """

    def __init__(self, multiple, **kwargs):
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, images):
        behind = [-side % self.multiple for side in ops.shape(images)[1:3]]
        return _padded(images, [(0, side) for side in behind])

    def compute_output_shape(self, shape):
        sides = [None if side is None else _up(side, self.multiple) for side in shape[1:3]]
        return (shape[0], *sides, shape[-1])

    def get_config(self):
        return {**super().get_config(), "multiple": self.multiple}


@serializable
class FitToStride(keras.layers.Layer):
    """Cuts or pads a level to `ceil(side / stride)` of the image before `PadToMultiple`.

    Args:
        stride: of the level.
        multiple: what the image was padded to.
        **kwargs: Keras' own `name`, `dtype`.

    Call arguments:
        level: `[B, h, w, C]`.
        images: `[B, H, W, any]`; only its size is looked at.
    """

    def __init__(self, stride, multiple, **kwargs):
        super().__init__(**kwargs)
        self.stride, self.multiple = stride, multiple

    def call(self, level, images):
        sides = ops.shape(images)[1:3]
        lost = [
            _up(side, self.multiple) // self.stride - have
            for side, have in zip(sides, ops.shape(level)[1:3], strict=True)
        ]
        lost = [max(side, 0) if isinstance(side, int) else ops.maximum(side, 0) for side in lost]
        level = _padded(level, [(side // 2, side - side // 2) for side in lost])
        height, width = (_up(side, self.stride) // self.stride for side in sides)
        return level[:, :height, :width]

    def compute_output_shape(self, level_shape, images_shape):
        sides = [None if side is None else _up(side, self.stride) // self.stride for side in images_shape[1:3]]
        return (level_shape[0], *sides, level_shape[-1])

    def get_config(self):
        return {**super().get_config(), "stride": self.stride, "multiple": self.multiple}


def _up(side, multiple):
    return side + -side % multiple


def _padded(x, sides):
    """`x [B, H, W, C]` with `((top, bottom), (left, right))` zeros, integers or scalar tensors."""
    if all(isinstance(side, int) and side == 0 for pair in sides for side in pair):
        return x
    return ops.pad(x, ((0, 0), *sides, (0, 0)))
