"""The original zoo's SSDs, as their authors published them."""

from functools import partial

from keras_detect.presets.architectures import mobilenet_v2_ssd, retinanet
from keras_detect.presets.preset import Preset, add

SSD_PRESETS = add(
    Preset(
        archive="20200711/ssd_mobilenet_v2_320x320_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_mobilenet_v2_320x320_coco17_tpu-8",
        architecture=mobilenet_v2_ssd,
        speed_ms=19,
        coco_map=20.2,
    ),
    Preset(
        archive="20200711/ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8",
        architecture=partial(retinanet, "mobilenet_v1", 640),
        speed_ms=48,
        coco_map=29.1,
    ),
    Preset(
        archive="20200711/ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8",
        architecture=partial(retinanet, "mobilenet_v2", 320, lite=True),
        speed_ms=22,
        coco_map=22.2,
    ),
    Preset(
        archive="20200711/ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8",
        architecture=partial(retinanet, "mobilenet_v2", 640, lite=True),
        speed_ms=39,
        coco_map=28.2,
    ),
    Preset(
        archive="20200711/ssd_resnet50_v1_fpn_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet50_v1_fpn_640x640_coco17_tpu-8",
        architecture=partial(retinanet, "resnet_v1_50", 640),
        speed_ms=46,
        coco_map=34.3,
    ),
    Preset(
        archive="20200711/ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8",
        architecture=partial(retinanet, "resnet_v1_50", 1024),
        speed_ms=87,
        coco_map=38.3,
    ),
    Preset(
        archive="20200711/ssd_resnet101_v1_fpn_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet101_v1_fpn_640x640_coco17_tpu-8",
        architecture=partial(retinanet, "resnet_v1_101", 640),
        speed_ms=57,
        coco_map=35.6,
    ),
    Preset(
        archive="20200711/ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8",
        architecture=partial(retinanet, "resnet_v1_101", 1024),
        speed_ms=104,
        coco_map=39.5,
    ),
    Preset(
        archive="20200711/ssd_resnet152_v1_fpn_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet152_v1_fpn_640x640_coco17_tpu-8",
        architecture=partial(retinanet, "resnet_v1_152", 640),
        speed_ms=80,
        coco_map=35.4,
    ),
    Preset(
        archive="20200711/ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8",
        architecture=partial(retinanet, "resnet_v1_152", 1024),
        speed_ms=111,
        coco_map=39.6,
    ),
)
