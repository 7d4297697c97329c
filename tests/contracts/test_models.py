"""What every meta-architecture promises, with any parts. A new one adds a row to `tiny.TINY_MODELS`."""

import re

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect import registry, schema
from tests import goldens, tiny

BUILDS = list(tiny.TINY_MODELS.values())
#: in slow runs alone. On every backend tests/meta_architectures/test_mask_rcnn.py says what a third stage adds to the
#: two of a Faster R-CNN, and a golden and test_center_net.py hold a CenterNet, which runs with TensorFlow here
SLOW = (tiny.tiny_mask_rcnn, *(() if goldens.BACKEND == "tensorflow" else (tiny.tiny_center_net_with_keypoints,)))
ROWS = [
    pytest.param(build, id=name, marks=pytest.mark.slow if build in SLOW else ())
    for name, build in tiny.TINY_MODELS.items()
]
#: a Faster R-CNN with another second stage, whose own test trains and saves it
ROWS.append(pytest.param(tiny.tiny_rfcn, id="rfcn", marks=pytest.mark.slow))
#: with fewer tasks than another row's model
ROWS.append(pytest.param(tiny.tiny_center_net, id="center_net_boxes", marks=pytest.mark.slow))
ROWS.append(pytest.param(tiny.tiny_center_net_with_masks, id="center_net_masks", marks=pytest.mark.slow))
MODELS = pytest.mark.parametrize("build", ROWS)
#: half a minute each under XLA; the others' steps are compiled in slow tests
XLA = (tiny.tiny_ssd,)


def sgd(model, **options):
    model.compile(optimizer=keras.optimizers.SGD(0.01), **options)
    return model


def same_weights(first, second):
    first, second = tiny.weights_of(first), tiny.weights_of(second)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@MODELS
@pytest.mark.parametrize("entry", ["fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch"])
def test_every_entry_point_works_as_the_very_first_call(build, entry):
    model = sgd(build())
    x, y = tiny.full_batch()
    if entry == "fit":
        history = model.fit(x, y, epochs=4, batch_size=2, validation_data=(x, y), verbose=0).history
        parts = [*model.loss_names, "regularization_loss"]
        shown = [*parts, *model.reported_names, "loss"]
        assert set(history) == {name for part in shown for name in (part, f"val_{part}")}
        np.testing.assert_allclose(history["loss"], np.sum([history[part] for part in parts], axis=0), rtol=1e-4)
        assert history["loss"][-1] < history["loss"][0]
    elif entry in ("predict", "predict_on_batch"):
        detections = getattr(model, entry)(x)
        assert detections[schema.BOXES].shape == (4, model.num_detections, 4)
        assert detections[schema.LABELS].dtype == np.int32
        counted = np.arange(model.num_detections)[None] < detections[schema.NUM_DETECTIONS][:, None]
        assert (detections[schema.LABELS] >= 0)[counted].all()
        assert (detections[schema.LABELS] == schema.PADDING_LABEL)[~counted].all()
        assert not detections[schema.BOXES][~counted].any()
        assert not detections[schema.SCORES][~counted].any()
    else:
        options = {"verbose": 0} if entry == "evaluate" else {}
        logs = getattr(model, entry)(x, y, return_dict=True, **options)
        assert np.isfinite(list(logs.values())).all()
        assert logs["loss"] > 0


@MODELS
def test_predictions_do_not_depend_on_the_rest_of_the_batch(build):
    model = build()
    x, _ = tiny.full_batch()
    together, alone = model.predict(x, verbose=0), model.predict(x[2:3], verbose=0)
    np.testing.assert_allclose(together[schema.BOXES][2], alone[schema.BOXES][0], atol=1e-5)
    np.testing.assert_allclose(together[schema.SCORES][2], alone[schema.SCORES][0], atol=1e-5)


@MODELS
def test_padding_rows_change_nothing_bit_for_bit(build):
    x, y = tiny.full_batch(rows=4)
    trained = []
    for ground_truth in (y, tiny.padded(y, 11)):
        model = sgd(build())
        for _ in range(3):
            model.train_on_batch(x, ground_truth)
        trained.append(model)
    assert same_weights(*trained)
    assert not same_weights(trained[0], build())


