"""LiteRT files of upstream's detectors: every variable filled, outputs equal the LiteRT interpreter's on photos."""

import keras
import numpy as np
import pytest

from keras_detect import SSD
from keras_detect.data.image import as_pixels
from keras_detect.presets import preset
from keras_detect.presets.directory import build_model
from keras_detect.tf_od_api import name_maps_litert
from keras_detect.weights.folded_batch_norm import batch_norms, folded_layers
from keras_detect.weights.litert import LiteRTError
from keras_detect.weights.restore import RestoreError
from tests import goldens, tiny
from tests.networks import undrawn
from tests.weights import litert_files

ARCHITECTURE = preset.CONFIGS / "ssd_mobilenet_v2_320x320_coco17_tpu-8.json"


def detector(num_classes=23):
    with undrawn():
        return build_model(ARCHITECTURE, num_classes)[0]


@pytest.fixture(scope="module")
def real():
    return goldens.require_shared("weights/ssd_mobilenet_v2_oidv4/detect_fp16.tflite")


@pytest.fixture(scope="module")
def restored(real):
    model = detector()
    return model, model.restore(real)


def test_every_variable_is_filled(restored):
    model, report = restored
    assert len(report.restored) == len(model.named_weights()) == 324 and not report.kept
    assert report.folded == len(folded_layers(model)) == len(batch_norms(model)) > 50
    assert model.started_from.endswith("detect_fp16.tflite")


def test_raw_outputs_are_the_interpreters(restored, real):
    tf = pytest.importorskip("tensorflow")
    photos = sorted((goldens.require_shared("data/coco_free") / "images").glob("*.jpg"))[:8]
    interpreter = tf.lite.Interpreter(str(real))
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    outputs = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    model, _ = restored
    for photo in photos:
        inputs = model.preprocess(as_pixels(photo)[None])
        interpreter.set_tensor(entry, keras.ops.convert_to_numpy(inputs["images"]))
        interpreter.invoke()
        ours = model(inputs, training=False)
        for name, key in (("box_encodings", "box_encodings"), ("class_predictions", "class_logits")):
            theirs = interpreter.get_tensor(outputs[f"raw_outputs/{name}"])
            mine = keras.ops.convert_to_numpy(ours[key]).reshape(theirs.shape)
            if name == "class_predictions" and theirs.min() >= 0 and theirs.max() <= 1:
                mine = 1 / (1 + np.exp(-mine))
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4, err_msg=f"{photo.name} {name}")


def test_the_backbone_alone_and_another_number_of_classes(real, restored):
    model = detector(num_classes=5)
    report = model.restore(real)
    assert report.kept and all("_class/" in name for name in report.kept)
    with undrawn():
        other = SSD.from_backbone("mobilenet_v2", num_classes=2, image_size=64, weights=real)
    assert other.started_from == f"weights of {real}, backbone alone"
    theirs = tiny.weights_of(restored[0])
    for name, value in tiny.weights_of(other).items():
        if name.startswith("backbone/"):
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def layers_of(model, seed=0):
    """Random kernels and biases by scope that fit `model`."""
    rng, ours = np.random.default_rng(seed), model.named_weights()
    layers = {}
    for scope, names in name_maps_litert.scopes(model).items():
        kernel = rng.normal(size=ours[f"{names[0]}/kernel"].shape) * 0.1
        bias = ours[f"{names[1]}/beta"] if len(names) > 1 else ours[f"{names[0]}/bias"]
        layers[scope] = (kernel, rng.normal(size=bias.shape) * 0.1)
    return layers


