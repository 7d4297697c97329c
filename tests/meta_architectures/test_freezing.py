"""Weights and batch norm that do not train: bit-equal after steps, kept by `save`, errors that name near ones."""

import keras
import numpy as np
import pytest

from keras_detect.training import Recipe
from tests import goldens, tiny

EAGERLY = goldens.BACKEND == "tensorflow"  # tracing takes longer there than the few steps; on JAX, it is the reverse


def trained(model, steps=2):
    x, y = tiny.tiny_batch(num_classes=model.num_classes)
    Recipe(learning_rate=0.01, epochs=1, ema_momentum=0.9).compile(model, steps_per_epoch=steps, run_eagerly=EAGERLY)
    for _ in range(steps):
        model.train_on_batch(x, y)
    return tiny.weights_of(model)


def moved(before, after):
    return {name for name, value in before.items() if not np.array_equal(value, after[name])}


@pytest.mark.parametrize(
    ("patterns", "inside"),
    [
        (["backbone"], "backbone/"),
        (["backbone/*"], "backbone/"),
        (["backbone/conv_1_bn", "backbone/conv_1_conv/kernel"], "backbone/conv_1_"),
        (["backbone/conv_[12]_.+"], ("backbone/conv_1_", "backbone/conv_2_")),
        (["backbone/conv_(1|2)_(conv|bn)"], ("backbone/conv_1_", "backbone/conv_2_")),
        (["*conv_1_bn/gamma"], "backbone/conv_1_bn/"),  # a batch norm stays as a whole
    ],
)
def test_what_a_pattern_matches(patterns, inside):
    model = tiny.tiny_ssd()
    frozen = model.freeze(*patterns)
    learned = {name for name in model.named_weights() if "moving" not in name}
    trains = {id(variable) for variable in model.trainable_variables}
    kept = {name for name in learned if id(model.named_weights()[name]) not in trains}
    assert kept == {name for name in learned if name.startswith(inside)}
    assert frozen == len(kept)
    assert model.frozen == tuple(patterns)


def test_what_is_frozen_stays_bit_for_bit():
    model = tiny.tiny_ssd()
    before = tiny.weights_of(model)
    model.freeze("backbone/conv_1_*", "backbone/conv_2_bn/beta")
    changed = moved(before, trained(model))
    assert not [name for name in changed if name.startswith(("backbone/conv_1_", "backbone/conv_2_bn/"))]
    assert {name for name in before if name.startswith(("backbone/conv_2_conv", "backbone/conv_3_"))} <= changed


@pytest.mark.backend_free
def test_saving_keeps_what_is_frozen_and_other_classes_do_not(tmp_path):
    model = tiny.tiny_ssd()
    count = model.freeze("backbone")
    trained(model, steps=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.frozen == ("backbone",) and loaded.freeze() == count
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    assert int(loaded.optimizer.iterations) == 1
    assert loaded.re_head(5).freeze() == 0


@pytest.mark.parametrize(
    ("build", "layer", "path"),
    [
        (tiny.tiny_ssd, lambda model: model.feature_extractor.backbone, "backbone"),
        (tiny.tiny_ssd, lambda model: model.feature_extractor.backbone.get_layer("conv_3_bn"), "backbone/conv_3_bn"),
        (tiny.tiny_faster_rcnn, lambda model: model.region_predictor, "region_predictor"),
    ],
)
def test_saving_keeps_what_is_set_by_hand_as_in_keras(build, layer, path):
    model = build()
    everything = len(model.trainable_variables)
    assert "frozen" not in model.get_config()
    layer(model).trainable = False
    loaded = type(model).from_config(model.get_config())
    assert loaded.frozen == (path,)
    assert len(loaded.trainable_variables) == len(model.trainable_variables) < everything
    assert loaded.get_config()["frozen"] == (path,)
    layer(loaded).trainable = True
    assert len(loaded.trainable_variables) == everything
    assert "frozen" not in loaded.get_config()


def test_a_model_that_does_not_train_at_all_is_loaded_so():
    model = tiny.tiny_ssd()
    for part in (model.feature_extractor, model.box_predictor):
        part.trainable = False
    loaded = type(model).from_config(model.get_config())
    assert not loaded.trainable_variables and loaded.frozen


@pytest.mark.backend_free
def test_a_pattern_that_matches_nothing_names_the_near_ones():
    model = tiny.tiny_ssd()
    with pytest.raises(ValueError, match=r"Unknown weight or layer 'backbone/conv1_bn'\. Did you mean .*conv_1_bn"):
        model.freeze("backbone/conv1_bn")
    with pytest.raises(ValueError, match="All weights are frozen"):
        model.freeze("*")


@pytest.mark.backend_free
@pytest.mark.parametrize("which", [True, "backbone"])
def test_batch_norm_is_frozen_where_the_recipe_says_so(which, tmp_path):
    model = tiny.tiny_ssd()
    x, y = tiny.tiny_batch()
    before = tiny.weights_of(model)
    Recipe(learning_rate=0.01, epochs=1, freeze_batchnorm=which).compile(model, steps_per_epoch=1, run_eagerly=EAGERLY)
    model.train_on_batch(x, y)
    changed = moved(before, tiny.weights_of(model))
    kept = [name for name in before if "_bn/" in name and (which is True or name.startswith("backbone/"))]
    assert kept and not changed & set(kept)
    assert {name for name in before if name.startswith("backbone/") and "_bn/" not in name} <= changed
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.freeze_batchnorm == which
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    loaded.freeze_batch_norm(False)
    assert len(loaded.trainable_variables) == len(tiny.tiny_ssd().trainable_variables)
    with pytest.raises(ValueError, match="True, False or 'backbone'"):
        model.freeze_batch_norm("neck")