@MODELS
def test_the_order_of_the_ground_truth_changes_nothing_beyond_float_noise(build):
    x, y = tiny.full_batch(rows=4)
    order = [2, 0, 3, 1]
    shuffled = {key: value[:, order] for key, value in y.items()}
    losses = [sgd(build()).test_on_batch(x, ground_truth, return_dict=True) for ground_truth in (y, shuffled)]
    for name in losses[0]:
        np.testing.assert_allclose(losses[0][name], losses[1][name], rtol=1e-5, err_msg=name)


def shown_as_zero(model):
    """Scalars that are 0 where nothing is to be learned of a box: there is one of each kind at least."""
    names = [*model.reported_names, *(name for name in model.loss_names if "localization" in name)]
    assert len(names) >= 2
    return names


@MODELS
def test_images_without_objects_train(build):
    model = sgd(build())
    x, y = tiny.full_batch()
    y[schema.LABELS][:] = schema.PADDING_LABEL
    for ground_truth in (y, {key: value[:, :0] for key, value in y.items()}):
        logs = model.train_on_batch(x, ground_truth, return_dict=True)
        assert np.isfinite(list(logs.values())).all()
        assert not any(logs[name] for name in shown_as_zero(model))
    assert all(np.isfinite(weight).all() for weight in tiny.weights_of(model).values())


@MODELS
def test_a_training_step_moves_every_trainable_weight(build):
    model = build()
    model.compile(optimizer=keras.optimizers.SGD(1.0, global_clipnorm=10.0))
    before = tiny.weights_of(model)
    x, _ = tiny.full_batch()
    sides = np.linspace(0.1, 1.0, 10)  # an object for the anchors of every level
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=-1)
    y = {schema.BOXES: np.tile(boxes, (4, 1, 1)), schema.LABELS: np.tile(np.arange(10) % 3, (4, 1))}
    y[schema.MASKS] = tiny.filled(y[schema.BOXES])
    y = tiny.with_keypoints(y)
    for _ in range(2):
        model.train_on_batch(x, y)
    after = tiny.weights_of(model)
    still = [name for name in before if np.array_equal(before[name], after[name])]
    assert not still


@MODELS
def test_nan_boxes_in_padding_rows_do_no_harm(build):
    model = sgd(build())
    x, y = tiny.full_batch()
    clean = model.test_on_batch(x, y, return_dict=True)
    y[schema.BOXES][y[schema.LABELS] < 0] = np.nan
    dirty = model.test_on_batch(x, y, return_dict=True)
    assert clean == dirty


@MODELS
def test_crowds_and_zero_weights_are_neither_positive_nor_negative(build):
    x, y = tiny.full_batch(batch_size=1, rows=1)
    model = sgd(build())

    def logs(ground_truth, **options):
        model.reset_metrics()  # `test_on_batch` continues a running mean, and a mean of equal numbers is rounded
        return model.test_on_batch(x, ground_truth, return_dict=True, **options)

    crowd = logs({**y, schema.IS_CROWD: np.ones((1, 1), bool)})
    weightless = logs({**y, schema.WEIGHTS: np.zeros((1, 1), "float32")})
    by_sample = logs(y, sample_weight=np.zeros(1, "float32"))
    assert crowd == weightless == by_sample
    assert not any(crowd[name] for name in shown_as_zero(model))


@pytest.mark.backend_free
@MODELS
def test_classes_is_accepted_for_labels(build):
    x, y = tiny.full_batch()
    model = sgd(build())
    renamed = {key: value for key, value in y.items() if key != schema.LABELS} | {schema.CLASSES: y[schema.LABELS]}
    assert model.test_on_batch(x, y) == model.test_on_batch(x, renamed)


