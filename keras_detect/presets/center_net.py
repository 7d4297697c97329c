"""The CenterNets of upstream's zoo, as their authors published them; only their archives say what they are."""

from keras_detect.presets.preset import Preset, add

_BOTH = ("boxes", "keypoints")

CENTER_NET_PRESETS = add(
    Preset(
        archive="20200713/centernet_hg104_512x512_coco17_tpu-8.tar.gz",
        pipeline_config=None,
        speed_ms=70,
        coco_map=41.9,
    ),
    Preset(
        archive="20200711/centernet_hg104_512x512_kpts_coco17_tpu-32.tar.gz",
        pipeline_config=None,
        speed_ms=76,
        coco_map=40.0,
        outputs=_BOTH,
    ),
    Preset(
        archive="20200713/centernet_hg104_1024x1024_coco17_tpu-32.tar.gz",
        pipeline_config=None,
        speed_ms=197,
        coco_map=44.5,
    ),
    Preset(
        archive="20200711/centernet_hg104_1024x1024_kpts_coco17_tpu-32.tar.gz",
        pipeline_config=None,
        speed_ms=211,
        coco_map=42.8,
        outputs=_BOTH,
    ),
    Preset(
        archive="20200711/centernet_resnet50_v1_fpn_512x512_coco17_tpu-8.tar.gz",
        pipeline_config=None,
        speed_ms=27,
        coco_map=31.2,
    ),
    Preset(
        archive="20200711/centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8.tar.gz",
        pipeline_config=None,
        speed_ms=30,
        coco_map=29.3,
        outputs=_BOTH,
    ),
    Preset(
        archive="20200711/centernet_resnet101_v1_fpn_512x512_coco17_tpu-8.tar.gz",
        pipeline_config=None,
        speed_ms=34,
        coco_map=34.2,
    ),
    Preset(
        archive="20200711/centernet_resnet50_v2_512x512_coco17_tpu-8.tar.gz",
        pipeline_config=None,
        speed_ms=27,
        coco_map=29.5,
    ),
    Preset(
        archive="20200711/centernet_resnet50_v2_512x512_kpts_coco17_tpu-8.tar.gz",
        pipeline_config=None,
        speed_ms=30,
        coco_map=27.6,
        outputs=_BOTH,
    ),
    Preset(
        archive="20210210/centernet_mobilenetv2fpn_512x512_coco17_od.tar.gz",
        pipeline_config=None,
        speed_ms=6,
        coco_map=23.4,
    ),
    Preset(
        archive="20210210/centernet_mobilenetv2fpn_512x512_coco17_kpts.tar.gz",
        pipeline_config=None,
        speed_ms=6,
        coco_map=None,  # 41.7 is its mAP of keypoints
        outputs=("keypoints",),
    ),
)
