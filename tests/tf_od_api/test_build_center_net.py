"""The `center_net` message of a `pipeline.config`: each field arrives where it belongs, or is refused with its line."""

import re

import pytest

import keras_detect
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.heads.point_heads import PointHead
from keras_detect.losses.classification import (
    PenaltyReducedLogisticFocalLoss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropyLoss,
)
from keras_detect.losses.localization import L1Loss
from keras_detect.meta_architectures.center_net_defaults import COCO_DEVIATIONS
from keras_detect.meta_architectures.center_net_keypoints import KeypointCandidates
from keras_detect.meta_architectures.center_net_masks import MaskTask
from keras_detect.text_proto import PipelineConfigError
from keras_detect.tf_od_api import build_center_net, name_maps, name_maps_center_net
from tests import goldens, tiny
from tests.networks import undrawn

pytestmark = pytest.mark.backend_free

BOXES = """
model {
  center_net {
    num_classes: 3
    feature_extractor { type: "mobilenet_v2_fpn" }
    image_resizer { keep_aspect_ratio_resizer { min_dimension: 64 max_dimension: 64 pad_to_max_dimension: true } }
    object_detection_task {
      task_loss_weight: 2.0
      offset_loss_weight: 0.5
      localization_loss { l1_localization_loss { } }
      scale_head_params { num_filters: 8 num_filters: 4 kernel_sizes: 3 kernel_sizes: 1 }
    }
    object_center_params {
      object_center_loss_weight: 0.7
      min_box_overlap_iou: 0.6
      max_box_predictions: 12
      heatmap_bias_init: -3.0
      peak_max_pool_kernel_size: 5
      classification_loss { penalty_reduced_logistic_focal_loss { alpha: 2.0 beta: 4.0 } }
    }
  }
}
"""
KEYPOINTS = """
    keypoint_label_map_path: "PATH_TO_BE_CONFIGURED"
    keypoint_estimation_task {
      task_name: "pose"
      task_loss_weight: 0.5
      keypoint_class_name: "/m/01g317"
      loss {
        localization_loss { l1_localization_loss { } }
        classification_loss { penalty_reduced_logistic_focal_loss { alpha: 2.0 beta: 4.0 } }
      }
      keypoint_label_to_std { key: "nose" value: 0.26 }
      keypoint_regression_loss_weight: 0.1
      keypoint_offset_loss_weight: 4.0
      offset_peak_radius: 3
      per_keypoint_offset: true
      candidate_ranking_mode: "score_distance_ratio"
      num_candidates_per_keypoint: 9
      clip_out_of_frame_keypoints: true
    }
"""


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """Not the network is tested here but what stands around it."""

    def extractor(node):
        node.ignore(*node.names())
        return tiny.TinyPointFeatures(name="feature_extractor")

    monkeypatch.setattr(build_center_net, "center_net_feature_extractor", extractor)


def config(*changes, keypoints=""):
    text = BOXES.replace("object_center_params", keypoints + "object_center_params", 1)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def build(*changes, **options):
    return keras_detect.from_pipeline_config(config(*changes, **options))


def test_boxes():
    model = build()
    task = model.object_task
    assert (model.num_classes, model.num_detections, model.stride, model.nms) == (3, 12, 4, None)
    assert (task.center_weight, task.min_overlap, task.center_bias, task.peak_size) == (0.7, 0.6, -3.0, 5)
    assert (task.size_weight, task.offset_weight) == (0.2, 1.0)  # with the task's own weight, and the default of scale
    assert task.center_loss == PenaltyReducedLogisticFocalLoss(alpha=2.0, beta=4.0)
    assert task.localization_loss == L1Loss()
    assert task.heads == {
        "center": PointHead(),
        "size": PointHead(filters=(8, 4), kernel_sizes=(3, 1)),
        "offset": PointHead(),
    }
    assert [layer.name for layer in task.towers()["size", 0]] == ["size_0_conv_0", "size_0_conv_1", "size_0_out"]


def test_other_losses_separable_heads_and_suppression():
    focal = "weighted_sigmoid_focal { gamma: 2.0 alpha: 0.25 }"
    nms = "post_processing { batch_non_max_suppression { iou_threshold: 0.4 max_total_detections: 7 } } "
    nms += "use_depthwise: true\n"
    model = build(
        ("penalty_reduced_logistic_focal_loss { alpha: 2.0 beta: 4.0 }", focal), ("num_classes", nms + "num_classes")
    )
    assert model.object_task.center_loss == SigmoidFocalLoss(gamma=2.0, alpha=0.25)
    assert model.object_task.heads["center"] == PointHead(separable=True)
    assert model.nms == MulticlassNonMaxSuppression(iou_threshold=0.4, max_total_detections=7)
    assert model.num_detections == 7


def test_keypoints_of_a_person_without_the_label_map():
    model = build(keypoints=KEYPOINTS)
    (task,) = model.tasks[1:]
    assert (task.name, task.class_id, task.indices) == ("pose", 0, tuple(range(17)))
    assert task.deviations == (0.26, *(1.0,) * 16)
    assert task.loss_weights == (0.5, 2.0, 0.05)
    assert (task.radius, task.per_keypoint_offset, task.clip) == (3, True, True)
    assert task.candidates == KeypointCandidates(ranking="score_distance_ratio", per_keypoint=9)
    assert len(COCO_DEVIATIONS) == 17 and task.heads == PointHead()


