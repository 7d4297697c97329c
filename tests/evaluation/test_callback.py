"""The COCO callback inside `fit`, on a detector of one weight: its box ends at xmax = w, the ground truth's at 1."""

import gc
import tracemalloc

import keras
import numpy as np
import pytest

from keras_detect.data import DetectionDataset
from keras_detect.evaluation import COCO_METRICS, COCOEvaluation, ConfusionMatrix, PascalVOCEvaluator, evaluate_coco

IMAGES = 5


class OneBox(keras.Model):
    """Predicts one box [0, 0, 1, w] of class 0 per image; its loss pulls w toward 1."""

    def __init__(self, w=0.3):
        super().__init__()
        self.w = self.add_weight(shape=(), initializer=keras.initializers.Constant(w), name="w")
        self.class_names = ["thing"]
        self.resizer = Stretch()
        self.python_calls = 0
        self.built = True

    def call(self, images, training=None):
        self.python_calls += 1
        empty = keras.ops.zeros_like(keras.ops.cast(images[:, 0, 0, :1], "float32"))
        boxes = keras.ops.stack([empty, empty, empty + 1.0, empty + self.w], axis=-1)
        labels = keras.ops.cast(empty, "int32")
        return {"boxes": boxes, "scores": empty + 0.5, "labels": labels, "num_detections": labels[:, 0] + 1}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.square(self.w - 1.0)


class Stretch:
    """A stand-in for the model's resizer: 8 x 8."""

    def output_shape(self, height, width, padded=False):
        return (8, 8)

    resized_size = output_shape

    def resize_tf(self, image, canvas=None):
        import tensorflow as tf

        return tf.cast(tf.image.resize(image, (8, 8)), tf.uint8), tf.constant([8, 8, 3])


def some_data():
    images = [np.zeros((20, 30 + i, 3), np.uint8) for i in range(IMAGES)]
    return DetectionDataset.from_arrays(images, [[[0, 0, 1, 1]]] * IMAGES, [[0]] * IMAGES, ["thing"])


def trainable(w=0.3):
    model = OneBox(w)
    # w <- w - 0.25 * 2 (w - 1): half way to 1 at every step
    model.compile(optimizer=keras.optimizers.SGD(0.25))
    return model


@pytest.mark.parametrize("given", ["data set", "batches"])
def test_the_metric_follows_the_weights(given):
    """IoU is w. One step per epoch: w = 0.66, 0.83, 0.915; thresholds reached: 4, 7, 9 of ten."""
    model, data = trainable(0.32), some_data()
    callback = COCOEvaluation(data if given == "data set" else data.batches(model, 2), batch_size=2)
    train = data.batches(model, IMAGES)
    history = model.fit(train, epochs=3, verbose=0, callbacks=[callback]).history
    np.testing.assert_allclose(history["val_map"], [0.4, 0.7, 0.9], atol=1e-6)
    np.testing.assert_allclose(history["val_map_50"], [1, 1, 1])
    np.testing.assert_allclose(history["val_map_75"], [0, 1, 1])
    np.testing.assert_allclose(history["val_mar_100"], [0.4, 0.7, 0.9], atol=1e-6)
    assert set(history) == {"loss", "val_map", "val_map_50", "val_map_75", "val_mar_100"}
    assert callback.last_result["map_per_class"] == {"thing": pytest.approx(0.9)}


def test_further_evaluators_enter_the_logs_and_hold_one_epoch():
    """w = 0.66, then 0.83: VOC's AP at IoU 0.7 is 0, then 1; the score 0.5 counts for the confusion matrix."""
    model, data = trainable(0.32), some_data()
    others = [PascalVOCEvaluator(["thing"], iou_threshold=0.7), ConfusionMatrix(["thing"])]
    callback = COCOEvaluation(data, batch_size=5, evaluators=others)
    history = model.fit(data.batches(model, IMAGES), epochs=2, verbose=0, callbacks=[callback]).history
    assert history["val_voc_map"] == [0.0, 1.0]
    assert history["val_recall"] == [1.0, 1.0]
    assert callback.last_result["confusion_matrix"] == [[IMAGES, 0], [0, 0]]
    assert others[0].collected is others[1].collected
    assert others[0].collected.count == IMAGES
    with pytest.raises(ValueError, match="same class names"):
        evaluate_coco(model, data, progress=False, evaluators=[PascalVOCEvaluator(["other"])])


