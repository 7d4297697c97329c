"""The way from TensorFlow 1: config and checkpoint or frozen graph -> a file that detects what upstream detected."""

import json

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect.tf_od_api import name_maps
from keras_detect.tf_od_api.convert import convert_checkpoint
from keras_detect.weights.tf2_object_checkpoint import open_checkpoint
from tests import goldens, whole_models
from tests.networks import undrawn
from tests.weights import golden_checkpoints
from tests.weights.test_frozen_graph import graph_of

SMALL = "embedded_ssd_mobilenet_v1_coco"
NAMES = [SMALL, pytest.param("ssdlite_mobilenet_v2_coco", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=NAMES)
def converted(request, tmp_path_factory):
    """`(name, model loaded from the converted file, the report)` of a real checkpoint."""
    checkpoint = goldens.require_shared(f"golden_tf1/checkpoints/{request.param}")
    config = goldens.require_shared(f"golden_tf1/{request.param}.config")
    file = tmp_path_factory.mktemp("converted") / "model.keras"
    _, report = convert_checkpoint(config, checkpoint, file)
    return request.param, keras.saving.load_model(file), report


def test_everything_but_the_counter_is_restored(converted):
    _, model, report = converted
    assert len(report.restored) == len(model.named_weights()) and not report.kept
    assert set(report.ignored) == {"global_step"}


def test_the_file_detects_what_upstreams_frozen_graph_detects(converted):
    name, model, _ = converted
    with np.load(goldens.require_shared(f"golden_tf1/{name}.frozen.npz")) as archive:
        golden = {key: archive[key] for key in archive.files}
    image = np.random.RandomState(0).randint(0, 256, (1, 240, 320, 3)).astype("uint8")
    found = {key: np.asarray(value) for key, value in model.predict_on_batch(image).items()}
    theirs = {f"post/{key}": value for key, value in golden.items()}
    theirs["post/detection_classes"] = golden["detection_classes"] - 1
    iou_threshold = model.postprocessor.nms.iou_threshold
    whole_models.assert_same_detections(theirs, found, iou_threshold, tolerance=1e-4)


def test_a_frozen_graph_is_converted_to_the_same_weights(converted, tmp_path):
    name, model, _ = converted
    reader = open_checkpoint(goldens.require_shared(f"golden_tf1/checkpoints/{name}"))
    graph = graph_of({key: reader.read(key) for key in reader.shapes} | {"Preprocessor/sub/y": np.float32(1)})
    (tmp_path / "frozen_inference_graph.pb").write_bytes(graph.SerializeToString())
    config = goldens.require_shared(f"golden_tf1/{name}.config")
    frozen, report = convert_checkpoint(config, tmp_path / "frozen_inference_graph.pb", tmp_path / "model.keras")
    assert not report.ignored and not report.kept
    ours = frozen.named_weights()
    for weight, value in model.named_weights().items():
        np.testing.assert_array_equal(ours[weight], value, err_msg=weight)


def test_slims_checkpoint_of_a_classifier(tmp_path):
    """Upstream's own map of names, and what the classifier holds behind the backbone."""
    renamed = json.loads(goldens.require_shared("golden_tf1/ssd_mobilenet_v1_coco.restore_map.json").read_text())
    renamed = renamed["classification"]["renamed"]
    with undrawn():
        model = keras_detect.from_pipeline_config(goldens.golden("ssd_mobilenet_v1_coco.config"))
    keys = name_maps.classifier_keys(model, tf1=True)
    detector = name_maps.backbone_checkpoint_keys(model, tf1=True)
    assert {keys[name]: detector[name] for name in keys}.items() <= renamed.items()
    weights = {key: np.full(model.named_weights()[name].shape, 0.25, "float32") for name, key in keys.items()}
    end = {"MobilenetV1/Logits/Conv2d_1c_1x1/weights": np.zeros((1, 1, 1024, 1001), "float32")}
    prefix = golden_checkpoints.write_tf1_checkpoint(weights | end, tmp_path)
    report = model.restore(prefix, kind="classification")
    assert report.restored == keys and set(report.ignored) == {*end, "global_step"}
    with pytest.raises(ValueError, match="variables of the model are not in the checkpoint"):
        model.restore(prefix)


def test_moving_averages_and_ranges(tmp_path):
    """Averages are taken on request (a batch norm's statistics have none); ranges stay with the model."""
    with undrawn():
        model = keras_detect.from_pipeline_config(goldens.golden("ssd_mobilenet_v1_coco.config"))
    keys = name_maps.checkpoint_keys(model, tf1=True)
    weights = {key: np.full(model.named_weights()[name].shape, 0.25, "float32") for name, key in keys.items()}
    average = f"{keys['backbone/stem_conv/kernel']}/ExponentialMovingAverage"
    scope = "FeatureExtractor/MobilenetV1/Conv2d_0/act_quant"
    ranges = {f"{scope}/min": np.float32(-1), f"{scope}/max": np.float32(6)}
    values = weights | ranges | {average: np.full((3, 3, 3, 32), 0.75, "float32")}
    prefix = golden_checkpoints.write_tf1_checkpoint(values, tmp_path)
    report = model.restore(prefix)
    assert "EMA" in report.ignored[average]
    assert report.ranges == {scope: (-1.0, 6.0)} and "1 range of fake quantization kept" in report.one_line()
    assert dict(model.get_config()["quantization_ranges"]) == {scope: [-1.0, 6.0]}
    np.testing.assert_array_equal(model.named_weights()["backbone/stem_conv/kernel"], 0.25)
    model.restore(prefix, moving_averages=True)
    np.testing.assert_array_equal(model.named_weights()["backbone/stem_conv/kernel"], 0.75)
    np.testing.assert_array_equal(model.named_weights()["backbone/stem_bn/moving_mean"], 0.25)
