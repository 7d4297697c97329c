"""LiteRT files: the same detections as `predict`, in the stock interpreter and in MediaPipe Tasks."""

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_detect import DetectionModel, export, inference, schema
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.data.dataset import DetectionDataset
from keras_detect.export import frozen, litert_graph, litert_heads, litert_pieces, litert_postprocess, verification
from keras_detect.export.frozen import canvas_of
from keras_detect.export.litert import interpreter_class
from keras_detect.transforms.resizers import KeepAspectRatioResizer
from tests import goldens, tiny

pytestmark = pytest.mark.skipif(goldens.BACKEND != "tensorflow", reason="files are written under TensorFlow")
NAMES = ["apple", "pear", "quince"]


def spread(model):
    """The model with scores that differ from detection to detection."""
    random = np.random.default_rng(0)
    for name, weight in model.named_weights().items():
        if "_class" in name and name.endswith("kernel"):
            weight.assign(random.normal(size=weight.shape, scale=3.0 / np.sqrt(np.prod(weight.shape[:3]))))
    return model


def photos(count=3):
    """Smooth images `[64, 64, 3]` uint8, unlike one another."""
    random = np.random.default_rng(1)
    small = [Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(count)]
    return [np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)) for image in small]


@pytest.fixture(scope="module")
def model():
    return spread(tiny.tiny_ssd(class_names=NAMES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("litert")


@pytest.fixture(scope="module")
def default_file(model, folder):
    path = folder / "default.tflite"
    return path, export.export_model(model, path, images=photos(), verbose=0)


@pytest.fixture(scope="module")
def upstreams_file(model, folder):
    path = folder / "upstreams.tflite"
    return path, export.export_model(model, path, signature="tf_od_api", images=photos(), verbose=0)


def interpreters():
    """The interpreters that are installed: LiteRT's own and TensorFlow's."""
    import tensorflow as tf

    return list({interpreter_class(), tf.lite.Interpreter})


def operators(path):
    """Operator codes of a file: numbers of built-in ones, and the names of custom ones."""
    codes = litert_graph.file_schema().ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0).operatorCodes
    return {code.builtinCode for code in codes}, {code.customCode for code in codes} - {None}


def test_the_default_signature_answers_as_predict(model, default_file):
    path, report = default_file
    assert (report.missing, report.matched) == (0, report.detections)
    assert report.detections > 100
    assert max(report.box_difference, report.score_difference) < 1e-5
    assert operators(path)[1] == set()  # built-in operators alone
    images = np.stack(photos(1))
    expected = model.predict_on_batch(images)
    for interpreter in interpreters():
        run = interpreter(model_path=str(path)).get_signature_runner()
        found = run(images=images)
        assert set(found) == {schema.BOXES, schema.SCORES, schema.LABELS, schema.NUM_DETECTIONS}
        for key, value in found.items():
            np.testing.assert_allclose(value, expected[key], atol=1e-5, err_msg=key)


def test_the_file_holds_classes_and_metadata(model, default_file):
    path, _ = default_file
    runner = export.open_exported(path)
    assert runner.metadata["class_names"] == NAMES
    assert runner.metadata["weights_digest"] == export.weights_digest(model)
    assert (runner.batch_size, runner.image_size) == (1, None)
    assert tuple(interpreter_class()(model_path=str(path)).get_input_details()[0]["shape"]) == (1, 64, 64, 3)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().splitlines() == NAMES


def test_the_file_is_a_detector_of_its_own(model, default_file):
    detector = inference.load_detector(default_file[0])
    assert detector.runtime == "litert" and detector.final_suppression == model.final_suppression
    expected, found = (each.detect(photos(1)[0], score_threshold=0.0) for each in (model, detector))
    assert found["class_names"] == expected["class_names"]
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
    assert len(detector.detect(photos(1)[0], score_threshold=0.0, tile=48)["labels"]) > 5


def test_the_file_resizes_images_of_any_size_as_the_model_does(model, default_file):
    runner = export.open_exported(default_file[0])
    for height, width in ((48, 90), (64, 64), (130, 70)):
        image = np.asarray(Image.fromarray(photos(1)[0]).resize((width, height), Image.Resampling.BICUBIC))[None]
        expected, found = model.predict_on_batch(image), runner(image)
        np.testing.assert_allclose(found[schema.SCORES], expected[schema.SCORES], atol=1e-5)
        compared = verification.compare(expected, found, 1e-4)
        assert (compared.missing, compared.matched) == (0, compared.detections)


def test_upstreams_clients_run_unchanged(model, upstreams_file):
    path, report = upstreams_file
    assert report.missing == 0
    assert operators(path)[1] == {b"TFLite_Detection_PostProcess"}
    image = photos(1)[0]
    expected = model.predict_on_batch(image[None])
    for interpreter_of in interpreters():
        # the lines of upstream's users, word for word
        interpreter = interpreter_of(model_path=str(path))
        interpreter.allocate_tensors()
        input_details = interpreter.get_input_details()
        output_details = interpreter.get_output_details()
        input_data = (np.float32(np.expand_dims(image, axis=0)) - 127.5) / 127.5
        interpreter.set_tensor(input_details[0]["index"], input_data)
        interpreter.invoke()
        boxes = interpreter.get_tensor(output_details[0]["index"])[0]
        classes = interpreter.get_tensor(output_details[1]["index"])[0]
        scores = interpreter.get_tensor(output_details[2]["index"])[0]
        count = interpreter.get_tensor(output_details[3]["index"])[0]

        assert input_details[0]["name"] == "normalized_input_image_tensor"
        names = [details["name"] for details in output_details]
        assert names == ["TFLite_Detection_PostProcess", *(f"TFLite_Detection_PostProcess:{i}" for i in (1, 2, 3))]
        assert boxes.shape == (100, 4) and count == 100.0
        assert boxes.min() < 0.0 or boxes.max() > 1.0  # not clipped
        assert set(classes) <= {0.0, 1.0, 2.0}
        best = np.argmax(scores)
        np.testing.assert_allclose(np.clip(boxes[best], 0, 1), expected["boxes"][0, 0], atol=1e-5)
        assert classes[best] == expected["labels"][0, 0]
        np.testing.assert_allclose(scores[best], expected["scores"][0, 0], atol=1e-5)


def test_mediapipe_detects_the_same(model, upstreams_file):
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except (ImportError, OSError) as error:  # libEGL, libGLESv2, libGL
        pytest.skip(f"MediaPipe does not load here, a system library is missing (.ci/apt.txt): {error}")
    path, _ = upstreams_file
    threshold = 0.02
    options = vision.ObjectDetectorOptions(
        base_options=BaseOptions(model_asset_path=str(path)), score_threshold=threshold, max_results=100
    )
    image = photos(1)[0]
    with vision.ObjectDetector.create_from_options(options) as detector:
        result = detector.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image))
    found = sorted(
        (detection.categories[0].category_name, round(detection.categories[0].score, 3))
        for detection in result.detections
    )
    expected = model.detect(image, score_threshold=threshold)
    assert len(expected["scores"]) > 5
    # MediaPipe suppresses once more: of one anchor's classes it reports the best
    first = np.unique(np.round(expected["boxes"], 4), axis=0, return_index=True)[1]
    wanted = sorted((expected["class_names"][row], round(float(expected["scores"][row]), 3)) for row in first)
    assert [name for name, _ in found] == [name for name, _ in wanted]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in wanted], atol=2e-3)
    box = result.detections[0].bounding_box  # whole pixels: origin and size are cut off, each; not clipped
    corners = [box.origin_y, box.origin_x, box.origin_y + box.height, box.origin_x + box.width]
    np.testing.assert_allclose(np.clip(corners, 0, 64), 64 * expected["boxes"][0], atol=2.0)