def test_checkpoint_and_early_stopping_see_it(tmp_path):
    """From w = 1.9: 1.45, 1.225, 1.11, 1.06, 1.03, 1.014...: IoU 1/w reaches 0.95 at the fifth epoch, then stays."""
    model, data = trainable(1.9), some_data()
    file = str(tmp_path / "best.weights.h5")
    callbacks = [
        COCOEvaluation(data, batch_size=5),
        keras.callbacks.ModelCheckpoint(
            file, monitor="val_map", mode="max", save_best_only=True, save_weights_only=True
        ),
        keras.callbacks.EarlyStopping(monitor="val_map", mode="max", patience=2),
    ]
    history = model.fit(data.batches(model, IMAGES), epochs=20, verbose=0, callbacks=callbacks).history
    # IoU = 1/w: 0.690, 0.816, 0.899, 0.947, 0.973: 4, 7, 8, 9, 10 thresholds of ten
    np.testing.assert_allclose(history["val_map"], [0.4, 0.7, 0.8, 0.9, 1, 1, 1], atol=1e-6)
    best = OneBox()
    best.load_weights(file)
    assert float(best.w) == pytest.approx(1 + 0.9 / 2**5, abs=1e-6)


def test_every_nth_epoch_and_the_last():
    model, data = trainable(), some_data()
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append("x_map" in logs))
    callback = COCOEvaluation(data, prefix="x_", every_n_epochs=2, metrics="all")
    history = model.fit(data.batches(model, 5), epochs=5, verbose=0, callbacks=[callback, watch]).history
    assert seen == [False, True, False, True, True]
    assert {"x_" + name for name in COCO_METRICS} < set(history)


def test_ragged_last_batch_neither_retraces_nor_counts_twice():
    model, data = trainable(), some_data()
    evaluate_coco(model, data.batches(model, 2), progress=False)
    calls = model.python_calls
    result = evaluate_coco(model, data.batches(model, 2), progress=False)
    # three batches of 2, 2 and 1: eager torch calls three times, a compiled function not at all
    assert model.python_calls - calls == (3 if keras.backend.backend() == "torch" else 0)
    assert result["mar_1"] == 0.0  # IoU 0.3
    assert evaluate_coco(OneBox(0.99), data, progress=False)["map"] == pytest.approx(1.0)


# pytest keeps every warning, and Keras' torch `predict_on_batch` gives one per output: 260 kB here that are not ours.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_memory_does_not_grow_with_epochs():
    """What one epoch collects (200 images, over 50 kB) must be gone after it: kept, 20 epochs would be over 1 MB.

    Python and TensorFlow continue filling their own free lists for some hundred epochs and then level off (1200 epochs
    watched under TensorFlow: 1 kB in the last 400), hence the allowance.
    """
    model, rng = trainable(), np.random.default_rng(0)
    ground_truth = {"boxes": rng.uniform(size=(50, 1, 4)).astype(np.float32), "labels": np.zeros((50, 1), np.int32)}
    batches = [(np.zeros((50, 8, 8, 3), np.uint8), ground_truth | {"image_size": np.full((50, 2), 64)})] * 4
    callback = COCOEvaluation(batches)
    callback.set_model(model)
    callback.set_params({"epochs": 1000})
    tracemalloc.start()
    for epoch in range(5):
        callback.on_epoch_end(epoch, {})
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for epoch in range(5, 25):
        callback.on_epoch_end(epoch, {})
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000, f"{grown} bytes in 20 epochs"


def test_batches_without_image_size_use_the_networks_input():
    """A batch of another source, x of 200 x 200: the box 0.5 x 0.5 has 10,000 pixels, which is large."""
    x = np.zeros((2, 200, 200, 3), np.uint8)
    y = {"boxes": np.array([[[0, 0, 0.5, 0.5]]] * 2, np.float32), "labels": np.zeros((2, 1), np.int32)}
    result = evaluate_coco(OneBox(), [(x, y)], progress=False)
    assert (result["map_large"], result["map_medium"], result["map_small"]) == (0.0, -1.0, -1.0)


def test_errors():
    with pytest.raises(ValueError, match="map_60"):
        COCOEvaluation(some_data(), metrics=("map_60",))
    with pytest.raises(ValueError, match="every_n_epochs"):
        COCOEvaluation(some_data(), every_n_epochs=0)
    model = OneBox()
    model.class_names = None
    with pytest.raises(ValueError, match="class names"):
        evaluate_coco(model, [], progress=False)
