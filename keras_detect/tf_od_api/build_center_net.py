"""The `center_net` message of a `pipeline.config` -> `CenterNet`. Defaults are those of upstream's protos."""

import pathlib

from keras_detect import text_proto
from keras_detect.heads.point_heads import PointHead
from keras_detect.losses.classification import PenaltyReducedLogisticFocalLoss
from keras_detect.meta_architectures.center_net import CenterNet
from keras_detect.meta_architectures.center_net_defaults import COCO_DEVIATIONS
from keras_detect.meta_architectures.center_net_keypoints import RANKINGS, KeypointCandidates, KeypointTask
from keras_detect.meta_architectures.center_net_masks import MaskTask
from keras_detect.meta_architectures.center_net_tasks import ObjectTask
from keras_detect.registry import unknown_name
from keras_detect.text_proto.node import located
from keras_detect.tf_od_api import build_parts
from keras_detect.tf_od_api.build_center_net_features import center_net_feature_extractor

#: tasks of upstream that have no counterpart
MISSING = {
    "track_estimation_task": "tracking has no counterpart",
    "temporal_offset_task": "tracking by temporal offsets has no counterpart",
    "densepose_estimation_task": "DensePose has no counterpart",
    "deepmac_mask_estimation": "DeepMAC, masks of boxes that are given, has no counterpart",
}
SUPPORTED = "object_detection_task, keypoint_estimation_task, mask_estimation_task"
PERSON = ("/m/01g317", "person")


@located
def center_net(node, num_classes):
    """Builds the model of a `center_net` message; `num_classes` goes before the config's where it is not `None`."""
    for name, reason in MISSING.items():
        if node.has(name):
            raise node.error(name, f"{reason}; supported: {SUPPORTED}")
    node.ignore("compute_heatmap_sparse")  # how it is computed, not what
    build_parts.refuse_values(node, output_prediction_dict=False)
    separable = node.scalar("use_depthwise", bool, False)
    objects = _objects(node, build_parts.class_count(node, num_classes), separable)
    return CenterNet(
        resizer=build_parts.resizer(node.message("image_resizer", required=True)),
        feature_extractor=center_net_feature_extractor(node.message("feature_extractor", required=True)),
        tasks=[objects, *_keypoints(node, separable), *_masks(node, objects.num_classes, separable)],
        nms=_suppression(node.message("post_processing")),
    )


def _suppression(node):
    return build_parts.postprocessor(node, has_background=False).nms if node.present else None


def _objects(node, num_classes, separable):
    """`object_center_params` and `object_detection_task` -> `ObjectTask`."""
    center = node.message("object_center_params", required=True)
    boxes = node.message("object_detection_task", required="keypoint_estimation_task" not in node)
    build_parts.refuse_values(center, use_labeled_classes=False)
    if center.has("keypoint_weights_for_center"):
        raise center.error("keypoint_weights_for_center", "is not supported; supported: centers of boxes")
    if not boxes.present:
        head = _head(center.message("center_head_params"), separable)
        return _object_task(center, num_classes=num_classes, heads=head, boxes=False)
    weight = boxes.scalar("task_loss_weight", float, 1.0)
    heads = {
        "center": _head(center.message("center_head_params"), separable),
        "size": _head(boxes.message("scale_head_params"), separable),
        "offset": _head(boxes.message("offset_head_params"), separable),
    }
    return _object_task(
        center,
        num_classes=num_classes,
        localization_loss=build_parts.localization_loss(boxes.message("localization_loss", required=True)),
        size_weight=weight * boxes.scalar("scale_loss_weight", float, 0.1),
        offset_weight=weight * boxes.scalar("offset_loss_weight", float, 1.0),
        heads=_alike(heads),
    )


@located
def _object_task(node, **settings):
    return ObjectTask(
        center_loss=_heatmap_loss(node.message("classification_loss", required=True)),
        center_weight=node.scalar("object_center_loss_weight", float, 1.0),
        center_bias=node.scalar("heatmap_bias_init", float, -2.19),
        min_overlap=node.scalar("min_box_overlap_iou", float, 0.7),
        max_detections=node.scalar("max_box_predictions", int, 100),
        peak_size=node.scalar("peak_max_pool_kernel_size", int, 3),
        **settings,
    )


def _heatmap_loss(node):
    """`classification_loss` of a heatmap."""
    if not node.has("penalty_reduced_logistic_focal_loss"):
        return build_parts.classification_loss(node)
    settings = node.message("penalty_reduced_logistic_focal_loss")
    return PenaltyReducedLogisticFocalLoss(
        alpha=settings.scalar("alpha", float, 0.0), beta=settings.scalar("beta", float, 0.0)
    )


@located
def _head(node, separable):
    """`PredictionHeadParams` -> `PointHead`."""
    return PointHead(
        filters=node.repeated("num_filters", int) or (256,),
        kernel_sizes=node.repeated("kernel_sizes", int) or (3,),
        separable=separable,
    )


def _alike(heads):
    """One `PointHead` where all are alike."""
    first = next(iter(heads.values()))
    return first if all(head == first for head in heads.values()) else heads


def _masks(node, num_classes, separable):
    """`mask_estimation_task` -> `MaskTask`, at most one."""
    masks = node.message("mask_estimation_task")
    return [_mask_task(masks, num_classes, separable)] if masks.present else []