def test_keypoints_of_another_class_by_the_label_map_beside_the_config(tmp_path):
    points = "".join(f'keypoints {{ id: {index} label: "{label}" }} ' for index, label in ((4, "nose"), (2, "tail")))
    (tmp_path / "map.pbtxt").write_text(f'item {{ id: 1 name: "cat" }}\nitem {{ id: 3 name: "dog" {points} }}\n')
    text = config(keypoints=KEYPOINTS).replace("PATH_TO_BE_CONFIGURED", "map.pbtxt").replace("/m/01g317", "dog")
    (tmp_path / "pipeline.config").write_text(text)
    (task,) = keras_detect.from_pipeline_config(tmp_path / "pipeline.config").tasks[1:]
    assert (task.class_id, task.indices, task.deviations) == (2, (4, 2), (0.26, 1.0))
    (tmp_path / "pipeline.config").write_text(text.replace('"dog"', '"cat"'))
    with pytest.raises(
        PipelineConfigError, match=r"keypoint_class_name: found 'cat', a class without keypoints in .*map"
    ):
        keras_detect.from_pipeline_config(tmp_path / "pipeline.config")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("num_classes", "track_estimation_task { } num_classes", "track_estimation_task: tracking has no counterpart"),
        ("num_classes", "densepose_estimation_task { } num_classes", "DensePose has no counterpart"),
        ("num_classes", "temporal_offset_task { } num_classes", "temporal offsets has no counterpart"),
        ("num_classes", "deepmac_mask_estimation { } num_classes", "DeepMAC, masks of boxes that are given, has no"),
        ("num_classes", "mask_estimation_task { } num_classes", "classification_loss"),
        ("min_box_overlap_iou", "use_labeled_classes: true min_box_overlap_iou", "use_labeled_classes: found True"),
        ("min_box_overlap_iou", "keypoint_weights_for_center: 1.0 min_box_overlap_iou", "centers of boxes"),
        ("max_box_predictions: 12", "max_box_predictions: 0", "max_detections=0"),
        ("kernel_sizes: 3 kernel_sizes: 1", "kernel_sizes: 3", "a kernel size for each"),
        ("l1_localization_loss { }", "weighted_iou { }", "compare sizes and offsets"),
        ("num_classes: 3", "num_classes: 3 heat: 1", "heat"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_line(old, new, message):
    with pytest.raises(PipelineConfigError, match=message) as caught:
        build((old, new))
    assert re.search(r":\d+: ", str(caught.value))


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("per_keypoint_offset: true", "predict_depth: true", "predict_depth: found True"),
        ("per_keypoint_offset: true", "rescore_instances: true", "rescore_instances"),
        ('"score_distance_ratio"', '"nearest"', "candidate_ranking_mode: Unknown ranking 'nearest'"),
        ('"/m/01g317"', '"bird"', "keypoint_class_name: found 'bird', whose keypoints the label map"),
        ('key: "nose"', 'key: "beak"', "whose keypoints the label map"),
    ],
)
def test_keypoints_that_are_not_supported_are_refused(old, new, message):
    with pytest.raises(PipelineConfigError, match=message):
        build((old, new), keypoints=KEYPOINTS)


MASKS = """
    mask_estimation_task {
      task_loss_weight: 0.5
      classification_loss { weighted_softmax { } }
      mask_height: 48
      score_threshold: 0.4
      heatmap_bias_init: -1.0
      mask_head_params { num_filters: 8 kernel_sizes: 1 }
    }
"""


def test_masks():
    model = build(keypoints=MASKS)
    (task,) = model.tasks[1:]
    assert isinstance(task, MaskTask) and isinstance(task.mask_loss, SoftmaxCrossEntropyLoss)
    assert (task.num_classes, task.mask_size, task.threshold) == (3, (48, 256), 0.4)
    assert (task.loss_weight, task.mask_bias, task.heads) == (0.5, -1.0, PointHead(filters=(8,), kernel_sizes=(1,)))
    assert name_maps_center_net.upstream_heads(task) == {"mask": "segmentation/heatmap"}


def configs():
    folders = ("zoo/training_configs", "data/configs_wild")
    paths = [
        *goldens.configs(),
        *(path for name in folders for path in sorted((goldens.SHARED / name).glob("*.config"))),
    ]
    return [path for path in paths if re.search(r"^\s*center_net\s*{", path.read_text(errors="replace"), re.MULTILINE)]


@pytest.mark.parametrize("path", configs(), ids=lambda path: path.stem)
def test_every_config_is_built_or_says_what_is_missing(path):
    """The parts around the network; `tests/golden` builds the networks."""
    if "deepmac_mask_estimation" in path.read_text(errors="replace"):
        with pytest.raises(PipelineConfigError, match="DeepMAC, masks of boxes that are given"):
            keras_detect.from_pipeline_config(path)
        return
    with undrawn():
        model = keras_detect.from_pipeline_config(path)
    assert model.num_detections == int(re.search(r"max_box_predictions:\s*(\d+)", path.read_text())[1])


def networks():
    """One config for each feature extractor: the first."""
    found = {}
    for path in configs():
        text = path.read_text(errors="replace")
        if "deepmac_mask_estimation" not in text:
            found.setdefault(re.search(r"feature_extractor\s*{[^}]*?type:\s*['\"](\w+)['\"]", text)[1], path)
    return [pytest.param(path, id=name) for name, path in sorted(found.items())]


@pytest.mark.slow
@pytest.mark.parametrize("path", networks())
def test_every_network_is_built(path, monkeypatch):
    """The real one, whose weights are all in upstream's names."""
    monkeypatch.undo()  # `small_network`
    with undrawn():
        model = keras_detect.from_pipeline_config(path)
    assert model.stride == 4
    assert set(name_maps.checkpoint_keys(model)) == set(model.named_weights())
