"""SavedModel: upstream's signatures, outputs and numbers, for clients that know nothing of this package."""

import dataclasses
import io
import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from PIL import Image

from keras_detect import export, inference, schema
from tests import goldens, tiny, whole_models

SIGNATURES = ("image_tensor", "float_image_tensor", "encoded_image_string_tensor", "tf_example", "serving_default")
SSD, FASTER_RCNN = "ssd_mobilenet_v2_320x320_coco17_tpu-8", "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8"


def image(height=60, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    return stream.getvalue()


@pytest.fixture(scope="module")
def ssd():
    return tiny.tiny_ssd(class_names=["cat", "dog", "owl"])


@pytest.fixture(scope="module")
def exported(ssd, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "saved_model"
    report = ssd.export(path, images=[image(), image(64, 48)], verbose=0)
    return path, report


def load(path):
    tf = pytest.importorskip("tensorflow")
    return tf, tf.saved_model.load(str(path))


def to_numpy(outputs):
    return {name: value.numpy() for name, value in outputs.items()}


def test_the_report(ssd, exported):
    path, report = exported
    assert (report.format, report.precision, report.path) == ("saved_model", "float32", str(path))
    assert report.detections == report.matched > 0
    assert max(report.box_difference, report.score_difference) <= 1e-5
    assert report.megabytes == pytest.approx(sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6)
    assert report.weights_digest == export.weights_digest(ssd)
    assert "0 missing" in str(report)
    assert "in 2 images equal those of predict" in str(report)
    assert "1 image per call, size any" in str(report)
    nothing = dataclasses.replace(report, detections=0, matched=0)
    assert "nothing: predict detects nothing in these 2 images" in str(nothing)
    quantized = dataclasses.replace(report, precision="int8", tolerance=None)
    assert "lie within 0.05 of those of predict" in str(quantized)
    assert report.route == (
        "tensorflow" if goldens.BACKEND == "tensorflow" else f"{goldens.BACKEND} -> .keras -> tensorflow"
    )


def test_the_folder_is_a_detector_of_its_own(ssd, exported):
    detector = inference.load_detector(exported[0])
    assert detector.runtime == "tensorflow" and list(detector.class_names) == ["cat", "dog", "owl"]
    expected, found = (each.detect(image(), score_threshold=0.0) for each in (ssd, detector))
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-3)


def test_every_input_type_gives_the_same(exported):
    tf, loaded = load(exported[0])
    assert set(loaded.signatures) == set(SIGNATURES)
    pixels = image()
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(png(pixels))
    inputs = {
        "image_tensor": pixels[None],
        "float_image_tensor": pixels[None].astype(np.float32),
        "encoded_image_string_tensor": [png(pixels)],
        "tf_example": [example.SerializeToString()],
        "serving_default": pixels[None],
    }
    expected = to_numpy(loaded(tf.constant(pixels[None])))  # as upstream's notebooks call it
    for name, value in inputs.items():
        found = to_numpy(loaded.signatures[name](input_tensor=tf.constant(value)))
        assert found.keys() == expected.keys()
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], atol=1e-6, err_msg=f"{name} {key}")


def test_outputs_are_those_of_predict(ssd, exported):
    tf, loaded = load(exported[0])
    pixels = image(seed=3)[None]
    found = to_numpy(loaded.signatures["serving_default"](tf.constant(pixels)))
    expected = keras.tree.map_structure(keras.ops.convert_to_numpy, ssd.predict_on_batch(pixels))
    count = int(expected[schema.NUM_DETECTIONS][0])
    assert all(value.dtype == np.float32 for value in found.values())
    np.testing.assert_allclose(found["detection_boxes"], expected[schema.BOXES], atol=1e-5)
    np.testing.assert_allclose(found["detection_scores"], expected[schema.SCORES], atol=1e-5)
    np.testing.assert_array_equal(found["detection_classes"][0, :count], expected[schema.LABELS][0, :count] + 1)
    anchors = found["detection_anchor_indices"].astype(int)[0, :count]
    rows = found["raw_detection_scores"][0, anchors]
    np.testing.assert_allclose(found["detection_multiclass_scores"][0, :count], rows, atol=1e-6)
    best = rows[np.arange(count), found["detection_classes"][0, :count].astype(int)]
    np.testing.assert_allclose(best, found["detection_scores"][0, :count], atol=1e-6)


def test_it_is_open_to_the_package_too(ssd, exported):
    runner = export.open_exported(exported[0])
    assert (runner.batch_size, runner.image_size) == (1, None)
    assert runner.metadata["class_names"] == ["cat", "dog", "owl"]
    assert runner.metadata["weights_digest"] == export.weights_digest(ssd)
    found = runner(image()[None])
    assert found[schema.LABELS].dtype == np.int32 and found[schema.LABELS].min() >= schema.PADDING_LABEL


def test_it_has_constants_and_no_variables(exported):
    _, loaded = load(exported[0])
    assert not loaded.signatures["serving_default"].variables
    assert "class_names" in json.loads((exported[0] / "assets.extra" / "detector.json").read_text())


