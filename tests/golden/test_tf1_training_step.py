"""One training step of a Faster R-CNN against upstream's under TensorFlow 1 (GOLDEN_TF1.md, section 3)."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_detect import schema
from keras_detect.tf_od_api import name_maps
from tests import goldens, two_stage_models, whole_models
from tests.golden.test_training_step import LOSSES, GradientRecorder

pytestmark = pytest.mark.slow  # half a minute
NAME = "faster_rcnn_inception_v2_coco"
TOLERANCE = {"tensorflow": 1e-4, "jax": 1e-3, "torch": 1e-3}[goldens.BACKEND]
GRADIENT = 1e-3  # of its norm


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """`(golden, logs, {checkpoint name: gradient}, {checkpoint name: variable})` of one step without sampling."""
    golden = json.loads(goldens.golden(f"{NAME}.train.json").read_text())
    model, _, _ = whole_models.build(NAME, tmp_path_factory.mktemp("checkpoint"))
    recorder = GradientRecorder()
    model.compile(optimizer=recorder, jit_compile=goldens.BACKEND == "jax")
    images = np.random.RandomState(0).randint(0, 256, (2, 240, 320, 3)).astype("float32")
    rows = max(map(len, golden["gt_boxes"]))
    boxes = np.stack([np.pad(np.asarray(b, "float32"), ((0, rows - len(b)), (0, 0))) for b in golden["gt_boxes"]])
    labels = np.stack([np.pad(k, (0, rows - len(k)), constant_values=-1) for k in golden["gt_classes_zero_based"]])
    two_stage_models.match_all_anchors(model, [(38, 50)], (600, 800), boxes, training=True)
    model.box_stage = dataclasses.replace(model.box_stage, batch_size=300)
    y = {schema.BOXES: boxes, schema.LABELS: labels.astype("int32")}
    before = {name: keras.ops.convert_to_numpy(value) for name, value in model.named_weights().items()}
    logs = model.train_on_batch(images, y, return_dict=True)
    keys = name_maps.checkpoint_keys(model, tf1=True)
    names = {id(variable): name for name, variable in model.named_weights().items()}
    slots = zip(model.trainable_variables, recorder.gradients, strict=True)
    gradients = {keys[names[id(v)]]: keras.ops.convert_to_numpy(gradient) for v, gradient in slots}
    after = {name: keras.ops.convert_to_numpy(value) for name, value in model.named_weights().items()}
    return golden, logs, gradients, (before, after)


def test_losses(step):
    golden, logs, *_ = step
    for name, expected in golden["losses"].items():
        np.testing.assert_allclose(logs[LOSSES[name]], expected, rtol=TOLERANCE, err_msg=name)
    np.testing.assert_allclose(logs["loss"], golden["total"], rtol=TOLERANCE)


def test_every_gradient(step):
    golden, _, gradients, _ = step
    theirs = golden["gradients"]
    assert set(gradients) == set(theirs)
    floor = 1e-6 * golden["grad_global_norm"]
    for key, gradient in gradients.items():
        entry, norm = theirs[key], np.linalg.norm(gradient.astype("float64"))
        assert abs(norm - entry["norm"]) <= GRADIENT * entry["norm"] + floor, key
        np.testing.assert_allclose(
            gradient.ravel()[entry["idx"]], entry["val"], rtol=0, atol=GRADIENT * norm + floor, err_msg=key
        )


def test_statistics_stand_still(step):
    """And no weight moved, since the recorder of gradients changes none."""
    before, after = step[-1]
    assert len(before) == 356 and sum("moving" in name for name in before) == 138 == step[0]["bn_total"]
    assert step[0]["bn_changed"] == 0
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
