"""torchvision's detectors from state dicts: raw heads, proposals and detections are torchvision's."""

import importlib.util
import math
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_detect import SSD, FasterRCNN, RetinaNet
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.heads import GroupNormBoxPredictor, SharedRegionProposalPredictor
from keras_detect.layers.region_cropper import RegionCropper
from keras_detect.necks import TorchFeaturePyramid
from keras_detect.transforms.resizers import TorchResizer
from keras_detect.weights.restore import RestoreError
from tests import goldens, tiny
from tests.networks import undrawn
from tests.weights import torchvision_golden
from tests.weights.torch_networks import write_safetensors

# compiling a ResNet is cheap on TensorFlow only; the tables are the same on every backend
BIG = () if goldens.BACKEND == "tensorflow" else pytest.mark.slow
YX = [1, 0, 3, 2]
FIRST = [pytest.param(name, marks=BIG) for name in torchvision_golden.NAMES if not name.endswith("v2")]
SECOND = [pytest.param(name, marks=pytest.mark.slow) for name in torchvision_golden.NAMES if name.endswith("v2")]


def detector(name, **settings):
    """The model that torchvision's is, for the golden's size of image."""
    cls = RetinaNet if "retinanet" in name else FasterRCNN
    with undrawn():
        model = cls.from_torchvision(name, **settings)
    size = {"min_dimension": torchvision_golden.SIZE["min_size"], "max_dimension": torchvision_golden.SIZE["max_size"]}
    model.resizer = TorchResizer(**size, per_channel_pad_value=model.resizer.per_channel_pad_value)
    return model


@pytest.fixture(scope="module")
def restored(tmp_path_factory):
    """`(model, golden)` of a name, each made once; the file is one that no torch is needed for."""
    made = {}

    def of(name):
        if name not in made:
            arrays = torchvision_golden.golden(name)
            path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
            write_safetensors(path, torchvision_golden.state(name, arrays))
            model = detector(name)
            report = model.restore(path)
            path.unlink()
            assert set(report.restored) == set(model.named_weights()) and not report.kept
            assert set(report.ignored.values()) == {"counts the training steps"}
            assert model.started_from == str(path)
            made[name] = model, arrays
        return made[name]

    return of


def predicted(model):
    inputs = model.preprocess(torchvision_golden.image()[None])
    values = {key: keras.ops.convert_to_numpy(value) for key, value in model(inputs, training=False).items()}
    height, width = values["image_shape"]
    return inputs, values, np.array([height, width, height, width])


def kept(key, values):
    return values[:: torchvision_golden.KEPT.get(key, 1)]


@pytest.mark.parametrize("name", [*FIRST, *SECOND])
def test_raw_heads_and_detections(name, restored):
    """Relative errors of the raw heads up to 1e-4; detections as a set, to 1e-3 of the side and of the score."""
    model, arrays = restored(name)
    inputs, values, side = predicted(model)
    np.testing.assert_allclose(values["anchors"][::61] * side, arrays["anchors"][:, YX], atol=1e-3)
    if "retinanet" in name:
        close(values["class_logits"][0], arrays, "class_logits")
        close(values["box_encodings"][0], arrays, "box_codes", YX)
    else:
        close(values["rpn_objectness"][0, :, 1], arrays, "objectness")
        close(values["rpn_box_encodings"][0], arrays, "box_codes", YX)
        number = int(values["num_proposals"][0])
        assert number == len(arrays["proposals"])
        assert_same_boxes(values["proposals"][0][:number] * side, arrays["proposals"][:, YX], 0.02)
        second_stage(model, inputs, arrays, side)
    same_detections(model, arrays, 0 if "retinanet" in name else 1)


def close(ours, arrays, key, order=slice(None)):
    theirs = arrays[key]
    ours, theirs = kept(key, ours), theirs[..., order] if theirs.ndim > 1 else theirs
    assert goldens.relative_error(ours, theirs) < 1e-4, key


