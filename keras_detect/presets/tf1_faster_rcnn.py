"""The zoo's Faster R-CNNs, Mask R-CNNs and R-FCN of TensorFlow 1, with their published figures."""

import functools

from keras_detect.presets.class_lists import class_list
from keras_detect.presets.preset import Preset, add

_MASKS = ("boxes", "masks")
_Row = functools.partial(Preset, tensorflow=1, pipeline_config=None, coco_map=None)

#: their configs are in their archives alone
TF1_FASTER_RCNN_PRESETS = add(
    _Row(archive="faster_rcnn_inception_v2_coco_2018_01_28.tar.gz", speed_ms=58, coco_map=28),
    _Row(archive="faster_rcnn_resnet50_coco_2018_01_28.tar.gz", speed_ms=89, coco_map=30),
    _Row(archive="faster_rcnn_resnet50_lowproposals_coco_2018_01_28.tar.gz", speed_ms=64),
    _Row(archive="rfcn_resnet101_coco_2018_01_28.tar.gz", speed_ms=92, coco_map=30),
    _Row(archive="faster_rcnn_resnet101_coco_2018_01_28.tar.gz", speed_ms=106, coco_map=32),
    _Row(archive="faster_rcnn_resnet101_lowproposals_coco_2018_01_28.tar.gz", speed_ms=82),
    _Row(archive="faster_rcnn_inception_resnet_v2_atrous_coco_2018_01_28.tar.gz", speed_ms=620, coco_map=37),
    _Row(archive="faster_rcnn_inception_resnet_v2_atrous_lowproposals_coco_2018_01_28.tar.gz", speed_ms=241),
    _Row(
        archive="mask_rcnn_inception_resnet_v2_atrous_coco_2018_01_28.tar.gz",
        speed_ms=771,
        coco_map=36,
        outputs=_MASKS,
    ),
    _Row(archive="mask_rcnn_inception_v2_coco_2018_01_28.tar.gz", speed_ms=79, coco_map=25, outputs=_MASKS),
    _Row(archive="mask_rcnn_resnet101_atrous_coco_2018_01_28.tar.gz", speed_ms=470, coco_map=33, outputs=_MASKS),
    _Row(archive="mask_rcnn_resnet50_atrous_coco_2018_01_28.tar.gz", speed_ms=343, coco_map=29, outputs=_MASKS),
    _Row(
        archive="faster_rcnn_resnet101_kitti_2018_01_28.tar.gz",
        speed_ms=79,
        other_map=("Pascal mAP@0.5", 87.0),
        class_names=class_list("kitti"),
    ),
    # of the first Open Images, whose 546 names are not in the package
    _Row(
        archive="faster_rcnn_inception_resnet_v2_atrous_oid_2018_01_28.tar.gz",
        speed_ms=727,
        other_map=("Open Images mAP@0.5", 37.0),
        class_names=(),
    ),
    _Row(
        archive="faster_rcnn_inception_resnet_v2_atrous_lowproposals_oid_2018_01_28.tar.gz",
        speed_ms=347,
        class_names=(),
    ),
    _Row(
        archive="faster_rcnn_inception_resnet_v2_atrous_oid_v4_2018_12_12.tar.gz",
        speed_ms=425,
        other_map=("Open Images mAP@0.5", 54.0),
        class_names=class_list("open_images_v4"),
    ),
    _Row(
        archive="faster_rcnn_resnet101_fgvc_2018_07_19.tar.gz",
        speed_ms=395,
        other_map=("Pascal mAP@0.5", 58.0),
        class_names=class_list("inaturalist_2854"),
    ),
    _Row(
        archive="faster_rcnn_resnet50_fgvc_2018_07_19.tar.gz",
        speed_ms=366,
        other_map=("Pascal mAP@0.5", 55.0),
        class_names=class_list("inaturalist_2854"),
    ),
    _Row(
        archive="faster_rcnn_resnet101_ava_v2.1_2018_04_30.tar.gz",
        speed_ms=93,
        other_map=("Pascal mAP@0.5", 11.0),
        class_names=class_list("ava_v2.1"),
    ),
    _Row(
        archive="faster_rcnn_resnet101_snapshot_serengeti_2020_06_10.tar.gz",
        speed_ms=None,
        other_map=("COCO mAP@0.5", 38.0),
        class_names=class_list("snapshot_serengeti"),
    ),
)
