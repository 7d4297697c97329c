"""The CenterNets of upstream's zoo, as their authors published them; of some only their archives say what they are.

ExtremeNet (the later of its two archives) is the hourglass that upstream's training of CenterNets starts from.
"""

from keras_detect.presets.preset import Preset, add

_BOTH = ("boxes", "keypoints")

CENTER_NET_PRESETS = add(
    Preset(
        archive="20200713/centernet_hg104_512x512_coco17_tpu-8.tar.gz",
        pipeline_config="centernet_hourglass104_512x512_coco17_tpu-8",
        speed_ms=70,
        coco_map=41.9,
        parameters=191_406_652,
    ),
    Preset(
        archive="20200711/centernet_hg104_512x512_kpts_coco17_tpu-32.tar.gz",
        pipeline_config="centernet_hourglass104_512x512_kpts_coco17_tpu-32",
        speed_ms=76,
        coco_map=40.0,
        outputs=_BOTH,
        parameters=194_990_822,
    ),
    Preset(
        archive="20200713/centernet_hg104_1024x1024_coco17_tpu-32.tar.gz",
        pipeline_config="centernet_hourglass104_1024x1024_coco17_tpu-32",
        speed_ms=197,
        coco_map=44.5,
        parameters=191_406_652,
    ),
    Preset(
        archive="20200711/centernet_hg104_1024x1024_kpts_coco17_tpu-32.tar.gz",
        pipeline_config="centernet_hourglass104_1024x1024_kpts_coco17_tpu-32",
        speed_ms=211,
        coco_map=42.8,
        outputs=_BOTH,
        parameters=194_990_822,
    ),
    Preset(
        archive="20200711/centernet_resnet50_v1_fpn_512x512_coco17_tpu-8.tar.gz",
        pipeline_config=None,
        speed_ms=27,
        coco_map=31.2,
    ),
    Preset(
        archive="20200711/centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8.tar.gz",
        pipeline_config="centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8",
        speed_ms=30,
        coco_map=29.3,
        outputs=_BOTH,
        parameters=25_795_827,
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
        pipeline_config="centernet_resnet50_v2_512x512_kpts_coco17_tpu-8",
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
    Preset(
        archive="20210507/extremenet.tar.gz",
        pipeline_config=None,
        speed_ms=None,
        coco_map=None,
        outputs=(),
        built_from="centernet_hg104_512x512_coco17_tpu-8",
        parameters=191_406_652,
    ),
)