def second_stage(model, inputs, arrays, side):
    """On torchvision's proposals."""
    proposals = (arrays["proposals"][:, YX] / side).astype("float32")[None]
    maps = model.feature_extractor.extract_proposal_features(inputs["images"], training=False)
    found = model.classify(maps, keras.ops.convert_to_tensor(proposals), side[:2], training=False)
    close(keras.ops.convert_to_numpy(found["class_logits"])[0], arrays, "roi_logits")
    theirs = arrays["roi_codes"]
    codes = theirs.reshape(len(theirs), -1, 4)[:, 1:][..., YX]
    ours = kept("roi_codes", keras.ops.convert_to_numpy(found["box_encodings"])[0])
    assert goldens.relative_error(ours, codes) < 1e-4


def assert_same_boxes(ours, theirs, tolerance):
    distances = np.abs(ours[:, None] - theirs[None]).max(-1)
    assert distances.min(0).max() < tolerance and distances.min(1).max() < tolerance


def same_detections(model, arrays, background):
    found = model.predict_on_batch(torchvision_golden.image()[None])
    number = int(found["num_detections"][0])
    assert number == len(arrays["detected_scores"])
    rows = [np.asarray(found[key][0][:number]) for key in ("boxes", "scores", "labels")]
    height, width = torchvision_golden.image().shape[:2]
    boxes = arrays["detected_boxes"][:, YX] / [height, width, height, width]
    labels = arrays["detected_labels"] - background
    free = set(range(number))
    for box, score, label in zip(boxes, arrays["detected_scores"], labels, strict=True):
        near = (np.abs(rows[0] - box).max(-1) < 1e-3) & (np.abs(rows[1] - score) < 1e-3) & (rows[2] == label)
        fits = [row for row in np.flatnonzero(near) if row in free]
        assert fits, (box, score, label)
        free.remove(fits[0])


@pytest.mark.backend_free
@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torchvision")
def test_the_golden_is_torchvisions(tmp_path):
    """Made again, the first RetinaNet alone, in another process: torchvision's import crashes beside TensorFlow."""
    name = torchvision_golden.NAMES[0]
    command = [sys.executable, "-m", "tests.weights.torchvision_golden", str(tmp_path), name]
    subprocess.run(command, check=True, cwd=pathlib.Path(__file__).parents[2])
    stored, made = torchvision_golden.golden(name), torchvision_golden.golden(name, tmp_path)
    assert stored.keys() == made.keys()
    for key, value in stored.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(made[key], value, rtol=1e-3, atol=1e-3, err_msg=key)
        else:
            np.testing.assert_array_equal(made[key], value, err_msg=key)


OLDER = (
    (r"backbone.fpn.inner_blocks.2.0.weight", "backbone.fpn.inner_blocks.2.weight"),
    (r"backbone.fpn.layer_blocks.0.0.bias", "backbone.fpn.layer_blocks.0.bias"),
    (r"head.classification_head.conv.3.0.weight", "head.classification_head.conv.6.weight"),
    (r"head.regression_head.conv.1.0.bias", "head.regression_head.conv.2.bias"),
)


@pytest.mark.backend_free
def test_names_of_older_versions_and_frozen_batch_norm(tmp_path, restored):
    """The published files of the first versions: older names, and batch norm without an epsilon.

    What batch norm computes is the same; ours has an epsilon, so its gamma is another.
    """
    model, arrays = restored("retinanet_resnet50_fpn")
    before = tiny.weights_of(model)
    state = torchvision_golden.state("retinanet_resnet50_fpn", arrays)
    state = {f"module.{dict(OLDER).get(name, name)}": value for name, value in state.items() if "tracked" not in name}
    write_safetensors(tmp_path / "older.safetensors", state)
    model.restore(tmp_path / "older.safetensors")
    after = tiny.weights_of(model)
    model.restore(_file(tmp_path, arrays))
    again = tiny.weights_of(model)
    for name, value in before.items():
        np.testing.assert_array_equal(again[name], value)
        if not name.endswith("gamma"):
            np.testing.assert_array_equal(after[name], value)
            continue
        variance = before[name.replace("gamma", "moving_variance")]
        np.testing.assert_allclose(after[name] / np.sqrt(variance + 1e-5), value / np.sqrt(variance), rtol=1e-6)


def _file(folder, arrays):
    path = folder / "model.safetensors"
    write_safetensors(path, torchvision_golden.state("retinanet_resnet50_fpn", arrays))
    return path


