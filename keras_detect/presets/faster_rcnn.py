"""The original zoo's Faster R-CNNs, as their authors published them."""

from functools import partial

from keras_detect.presets.architectures import faster_rcnn
from keras_detect.presets.preset import Preset, add

#: the two Inception-ResNets have no training config among the original's: only their archives say what they are
FASTER_RCNN_PRESETS = add(
    Preset(
        archive="20200711/faster_rcnn_resnet50_v1_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet50_v1_640x640_coco17_tpu-8",
        architecture=partial(faster_rcnn, "resnet_v1_50", 640),
        speed_ms=53,
        coco_map=29.3,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8",
        architecture=partial(faster_rcnn, "resnet_v1_50", 1024),
        speed_ms=65,
        coco_map=31.0,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8",
        architecture=partial(faster_rcnn, "resnet_v1_50", 800, on_gpu=True),
        speed_ms=65,
        coco_map=31.6,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet101_v1_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet101_v1_640x640_coco17_tpu-8",
        architecture=partial(faster_rcnn, "resnet_v1_101", 640),
        speed_ms=55,
        coco_map=31.8,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8",
        architecture=partial(faster_rcnn, "resnet_v1_101", 1024),
        speed_ms=72,
        coco_map=37.1,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8",
        architecture=partial(faster_rcnn, "resnet_v1_101", 800, on_gpu=True),
        speed_ms=77,
        coco_map=36.6,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet152_v1_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet152_v1_640x640_coco17_tpu-8",
        architecture=partial(faster_rcnn, "resnet_v1_152", 640),
        speed_ms=64,
        coco_map=32.4,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8",
        architecture=partial(faster_rcnn, "resnet_v1_152", 1024),
        speed_ms=85,
        coco_map=37.6,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet152_v1_800x1333_coco17_gpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet152_v1_800x1333_coco17_gpu-8",
        architecture=partial(faster_rcnn, "resnet_v1_152", 800, on_gpu=True),
        speed_ms=101,
        coco_map=37.4,
    ),
    Preset(
        archive="20200711/faster_rcnn_inception_resnet_v2_640x640_coco17_tpu-8.tar.gz",
        pipeline_config=None,
        speed_ms=206,
        coco_map=37.7,
    ),
    Preset(
        archive="20200711/faster_rcnn_inception_resnet_v2_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config=None,
        speed_ms=236,
        coco_map=38.7,
    ),
)
