"""Every unit case of upstream is claimed by a test, or stands here with the reason why it is not yet."""

import fnmatch
import importlib

import pytest

from tests import goldens, two_stage_models, whole_models

CENTER_NET = "zoo_centernet_mobilenetv2_fpn_od"

# test module -> the tests in it that claim cases with `golden_cases`
CLAIMING_MODULES = (
    "tests.boxes.test_box_ops",
    "tests.boxes.test_similarity",
    "tests.boxes.test_box_coders",
    "tests.boxes.test_anchor_generators",
    "tests.boxes.test_matchers",
    "tests.boxes.test_samplers",
    "tests.boxes.test_target_assigner",
    "tests.evaluation.test_coco",
    "tests.evaluation.test_coco_keypoints",
    "tests.evaluation.test_coco_masks",
    "tests.evaluation.test_pascal_voc",
    "tests.layers.test_batch_normalization",
    "tests.layers.test_conv_blocks",
    "tests.transforms.test_resizers",
    "tests.kernels.test_roi",
    "tests.losses.test_classification",
    "tests.losses.test_localization",
    "tests.training.test_schedules",
    "tests.boxes.test_heatmaps",
    "tests.boxes.test_nms",
    "tests.losses.test_hard_example_miner",
    "tests.tf_od_api.test_train_config",
    "tests.data.test_tf_example",
    "tests.data.test_transform",
    "tests.data.test_pasting",
    "tests.transforms.test_upstream_operations",
)

# pattern -> why no test claims it yet (the issue that brings it)
NOT_YET = {
    "matcher/hungarian/*": "issue 2 leaves the Hungarian matcher to the DETR parts of a later issue",
    "similarity/detr": "issue 2 leaves DETR similarity to a later issue",
    "ops/position_sensitive_crop": "has no output; tests/kernels/test_position_sensitive.py has cases that do",
}


def _claims():
    claimed = {}
    for module_name in CLAIMING_MODULES:
        for attribute in vars(importlib.import_module(module_name)).values():
            for case in getattr(attribute, "golden_claims", ()):
                claimed.setdefault(case, []).append(f"{module_name}::{attribute.__name__}")
    return claimed


def test_every_case_is_claimed_or_explained():
    claimed = _claims()
    unlisted, both = [], []
    for case in goldens.index():
        reasons = [pattern for pattern in NOT_YET if fnmatch.fnmatchcase(case, pattern)]
        if case not in claimed and not reasons:
            unlisted.append(case)
        if case in claimed and reasons:
            both.append(case)
    assert not unlisted, f"no test claims these cases and no reason is given: {unlisted}"
    assert not both, f"claimed by a test and yet listed as not claimed: {both}"


@pytest.mark.parametrize("pattern", NOT_YET)
def test_a_reason_names_cases_that_exist(pattern):
    assert fnmatch.filter(goldens.index(), pattern), f"{pattern} matches no case: remove it"


@pytest.mark.parametrize("model", (*whole_models.QUICK, two_stage_models.QUICK[0], CENTER_NET))
def test_the_repository_itself_holds_a_whole_model_of_each_family(model):
    for kind in ("config", "vars.json", "layers.json", "npz", "trace.json"):
        assert (goldens.DATA / f"{model}.{kind}").exists()
    assert sum(path.stat().st_size for path in goldens.DATA.iterdir()) < 8_000_000
