"""What a recipe is for a model and its data, by hand-worked numbers; its optimizer, average and early stopping."""

import dataclasses
import math
import pathlib

import keras
import numpy as np
import pytest

from keras_detect import callbacks
from keras_detect.data.shapes import shapes_dataset
from keras_detect.meta_architectures.efficientdet import EfficientDet
from keras_detect.meta_architectures.starting_weights import start_of
from keras_detect.training import AveragingAdamW, EarlyStopping, Recipe
from keras_detect.training.architectures import ARCHITECTURES, architecture_of
from keras_detect.training.recipe_table import ROWS, STARTS
from tests import tiny


@pytest.fixture(scope="module")
def ssd():
    return tiny.tiny_ssd(num_classes=2, class_names=["circle", "square"])


@pytest.fixture(scope="module")
def faster_rcnn():
    return tiny.tiny_faster_rcnn(num_classes=2)


def test_every_architecture_has_its_row(ssd, faster_rcnn):
    assert tuple(ROWS) == tuple(ARCHITECTURES)
    assert architecture_of(ssd) == "ssd"
    assert architecture_of(faster_rcnn) == "faster_rcnn"
    small = EfficientDet.from_backbone("tests_tiny", num_classes=1, image_size=64, weights=None, neck="fpn")
    assert architecture_of(small) == "efficientdet"
    for row in ROWS.values():
        for start in range(len(STARTS)):
            Recipe(learning_rate=row.learning_rate[start], augment=row.augment, ema_momentum=row.ema_momentum)


@pytest.mark.backend_free
def test_the_page_states_the_table():
    text = (pathlib.Path(__file__).parents[2] / "docs" / "training.md").read_text()
    lines = text.split("<!-- recipe table -->")[1].split("<!-- end -->")[0].strip().splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert head[1:-1] == list(ROWS)
    assert [row[0] for row in rows] == [field.name for field in dataclasses.fields(ROWS["ssd"])]
    for name, *values, source in rows:
        for architecture, value in zip(ROWS, values, strict=True):
            stated = getattr(ROWS[architecture], name)
            expected = ", ".join(map(str, stated)) if isinstance(stated, tuple) else str(stated)
            assert value == expected, f"{architecture}.{name}"
        assert source


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("images", [10, 164, 205, 1000, 118_287])
def test_epochs_follow_the_number_of_images(ssd, start, images):
    """The presentations of the row, within 12 to 100 epochs, and at most 90,000 steps."""
    wanted = ROWS["ssd"].presentations[STARTS.index(start)]
    recipe = Recipe.for_model(ssd, images, batch_size=8, start=start)
    expected = min(max(round(wanted / images), 12), 100)
    if images == 118_287:  # 14,785 steps: six epochs are 88,710
        expected = 6
    assert recipe.epochs == expected
    assert recipe.early_stopping == math.ceil(ROWS["ssd"].patience * expected)


def test_the_learning_rate_grows_with_the_square_root_of_the_batch(ssd, faster_rcnn):
    base = ROWS["ssd"].learning_rate[0]
    rates = {batch: Recipe.for_model(ssd, 500, batch, "detector").learning_rate for batch in (2, 8, 32)}
    np.testing.assert_allclose([rates[2], rates[8], rates[32]], [base / 2, base, 2 * base])
    # five images make a step of five, for any batch size
    assert Recipe.for_model(ssd, 5, 8, "detector").learning_rate == pytest.approx(base * math.sqrt(5 / 8))
    two_stage = Recipe.for_model(faster_rcnn, 500, start="backbone")
    expected = ROWS["faster_rcnn"].learning_rate[1] * math.sqrt(ROWS["faster_rcnn"].batch_size / 8)
    assert (two_stage.batch_size, two_stage.learning_rate) == (ROWS["faster_rcnn"].batch_size, pytest.approx(expected))
    assert Recipe.for_model(ssd, 500, 32, "detector", learning_rate=1e-4).learning_rate == 1e-4


