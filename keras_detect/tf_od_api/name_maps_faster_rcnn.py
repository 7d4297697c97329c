"""Our weight names of a Faster R-CNN -> checkpoint keys of the original, as tables: one row per layer."""

from keras_detect.tf_od_api.name_maps_layers import (
    feature_pyramid_rows,
    inception_resnet_v2_layers,
    numbered,
    resnet_v1_layers,
)

PROPOSAL_FEATURES = "model/_feature_extractor_for_proposal_features"
CROP_FEATURES = "model/_feature_extractor_for_box_classifier_features"
FIRST_STAGE = "model/_first_stage_box_predictor"
SECOND_STAGE = "model/_mask_rcnn_box_predictor"

#: backbone class -> its layers in the original's order, and the first of those that run on crops
LAYERS = {
    "ResNetV1": (resnet_v1_layers, "stage_5_block_0_reduce_conv"),
    "InceptionResNetV2": (inception_resnet_v2_layers, "mixed_7a_branch_2_0_conv"),
}


def is_two_stage(model):
    """Whether these tables are the model's."""
    return hasattr(model, "region_predictor")


def backbone_keys(model):
    """Regex of the checkpoint keys that belong to the backbone of `model`."""
    if hasattr(model.feature_extractor, "neck"):
        return rf"{PROPOSAL_FEATURES}/classification_backbone/.*"
    return rf"({PROPOSAL_FEATURES}|{CROP_FEATURES})/.*"


def tables(model, choose):
    """`{group: {layer: key}}`, groups as in `named_weights`; `choose(table, part)` refuses a part without a row."""
    extractor = model.feature_extractor
    groups = {"region_predictor": _region_predictor(model.region_predictor)}
    groups["backbone"] = backbone_table(extractor, choose)
    if hasattr(extractor, "neck"):
        groups["neck"] = choose(NECKS, extractor.neck)(extractor.neck)
        ends = ("dense_0", "dense_0_bn", "dense_1") if extractor.hyperparams.batch_norm else ("dense_0", "dense_1")
        groups["box_classifier_features"] = numbered(ends, CROP_FEATURES)
    if model.number_of_stages > 1:
        groups["box_predictor"] = {
            "box_head": f"{SECOND_STAGE}/_box_prediction_head/_box_encoder_layers/1",
            "class_head": f"{SECOND_STAGE}/_class_prediction_head/_class_predictor_layers/1",
        }
    return groups


def backbone_table(extractor, choose):
    """`{layer: key}` of the backbone of a feature extractor."""
    order, first_on_crops = choose(LAYERS, extractor.backbone)
    layers = order(extractor.backbone)
    if hasattr(extractor, "neck"):
        return numbered(layers, f"{PROPOSAL_FEATURES}/classification_backbone")
    # the original cuts here whatever our cut is; the numbers start anew behind it
    cut = layers.index(first_on_crops)
    return numbered(layers[:cut], PROPOSAL_FEATURES) | numbered(layers[cut:], CROP_FEATURES)


def _feature_pyramid(neck):
    pyramid = f"{PROPOSAL_FEATURES}/fpn_features_generator"
    return feature_pyramid_rows(neck, pyramid, f"{PROPOSAL_FEATURES}/coarse_feature_layers")


NECKS = {"FeaturePyramid": _feature_pyramid}


def _region_predictor(predictor):
    rows = {"shared_conv": f"{FIRST_STAGE}_first_conv/layer_with_weights-0"}
    for level in range(len(predictor.num_anchors_per_location)):
        for head, group, layers in (
            ("box", "box_encodings", "_box_encoder_layers"),
            ("class", "class_predictions_with_background", "_class_predictor_layers"),
        ):
            rows[f"heads/level_{level}/level_{level}_{head}"] = (
                f"{FIRST_STAGE}/_prediction_heads/{group}/{level}/{layers}/0"
            )
    return rows