CLIENT = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("keras_detect", "keras_cv"):
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocked())
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(sys.argv[1])
    model_fn = model.signatures['serving_default']
    image_np = np.load(sys.argv[2])
    input_tensor = tf.convert_to_tensor(image_np)
    input_tensor = input_tensor[tf.newaxis, ...]
    output_dict = model_fn(input_tensor)
    num_detections = int(output_dict.pop('num_detections')[0])  # shape [1]: numpy 2.5 makes no int of it
    output_dict = {key: value[0, :num_detections].numpy() for key, value in output_dict.items()}
    output_dict['num_detections'] = num_detections
    output_dict['detection_classes'] = output_dict['detection_classes'].astype(np.int64)
    detections = model(input_tensor)
    assert int(detections['num_detections'][0]) == num_detections
    np.savez(sys.argv[3], **output_dict)
"""


def test_upstreams_client_runs_where_the_package_is_not(ssd, exported, tmp_path):
    np.save(tmp_path / "image.npy", image())
    arguments = [str(path) for path in (exported[0], tmp_path / "image.npy", tmp_path / "found.npz")]
    subprocess.run([sys.executable, "-c", textwrap.dedent(CLIENT), *arguments], check=True, cwd=tmp_path)
    expected = ssd.detect(image(), score_threshold=0.0)
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["detection_boxes"], expected[schema.BOXES], atol=1e-4)
        np.testing.assert_array_equal(found["detection_classes"], expected[schema.LABELS] + 1)


def test_several_images_per_call(ssd, tmp_path):
    report = ssd.export(
        tmp_path / "two", batch_size=None, signature="encoded_image_string_tensor", images=[image()], verbose=0
    )
    assert report.batch_size is None
    tf, loaded = load(tmp_path / "two")
    images = [image(60, 80, 1), image(64, 48, 2)]
    found = to_numpy(loaded(tf.constant([png(pixels) for pixels in images])))  # sizes differ
    for index, pixels in enumerate(images):
        expected = ssd.detect(pixels, score_threshold=0.0)
        np.testing.assert_allclose(found["detection_scores"][index, :20], expected[schema.SCORES][:20], atol=1e-4)


def test_a_file_that_answers_otherwise_is_not_kept(ssd, tmp_path, monkeypatch):
    if goldens.BACKEND != "tensorflow":
        pytest.skip("the file is opened in another process")
    from keras_detect.export import saved_model

    right = saved_model.SavedModelRunner.__call__

    def wrong(self, images):
        found = right(self, images)
        return {**found, schema.BOXES: found[schema.BOXES] * 0.99}

    monkeypatch.setattr(saved_model.SavedModelRunner, "__call__", wrong)
    with pytest.raises(export.ExportError, match=r"does not detect what predict detects.*Nothing was written"):
        ssd.export(tmp_path / "wrong", images=[image()], verbose=0)
    assert not list(tmp_path.iterdir())


def test_what_is_refused_before_any_work(ssd, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"photo")
    with pytest.raises(ValueError, match="contains something other than a SavedModel"):
        ssd.export(tmp_path / "photos")
    with pytest.raises(ValueError, match=r"format is determined by the file suffix.*Received: .*model\.h5"):
        ssd.export(tmp_path / "model.h5")
    with pytest.raises(ValueError, match=r"Unknown export format 'saved_modle'. Did you mean saved_model"):
        ssd.export(tmp_path / "model", format="saved_modle")
    with pytest.raises(ValueError, match="Unknown precision 'int8' of saved_model"):
        ssd.export(tmp_path / "model", precision="int8")
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        ssd.export(tmp_path / "model", batch_size=0)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def check_golden(name, tmp_path):
    """The outputs of upstream's own exporter on the golden image (GOLDEN.md)."""
    signature = json.loads(goldens.golden("savedmodel_signatures.json").read_text())[name]
    with np.load(goldens.golden(f"{name}.savedmodel.npz")) as archive:
        golden = {key: archive[key] for key in archive.files}
    model, _, _ = whole_models.build(name, tmp_path)
    pixels = whole_models.golden_image(name).astype(np.uint8)
    model.export(tmp_path / "exported", images=[pixels[0]], verbose=0)
    tf, loaded = load(tmp_path / "exported")
    function = loaded.signatures["serving_default"]
    inputs = {key: str(spec) for key, spec in function.structured_input_signature[1].items()}
    assert inputs == signature["inputs"]
    outputs = {key: [spec.dtype.name, spec.shape.as_list()] for key, spec in function.structured_outputs.items()}
    assert outputs == signature["outputs"]
    found = to_numpy(function(tf.constant(pixels)))
    for key in ("raw_detection_boxes", "raw_detection_scores"):
        assert goldens.relative_error(found[key], golden[key]) <= 1e-4, key
    np.testing.assert_array_equal(found["num_detections"], golden["num_detections"])
    order = np.lexsort(np.round(np.c_[found["detection_scores"][0], found["detection_anchor_indices"][0]].T, 5))
    golden_order = np.lexsort(
        np.round(np.c_[golden["detection_scores"][0], golden["detection_anchor_indices"][0]].T, 5)
    )
    for key in ("detection_boxes", "detection_scores", "detection_classes", "detection_multiclass_scores"):
        np.testing.assert_allclose(found[key][0, order], golden[key][0, golden_order], atol=1e-4, err_msg=key)


@pytest.mark.skipif(goldens.BACKEND != "tensorflow", reason="the file is the same on every backend")
def test_ssd_has_upstreams_signature_and_numbers(tmp_path):
    check_golden(SSD, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(goldens.BACKEND != "tensorflow", reason="the file is the same on every backend")
def test_faster_rcnn_has_upstreams_signature_and_numbers(tmp_path):
    check_golden(FASTER_RCNN, tmp_path)