@pytest.mark.parametrize(("precision", "smaller"), [("float16", 1.8), ("dynamic", 3.0)])
def test_smaller_weights(model, folder, upstreams_file, precision, smaller):
    path = folder / f"{precision}.tflite"
    options = {"precision": precision, "signature": "tf_od_api", "images": photos(), "verbose": 0}
    report = export.export_model(model, path, **options)
    assert report.megabytes < upstreams_file[1].megabytes / smaller
    assert report.matched > 0.5 * report.detections
    assert report.score_difference < 1e-2


def test_int8_quantizes_the_network_alone_and_tells_what_it_costs(model, folder):
    examples = [
        {"image": photo, schema.BOXES: found["boxes"][:5], schema.LABELS: found["labels"][:5]}
        for photo in photos(6)
        for found in [model.detect(photo, score_threshold=0.0)]
    ]
    data = DetectionDataset.from_examples(examples, class_names=NAMES)
    path = folder / "int8.tflite"
    options = {"precision": "int8", "representative_data": data, "images": photos(2), "verbose": 0}
    report = export.export_model(model, path, signature="tf_od_api_uint8", **options)
    whole = report.details["in integers"]
    assert whole.startswith(f"{whole.split(' of ')[1].split()[0]} of ")  # every operator before the last convolutions
    assert "last convolutions" in report.details["in float32"]
    before, after = report.average_precision["predict"], report.average_precision["file"]
    assert before > 0.3
    assert abs(after - before) < 0.2
    details = interpreter_class()(model_path=str(path)).get_input_details()[0]
    assert details["dtype"] == np.uint8
    np.testing.assert_allclose(details["quantization"], (1 / 127.5, 128), rtol=0.02)
    kernels = [
        tensor
        for tensor in litert_graph.LiteRTGraph(path.read_bytes()).main.tensors
        if b"convolution" in tensor.name and tensor.quantization is not None and tensor.quantization.scale is not None
    ]
    assert any(len(tensor.quantization.scale) > 1 for tensor in kernels)  # per channel