@pytest.mark.parametrize("backbone", ["mobilenet_v1", "mobilenet_v2"])
def test_a_quantized_file_of_either_backbone(tmp_path, backbone):
    """As TensorFlow 1's converter writes it: scopes of MobileNetV1 one level deeper, uint8 with one scale."""
    with undrawn():
        model = SSD.from_backbone(backbone, num_classes=3, image_size=64, weights=None, **heads())
    path = tmp_path / "detect.tflite"
    deeper = {
        scope.replace("V1/Conv2d_0", "V1/MobilenetV1/Conv2d_0"): value for scope, value in layers_of(model).items()
    }
    written = litert_files.write(path, deeper, "uint8", per_channel=False)
    report = model.restore(path)
    assert len(report.restored) == len(model.named_weights())
    ours = tiny.weights_of(model)
    for scope, names in name_maps_litert.scopes(model).items():
        scope = scope.replace("V1/Conv2d_0", "V1/MobilenetV1/Conv2d_0")
        np.testing.assert_allclose(ours[f"{names[0]}/kernel"], written[f"{scope}/kernel"], atol=1e-6)
        bias = f"{names[1]}/beta" if len(names) > 1 else f"{names[0]}/bias"
        np.testing.assert_allclose(ours[bias], written[f"{scope}/bias"], atol=1e-6)


def heads():
    """One 1x1 convolution per map and head, as upstream has it."""
    from keras_detect.heads.convolutional import ConvolutionalBoxPredictor

    return {"box_predictor": ConvolutionalBoxPredictor}


def test_a_file_of_a_model_of_ours_under_its_own_names(tmp_path):
    """Keras counts calls behind a layer's name, and a fused batch norm may give the convolution its own."""
    with undrawn():
        model = SSD.from_backbone("mobilenet_v2", num_classes=3, image_size=64, weights=None)
    rng, ours, layers, wanted = np.random.default_rng(0), model.named_weights(), {}, {}
    for number, names in enumerate(name_maps_litert.own_scopes(model).values()):
        kernel = rng.normal(size=ours[f"{names[0]}/kernel"].shape) * 0.1
        bias = f"{names[1]}/beta" if len(names) > 1 else f"{names[0]}/bias"
        layer = names[1] if number % 2 and len(names) > 1 and "depthwise" not in names[0] else names[0]
        layers[f"ssd_1/{layer.replace('/', '_1/')}"] = (kernel, rng.normal(size=ours[bias].shape))
        wanted |= {f"{names[0]}/kernel": kernel, bias: layers[f"ssd_1/{layer.replace('/', '_1/')}"][1]}
    litert_files.write(tmp_path / "own.tflite", layers)
    report = model.restore(tmp_path / "own.tflite")
    assert len(report.restored) == len(ours) and report.folded == len(batch_norms(model))
    for name, value in wanted.items():
        np.testing.assert_array_equal(tiny.weights_of(model)[name], np.float32(value), err_msg=name)
    with undrawn():
        other = SSD.from_backbone("mobilenet_v2", num_classes=9, image_size=64, weights=tmp_path / "own.tflite")
    np.testing.assert_array_equal(
        tiny.weights_of(other)["backbone/stem_conv/kernel"], np.float32(wanted["backbone/stem_conv/kernel"])
    )


def test_what_does_not_fit_is_listed(tmp_path):
    with undrawn():
        model = SSD.from_backbone("mobilenet_v1", num_classes=3, image_size=64, weights=None, **heads())
    layers = layers_of(model)
    layers.pop("BoxPredictor_0/ClassPredictor")
    path = tmp_path / "detect.tflite"
    litert_files.write(path, {**layers, "Somewhere/Else": layers["FeatureExtractor/MobilenetV1/Conv2d_0"]})
    before = tiny.weights_of(model)
    with pytest.raises(RestoreError, match=r"(?s)BoxPredictor_0/ClassPredictor.*not used by the model.*Somewhere/Else"):
        model.restore(path)
    for name, value in tiny.weights_of(model).items():
        np.testing.assert_array_equal(value, before[name])
    for other in (tiny.tiny_ssd(), tiny.tiny_faster_rcnn()):
        with pytest.raises(ValueError, match=r"families|LiteRT files restore into SSDs"):
            other.restore(path)
    with pytest.raises(FileNotFoundError, match=r"No such LiteRT file: nowhere\.tflite"):
        model.restore("nowhere.tflite")
    path.write_bytes(b"nonsense")
    with pytest.raises(LiteRTError, match=r"detect\.tflite: not a LiteRT file"):
        model.restore(path)
