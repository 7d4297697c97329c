"""The Faster R-CNNs and the Mask R-CNN of upstream's zoo, as their authors published them."""

from keras_detect.presets.preset import Preset, add

#: the two Inception-ResNets have no training config among upstream's: only their archives say what they are
FASTER_RCNN_PRESETS = add(
    Preset(
        archive="20200711/faster_rcnn_resnet50_v1_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet50_v1_640x640_coco17_tpu-8",
        speed_ms=53,
        coco_map=29.3,
        parameters=28_511_847,
        parity=(2.3e-06, 1.8e-07),
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8",
        speed_ms=65,
        coco_map=31.0,
        parameters=28_511_847,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8",
        speed_ms=65,
        coco_map=31.6,
        parameters=29_241_291,
        parity=(2.5e-06, 2.8e-07),
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet101_v1_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet101_v1_640x640_coco17_tpu-8",
        speed_ms=55,
        coco_map=31.8,
        parameters=47_556_199,
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8",
        speed_ms=72,
        coco_map=37.1,
        parameters=47_556_199,
        parity=(2.3e-06, 1.1e-07),
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8",
        speed_ms=77,
        coco_map=36.6,
        parameters=48_285_643,
        parity=(2.3e-06, 1.3e-07),
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet152_v1_640x640_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet152_v1_640x640_coco17_tpu-8",
        speed_ms=64,
        coco_map=32.4,
        parameters=63_245_927,
        parity=(2.1e-06, 9.7e-08),
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8",
        speed_ms=85,
        coco_map=37.6,
        parameters=63_245_927,
        parity=(2.1e-06, 7.8e-08),
    ),
    Preset(
        archive="20200711/faster_rcnn_resnet152_v1_800x1333_coco17_gpu-8.tar.gz",
        pipeline_config="faster_rcnn_resnet152_v1_800x1333_coco17_gpu-8",
        speed_ms=101,
        coco_map=37.4,
        parameters=63_975_371,
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
    Preset(
        archive="20200711/mask_rcnn_inception_resnet_v2_1024x1024_coco17_gpu-8.tar.gz",
        pipeline_config="mask_rcnn_inception_resnet_v2_1024x1024_coco17_gpu-8",
        speed_ms=301,
        coco_map=39.0,  # of the boxes; 34.6 of the masks
        outputs=("boxes", "masks"),
        parameters=65_007_685,
        parity=(1.8e-06, 7.5e-08),
    ),
)