@pytest.mark.parametrize(
    ("start", "batch", "frozen"),
    [
        ("detector", 16, False),
        ("detector", 15, True),
        ("backbone", 16, False),
        ("backbone", 4, "backbone"),
        ("random", 2, False),
    ],
)
def test_small_batches_keep_the_statistics_that_are_trained(ssd, start, batch, frozen):
    assert Recipe.for_model(ssd, 100, batch, start).freeze_batchnorm == frozen
    assert Recipe.for_model(ssd, 100, batch, start, freeze_batchnorm=False).freeze_batchnorm is False


def test_the_localization_loss_is_the_papers_sum_over_a_box_code(ssd, faster_rcnn):
    """Of the mean over four numbers, which a tiny SSD has, four times as much; the trained model keeps it."""
    assert ssd.detection_loss.normalize_localization_by_code_size
    recipe = Recipe.for_model(ssd, 100, start="random")
    assert recipe.localization_weight == 4.0
    model = ssd.with_parts()
    recipe.compile(model, steps_per_epoch=1)
    recipe.compile(model, steps_per_epoch=1)  # and it is not multiplied once more
    assert model.detection_loss == dataclasses.replace(ssd.detection_loss, localization_weight=4.0)
    assert type(model).from_config(model.get_config()).detection_loss == model.detection_loss
    summed = model.with_parts(
        detection_loss=dataclasses.replace(ssd.detection_loss, normalize_localization_by_code_size=False)
    )
    assert Recipe.for_model(summed, 100, start="random").localization_weight is None
    assert Recipe.for_model(faster_rcnn, 100, start="random").localization_weight is None
    with pytest.raises(ValueError, match="OneStageLoss"):
        Recipe(localization_weight=2.0).compile(faster_rcnn, steps_per_epoch=1)
    with pytest.raises(ValueError, match="localization_weight must"):
        Recipe(localization_weight=0.0)


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (25, 1), (37, 1), (49, 2), (100, 4)])
def test_a_run_is_evaluated_about_25_times(epochs, every):
    found = Recipe(epochs=epochs).callbacks(shapes_dataset(2))
    assert [callback.every_n_epochs for callback in found] == [every]


def test_what_is_known_is_taken_and_what_is_wrong_refused(ssd):
    recipe = Recipe.for_model(ssd, 100, start="random", epochs=3, augment="none", early_stopping=0)
    assert (recipe.epochs, recipe.augment, recipe.early_stopping) == (3, "none", 0)
    with pytest.raises(TypeError, match="Did you mean epochs"):
        Recipe.for_model(ssd, 100, epoch=3)
    with pytest.raises(ValueError, match="start"):
        Recipe.for_model(ssd, 100, start="imagenet")
    with pytest.raises(ValueError, match="num_images"):
        Recipe.for_model(ssd, 0)
    for setting in ({"epochs": 0}, {"batch_size": 0}, {"early_stopping": -1}, {"early_stopping": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))} must"):
            Recipe.for_model(ssd, 100, **setting)
    with pytest.raises(ValueError, match="Did you mean flip"):
        Recipe(augment="flp")
    with pytest.raises(ValueError, match="freeze_batchnorm"):
        Recipe(freeze_batchnorm="neck")


@pytest.mark.backend_free
def test_what_a_model_starts_from():
    model = tiny.tiny_ssd(weights=None)
    assert start_of(model) == "random"
    model.started_from = "ImageNet weights, backbone alone"
    assert start_of(model) == "backbone"
    model.started_from = "'ssd_mobilenet_v2_oidv4'"
    assert start_of(model) == "detector"
    model.started_from = "random weights"
    x, y = tiny.tiny_batch()
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    model.train_on_batch(x, y)
    assert start_of(model) == "detector"


