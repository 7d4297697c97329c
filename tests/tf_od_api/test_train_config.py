"""The training half of a pipeline.config: optimizers on upstream's trajectories, hand-read fields, every config."""

import re

import keras
import numpy as np
import pytest
from keras import ops

import keras_detect
from keras_detect import tf_od_api
from keras_detect.tf_od_api.train_config import DataSource, training_config
from keras_detect.training.schedules import (
    CosineDecayWithWarmup,
    ExponentialDecayWithBurnIn,
    InverseTimeDecay,
    ManualStepping,
)
from keras_detect.transforms import LargeScaleJitter, RandomChoice, RandomHorizontalFlip, RandomObjectCrop
from tests import goldens, whole_models
from tests.goldens import assert_close, golden_cases
from tests.tiny import tiny_batch, tiny_ssd

SGD = "momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.5 } } }"


def read(optimizer=SGD + " use_moving_average: false", more="", outside=""):
    return training_config(f"train_config {{\n optimizer {{ {optimizer} }}\n{more}\n}}\n{outside}")


def config_paths():
    paths = [*sorted((goldens.SHARED / "zoo").rglob("*.config")), *goldens.configs()]
    paths = [path for path in paths if path.stem not in whole_models.TF1_QUICK]
    return [path for path in paths if re.search(r"(^|/)(derived_)?(ssd|efficientdet)_", path.as_posix())]


@golden_cases("optimizer/*")
def test_upstream_trajectories(case):
    optimizer = read(case.info["config"]).optimizer
    assert type(optimizer).__name__ == case.info["optimizer_class"]
    variable = keras.Variable(case.inputs["init"])
    optimizer.build([variable])
    # as a user's optimizer after a save: from its config
    optimizer = type(optimizer).from_config(optimizer.get_config())
    optimizer.build([variable])
    trajectory = []
    for gradient in case.inputs["grads"]:
        optimizer.apply_gradients([(ops.convert_to_tensor(gradient), variable)])
        trajectory.append(ops.convert_to_numpy(variable))
    assert_close(np.stack(trajectory), case.outputs["traj"])


@pytest.mark.parametrize("path", config_paths(), ids=lambda path: "/".join(path.parts[-2:]))
def test_every_published_config(path):
    config = training_config(path)
    assert config.batch_size >= 1 and config.num_steps >= 1
    assert isinstance(config.optimizer, keras.optimizers.SGD) and config.optimizer.momentum == pytest.approx(0.9)
    assert isinstance(config.optimizer._learning_rate, CosineDecayWithWarmup)
    assert config.augmentations[0] == RandomHorizontalFlip() and len(config.augmentations) == 2
    assert [type(part) for part in config.augmentations][1] in (RandomObjectCrop, LargeScaleJitter, RandomChoice)
    assert not config.approximations and config.train_data.paths
    assert not [path for path, _ in config.ignored if path.startswith(("train_config.optimizer", "model"))]
    lines = path.read_text().splitlines()
    for field, line in config.ignored:
        assert field.rsplit(".", 1)[-1].split("[")[0] in lines[line - 1]
    assert f"ignored: {config.ignored[0].path} (line {config.ignored[0].line})" in config.summary()


def test_one_published_config_by_hand():
    path = goldens.require_shared("zoo/training_configs/ssd_mobilenet_v2_320x320_coco17_tpu-8.config")
    config = training_config(path)
    assert (config.batch_size, config.num_steps, config.max_number_of_boxes) == (512, 50000, 100)
    thresholds = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    crops = [
        RandomObjectCrop(
            min_object_covered=threshold,
            min_aspect_ratio=0.5,
            max_aspect_ratio=2.0,
            overlap_threshold=threshold,
            probability=0.85,
        )
        for threshold in thresholds
    ]
    assert config.augmentations == (RandomHorizontalFlip(), RandomChoice(operations=tuple(crops)))
    assert config.optimizer._learning_rate.get_config() == {
        "learning_rate_base": 0.8,
        "total_steps": 50000,
        "warmup_learning_rate": 0.13333,
        "warmup_steps": 2000,
        "hold_base_rate_steps": 0,
    }
    assert config.optimizer.global_clipnorm is None and not config.optimizer.use_ema
    assert config.fine_tune_checkpoint == "PATH_TO_BE_CONFIGURED/mobilenet_v2.ckpt-1"
    assert config.fine_tune_checkpoint_type == config.restore_kind == "classification"
    labels = "PATH_TO_BE_CONFIGURED/label_map.txt"
    assert config.train_data == DataSource(labels, ("PATH_TO_BE_CONFIGURED/train2017-?????-of-00256.tfrecord",))
    assert config.eval_data == (DataSource(labels, ("PATH_TO_BE_CONFIGURED/val2017-?????-of-00032.tfrecord",)),)
    assert [path for path, _ in config.ignored] == [
        "train_config.fine_tune_checkpoint_version",
        "train_config.sync_replicas",
        "train_config.startup_delay_steps",
        "train_config.replicas_to_aggregate",
        "train_config.unpad_groundtruth_tensors",
        "eval_config",
        "eval_input_reader.shuffle",
        "eval_input_reader.num_epochs",
    ]


