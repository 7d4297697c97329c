"""The SSDs and RetinaNets of upstream's zoo, as their authors published them."""

from keras_detect.presets.preset import Preset, add

SSD_PRESETS = add(
    Preset(
        archive="20200711/ssd_mobilenet_v2_320x320_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_mobilenet_v2_320x320_coco17_tpu-8",
        speed_ms=19,
        coco_map=20.2,
        parameters=6_103_999,
        parity=(1.2e-06, 2.4e-07),
    ),
    Preset(
        archive="20200711/ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8",
        speed_ms=48,
        coco_map=29.1,
        parameters=12_125_178,
        parity=(2.4e-06, 1.2e-07),
    ),
    Preset(
        archive="20200711/ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8",
        speed_ms=22,
        coco_map=22.2,
        parameters=2_667_002,
        parity=(1.3e-06, 1.8e-07),
    ),
    Preset(
        archive="20200711/ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8",
        speed_ms=39,
        coco_map=28.2,
        parameters=2_667_002,
    ),
    Preset(
        archive="20200711/ssd_resnet50_v1_fpn_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet50_v1_fpn_640x640_coco17_tpu-8",
        speed_ms=46,
        coco_map=34.3,
        parameters=32_916_218,
        parity=(2.5e-06, 1.2e-07),
    ),
    Preset(
        archive="20200711/ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8",
        speed_ms=87,
        coco_map=38.3,
        parameters=32_916_218,
        parity=(2.4e-06, 1.8e-07),
    ),
    Preset(
        archive="20200711/ssd_resnet101_v1_fpn_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet101_v1_fpn_640x640_coco17_tpu-8",
        speed_ms=57,
        coco_map=35.6,
        parameters=51_960_570,
    ),
    Preset(
        archive="20200711/ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8",
        speed_ms=104,
        coco_map=39.5,
        parameters=51_960_570,
        parity=(2.7e-06, 4.2e-07),
    ),
    Preset(
        archive="20200711/ssd_resnet152_v1_fpn_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet152_v1_fpn_640x640_coco17_tpu-8",
        speed_ms=80,
        coco_map=35.4,
        parameters=67_650_298,
        parity=(3.0e-06, 1.2e-07),
    ),
    Preset(
        archive="20200711/ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8",
        speed_ms=111,
        coco_map=39.6,
        parameters=67_650_298,
        parity=(3.1e-06, 6.0e-08),
    ),
)