def test_norms_biases_and_fusions_do_not_decay(ssd):
    recipe = Recipe(learning_rate=0.1, weight_decay=0.5, epochs=1, warmup_fraction=0.0)
    recipe.compile(ssd, steps_per_epoch=1)
    optimizer, variables = ssd.optimizer, ssd.trainable_variables
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables])
    kinds = set()
    for variable, value in zip(variables, before, strict=True):
        now = keras.ops.convert_to_numpy(variable)
        kinds.add(variable.name)
        decays = variable.name == "kernel"
        np.testing.assert_allclose(now, value * (1 - 0.1 * 0.5) if decays else value, rtol=1e-6, err_msg=variable.path)
    assert kinds == {"kernel", "gamma", "beta", "bias"}


def averages(momentum, steps):
    """The average of a weight that a step lets fall by 1, worked out by hand."""
    weight = average = 0.0
    for step in range(steps):
        weight -= 1.0
        share = 0.0 if step == 0 else min(momentum, (1 + step) / (10 + step))
        average = share * average + (1 - share) * weight
    return average


@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_the_average_follows_closely_at_first(steps):
    """A gradient of 1 moves Adam by the learning rate. A constant momentum of 0.9 would be at -26.9 + 9 x 0.047."""
    variable = keras.Variable(np.zeros(3, "float32"))
    optimizer = AveragingAdamW(
        1.0, beta_1=0.0, beta_2=0.0, epsilon=0.0, weight_decay=0.0, use_ema=True, ema_momentum=0.9
    )
    optimizer.build([variable])
    for _ in range(steps):
        optimizer.apply([keras.ops.ones(3)])
    (average,) = (value for value in optimizer.variables if "average" in value.path)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), -float(steps), rtol=1e-5)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(average), averages(0.9, steps), rtol=1e-5)


def test_the_optimizer_is_saved_with_its_momentum():
    optimizer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(AveragingAdamW(1e-3, use_ema=True, ema_momentum=0.998))
    )
    assert isinstance(optimizer, AveragingAdamW)
    assert optimizer.get_config()["ema_momentum"] == 0.998
    optimizer.build([keras.Variable(np.zeros(1, "float32"))])
    for iterations, expected in ((0, 0.1), (10, 11 / 20), (10**5, 0.998)):
        optimizer.iterations.assign(iterations)
        assert float(optimizer.ema_momentum) == pytest.approx(expected)


class Model:
    stop_training = False


@pytest.mark.parametrize(
    ("values", "patience", "stops_after"),
    [
        ([0.1, 0.2, 0.2, 0.1], 2, 3),
        ([0.1, 0.2, 0.2, 0.3, 0.2, 0.2], 2, 5),
        ([0.0, 0.0, 0.0, 0.0, 0.1, 0.0], 1, 5),  # nothing was found yet
        ([0.3, None, None, 0.2], 2, 3),  # evaluated every third epoch
        ([math.nan, 0.3, math.nan, 0.1], 2, 3),
        ([0.3, 0.2, 0.1], 3, None),
    ],
)
def test_early_stopping_counts_epochs_from_the_first_find(values, patience, stops_after):
    callback, model = EarlyStopping(patience), Model()
    callback.set_model(model)
    callback.on_train_begin()
    stopped = None
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {} if value is None else {"val_map": value})
        again = EarlyStopping(patience)  # as after an interruption
        again.set_model(model)
        again.on_train_begin()
        again.set_state(callback.get_state())
        if stopped is None and model.stop_training:
            stopped = epoch
            assert callback.stopped_epoch == epoch
        callback = again
    assert stopped == stops_after


def test_patience_is_at_least_one_epoch():
    with pytest.raises(ValueError, match="patience=0"):
        EarlyStopping(0)


def test_callbacks_stand_in_their_order(ssd):
    data = shapes_dataset(2, image_size=64, class_names=["circle", "square"])
    found = Recipe(ema_momentum=0.9, early_stopping=3).callbacks(data, evaluate_every=2)
    names = [type(callback) for callback in found]
    assert names == [callbacks.AveragedWeights, callbacks.COCOEvaluation, callbacks.EarlyStopping]
    assert Recipe().callbacks() == []