def test_defaults():
    config = training_config(
        "train_config { optimizer { adam_optimizer { learning_rate { constant_learning_rate {}}}}}"
    )
    assert isinstance(config.optimizer, keras.optimizers.Adam)
    assert float(ops.convert_to_numpy(config.optimizer.learning_rate)) == pytest.approx(0.002)
    assert config.optimizer.epsilon == 1e-8
    assert config.optimizer.use_ema and config.optimizer.ema_momentum == 0.9999
    assert "full momentum" in config.approximations[0].reason
    assert (config.batch_size, config.num_steps, config.max_number_of_boxes) == (32, None, 100)
    assert config.train_data == DataSource("", ()) and config.eval_data == () and config.ignored == []
    assert config.restore_kind is None and "no end" in config.summary()


def test_schedules():
    def rate(text):
        return read(f"momentum_optimizer {{ learning_rate {{ {text} }} }}").optimizer._learning_rate

    exponential = rate("exponential_decay_learning_rate { initial_learning_rate: 1 decay_steps: 2 staircase: false }")
    assert isinstance(exponential, ExponentialDecayWithBurnIn)
    assert_close(exponential(4), 0.95**2)
    manual = rate(
        "manual_step_learning_rate { initial_learning_rate: 1.0"
        " schedule { step: 2 learning_rate: 0.5 } schedule { step: 5 learning_rate: 0.25 } }"
    )
    assert isinstance(manual, ManualStepping)
    assert_close([float(manual(step)) for step in (1, 2, 5)], [1.0, 0.5, 0.25])
    # 0.8 / (1 + 0.5 * 2) = 0.4, of a constant and of a schedule that has come down to 0.5
    assert_close(InverseTimeDecay(0.8, 0.5)(2), 0.4)
    again = InverseTimeDecay.from_config(InverseTimeDecay(manual, 0.5).get_config())
    assert_close(again(2), 0.25)
    with pytest.raises(ValueError, match="decay_rate=-1"):
        InverseTimeDecay(0.1, -1)


@pytest.mark.parametrize(
    ("first", "initial", "reason"),
    [(1.0, 1.0, "the rate from step 0 on is the initial rate"), (0.7, 0.7, "takes the place of the initial rate, 1")],
)
def test_a_manual_schedule_that_begins_at_step_0(first, initial, reason):
    steps = f"schedule {{ step: 0 learning_rate: {first} }} schedule {{ step: 5 learning_rate: 0.25 }}"
    rate = f"manual_step_learning_rate {{ initial_learning_rate: 1.0 {steps} }}"
    config = read(f"momentum_optimizer {{ learning_rate {{ {rate} }} }}")
    schedule = config.optimizer._learning_rate
    assert (schedule.boundaries, schedule.rates) == ([5], [initial, 0.25])
    note = next(note for note in config.approximations if "schedule" in note.path)
    assert reason in note.reason and note.line == 2


def test_rms_prop_of_tensorflow_1():
    """`decay` is that of the average of squared gradients, which starts at 1; not so under TensorFlow 2."""
    rate = "learning_rate { constant_learning_rate { learning_rate: 0.5 } }"
    settings = f"{rate} momentum_optimizer_value: 0.9 decay: 0.7 epsilon: 0.5"
    model = "model {{ ssd {{ feature_extractor {{ type: '{}' }} }} }}"
    newer = read(f"rms_prop_optimizer {{ {settings} }}", outside=model.format("ssd_mobilenet_v2_keras")).optimizer
    assert newer.rho == 0.9 and isinstance(newer._learning_rate, InverseTimeDecay)
    optimizer = read(f"rms_prop_optimizer {{ {settings} }}", outside=model.format("ssd_mobilenet_v2")).optimizer
    assert (optimizer.rho, optimizer.momentum, optimizer.epsilon) == (0.7, 0.9, 0.5)
    optimizer = type(optimizer).from_config(optimizer.get_config())
    variable = keras.Variable(np.float32([1.0, -2.0]))
    expected, square, momentum = np.float64([1.0, -2.0]), np.ones(2), np.zeros(2)
    for gradient in np.float64([[0.5, 2.0], [-1.0, 0.1], [3.0, 0.0]]):
        square = 0.7 * square + 0.3 * gradient**2
        momentum = 0.9 * momentum + 0.5 * gradient / np.sqrt(square + 0.5)
        expected = expected - momentum
        optimizer.apply_gradients([(ops.convert_to_tensor(gradient.astype("float32")), variable)])
        assert_close(variable, expected)


