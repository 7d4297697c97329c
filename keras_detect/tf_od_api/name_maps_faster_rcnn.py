"""Our weight names of a Faster R-CNN -> checkpoint keys of upstream, as tables: one row per layer."""

from keras_detect.tf_od_api.name_maps_layers import (
    declared,
    feature_pyramid_rows,
    inception_resnet_v2_layers,
    numbered,
    resnet_v1_layers,
)

PROPOSAL_FEATURES = "model/_feature_extractor_for_proposal_features"
CROP_FEATURES = "model/_feature_extractor_for_box_classifier_features"
FIRST_STAGE = "model/_first_stage_box_predictor"
SECOND_STAGE = "model/_mask_rcnn_box_predictor"

#: `checkpoint_family` of a backbone -> its layers in upstream's order, and the first of those that run on crops
LAYERS = {
    "resnet_v1": (resnet_v1_layers, "stage_5_block_0_reduce_conv"),
    "inception_resnet_v2": (inception_resnet_v2_layers, "mixed_7a_branch_2_0_conv"),
}


def _split_rows(extractor):
    order, first_on_crops = declared(LAYERS, extractor.backbone)
    layers = order(extractor.backbone)
    # upstream splits here, regardless of our split; the numbers start over behind it
    split = layers.index(first_on_crops)
    return numbered(layers[:split], PROPOSAL_FEATURES) | numbered(layers[split:], CROP_FEATURES)


def _pyramid_rows(extractor):
    order, _ = declared(LAYERS, extractor.backbone)
    return numbered(order(extractor.backbone), f"{PROPOSAL_FEATURES}/classification_backbone")


def _feature_pyramid(neck):
    pyramid = f"{PROPOSAL_FEATURES}/fpn_features_generator"
    return feature_pyramid_rows(neck, pyramid, f"{PROPOSAL_FEATURES}/coarse_feature_layers")


#: `checkpoint_family` of a neck -> its rows
NECKS = {"fpn": _feature_pyramid}


def _pyramid_groups(extractor):
    ends = ("dense_0", "dense_0_bn", "dense_1") if extractor.hyperparams.batch_norm else ("dense_0", "dense_1")
    return {
        "neck": declared(NECKS, extractor.neck)(extractor.neck),
        "box_classifier_features": numbered(ends, CROP_FEATURES),
    }


#: `checkpoint_family` of a feature extractor -> rows of its backbone, its other groups, regex of the backbone's keys
EXTRACTORS = {
    "faster_rcnn_c4": (_split_rows, lambda extractor: {}, rf"({PROPOSAL_FEATURES}|{CROP_FEATURES})/.*"),
    "faster_rcnn_fpn": (_pyramid_rows, _pyramid_groups, rf"{PROPOSAL_FEATURES}/classification_backbone/.*"),
}


def _box_heads(predictor):
    return {
        "box_head": f"{SECOND_STAGE}/_box_prediction_head/_box_encoder_layers/1",
        "class_head": f"{SECOND_STAGE}/_class_prediction_head/_class_predictor_layers/1",
    }


def _mask_head(predictor):
    layers = f"{SECOND_STAGE}/_third_stage_heads/mask_predictions/_mask_predictor_layers"
    if predictor.upsampling == "transposed":
        raise ValueError(
            "Upstream's mask head has no transposed convolution. Received a MaskPredictor with "
            "upsampling='transposed'. Use 'resize' or 'nearest'."
        )
    # a convolution, its batch norm (or nothing) and its activation take three places in upstream's list
    numbers = {f"conv_{index}": 3 * index for index in range(predictor.num_convolutions)}
    last = 3 * predictor.num_convolutions
    if predictor.upsampling == "nearest":  # the upsampling itself takes a place
        numbers["upsample_conv"], last = last + 1, last + 4
    rows = {layer: f"{layers}/{number}" for layer, number in numbers.items()}
    norms = {f"{layer}_bn": f"{layers}/{number + 1}" for layer, number in numbers.items()}
    rows |= norms if predictor.hyperparams.batch_norm else {}
    return rows | {"mask_head": f"{layers}/{last}"}


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


#: `checkpoint_family` of a predictor -> its rows
PREDICTORS = {"mask_rcnn": _box_heads}
MASK_PREDICTORS = {"mask_rcnn_masks": _mask_head}
REGION_PREDICTORS = {"region_proposal": _region_predictor}


def tables(model):
    """`{group: {layer: key}}`, groups as in `named_weights`. Raises `ValueError` for a part that has no row."""
    extractor = model.feature_extractor
    _, other_groups, _ = declared(EXTRACTORS, extractor)
    region_predictor = declared(REGION_PREDICTORS, model.region_predictor)(model.region_predictor)
    groups = {"region_predictor": region_predictor, "backbone": backbone_table(model), **other_groups(extractor)}
    if model.number_of_stages > 1:
        groups["box_predictor"] = declared(PREDICTORS, model.box_predictor)(model.box_predictor)
    if "mask_predictor" in model.parts:
        groups["mask_predictor"] = declared(MASK_PREDICTORS, model.mask_predictor)(model.mask_predictor)
    return groups


def backbone_table(model):
    """`{layer: key}` of the backbone, in the network's order."""
    rows, _, _ = declared(EXTRACTORS, model.feature_extractor)
    return rows(model.feature_extractor)


def backbone_keys(model):
    """Regex of the checkpoint keys that belong to the backbone of `model`."""
    return declared(EXTRACTORS, model.feature_extractor)[2]


def unused_keys(model):
    """`((regex of a checkpoint key, reason), ...)` of what upstream saves with such a model and it does not use."""
    return ()