@MODELS
@pytest.mark.parametrize(
    "policy",
    [pytest.param("mixed_float16", marks=pytest.mark.slow), "mixed_bfloat16"],
)
def test_mixed_precision_trains_and_keeps_its_policy(build, policy, tmp_path):
    # in bfloat16, at 64 x 64, the last convolution of the SSD strides over a map of one cell; oneDNN takes its gradient
    # from memory that it does not initialize (docs/training.md)
    size = 256 if build is tiny.tiny_ssd and policy == "mixed_bfloat16" else tiny.IMAGE_SIZE
    keras.config.set_dtype_policy(policy)
    model = sgd(build(image_size=size))
    x, y = tiny.full_batch(size=size)
    history = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]
    model.save(tmp_path / "m.keras")
    expected = model.predict(x, verbose=0)
    keras.config.set_dtype_policy("float32")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert keras.config.dtype_policy().name == "float32"
    for key, value in loaded.predict(x, verbose=0).items():
        np.testing.assert_array_equal(value, expected[key])


@MODELS
def test_save_load_predicts_the_same_and_training_goes_on(build, tmp_path):
    model = sgd(build(class_names=["cat", "dog", "owl"]))
    x, y = tiny.full_batch()
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.class_names == ("cat", "dog", "owl")
    before, after = model.predict(x, verbose=0), loaded.predict(x, verbose=0)
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])
    for trained in (model, loaded):
        trained.fit(x, y, epochs=1, verbose=0, shuffle=False)
    assert same_weights(model, loaded)


@MODELS
def test_without_the_optimizer_a_file_holds_the_model_alone(build, tmp_path):
    model = build()
    model.compile(keras.optimizers.Adam(1e-3))
    x, y = tiny.full_batch()
    model.train_on_batch(x, y)
    model.save(tmp_path / "whole.keras")
    model.save(tmp_path / "small.keras", include_optimizer=False)
    whole, small = ((tmp_path / name).stat().st_size for name in ("whole.keras", "small.keras"))
    assert small < whole - 4 * model.count_params()  # of Adam's two moments, the file has at most one less
    model.train_on_batch(x, y)  # it has not lost its optimizer
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert not loaded.compiled
    before = keras.saving.load_model(tmp_path / "whole.keras")
    assert same_weights(before, loaded)


@MODELS
def test_predict_is_the_deployable_path(build):
    model = build()
    x, _ = tiny.full_batch()
    expected = model.deployable(x)
    for key, value in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(value, keras.ops.convert_to_numpy(expected[key]), atol=1e-5)


@MODELS
def test_parts_are_arguments_and_attributes_and_can_be_exchanged(build):
    model = build(class_names=["cat", "dog", "owl"])
    config = model.get_config()
    assert set(config) == {"name", "trainable", "dtype", "class_names", "started_from", *model.parts, *model.settings}
    resizer = model.resizer.with_size(96)
    other = model.with_parts(resizer=resizer)
    assert other.resizer == resizer
    assert same_weights(model, other)
    assert not {id(weight) for weight in model.weights} & {id(weight) for weight in other.weights}
    assert other.class_names == model.class_names
    heads = heads_for(model, 5)
    layers = layers_of(heads)
    more = model.with_parts(**heads)
    assert (more.num_classes, more.class_names) == (5, None)
    assert [id(layer) for layer in layers] == [
        id(layer) for layer in layers_of({name: getattr(more, name) for name in heads})
    ]
    new = tuple(f"{layer.name}/" for layer in layers)
    ours, theirs = tiny.weights_of(model), tiny.weights_of(more)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours if not name.startswith(new))
    assert any(name.startswith(new) for name in ours)
    part = next(iter(heads))
    with pytest.raises(TypeError, match=part):
        model.with_parts(**{part[:-2] + part[-1]: heads[part]})


def heads_for(model, num_classes):
    """`{part: a new one}` of the parts that depend on the number of classes, with heads for another number."""
    config = model.get_config()
    changed = type(model).with_num_classes(config, num_classes)
    return {name: registry.deserialize(changed[name]) for name in model.parts if changed[name] != config[name]}


def layers_of(parts):
    """The layers among parts, each of which is one layer or a list of them."""
    return [layer for part in parts.values() for layer in (part if isinstance(part, list) else [part])]


@MODELS
def test_config_round_trip_is_stable(build):
    model = build()
    config = model.get_config()
    again = type(model).from_config(config).get_config()
    assert again == config


