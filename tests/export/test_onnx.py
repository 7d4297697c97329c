"""ONNX files: what ONNX Runtime and OpenCV detect with them, and the two operations that are written as functions."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_detect import schema
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.export import ExportError, open_exported
from keras_detect.export.onnx_functions import CROP_AND_RESIZE, DOMAIN, INSIDE, OPSET, SUPPRESS, functions
from keras_detect.export.representative import RepresentativeImages
from keras_detect.export.verification import predicted
from keras_detect.kernels import roi
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.transforms.resizers import FixedShapeResizer
from tests.export.answers import CLASS_NAMES, assert_equal
from tests.tiny import tiny_batch, tiny_faster_rcnn, tiny_ssd

REASON = "pip install 'keras-detect[export]' brings it"
onnx = pytest.importorskip("onnx", reason=REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)
pytest.importorskip("tf2onnx", reason=REASON)

TENSOR = {np.dtype("float32"): 1, np.dtype("int64"): 7, np.dtype("int32"): 6, np.dtype("bool"): 9}


@pytest.fixture(scope="module")
def ssd():
    return tiny_ssd(num_classes=None, class_names=CLASS_NAMES)


@pytest.fixture(scope="module")
def ssd_file(ssd, tmp_path_factory):
    """A file of any number of images, and its report."""
    path = tmp_path_factory.mktemp("onnx") / "ssd.onnx"
    return path, ssd.export(path, batch_size=None, image_size=64, verbose=0)


def test_the_file_is_of_the_standard_and_says_what_it_holds(ssd_file):
    path, report = ssd_file
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import if not entry.domain] == [("", OPSET)]
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert report.details["opset"] == OPSET
    properties = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert properties["class_names"] == list(CLASS_NAMES)
    assert properties[DOMAIN]["weights_digest"] == report.weights_digest
    transposes = sum(node.op_type == "Transpose" for node in model.graph.node)
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert transposes < convolutions  # the network runs channels first, without turning back between layers


def test_batches_of_any_number_get_the_answers_of_predict(ssd, ssd_file):
    runner = open_exported(ssd_file[0])
    assert runner.batch_size is None and runner.image_size == (64, 64)
    for count in (1, 3):
        images = tiny_batch(count, seed=count)[0]
        assert_equal(predicted(ssd, images), runner(images))


def test_upstreams_sampling_is_one_operator_and_answers_as_predict(tmp_path):
    model = tiny_ssd(resizer=FixedShapeResizer(height=64, width=64, kernel="legacy"))
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    report = model.export(tmp_path / "legacy.onnx", images=[image, image[:, :40]], verbose=0)
    assert report.missing == 0 and report.score_difference < 1e-5
    resizing = [node.op_type for node in onnx.load(tmp_path / "legacy.onnx").graph.node]
    assert resizing.count("Resize") == 1
    assert resizing.index("Resize") < resizing.index("Conv")
    assert "Gather" not in resizing[: resizing.index("Conv")]


def test_opencv_detects_the_same(ssd, ssd_file):
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed", exc_type=ImportError)
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip(f"OpenCV {cv2.__version__} has no NonMaxSuppression in its dnn; 5.0 has")
    net = cv2.dnn.readNetFromONNX(str(ssd_file[0]))
    images = tiny_batch(1)[0]
    net.setInput(images)
    names = net.getUnconnectedOutLayersNames()
    assert_equal(predicted(ssd, images), dict(zip(names, net.forward(names), strict=True)))


def test_a_raw_file_leaves_suppression_to_the_client(ssd, tmp_path):
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed", exc_type=ImportError)
    report = ssd.export(tmp_path / "raw.onnx", image_size=64, signature="raw", verbose=0)
    assert report.missing == 0
    images = tiny_batch(1)[0]
    # docs/export.md has these lines
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "raw.onnx"), getattr(cv2.dnn, "ENGINE_CLASSIC", 0))  # OpenCV 4's
    net.setInput(images)
    boxes, scores = (output[0] for output in net.forward(["boxes", "scores"]))
    y1, x1, y2, x2 = np.repeat(boxes, scores.shape[1], axis=0).T
    rectangles = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1).astype(np.float64)
    labels = np.tile(np.arange(scores.shape[1]), len(scores)).astype(np.int32)
    nms = ssd.final_suppression
    keep = cv2.dnn.NMSBoxesBatched(rectangles, scores.ravel(), labels, nms.score_threshold, nms.iou_threshold)
    keep = np.asarray(keep)[np.argsort(-scores.ravel()[keep], kind="stable")][: nms.max_total_detections]
    found = {
        schema.BOXES: np.clip(np.stack([y1, x1, y2, x2], axis=1)[keep], 0, 1)[None],
        schema.SCORES: scores.ravel()[keep][None],
        schema.LABELS: labels[keep][None],
        schema.NUM_DETECTIONS: np.asarray([len(keep)]),
    }
    assert_equal(predicted(ssd, images), found)


def test_faster_rcnn_detects_the_same(tmp_path):
    model = tiny_faster_rcnn()
    report = model.export(tmp_path / "frcnn.onnx", batch_size=None, image_size=64, verbose=0)
    assert report.missing == 0 and report.matched > 300
    with pytest.raises(ExportError, match="between its stages"):
        model.export(tmp_path / "raw.onnx", signature="raw", verbose=0)
    assert not (tmp_path / "raw.onnx").exists()


@pytest.mark.parametrize(
    "name",
    ("RetinaNet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("EfficientDet", "Faster R-CNN FPN"))),
)
def test_pyramids_detect_the_same(name, tmp_path):
    if name == "Faster R-CNN FPN":
        model = tiny_faster_rcnn(neck="fpn")
    else:
        model = tiny_ssd(neck="fpn" if name == "RetinaNet" else "bifpn")
        nms = dataclasses.replace(model.final_suppression, score_threshold=0.0)  # not trained: all scores are low
        model = model.with_parts(postprocessor=dataclasses.replace(model.postprocessor, nms=nms))
    report = model.export(tmp_path / "pyramid.onnx", image_size=64, verbose=0)
    assert report.missing == 0 and report.matched > 0.95 * report.detections > 50


def test_soft_suppression_is_refused(ssd, tmp_path):
    nms = dataclasses.replace(ssd.final_suppression, soft_nms_sigma=0.5)
    soft = ssd.with_parts(postprocessor=dataclasses.replace(ssd.postprocessor, nms=nms))
    with pytest.raises(ExportError, match=r"soft_nms_sigma=0\.5.*SavedModel"):
        soft.export(tmp_path / "soft.onnx", image_size=64, images=list(tiny_batch(1)[0]), verbose=0)
    assert not list(tmp_path.iterdir())


def test_a_trained_model_of_the_package_detects_the_same(tmp_path):
    model = DetectionModel.from_preset("ssd_mobilenet_v2_oidv4")
    report = model.export(tmp_path / "oidv4.onnx", image_size=320, verbose=0)
    assert report.missing == 0 and report.detections == 400
    assert max(report.box_difference, report.score_difference) < 1e-5


def test_int8_stands_around_the_convolutions_but_the_last(ssd_file, tmp_path):
    from keras_detect.export.onnx_quantization import quantized

    images = list(tiny_batch(3)[0])
    model, _ = quantized(onnx.load(ssd_file[0]), RepresentativeImages(images), tmp_path)
    onnx.checker.check_model(model, full_check=True)
    produced = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    quantized_ones = [node for node in convolutions if produced.get(node.input[1]) is not None]
    assert 0 < len(quantized_ones) < len(convolutions)  # the last ones of the heads stay float
    assert all(produced[node.input[0]].op_type == "DequantizeLinear" for node in quantized_ones)
    kept = next(node for node in model.graph.node if node.op_type == "NonMaxSuppression")
    assert produced[kept.input[0]].op_type == "GatherND"
    onnx.save(model, tmp_path / "int8.onnx")
    found = open_exported(tmp_path / "int8.onnx")(np.stack(images))
    assert np.isfinite(found[schema.BOXES]).all() and found[schema.SCORES].max() > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "int8.onnx"]


def test_values_that_are_not_finite_have_no_int8(ssd_file, tmp_path):
    from keras_detect.export.onnx_quantization import quantized

    model = onnx.load(ssd_file[0])
    kernels = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for tensor in model.graph.initializer:
        if tensor.name in kernels:
            tensor.raw_data = (onnx.numpy_helper.to_array(tensor) * np.float32(np.inf)).tobytes()
    with pytest.raises(ExportError, match="with untrained weights"):
        quantized(model, RepresentativeImages(list(tiny_batch(3)[0])), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_operation_that_onnx_lacks_is_named(tmp_path):
    from keras_detect.export.exporter import ExportOptions
    from keras_detect.export.frozen import FrozenDetector
    from keras_detect.export.onnx_graph import to_onnx

    frozen = FrozenDetector.__new__(FrozenDetector)
    frozen.model, options = None, ExportOptions(image_size=(8, 8))
    frozen.batch_size, frozen.image_size = 1, options.image_size
    with pytest.raises(ExportError, match="BitwiseXor"):
        to_onnx(
            frozen, lambda images: {"found": tf.bitwise.bitwise_xor(images, images + 1)}, frozen.images_spec("uint8")
        )


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"no\.onnx"):
        open_exported(tmp_path / "no.onnx")


# --------------------------------------------------------------------------------------------------- the ONNX functions


def session(function, inputs, outputs, **attributes):
    """An ONNX Runtime session of one call of a function, of numpy arrays like these."""
    from onnx import inliner  # `import onnx` does not import it

    node = onnx.helper.make_node(function, list(inputs), outputs, domain=DOMAIN, **attributes)
    infos = [
        onnx.helper.make_tensor_value_info(name, TENSOR[value.dtype], [None] * value.ndim)
        for name, value in inputs.items()
    ]
    graph = onnx.helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=name) for name in outputs])
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, 1)]
    model = onnx.helper.make_model(graph, functions=functions(), opset_imports=opsets, ir_version=8)
    inlined = onnx.shape_inference.infer_shapes(inliner.inline_local_functions(model))
    for value, kind in zip(inlined.graph.output, {SUPPRESS: (1, 7)}.get(function, (1,)), strict=True):
        value.type.tensor_type.elem_type = kind
    return onnxruntime.InferenceSession(inlined.SerializeToString(), providers=["CPUExecutionProvider"])


def arrays(boxes, scores, reported, nms, pool_size):
    return {
        "boxes": boxes,
        "scores": scores,
        "reported": reported,
        "iou_threshold": np.asarray([nms.iou_threshold], np.float32),
        "score_threshold": np.asarray([0.0], np.float32),
        "cap": np.asarray([nms.max_detections_per_class]),
        "limit": np.asarray([nms.max_total_detections]),
        "pool_size": np.asarray([pool_size]),
    }


@pytest.mark.parametrize("per_class", (False, True))
def test_suppression_keeps_what_ours_keeps(per_class):
    rng, run = np.random.default_rng(0), None
    for _ in range(12):
        batch, anchors, classes = int(rng.integers(1, 4)), int(rng.integers(1, 50)), int(rng.choice([1, 3, 9]))
        corner = rng.uniform(-0.1, 1.1, (batch, anchors, classes if per_class else 1, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.6, corner.shape)], -1).astype(np.float32)
        scores = np.round(rng.uniform(0.01, 1, (batch, anchors, classes)), 2).astype(np.float32)  # with ties
        nms = MulticlassNonMaxSuppression(
            iou_threshold=float(rng.choice([0.3, 0.6])),
            max_detections_per_class=int(rng.integers(1, 12)),
            max_total_detections=int(rng.integers(1, 20)),
        )
        window = np.asarray([0.0, 0.0, 1.0, 1.0], np.float32)
        expected = nms(boxes, scores, window)
        clipped = np.clip(boxes, 0, 1)
        reported = (clipped[..., 2] > clipped[..., 0]) & (clipped[..., 3] > clipped[..., 1])
        inputs = arrays(boxes, scores, reported, nms, pool_size=int(rng.choice([3, 10, 1024])))
        run = run or session(SUPPRESS, inputs, ["scores_of", "pairs"])
        found, pairs = run.run(None, inputs)
        for image in range(batch):
            count = int(expected.num_detections[image])
            anchor, label = np.asarray(expected.indices[image])[:count], np.asarray(expected.labels[image])[:count]
            assert (found[image] > -np.inf).sum() == count
            np.testing.assert_array_equal(pairs[image, :count], anchor * classes + label)
            np.testing.assert_array_equal(found[image, :count], np.asarray(expected.scores[image])[:count])


@pytest.mark.parametrize("crop_size", ((7, 5), (1, 1)))
def test_crops_are_those_of_the_kernel(crop_size):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 9, 11, 3)).astype(np.float32)
    corner = rng.uniform(-0.2, 0.8, (2, 20, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.0, 0.6, corner.shape)], -1).astype(np.float32)
    boxes[0, 0] = [0.0, 0.0, 1.0, 1.0]
    expected = ops.convert_to_numpy(roi.crop_and_resize(features, boxes, crop_size, outside="cut"))
    inputs = {"features": features, "boxes": boxes.reshape(-1, 4)}
    images, size = np.repeat(np.arange(2, dtype=np.int32), 20), np.asarray(crop_size, np.int64)
    crop = session(
        CROP_AND_RESIZE,
        {**inputs, "images": images, "size": size},
        ["crops"],
        height=crop_size[0],
        width=crop_size[1],
    )
    inside = session(INSIDE, {**inputs, "size": size}, ["mask"])
    found = (
        crop.run(None, {**inputs, "images": images, "size": size})[0] * inside.run(None, {**inputs, "size": size})[0]
    )
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)