@located
def _mask_task(node, num_classes, separable):
    return MaskTask(
        num_classes=num_classes,
        mask_loss=_heatmap_loss(node.message("classification_loss", required=True)),
        loss_weight=node.scalar("task_loss_weight", float, 1.0),
        mask_size=(node.scalar("mask_height", int, 256), node.scalar("mask_width", int, 256)),
        threshold=node.scalar("score_threshold", float, 0.5),
        mask_bias=node.scalar("heatmap_bias_init", float, -2.19),
        heads=_head(node.message("mask_head_params"), separable),
    )


# --- keypoints ---------------------------------------------------------------------------------------------------


def _keypoints(node, separable):
    tasks = node.repeated("keypoint_estimation_task")
    path = node.scalar("keypoint_label_map_path", str, "")
    return [_keypoint_task(task, _keypoints_of(task, path), separable) for task in tasks]


@located
def _keypoint_task(node, keypoints, separable):
    class_id, indices = keypoints
    build_parts.refuse_values(node, predict_depth=False, rescore_instances=False, argmax_postprocessing=False)
    # they belong to what is refused above
    node.ignore("per_keypoint_depth", "keypoint_depth_loss_weight", "rescoring_threshold", "gaussian_denom_ratio")
    weight = node.scalar("task_loss_weight", float, 1.0)
    loss, deviations = node.message("loss", required=True), _deviations(node)
    build_parts.refuse_values(loss, classification_weight=1.0, localization_weight=1.0)
    heads = {
        head: _head(node.message(f"{name}_head_params"), separable)
        for head, name in (("heatmap", "heatmap"), ("regression", "regress"), ("offset", "offset"))
    }
    return KeypointTask(
        name=node.scalar("task_name", str, "keypoints"),
        class_id=class_id,
        indices=tuple(indices.values()),
        deviations=tuple(deviations.get(label, 1.0) for label in indices),
        heatmap_loss=_heatmap_loss(loss.message("classification_loss", required=True)),
        localization_loss=build_parts.localization_loss(loss.message("localization_loss", required=True)),
        loss_weights=tuple(
            weight * node.scalar(f"keypoint_{name}_loss_weight", float, 1.0)
            for name in ("heatmap", "offset", "regression")
        ),
        radius=node.scalar("offset_peak_radius", int, 0),
        per_keypoint_offset=node.scalar("per_keypoint_offset", bool, False),
        candidates=_candidates(node),
        clip=node.scalar("clip_out_of_frame_keypoints", bool, False),
        heatmap_bias=node.scalar("heatmap_bias_init", float, -2.19),
        heads=_alike(heads),
    )


def _candidates(node):
    ranking = node.scalar("candidate_ranking_mode", str, "min_distance")
    if ranking not in RANKINGS:
        raise node.error("candidate_ranking_mode", unknown_name("ranking", ranking, RANKINGS))
    return KeypointCandidates(
        score_threshold=node.scalar("keypoint_candidate_score_threshold", float, 0.1),
        per_keypoint=node.scalar("num_candidates_per_keypoint", int, 100),
        peak_size=node.scalar("peak_max_pool_kernel_size", int, 3),
        unmatched_score=node.scalar("unmatched_keypoint_score", float, 0.1),
        box_scale=node.scalar("box_scale", float, 1.2),
        search_scale=node.scalar("candidate_search_scale", float, 0.3),
        ranking=ranking,
        distance_offset=node.scalar("score_distance_offset", float, 1.0),
        distance_multiplier=node.scalar("score_distance_multiplier", float, 0.1),
        deviation_multiplier=node.scalar("std_dev_multiplier", float, 1.0),
    )


def _deviations(node):
    """`{label: deviation}` of the map `keypoint_label_to_std`."""
    entries = node.repeated("keypoint_label_to_std")
    return {entry.scalar("key", str, ""): entry.scalar("value", float, 0.0) for entry in entries}


def _keypoints_of(node, path):
    """`(class_id, {label: index})` of the task's class: as the label map says, or COCO's of a person without one."""
    name = node.scalar("keypoint_class_name", str, "")
    found = _label_map(node, path)
    if found is not None:
        items = [item for item in text_proto.read(found).repeated("item") if item.scalar("name", str) == name]
        points = items[0].repeated("keypoints") if items else ()
        if not points:
            raise node.error("keypoint_class_name", f"found {name!r}, a class without keypoints in {found}")
        return items[0].scalar("id", int, 1) - 1, {p.scalar("label", str, ""): p.scalar("id", int, 0) for p in points}
    written = _deviations(node)
    if name in PERSON and set(written) <= set(COCO_DEVIATIONS):
        return 0, {label: index for index, label in enumerate(COCO_DEVIATIONS)}
    raise node.error(
        "keypoint_class_name",
        f"found {name!r}, whose keypoints the label map of keypoint_label_map_path ({path!r}) names, and there is no "
        "such file; supported: the path of a label map, or COCO's 17 keypoints of a person",
    )


def _label_map(node, path):
    """The label map's path: as written, or beside the config; `None` where there is no such file."""
    places = [pathlib.Path(path), pathlib.Path(node.source).parent / path] if path else []
    return next((str(place) for place in places if place.is_file()), None)