@MODELS
def test_preset_directory_re_heads_and_says_what_it_kept(build, tmp_path, caplog):
    model = build(class_names=["cat", "dog", "owl"])
    model.save_to_preset(tmp_path / "preset")
    same = keras_detect.DetectionModel.from_preset(tmp_path / "preset")
    assert same.class_names == ("cat", "dog", "owl")
    assert same_weights(model, same)
    new = keras_detect.DetectionModel.from_preset(tmp_path / "preset", num_classes=7)
    old_weights, new_weights = tiny.weights_of(model), tiny.weights_of(new)
    changed = {name for name in old_weights if old_weights[name].shape != new_weights[name].shape}
    assert changed
    assert all(re.fullmatch(model.class_head, name) for name in changed)
    assert all(np.array_equal(old_weights[name], new_weights[name]) for name in old_weights if name not in changed)
    assert new.num_classes == 7
    assert new.class_names is None


@MODELS
def test_compile_refuses_what_would_be_ignored(build):
    with pytest.raises(ValueError, match="computes its own losses"):
        build().compile(loss="mse")
    with pytest.raises(ValueError, match="COCOEvaluation"):
        build().compile(metrics=["accuracy"])


@MODELS
def test_ground_truth_that_would_train_silently_wrong_is_refused(build):
    model = sgd(build())
    x, y = tiny.full_batch()
    with pytest.raises(ValueError, match=r"\[0, 3\).*Received a label 3"):
        model.fit(x, {**y, schema.LABELS: np.full((4, 4), 3, "int32")}, verbose=0)
    with pytest.raises(ValueError, match="normalized"):
        model.fit(x, {**y, schema.BOXES: y[schema.BOXES] * 64}, verbose=0)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(x, {**y, schema.BOXES: y[schema.BOXES] * np.nan}, verbose=0)
    with pytest.raises(ValueError, match="labels"):
        model.fit(x, {schema.BOXES: y[schema.BOXES]}, verbose=0)


@pytest.mark.parametrize(
    "build",
    # JAX compiles unless told otherwise: there, it is the steps without XLA that this test adds
    [
        pytest.param(build, marks=() if goldens.BACKEND != "jax" and build in XLA else pytest.mark.slow)
        for build in BUILDS
    ],
    ids=tiny.TINY_MODELS,
)
def test_xla_compiles_whole_steps(build):
    """Static shapes from end to end; on PyTorch, Keras does not compile."""
    if goldens.BACKEND == "torch":
        pytest.skip("Keras' torch trainer refuses jit_compile for fit")
    x, y = tiny.full_batch()
    plain, compiled = sgd(build(), jit_compile=False), sgd(build(), jit_compile=True)
    losses = [model.train_on_batch(x, y, return_dict=True)["loss"] for model in (plain, compiled)]
    # under XLA, TensorFlow draws other random numbers, hence other samples of a two-stage detector's proposals
    draws = len(plain.variables) > len(plain.weights)  # it has a random state
    tolerance = 1e-2 if draws and goldens.BACKEND == "tensorflow" else 1e-4
    np.testing.assert_allclose(*losses, rtol=tolerance)
    ours, theirs = plain.predict(x, verbose=0), compiled.predict(x, verbose=0)
    np.testing.assert_allclose(ours[schema.SCORES], theirs[schema.SCORES], atol=tolerance)


@MODELS
def test_detect_takes_images_of_any_kind_and_size(build, tmp_path):
    from PIL import Image

    model = build(class_names=["cat", "dog", "owl"])
    array = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "image.png")
    sources = [array, Image.fromarray(array), tmp_path / "image.png"]
    single = model.detect(array, score_threshold=0.0)
    assert (np.diff(single["scores"]) <= 0).all()
    assert single["class_names"] == [model.class_names[label] for label in single["labels"]]
    for source in sources:
        for key in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(model.detect(source, score_threshold=0.0)[key], single[key])
    # a list is one batch, whose rows are computed in another order: the last digits may differ
    for result in model.detect(sources, score_threshold=0.0):
        np.testing.assert_allclose(result["boxes"], single["boxes"], atol=3e-7)
        np.testing.assert_allclose(result["scores"], single["scores"], atol=3e-7)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.detect(tmp_path / "nowhere.jpg")