def test_the_last_convolutions_are_a_piece_of_their_own(model):
    import tensorflow as tf

    network = litert_pieces.network_of(frozen.FrozenDetector(model, export.ExportOptions()))
    body, heads = litert_heads.split_before_heads(network.function)
    images = tf.constant(np.stack(photos(1)), tf.float32) / 127.5 - 1.0
    features = body(images)
    expected, found = network.function(images), heads(**features)
    assert set(found) == {schema.BOX_ENCODINGS, schema.CLASS_LOGITS}
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5)

    def convolutions(function):
        return sum(node.op == "Conv2D" for node in function.graph.as_graph_def().node)

    assert convolutions(heads) == 2 * len(features)
    assert convolutions(heads) + convolutions(body) == convolutions(network.function)
    bypass = tf.function(lambda x: {"y": tf.reduce_sum(x)}, input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
    assert litert_heads.split_before_heads(bypass.get_concrete_function()) is None


@pytest.mark.parametrize(
    ("neck", "signature"),
    [
        ("fpn", "default"),
        pytest.param("fpn", "tf_od_api", marks=pytest.mark.slow),
        pytest.param("bifpn", "default", marks=pytest.mark.slow),
    ],
)
def test_pyramids(neck, signature, folder):
    """RetinaNet and EfficientDet."""
    pyramid = spread(tiny.tiny_ssd(neck=neck))
    nms = dataclasses.replace(pyramid.final_suppression, score_threshold=0.0)  # not trained: all scores are low
    pyramid = pyramid.with_parts(postprocessor=dataclasses.replace(pyramid.postprocessor, nms=nms))
    report = export.export_model(pyramid, folder / f"{neck}.tflite", signature=signature, images=photos(2), verbose=0)
    assert report.missing == 0 and report.matched > 0.95 * report.detections > 50
    assert max(report.box_difference, report.score_difference) < 1e-4


@pytest.mark.slow
def test_upstreams_signature_of_a_large_retinanet(folder):
    large = spread(DetectionModel.from_preset("ssd_resnet50_v1_fpn_640x640_coco17_tpu-8", load_weights=False))
    report = export.export_model(large, folder / "large.tflite", signature="tf_od_api", verbose=0)
    assert report.missing == 0 and report.matched >= 0.95 * report.detections == 380


def settled(model):
    """The model with the batch statistics of two photos: from random weights alone activations vanish."""
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "moving_variance")]
    for layer in layers:
        layer.momentum = 0.0
    images = verification.sample_images(None, canvas_of(model))[:2]
    model(model.preprocess(np.stack(images)), training=True)
    return model


@pytest.mark.slow
def test_upstreams_signature_of_efficientdet_d0(folder):
    large = settled(spread(DetectionModel.from_preset("efficientdet_d0_coco17_tpu-32", load_weights=False)))
    report = export.export_model(large, folder / "large.tflite", signature="tf_od_api", verbose=0)
    assert report.missing == 0 and report.matched >= 0.95 * report.detections == 380


@pytest.mark.slow
def test_a_large_efficientdet_that_is_not_trained_is_exported_too(folder):
    """All of its scores are 0.00995: batch norm has not settled, and what the heads see is nearly 0."""
    large = spread(DetectionModel.from_preset("efficientdet_d0_coco17_tpu-32", load_weights=False))
    report = export.export_model(large, folder / "large.tflite", signature="tf_od_api", verbose=0)
    assert report.missing == 0 and report.tied > 300


