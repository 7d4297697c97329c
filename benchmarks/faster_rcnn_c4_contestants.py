"""The Faster R-CNNs without a feature pyramid of `race.py`: ours, one of TorchVision's parts, our bare convolutions.

    python benchmarks/faster_rcnn_c4_contestants.py keras_detect predict 1

Every contestant has ResNet50, whose first four stages see the image and whose last one sees each crop; 12 anchors a
place, a first stage of 512 channels, 300 proposals at inference, 64 sampled in training. TorchVision publishes no such
detector; this one is made of its `FasterRCNN`, as its documentation shows for a backbone of one's own.
"""

from contestant import CLASSES, serve
from faster_rcnn_contestants import contestants, torchvision_settings

PRESET = "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8"
CHANNELS, DEPTH, TAIL = 1024, 512, 2048


def cut():
    """Our preset."""
    from keras_detect.meta_architectures.detection_model import DetectionModel

    return DetectionModel.from_preset(PRESET, load_weights=False)


def torchvision_cut(proposals, sampled):
    """TorchVision's Faster R-CNN around its ResNet50, cut where ours is."""
    from collections import OrderedDict

    from torch import nn
    from torchvision.models import resnet50
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.ops import MultiScaleRoIAlign

    network = OrderedDict(resnet50(weights=None).named_children())
    names = list(network)
    trunk = nn.Sequential(OrderedDict((name, network[name]) for name in names[: names.index("layer4")]))
    trunk.out_channels = CHANNELS
    anchors = AnchorGenerator(sizes=((64, 128, 256, 512),), aspect_ratios=((0.5, 1.0, 2.0),))
    head = RPNHead(DEPTH, anchors.num_anchors_per_location()[0])
    head.conv = nn.Sequential(nn.Conv2d(CHANNELS, DEPTH, 3, padding=1), nn.ReLU())
    return FasterRCNN(
        trunk,
        rpn_anchor_generator=anchors,
        rpn_head=head,
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
        box_head=nn.Sequential(network["layer4"], nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        box_predictor=FastRCNNPredictor(TAIL, CLASSES + 1),
        **torchvision_settings(proposals, sampled),
    )


CONTESTANTS = contestants(cut, torchvision_cut, many=False)

if __name__ == "__main__":
    serve(CONTESTANTS)
