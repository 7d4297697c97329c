"""Numbers of a `pipeline.config` that nothing sensible is built from, refused with file, line and field."""

import random
import re

import pytest

from keras_detect import text_proto
from keras_detect.text_proto import PipelineConfigError
from keras_detect.tf_od_api.build import from_pipeline_config
from keras_detect.tf_od_api.check_numbers import check_numbers
from keras_detect.tf_od_api.train_config import training_config
from tests import goldens

NAMES = ("ssd_mobilenet_v2_320x320_coco17_tpu-8", "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8")
ABSURD = ("nan", "-nan", "inf", "-infinity", "1e39", "-1e39", "1000000000000", "-1000000000000", "0xfffffffffffff")


def text_of(name):
    return goldens.golden(f"{name}.config").read_text()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("part", "read"), [("model", from_pipeline_config), ("train_config", training_config)])
def test_every_number_is_held_to_a_bound(tmp_path, name, part, read):
    """Each number of the file in turn, one absurd value after the other: some 250 in all."""
    path, text = tmp_path / "pipeline.config", text_of(name)
    lines, generator = text.split("\n"), random.Random(name)
    numbers = list(text_proto.parse(text).message(part).numbers())
    assert len(numbers) > 9
    for node, field, scalar, _ in numbers:
        for value in generator.sample(ABSURD, 3):
            changed = list(lines)
            changed[scalar.line - 1] = re.sub(
                rf"\b{field}\s*:\s*(\[.*\]|\S+)", f"{field}: {value}", lines[scalar.line - 1]
            )
            assert changed != lines
            path.write_text("\n".join(changed))
            with pytest.raises(PipelineConfigError) as error:
                read(path)
            message = str(error.value)
            assert message.startswith(f"{path}:{scalar.line}: {node.path}.{field}: found {value}; supported: "), message
            assert "\n" not in message and len(message) < 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_scale", "nan"), ("min_scale", "-0.2"), ("aspect_ratios", "0"), ("aspect_ratios", "-1.0"),
        ("num_layers", "1000000"), ("epsilon", "-0.001"), ("epsilon", "0"), ("decay", "1.5"),
        ("depth_multiplier", "inf"), ("depth_multiplier", "0"), ("height", "1000000000"), ("width", "-300"),
        ("width", "0"), ("num_classes", "1000000000"), ("max_detections_per_class", "1000000000"),
        ("max_total_detections", "-1"), ("iou_threshold", "-0.6"), ("iou_threshold", "7"), ("score_threshold", "2"),
        ("kernel_size", "100000"), ("stddev", "-0.03"), ("weight", "-4e-5"), ("x_scale", "0"),
        ("classification_weight", "-1"), ("matched_threshold", "50"), ("max_negatives_per_positive", "-3"),
        ("min_depth", "1000000"), ("dropout_keep_probability", "80"), ("num_hard_examples", "4000000000"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_have(field, value):
    check(from_pipeline_config, field, value)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("ssd_efficientdet_d0_512x512_coco17_tpu-8", "depth"),
        ("ssd_efficientdet_d0_512x512_coco17_tpu-8", "num_filters"),
        (NAMES[1], "first_stage_max_proposals"),
    ],
)
def test_none_is_too_few(name, field):
    check(from_pipeline_config, field, "0", text_of(name))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", "-8"), ("batch_size", "1000000000"), ("num_steps", "-1"), ("num_steps", "99999999999"),
        ("learning_rate_base", "nan"), ("learning_rate_base", "-0.8"), ("learning_rate_base", "1e30"),
        ("warmup_learning_rate", "inf"), ("total_steps", "-50000"), ("warmup_steps", "10000000000"),
        ("momentum_optimizer_value", "9"), ("max_number_of_boxes", "1000000000"),
    ],
)  # fmt: skip
def test_what_a_training_cannot_have(field, value):
    check(training_config, field, value)


def check(read, field, value, text=None):
    text = text or text_of(NAMES[0])
    match = re.search(rf"\b{field}\s*:\s*\S+", text)
    if match is None:
        owner = {"max_negatives_per_positive": "loss {", "num_hard_examples": "loss {"}[field]
        changed = text.replace(owner, f"{owner} hard_example_miner {{ {field}: {value} }}", 1)
        line = text[: text.index(owner)].count("\n") + 1
    else:
        changed = text[: match.start()] + f"{field}: {value}" + text[match.end() :]
        line = text[: match.start()].count("\n") + 1
    with pytest.raises(PipelineConfigError, match=rf"^<text>:{line}: [\w.\[\]]*\b{field}: found {value}; supported: "):
        read(changed)


def test_together_the_weights_are_bounded():
    text = text_of(NAMES[0]).replace("num_classes: 90", "num_classes: 100000")
    assert text.count("aspect_ratios: 1.0") == 1
    ratios = "".join(f" aspect_ratios: {1 + number / 1000}" for number in range(900))
    text = text.replace("aspect_ratios: 1.0", ratios, 1)
    with pytest.raises(PipelineConfigError, match=r"model\.ssd: cannot be built: the weights take more than 4,096 MiB"):
        from_pipeline_config(text)
    with pytest.raises(PipelineConfigError, match="aspect_ratios: has more than the 1000 values that are supported"):
        from_pipeline_config(text.replace(ratios, ratios * 2))


def test_long_values_are_cut():
    text = text_of(NAMES[0])
    for changed in (
        re.sub(r"type: .ssd_mobilenet_v2.*", f'type: "{"x" * 1_000_000}"', text),
        text.replace("num_classes: 90", f"num_classes: {'9' * 390}"),
        text.replace("num_classes: 90", f"{'n' * 1_000_000}: 90"),
        text.replace("ssd {", "".join(f"field_{number} {{ }}\n" for number in range(10_000)) + "other {", 1),
        text.replace("aspect_ratios: 1.0", "aspect_ratios: 5 " * 999, 1).replace("num_layers: 6", "num_layers: 7"),
    ):
        assert changed != text
        with pytest.raises(PipelineConfigError) as error:
            from_pipeline_config(changed)
        assert len(str(error.value)) < 1000 and "\n" not in str(error.value)


def test_no_real_config_is_refused():
    """The zoo's configs and those of users, as they train: nearly 500 files."""
    wild = goldens.require_shared("data/configs_wild")
    published = goldens.require_shared("zoo/training_configs")
    count = 0
    for path in (*wild.glob("*.config"), *published.glob("*.config"), *published.parent.glob("*/pipeline.config")):
        try:
            config = text_proto.read(path)
        except PipelineConfigError:
            continue  # no text of a config: as before
        for part in ("model", "train_config"):
            if config.has(part):
                check_numbers(config.message(part))
        count += 1
    assert count > 400