def test_a_detector_that_is_not_trained_is_exported_too(folder):
    untrained = tiny.tiny_ssd(class_names=NAMES)
    for name, weight in untrained.named_weights().items():
        if "_class" in name:
            weight.assign(0.0 * weight)  # every score is 0.5
    report = export.export_model(
        untrained, folder / "untrained.tflite", signature="tf_od_api", images=photos(2), verbose=0
    )
    assert report.detections == 200 and report.missing == 0
    assert report.tied > 50 and report.matched + report.tied >= 180
    assert "tied at the lowest score" in str(report)


def test_any_image_size_and_several_images(model, folder):
    path = folder / "wide.tflite"
    report = export.export_model(model, path, batch_size=2, image_size=(48, 80), images=photos(2), verbose=0)
    assert (report.image_size, report.batch_size, report.missing) == ((48, 80), 2, 0)


def test_what_cannot_go_says_why(model, folder):
    path = folder / "refused.tflite"

    def refused(pattern, which=model, **options):
        with pytest.raises(ValueError, match=pattern):
            export.export_model(which, path, images=photos(1), verbose=0, **options)
        assert not path.exists()

    refused("fixed number of images.*batch_size=1", batch_size=None)
    refused("takes one image.*batch_size=2", batch_size=2, signature="tf_od_api")
    refused("integer input belongs to an int8 file", signature="tf_od_api_uint8")
    refused("representative_data=None", precision="int8")
    soft = MulticlassNonMaxSuppression(score_threshold=0.1, soft_nms_sigma=0.5)
    soft = model.with_parts(postprocessor=dataclasses.replace(model.postprocessor, nms=soft))
    refused(r"TFLite_Detection_PostProcess.*soft_nms_sigma=0\.5.*signature='default'", soft, signature="tf_od_api")
    two_stages = tiny.tiny_faster_rcnn()
    refused("TFLite_Detection_PostProcess takes.*FasterRCNN", two_stages, signature="tf_od_api")
    # before the size of the input, which would be asked for in vain
    two_stages = two_stages.with_parts(resizer=KeepAspectRatioResizer(min_dimension=64, max_dimension=96))
    refused("int8 quantizes.*precision='dynamic'", two_stages, precision="int8", representative_data=photos(1))
    refused("images of one size.*Pass image_size", two_stages)


def test_an_operation_without_an_operator_is_named(folder):
    import tensorflow as tf

    from keras_detect.export.litert_pieces import converted, trace

    spec = tf.TensorSpec((1, 8), tf.float32, "x")
    function = trace(lambda x: {"y": tf.raw_ops.Betainc(a=x, b=x, x=x)}, spec)
    with pytest.raises(export.ExportError, match=r"no built-in operator for (tf\.)?Betainc.*'saved_model'"):
        converted(function)


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes(b"not a LiteRT file at all")
    with pytest.raises(ValueError, match=r"other\.tflite"):
        export.open_exported(path)


def test_the_operators_rows_as_detections():
    boxes = np.array([[[-0.5, 0, 0.5, 1], [1.2, 0, 1.4, 1], [0, 0, 1, 1], [0, 0, 1, 1]]], np.float32)
    found = litert_postprocess.as_detections(
        boxes, np.array([[2.0, 1, 0, 0]]), np.array([[0.9, 0.8, 0.7, 0.0]], np.float32), np.array([3.0])
    )
    np.testing.assert_array_equal(found[schema.NUM_DETECTIONS], [2])
    np.testing.assert_array_equal(found[schema.LABELS], [[2, 0, -1, -1]])
    np.testing.assert_allclose(found[schema.BOXES][0, :2], [[0, 0, 0.5, 1], [0, 0, 1, 1]])


def test_a_packaged_detector(folder):
    detector = DetectionModel.from_preset("ssd_mobilenet_v2_oidv4")
    report = export.export_model(detector, folder / "preset.tflite", verbose=0)
    assert (report.missing, report.matched) == (0, report.detections)
    assert max(report.box_difference, report.score_difference) < 1e-4
    buffer = io.StringIO(json.dumps(export.open_exported(report.path).metadata))
    assert "Person" in json.load(buffer)["class_names"]


@pytest.mark.slow
def test_two_stages_go_too(folder):
    """The portable kernels hold no operation that LiteRT lacks."""
    report = export.export_model(tiny.tiny_faster_rcnn(), folder / "two.tflite", images=photos(2), verbose=0)
    assert report.missing == 0