@pytest.mark.backend_free
def test_what_is_refused_and_what_is_left_out(tmp_path, restored):
    model, arrays = restored("retinanet_resnet50_fpn")
    path = _file(tmp_path, arrays)
    other = detector("retinanet_resnet50_fpn", num_classes=3)
    assert other.num_classes == 3 and other.class_names is None
    report = other.restore(path)
    assert sorted(report.kept) == ["box_predictor/shared_class/bias", "box_predictor/shared_class/kernel"]
    with undrawn():
        alone = SSD.from_backbone("resnet_v1_50_torch", num_classes=2, image_size=64, weights=path)
    ours, theirs = tiny.weights_of(alone), tiny.weights_of(model)
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items() if name.startswith("backbone/"))
    with pytest.raises(ValueError, match=r"RetinaNet\.from_torchvision.*SsdFeatureMaps, which they do not have"):
        alone.restore(path)
    with pytest.raises(
        ValueError, match=r"'fasterrcnn_resnet50_fpn' is a FasterRCNN.*use FasterRCNN\.from_torchvision"
    ):
        RetinaNet.from_torchvision("fasterrcnn_resnet50_fpn")
    with pytest.raises(ValueError, match=r"retinanet_resnet50_fpn"):
        RetinaNet.from_torchvision("retinanet_resnet50")
    with pytest.raises(RestoreError, match=r"(?s)not in the checkpoint.*not used by the model"):
        detector("fasterrcnn_resnet50_fpn").restore(path)
    classifier = {name.removeprefix("backbone.body."): value for name, value in _body(arrays).items()}
    write_safetensors(tmp_path / "resnet50.safetensors", classifier)
    with pytest.raises(ValueError, match=r"resnet50\.safetensors: the state dict of a classifier.*kind='classific"):
        model.restore(tmp_path / "resnet50.safetensors")


def _body(arrays):
    state = torchvision_golden.state("retinanet_resnet50_fpn", arrays)
    return {name: value for name, value in state.items() if name.startswith("backbone.body.")}


@pytest.mark.backend_free
def test_the_config_holds_every_setting(restored):
    model, _ = restored("retinanet_resnet50_fpn")
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert again.resizer == model.resizer and again.anchor_generator == model.anchor_generator
    assert model.class_names[1] == "person" and len(model.class_names) == 91
    assert not any(layer.trainable for layer in model.feature_extractor.backbone.layers if layer.name.endswith("_bn"))


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FasterRcnnBoxCoder(largest_log_ratio=0.0), "largest_log_ratio must be positive"),
        (
            lambda: Postprocessor(nms=MulticlassNonMaxSuppression(), candidates_per_level=0),
            "candidates_per_level must be at least 1",
        ),
        (lambda: RegionCropper(method="roi_align", alignment="left"), "alignment must be one of"),
        (lambda: RegionCropper(num_maps=0), "num_maps must be at least 1"),
        (lambda: TorchFeaturePyramid(coarse_from="P4"), "coarse_from must be one of"),
        (lambda: TorchFeaturePyramid(separable=True), "only full convolutions"),
        (lambda: SharedRegionProposalPredictor(num_anchors_per_location=(3, 2)), "same number of anchors"),
        (
            lambda: GroupNormBoxPredictor(num_classes=1, num_anchors_per_location=(3, 3)),
            "cannot be combined with batch norm",
        ),
    ],
)
def test_settings_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.backend_free
@pytest.mark.parametrize("size", [(480, 640), (640, 480), (375, 500), (100, 140), (333, 1000), (1200, 1600), (31, 900)])
def test_sizes_are_torchs(size):
    """torch multiplies a float32 factor in float64 and cuts: 480 rows become 799."""
    resizer = TorchResizer(min_dimension=800, max_dimension=1333)
    factor = float(np.minimum(np.float32(800) / np.float32(min(size)), np.float32(1333) / np.float32(max(size))))
    expected = tuple(math.floor(side * factor) for side in size)
    assert resizer.resized_size(*size) == expected
    assert resizer.output_shape(*size) == tuple(-(-side // 32) * 32 for side in expected)
    shapes = keras.ops.convert_to_tensor([[*size, 3]], dtype="int32")
    after = resizer.batch_resizing(shapes, *size).after
    assert tuple(int(side[0]) for side in after) == expected
    with pytest.raises(ValueError, match="pad_to_max_dimension"):
        TorchResizer(pad_to_max_dimension=True)