def test_clipping_and_averaging():
    config = read(SGD + " moving_average_decay: 0.75", "gradient_clipping_by_norm: 1.0")
    optimizer = config.optimizer
    assert (optimizer.global_clipnorm, optimizer.clipnorm, optimizer.ema_momentum) == (1.0, None, 0.75)
    a, b = keras.Variable([3.0]), keras.Variable([1.0])
    optimizer.build([a, b])
    optimizer.apply_gradients([(ops.convert_to_tensor([3.0]), a), (ops.convert_to_tensor([4.0]), b)])
    # the norm over both is 5: gradients 0.6 and 0.8, rate 0.5, no momentum yet
    assert_close(a, [2.7])
    assert_close(b, [0.6])


def test_an_augmentation_without_counterpart_is_ignored_and_a_difference_stated():
    steps = ("random_adjust_hue { }", "random_self_concat_image { }", "random_pad_image { min_image_height: 9 }")
    config = read(more="\n".join(f"data_augmentation_options {{ {step} }}" for step in steps))
    assert [path.rsplit(".", 1)[-1] for path, *_ in config.approximations] == ["random_adjust_hue"]
    # the file's third line is the first option's
    assert [(path.split("options")[-1], line) for path, line in config.ignored] == [
        ("[1].random_self_concat_image", 4),
        ("[2].random_pad_image.min_image_height", 5),
    ]


def test_what_is_given_as_it_stands():
    config = read(
        more='freeze_variables: ".*FeatureExtractor.*"\nupdate_trainable_variables: "head"\n'
        'fine_tune_checkpoint: "a/ckpt-0"\nfrom_detection_checkpoint: true\nadd_regularization_loss: false',
        outside='eval_input_reader { label_map_path: "x" }\neval_input_reader { }',
    )
    assert config.freeze_variables == (".*FeatureExtractor.*",) and config.update_trainable_variables == ("head",)
    assert config.fine_tune_checkpoint_type == config.restore_kind == "detection"
    assert config.eval_data == (DataSource("x", ()), DataSource("", ()))
    assert [path for path, _ in config.ignored] == ["train_config.add_regularization_loss"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model { }", r"<text>:1: train_config: is missing"),
        ("train_config { }", r"<text>:1: train_config.optimizer: is missing"),
        (
            f"train_config {{optimizer {{ {SGD} }}\n batch_size: 0 }}",
            r"<text>:2: train_config.batch_size: found 0; .*1",
        ),
        (
            f"train_config {{optimizer {{ {SGD} }}\n num_steps: -1 }}",
            r"<text>:2: train_config.num_steps: found -1; .*0",
        ),
        ("train_config { optimizer { } }", r"holds none .* supported: momentum_optimizer, rms_prop_optimizer, adam"),
        ("train_config { optimizer { ada_optimizer { } } }", r"found: ada_optimizer.*supported: momentum_optimizer"),
        (
            "train_config {\n optimizer {\n adam_optimizer { learning_rate { constant_learning_rate {} }\n beta: 1 }}}",
            r"<text>:4: train_config.optimizer.adam_optimizer.beta: is not supported",
        ),
        (
            "train_config { optimizer { adam_optimizer { learning_rate { step { } } } } }",
            r"found: step\); supported: constant_learning_rate",
        ),
        (
            "train_config { optimizer { adam_optimizer { learning_rate {\n cosine_decay_learning_rate {"
            " total_steps: 5 warmup_steps: 9 } } } } }",
            r"<text>:2: .*cosine_decay_learning_rate: cannot be built: warmup_steps and hold_base_rate_steps",
        ),
        (
            "train_config { optimizer { adam_optimizer { learning_rate { manual_step_learning_rate { } } } } }",
            r"manual_step_learning_rate.schedule: is missing",
        ),
        (
            "train_config { optimizer { momentum_optimizer { learning_rate { constant_learning_rate { } }"
            " momentum_optimizer_value: 1.5 } } }",
            r"momentum_optimizer_value: found 1.5; supported: 0 to 1",
        ),
        (
            f"train_config {{optimizer {{ {SGD} }}\n data_augmentation_options {{random_crop_image {{min_area: 3}}}}}}",
            r"<text>:2: .*random_crop_image: cannot be built: min_area and max_area must be in",
        ),
    ],
)
def test_refused(text, message):
    with pytest.raises(ValueError, match=message):
        training_config(text)


def test_the_public_name_and_training_with_it():
    assert tf_od_api.training_config is keras_detect.tf_od_api.training_config is training_config
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        tf_od_api.other  # noqa: B018
    config = read(
        "momentum_optimizer { learning_rate { cosine_decay_learning_rate { learning_rate_base: 0.01 total_steps: 9"
        " warmup_steps: 2 } } } use_moving_average: true"
    )
    model = tiny_ssd()
    model.compile(config.optimizer)
    losses = model.train_on_batch(*tiny_batch())
    assert np.isfinite(losses).all() and int(ops.convert_to_numpy(model.optimizer.iterations)) == 1
