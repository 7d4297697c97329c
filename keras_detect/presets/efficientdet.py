"""The EfficientDets of upstream's zoo, as their authors published them.

The published table calls D6 1280x1280; its config, which rules, says 1408x1408. D7 is D6 on larger images.
"""

from keras_detect.presets.preset import Preset, add

EFFICIENTDET_PRESETS = add(
    Preset(
        archive="20200711/efficientdet_d0_coco17_tpu-32.tar.gz",
        pipeline_config="ssd_efficientdet_d0_512x512_coco17_tpu-8",
        speed_ms=39,
        coco_map=33.6,
        parameters=3_927_203,
        parity=(3.8e-06, 1.2e-07),
    ),
    Preset(
        archive="20200711/efficientdet_d1_coco17_tpu-32.tar.gz",
        pipeline_config="ssd_efficientdet_d1_640x640_coco17_tpu-8",
        speed_ms=54,
        coco_map=38.4,
        parameters=5_125_434,
        parity=(8.4e-06, 2.1e-06),
    ),
    Preset(
        archive="20200711/efficientdet_d2_coco17_tpu-32.tar.gz",
        pipeline_config="ssd_efficientdet_d2_768x768_coco17_tpu-8",
        speed_ms=67,
        coco_map=41.8,
        parameters=6_280_743,
    ),
    Preset(
        archive="20200711/efficientdet_d3_coco17_tpu-32.tar.gz",
        pipeline_config="ssd_efficientdet_d3_896x896_coco17_tpu-32",
        speed_ms=95,
        coco_map=45.4,
        parameters=9_891_656,
    ),
    Preset(
        archive="20200711/efficientdet_d4_coco17_tpu-32.tar.gz",
        pipeline_config="ssd_efficientdet_d4_1024x1024_coco17_tpu-32",
        speed_ms=133,
        coco_map=48.5,
        parameters=17_830_139,
        parity=(1.0e-06, 1.2e-07),
    ),
    Preset(
        archive="20200711/efficientdet_d5_coco17_tpu-32.tar.gz",
        pipeline_config="ssd_efficientdet_d5_1280x1280_coco17_tpu-32",
        speed_ms=222,
        coco_map=49.7,
        parameters=25_901_443,
        parity=(9.2e-05, 1.8e-06),
    ),
    Preset(
        archive="20200711/efficientdet_d6_coco17_tpu-32.tar.gz",
        pipeline_config="ssd_efficientdet_d6_1408x1408_coco17_tpu-32",
        speed_ms=268,
        coco_map=50.5,
        parameters=42_101_174,
        parity=(6.3e-05, 3.3e-06),
    ),
    Preset(
        archive="20200711/efficientdet_d7_coco17_tpu-32.tar.gz",
        pipeline_config="ssd_efficientdet_d7_1536x1536_coco17_tpu-32",
        speed_ms=325,
        coco_map=51.2,
        parameters=42_101_174,
        parity=(6.0e-05, 1.1e-06),
    ),
)
