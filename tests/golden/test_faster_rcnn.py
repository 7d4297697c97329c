"""Whole Faster R-CNNs against upstream: config and checkpoint in, upstream's numbers out (GOLDEN.md, 4)."""

import re

import numpy as np
import pytest

from keras_detect import schema
from tests import goldens, two_stage_models, whole_models

QUICK, SLOW = [*two_stage_models.QUICK], [*two_stage_models.LARGE, *two_stage_models.TF1_LARGE]
(QUICK if goldens.BACKEND == "tensorflow" else SLOW).extend(two_stage_models.TF1_QUICK)
MODELS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]

# relative error of float32 against upstream's, per backend
TOLERANCE = {"tensorflow": 1e-4, "jax": 1e-3, "torch": 1e-3}[goldens.BACKEND]
PIXELS = {"tensorflow": 2e-3, "jax": 1e-2, "torch": 1e-2}[goldens.BACKEND]  # of a proposal


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory):
    return two_stage_models.Run(request.param, tmp_path_factory.mktemp("checkpoint"))


def test_every_weight_is_restored(run):
    report = run.report
    assert not report.kept
    assert len(report.restored) == len(run.model.named_weights())
    unused = {key for key in run.weights if re.match(r"FirstStageFeatureExtractor/resnet_v1_\d+/block4/", key)}
    assert set(report.restored.values()) == set(run.weights) - unused
    assert set(report.ignored) - unused <= {"save_counter", "global_step"} and unused <= set(report.ignored)


def test_preprocessed_image(run):
    """Padding is what a black pixel becomes (GOLDEN.md, 8.3)."""
    ours = run.inputs[schema.IMAGES]
    assert run.error("preprocessed", ours) <= TOLERANCE
    np.testing.assert_array_equal(run.inputs[schema.TRUE_IMAGE_SHAPES], run.golden["true_image_shapes"])
    # compare largest and smallest too: a few thousand samples may miss a border
    np.testing.assert_allclose([ours.min(), ours.max()], run.golden["preprocessed#stats"][2:], atol=1e-3)


def test_anchors(run):
    ours = run.predictions[schema.ANCHORS] * run.side
    assert run.error("pred/anchors", ours) <= 1e-6
    goldens.assert_close(ours[:16], run.golden["pred/anchors/first16"], 1e-6)
    goldens.assert_close(ours[-16:], run.golden["pred/anchors/last16"], 1e-6)
    np.testing.assert_allclose(ours.astype("float64").sum(0), run.golden["pred/anchors/colsum"], rtol=1e-6)


def test_feature_maps(run):
    for index, (features, region) in enumerate(zip(run.feature_maps, run.region_features, strict=True)):
        assert run.error(f"pred/rpn_features_to_crop[{index}]", features) <= TOLERANCE, index
        assert run.error(f"pred/rpn_box_predictor_features[{index}]", region) <= TOLERANCE, index
    assert f"pred/rpn_features_to_crop[{len(run.feature_maps)}]#shape" not in run.golden


def test_proposals(run):
    """As a set: proposals whose scores tie but for noise may swap places."""
    golden = run.golden
    np.testing.assert_array_equal(run.predictions[schema.NUM_PROPOSALS], golden["pred/num_proposals"])
    ours = run.predictions[schema.PROPOSALS][0, run.upstream_order()]
    np.testing.assert_allclose(ours * run.side, golden["pred/proposal_boxes"][0], rtol=0, atol=PIXELS)
    goldens.assert_close(ours, golden["pred/proposal_boxes_normalized"][0], PIXELS / min(run.image_shape))
    moved = np.flatnonzero(run.upstream_order() != np.arange(len(ours)))
    assert len(moved) <= 0.05 * len(ours)


def test_heads_of_both_stages(run):
    for key, ours in run.heads().items():
        assert run.error(key, ours) <= TOLERANCE, key


def test_detections(run):
    whole_models.assert_same_detections(
        run.golden,
        run.detections,
        iou_threshold=run.model.box_stage.postprocessor.nms.iou_threshold,
        tolerance=10 * TOLERANCE,
    )


def test_masks(run):
    """Those of our detections, each beside the detection of upstream with the nearest box."""
    if schema.MASKS not in run.detections:
        pytest.skip("a model without masks")
    boxes, theirs = run.detections[schema.BOXES][0], run.golden["post/detection_boxes"][0]
    rows = [int(np.abs(theirs - box).max(axis=1).argmin()) for box in boxes]
    assert len(set(rows)) >= 0.95 * len(rows)
    ours, expected = run.detections[schema.MASKS][0], run.golden["post/detection_masks"][0][rows]
    assert goldens.relative_error(ours, expected) <= TOLERANCE
    np.testing.assert_allclose(ours, expected, atol=10 * TOLERANCE)


def test_losses(run):
    names = {
        "rpn_localization_loss": "RPNLoss/localization_loss",
        "rpn_objectness_loss": "RPNLoss/objectness_loss",
        "localization_loss": "BoxClassifierLoss/localization_loss",
        "classification_loss": "BoxClassifierLoss/classification_loss",
        "mask_loss": "BoxClassifierLoss/mask_loss",  # 0: no detection of the golden matches an object
    }
    for ours, theirs in ((name, names[name]) for name in run.model.loss_names):
        np.testing.assert_allclose(run.losses[ours], run.golden[f"loss/Loss/{theirs}"], rtol=TOLERANCE, err_msg=ours)


def test_penalties(run):
    """Upstream counts penalties of weight 0 too; ours have none."""
    expected = run.golden.get("loss/regularization_sum", 0.0)
    np.testing.assert_allclose(run.losses["regularization_loss"], expected, rtol=1e-6)
    assert bool(run.model.losses) == bool(expected > 0)
