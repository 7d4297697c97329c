"""Backbones of KerasCV: levels, by name, saved and loaded in safe mode."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_detect import compat, schema
from keras_detect.backbones import keras_cv_models
from keras_detect.backbones.keras_models import SCALINGS, from_keras_model
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.ssd import SSD
from tests import goldens, tiny

# its import takes ten seconds and imports TensorFlow
pytestmark = [pytest.mark.slow] if goldens.BACKEND != "tensorflow" else []

CHANNELS, DEPTHS, STRIDES = [8, 12, 16, 20], [1, 1, 1, 1], [1, 2, 2, 2]
EFFICIENTNET = {
    "width_coefficient": 0.25,
    "depth_coefficient": 1.0,
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5],
    "stackwise_num_repeats": [1] * 5,
    "stackwise_input_filters": [32, 16, 24, 40, 112],
    "stackwise_output_filters": [16, 24, 40, 112, 192],
    "stackwise_expansion_ratios": [1, 2, 2, 2, 2],
    "stackwise_strides": [1, 2, 2, 2, 2],
}

#: family -> the sizes of a small network
FAMILIES = {
    "CSPDarkNetBackbone": {"stackwise_channels": CHANNELS, "stackwise_depth": DEPTHS},
    "YOLOV8Backbone": {"stackwise_channels": CHANNELS, "stackwise_depth": DEPTHS},
    "ResNetBackbone": {"stackwise_filters": CHANNELS, "stackwise_blocks": DEPTHS, "stackwise_strides": STRIDES},
    "ResNetV2Backbone": {"stackwise_filters": CHANNELS, "stackwise_blocks": [2] * 4, "stackwise_strides": STRIDES},
    "DenseNetBackbone": {"stackwise_num_repeats": DEPTHS},
    "EfficientNetLiteBackbone": {**EFFICIENTNET, "width_coefficient": 1.0},
    "EfficientNetV1Backbone": {**EFFICIENTNET, "stackwise_squeeze_and_excite_ratios": [0.25] * 5},
    "EfficientNetV2Backbone": {
        **EFFICIENTNET,
        "stackwise_squeeze_and_excite_ratios": [0, 0, 0.25, 0.25, 0.25],
        "stackwise_conv_types": ["fused", "fused", "unfused", "unfused", "unfused"],
    },
    "MobileNetV3Backbone": {
        "stackwise_expansion": [1, 2, 2, 2],
        "stackwise_filters": CHANNELS,
        "stackwise_kernel_size": [3, 3, 5, 5],
        "stackwise_stride": [2, 2, 2, 2],
        "stackwise_se_ratio": [0.25, None, 0.25, 0.25],
        "stackwise_activation": ["relu", "relu", "hard_swish", "hard_swish"],
    },
    "VGG16Backbone": {"include_top": False, "input_shape": (None, None, 3)},
}
FAST = {"CSPDarkNetBackbone", "ResNetBackbone"}


def network(family, **settings):
    keras_cv = pytest.importorskip("keras_cv")
    keras.utils.set_random_seed(0)
    return getattr(keras_cv.models, family)(include_rescaling=True, **{**FAMILIES[family], **settings})


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FAMILIES]
)
def test_levels_are_kerascvs_own_and_survive_the_configuration(family):
    """C2 to C5 of every family, and the same levels of the network that the configuration rebuilds."""
    model = network(family)
    backbone = from_keras_model(model)
    assert backbone.strides == {"C2": 4, "C3": 8, "C4": 16, "C5": 32}
    assert backbone.scaling == SCALINGS["none"]
    offered = model.pyramid_level_inputs  # VGG16 offers none
    assert not offered or list(backbone.levels.values()) == [offered[f"P{level}"] for level in (2, 3, 4, 5)]
    config = json.loads(json.dumps(backbone.get_config()))
    assert config["model"]["keras_cv_class"] == family
    rebuilt = type(backbone).from_config(config)
    assert rebuilt.get_config() == backbone.get_config()
    rebuilt.set_weights(backbone.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    own = keras.Model(model.inputs, {level: model.get_layer(layer).output for level, layer in backbone.levels.items()})
    wanted = own(images)
    for level, tensor in rebuilt(images).items():
        goldens.assert_close(tensor, keras.ops.convert_to_numpy(wanted[level]), err_msg=level)


@pytest.mark.parametrize("meta", [SSD, pytest.param(FasterRCNN, marks=pytest.mark.slow)])
def test_a_detector_on_cspdarknet_trains_and_reloads_in_safe_mode(meta, tmp_path):
    """CSPDarkNet holds Lambda layers, which a file in Keras' own form could not bring back."""
    backbone = from_keras_model(network("CSPDarkNetBackbone"))
    assert any(isinstance(layer, keras.layers.Lambda) for layer in compat.inner_layers(backbone))
    settings = {"neck": "fpn"} if meta is FasterRCNN else {}
    model = meta.from_backbone(backbone, num_classes=3, image_size=64, **settings)
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)  # Keras traces the many small layers for half a minute
    x, y = tiny.tiny_batch(batch_size=2)
    assert np.isfinite(list(model.train_on_batch(x, y, return_dict=True).values())).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")  # safe mode
    # names of unnamed layers count on from layer to layer; re-heading and presets go by those of the file
    assert list(loaded.named_weights()) == list(model.named_weights())
    scores = [each.predict(x, verbose=0)[schema.SCORES] for each in (model, loaded)]
    np.testing.assert_array_equal(*scores)


