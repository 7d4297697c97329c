"""`center_net.feature_extractor` of a config: what each type becomes, and which fields are refused."""

import keras
import numpy as np
import pytest

from keras_detect import text_proto
from keras_detect.backbones.backbone import backbone_names
from keras_detect.necks import CenterNetDeconvolution, CenterNetPyramid
from keras_detect.tf_od_api import build_center_net_features
from keras_detect.tf_od_api.build_center_net_features import EXTRACTORS, center_net_feature_extractor
from tests import goldens
from tests.networks import undrawn

UPSTREAMS = {
    *(f"hourglass_{depth}" for depth in (10, 20, 32, 52, 104)),
    *("mobilenet_v2", "mobilenet_v2_fpn", "mobilenet_v2_fpn_sep_conv", "resnet_v2_50", "resnet_v2_101"),
    *(f"resnet_v1_{layers}_fpn" for layers in (18, 34, 50, 101)),
}


def node(fields):
    """The message with these fields, four lines below the top."""
    text = f"model {{\n center_net {{\n  feature_extractor {{\n{fields}\n  }}\n }}\n}}"
    return text_proto.read(text).message("model").message("center_net").message("feature_extractor")


def built(fields):
    message = node(fields)
    with undrawn():
        extractor = center_net_feature_extractor(message)
    message.refuse_unread()
    return extractor


def test_the_types_are_upstreams_and_their_backbones_registered():
    assert set(EXTRACTORS) == UPSTREAMS
    assert {row.backbone for row in EXTRACTORS.values()} <= set(backbone_names())


def test_mobilenet_v2_in_its_three_forms():
    plain = built('type: "mobilenet_v2_fpn"')
    assert plain.neck == CenterNetPyramid(levels=("C2", "C3", "C4_first", "C5"), filters=(64, 32, 24))
    assert (plain.scaling, plain.backbone.hyperparams.batch_norm_momentum) == (None, 0.9997)
    bilinear = built('type: "mobilenet_v2_fpn" use_separable_conv: true upsampling_interpolation: "bilinear"')
    assert (bilinear.neck.separable, bilinear.neck.interpolation) == (True, "bilinear")
    assert built('type: "mobilenet_v2_fpn_sep_conv"').neck.separable
    narrow = built('type: "mobilenet_v2" depth_multiplier: 0.5')
    assert narrow.neck == CenterNetDeconvolution(kernel_size=1)
    assert (narrow.backbone.channels["C2"], narrow.backbone.channels["C5"]) == (16, 640)


def test_means_and_deviations_come_before_the_networks_own_scaling():
    fields = 'type: "{}" bgr_ordering: true channel_means: [1, 2, 3] channel_stds: [2, 4, 8]'
    pixel = keras.ops.convert_to_tensor(np.array([[[[10.0, 20.0, 30.0]]]], "float32"))
    scaled = np.array([(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8])
    hourglass = built(fields.format("hourglass_10"))
    assert hourglass.scaling is None  # the network has none of its own
    goldens.assert_close(hourglass.preprocess(pixel)[0, 0, 0], scaled)
    goldens.assert_close(built('type: "hourglass_10"').preprocess(pixel)[0, 0, 0], [10, 20, 30])
    mobile = built(fields.format("mobilenet_v2_fpn"))
    goldens.assert_close(mobile.preprocess(pixel)[0, 0, 0], scaled * 2 / 255 - 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('type: "resnet_v1_51_fpn"', r":4: .*type: Unknown .*'resnet_v1_51_fpn'. Did you mean .*resnet_v1_50_fpn"),
        ('type: "mobilenet_v2" use_separable_conv: true', r"use_separable_conv: found True; supported: False"),
        ('type: "hourglass_10" depth_multiplier: 0.5', r"depth_multiplier: found 0.5; supported: 1.0"),
        ('type: "mobilenet_v2_fpn" upsampling_interpolation: "cubic"', r"found 'cubic'; supported: nearest, bilinear"),
        ('type: "hourglass_10" channel_means: [1, 2]', r"channel_means: found 2 numbers; supported: 3, or none"),
        ('type: "hourglass_10" channel_stds: [1, 2, 0]', r"channel_stds: found 0; supported: other numbers"),
        ('type: "hourglass_10" use_depthwise: true', r"use_depthwise: found True; supported: False"),
    ],
)
def test_what_is_refused_has_its_place(fields, message, monkeypatch):
    monkeypatch.setattr(
        build_center_net_features, "get_backbone", lambda name: pytest.fail("built before it is checked")
    )
    with pytest.raises(text_proto.PipelineConfigError, match=message):
        center_net_feature_extractor(node(fields))
