"""Whole CenterNets against upstream: config and checkpoint in, upstream's numbers out (GOLDEN.md, section 4)."""

import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.meta_architectures.ground_truth import clean_ground_truth
from keras_detect.tf_od_api import name_maps_center_net
from tests import goldens, whole_models

#: the golden whose whole test runs in CI
QUICK = ("zoo_centernet_mobilenetv2_fpn_od",)
#: the others, from the fastest to the slowest
LARGE = (
    "derived_centernet_mobilenet_v2_fpn_512x512",
    "derived_centernet_mobilenet_v2_512x512",
    "derived_centernet_resnet_v1_50_fpn_512x512",
    "derived_centernet_resnet_v1_50_fpn_512x512_img",
    "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8",
    "derived_centernet_resnet_v2_50_512x512",
    "centernet_resnet101_v1_fpn_512x512_coco17_tpu-8",
    "centernet_hourglass104_512x512_coco17_tpu-8",
    "centernet_hourglass104_512x512_kpts_coco17_tpu-32",
    "centernet_hourglass104_1024x1024_kpts_coco17_tpu-32",
)
MODELS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
# relative error of float32 against upstream's, per backend
TOLERANCE = {"tensorflow": 1e-4, "jax": 1e-3, "torch": 1e-3}[goldens.BACKEND]
#: name of upstream's head -> what our name of its loss ends with
LOSSES = {
    "object_center": "center_loss",
    "box/scale": "size_localization_loss",
    "box/offset": "offset_localization_loss",
    "human_pose/keypoint/heatmap": "human_pose_heatmap_loss",
    "human_pose/keypoint/offset": "human_pose_offset_localization_loss",
    "human_pose/keypoint/regression": "human_pose_regression_localization_loss",
}


class Run(whole_models.Compared):
    """A restored CenterNet and, as numpy arrays, everything it computes on its golden's image, from one function."""

    def __init__(self, name, folder):
        self.name = name
        with np.load(goldens.golden(f"{name}.npz")) as archive:
            self.golden = {key: archive[key] for key in archive.files}
        self.model, self.report, self.weights = whole_models.build(name, folder)
        padded = tuple(int(side) for side in self.golden["preprocessed#shape"][1:3])
        shapes = self.golden["true_image_shapes"]
        self.ground_truth = {
            schema.BOXES: whole_models.true_frame(self.golden["gt/boxes"][None], shapes, padded),
            schema.LABELS: self.golden["gt/classes_zero_based"][None],
        }
        if "gt/keypoints" in self.golden:
            extent = shapes[0, :2] / np.asarray(padded)
            self.ground_truth[schema.KEYPOINTS] = (self.golden["gt/keypoints"][None] / extent).astype("float32")
        found = goldens.compiled(self._everything)(ops.convert_to_tensor(whole_models.golden_image(name)))
        for key, value in found.items():
            setattr(self, key, whole_models.to_numpy(value))

    def _everything(self, image):
        model = self.model
        inputs = model.preprocess(image)
        predictions = model(inputs, training=False)
        return {
            "inputs": inputs,
            "feature_maps": list(model.feature_extractor(inputs[schema.IMAGES], training=False).values()),
            "predictions": predictions,
            "detections": model.postprocess(predictions, inputs[schema.TRUE_IMAGE_SHAPES]),
            "losses": model.compute_losses(clean_ground_truth(self.ground_truth), predictions, inputs, training=False),
        }

    def heads(self):
        """`{golden key: our array}` of the raw heads of every feature map."""
        for task in self.model.tasks:
            for ours, theirs in name_maps_center_net.upstream_heads(task).items():
                for index, values in enumerate(task.maps(self.predictions, ours)):
                    yield f"pred/{theirs}[{index}]", values


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory):
    return Run(request.param, tmp_path_factory.mktemp("checkpoint"))


def test_every_weight_is_restored(run):
    assert not run.report.kept
    assert len(run.report.restored) == len(run.model.named_weights())
    assert set(run.report.restored.values()) == set(run.weights)
    assert set(run.report.ignored) == {"save_counter"}


def test_preprocessed_image(run):
    """Padding is what a black pixel becomes (GOLDEN.md, 8.3)."""
    ours = run.inputs[schema.IMAGES]
    assert run.error("preprocessed", ours) <= TOLERANCE
    np.testing.assert_array_equal(run.inputs[schema.TRUE_IMAGE_SHAPES], run.golden["true_image_shapes"])
    np.testing.assert_allclose([ours.min(), ours.max()], run.golden["preprocessed#stats"][2:], atol=1e-3)


def test_feature_maps_and_raw_heads(run):
    for index, feature_map in enumerate(run.feature_maps):
        assert run.error(f"pred/extracted_features[{index}]", feature_map) <= TOLERANCE, index
    assert f"pred/extracted_features[{len(run.feature_maps)}]#shape" not in run.golden
    compared = set()
    for key, ours in run.heads():
        assert run.error(key, ours) <= TOLERANCE, key
        compared.add(f"{key}#shape")
    assert compared == {key for key in run.golden if key.startswith("pred/") and key.endswith("#shape")} - {
        f"pred/extracted_features[{index}]#shape" for index in range(len(run.feature_maps))
    }


def test_detections(run):
    whole_models.assert_same_detections(run.golden, run.detections, iou_threshold=1.0, tolerance=10 * TOLERANCE)


def test_keypoints(run):
    """Of each detection; which of two candidates as good but for noise a keypoint takes may differ for one in 200."""
    golden, ours = run.golden, run.detections
    if "post/detection_keypoints" not in golden:
        pytest.skip("a model without keypoints")
    rows = [_row(golden, index, ours) for index in range(int(golden["post/num_detections"][0]))]
    points, scores = (ours[key][0, rows] for key in (schema.KEYPOINTS, schema.KEYPOINT_SCORES))
    theirs = [golden[f"post/detection_{key}"][0] for key in ("keypoints", "keypoint_scores")]
    moved = np.abs(points - theirs[0]).max(-1) > 10 * TOLERANCE
    moved |= np.abs(scores - theirs[1]) > 10 * TOLERANCE
    assert moved.mean() <= (0.0 if goldens.BACKEND == "tensorflow" else 0.005)
    assert (theirs[1] > 0.1).any() and (theirs[1] == np.float32(0.1)).any()


def _row(golden, index, ours):
    """The row of our detections that upstream's row `index` is: same label, same box."""
    same = ours[schema.LABELS][0] == golden["post/detection_classes"][0, index]
    distance = np.abs(ours[schema.BOXES][0] - golden["post/detection_boxes"][0, index]).max(-1)
    return int(np.argmin(np.where(same, distance, np.inf)))


def test_losses(run):
    """Without penalties: upstream's CenterNet adds none, even where its layers have some."""
    assert not run.model.losses
    names = {key.removeprefix("loss/Loss/") for key in run.golden if key.startswith("loss/Loss/")}
    assert {LOSSES[name] for name in names} == set(run.model.loss_names)
    for name in names:
        np.testing.assert_allclose(
            run.losses[LOSSES[name]], run.golden[f"loss/Loss/{name}"], rtol=TOLERANCE, err_msg=name
        )