def test_frozen_layers_stay_frozen():
    backbone = from_keras_model(network("ResNetBackbone"))
    frozen = [layer for layer in compat.inner_layers(backbone.model) if layer.name.startswith("v2_stack_0")]
    for layer in frozen:
        layer.trainable = False
    rebuilt = type(backbone).from_config(backbone.get_config())
    assert len(rebuilt.trainable_weights) == len(backbone.trainable_weights) < len(backbone.weights)


def test_another_network_than_the_saved_one_is_refused():
    description = keras_cv_models.describe(network("ResNetBackbone"))
    layers = len(description["layer_names"])
    description["layer_names"].append("one_more")
    with pytest.raises(ValueError, match=f"was saved with {layers + 1} layers. Received: {layers} layers"):
        keras_cv_models.rebuild(description)
    with pytest.raises(ValueError, match=r"Unknown KerasCV backbone 'ResNetBackbon'. Did you mean ResNetBackbone"):
        keras_cv_models.rebuild({**description, "keras_cv_class": "ResNetBackbon"})


# --- by name ------------------------------------------------------------------------------------------------------


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A preset "resnet_small" of ResNetBackbone that is in a folder instead of on Kaggle."""
    keras_cv = pytest.importorskip("keras_cv")
    folder = tmp_path / "preset"
    folder.mkdir()
    model = network("ResNetBackbone")
    (folder / "config.json").write_text(json.dumps({**keras.saving.serialize_keras_object(model), "weights": None}))
    (folder / "metadata.json").write_text("{}")
    presets = {"resnet_small": {"kaggle_handle": str(folder)}}
    monkeypatch.setattr(keras_cv.models.ResNetBackbone, "presets", presets)
    return model


@pytest.mark.parametrize("meta", [SSD, FasterRCNN])
def test_a_preset_by_name(offered, meta):
    model = meta.from_backbone("keras_cv/resnet_small", num_classes=2, image_size=64)
    backbone = model.feature_extractor.backbone
    assert backbone.channels == {"C2": 32, "C3": 48, "C4": 64, "C5": 80}  # ResNet's blocks widen four times
    assert backbone.get_config()["model"]["keras_cv_class"] == "ResNetBackbone"
    assert len(backbone.weights) == len(offered.weights)


def test_a_class_by_name(monkeypatch):
    """A class with an architecture of its own, as keras_cv.models.ResNet50Backbone is."""
    keras_cv = pytest.importorskip("keras_cv")

    class SmallBackbone(keras_cv.models.ResNetBackbone):
        def __new__(cls, **kwargs):
            return network("ResNetBackbone", **kwargs)

    monkeypatch.setattr(keras_cv.models, "SmallBackbone", SmallBackbone, raising=False)
    model = SSD.from_backbone("keras_cv/SmallBackbone", num_classes=2, image_size=64)
    assert model.feature_extractor.backbone.channels["C5"] == 80


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("keras_cv/resnet5", "Unknown KerasCV backbone 'resnet5'. Did you mean .*resnet50"),
        ("keras_cv/ResNet51Backbone", "Did you mean .*ResNet50Backbone"),
        ("keras_cv/ResNetBackbone", r"is a family of networks.*Name one of its presets \(resnet101, .*or pass"),
    ],
)
@pytest.mark.parametrize("meta", [SSD, FasterRCNN])
def test_names_that_do_not_work_get_help(meta, name, message):
    pytest.importorskip("keras_cv")
    with pytest.raises(ValueError, match=message):
        meta.from_backbone(name, num_classes=2)


@pytest.mark.parametrize("error", [ConnectionError("no route to host"), TypeError("unexpected argument")])
def test_a_preset_that_cannot_be_built_names_the_cause(monkeypatch, error):
    keras_cv = pytest.importorskip("keras_cv")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(keras_cv.models.ResNetBackbone, "from_preset", fail)
    cause = f"could not build 'resnet50'.* {type(error).__name__}: {error}. Go online"
    with pytest.raises(ValueError, match=cause):
        keras_cv_models.keras_cv_model("resnet50")
    with pytest.raises(ValueError, match=cause):
        SSD.from_backbone("keras_cv/resnet50", num_classes=2)


def test_without_kerascv_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match="pip install keras-cv"):
        SSD.from_backbone("keras_cv/resnet50", num_classes=2)


def test_kerascv_is_not_imported_before_it_is_named():
    code = (
        "import sys, keras_detect\n"
        "keras_detect.SSD.from_backbone('mobilenet_v2', num_classes=2, image_size=64, weights=None)\n"
        "print('keras_cv' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
