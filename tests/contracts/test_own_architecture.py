"""A meta-architecture of a user's own, in one file with the four methods: everything else is inherited."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.kernels.gather import gather_rows
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.ground_truth import in_padded_frame
from keras_detect.registry import serializable
from keras_detect.transforms.resizers import FixedShapeResizer
from keras_detect.transforms.resizing import true_window
from tests import tiny


@serializable
class CenterClassifier(DetectionModel):
    """Each cell of one feature map says which class has its center there, and where the box' sides are."""

    parts = ("resizer", "network")
    settings = ("num_classes", "num_detections")
    loss_names = ("center_loss", "side_loss")
    reported_names = ("num_positives",)
    num_classes = num_detections = None  # set by the constructor

    def __init__(self, *, resizer, network, num_classes, num_detections=7, class_names=None, **kwargs):
        super().__init__(resizer=resizer, class_names=class_names, **kwargs)
        self.network, self.num_classes, self.num_detections = network, num_classes, num_detections
        self.finish_init()

    def preprocess(self, images, true_image_shapes=None):
        images, true_image_shapes = self.resizer(ops.cast(images, "float32"), true_image_shapes)
        return {schema.IMAGES: images / 127.5 - 1.0, schema.TRUE_IMAGE_SHAPES: true_image_shapes}

    def call(self, inputs, training=None):
        outputs = ops.cast(self.network(inputs[schema.IMAGES], training=training), "float32")
        batch, rows, columns, _ = ops.shape(outputs)
        outputs = ops.reshape(outputs, (batch, rows * columns, self.num_classes + 4))
        y = (ops.arange(rows, dtype="float32") + 0.5) / rows
        x = (ops.arange(columns, dtype="float32") + 0.5) / columns
        centers = ops.stack([ops.repeat(y, columns), ops.tile(x, rows)], axis=-1)
        sides = ops.softplus(outputs[..., self.num_classes :])
        boxes = ops.concatenate([centers - sides[..., :2], centers + sides[..., 2:]], axis=-1)
        image_shape = ops.cast(ops.stack(ops.shape(inputs[schema.IMAGES])[1:3]), "float32")
        grid = ops.convert_to_tensor([rows, columns], "float32")
        return {"logits": outputs[..., : self.num_classes], "boxes": boxes, "image_shape": image_shape, "grid": grid}

    def compute_losses(self, y, predictions, inputs, training=True):
        y = in_padded_frame(y, inputs[schema.TRUE_IMAGE_SHAPES], predictions["image_shape"])
        boxes, weights, grid = y[schema.BOXES], y[schema.WEIGHTS], predictions["grid"]
        place = ops.floor(ops.clip((boxes[..., :2] + boxes[..., 2:]) / 2, 0.0, 0.999) * grid)
        cells = ops.cast(place[..., 0] * grid[1] + place[..., 1], "int32")
        classes = ops.one_hot(y[schema.LABELS], self.num_classes, dtype="float32") * weights[..., None]
        wanted = ops.einsum(
            "bma,bmk->bak", ops.one_hot(cells, predictions["logits"].shape[1], dtype="float32"), classes
        )
        center = ops.binary_crossentropy(ops.minimum(wanted, 1.0), predictions["logits"], from_logits=True)
        side = weights[..., None] * ops.abs(gather_rows(predictions["boxes"], cells) - boxes)
        count = ops.sum(weights, axis=1)
        number = ops.maximum(count, 1.0)
        return {
            "center_loss": ops.mean(ops.sum(center, axis=(1, 2)) / number),
            "side_loss": ops.mean(ops.sum(side, axis=(1, 2)) / number),
            "num_positives": ops.mean(count),
        }

    def postprocess(self, predictions, true_image_shapes):
        scores = ops.sigmoid(predictions["logits"])
        scores, best = ops.top_k(ops.reshape(scores, (ops.shape(scores)[0], -1)), self.num_detections)
        found = scores > 0.02
        extent = true_window(true_image_shapes, predictions["image_shape"])[:, None, 2:]
        boxes = gather_rows(predictions["boxes"], best // self.num_classes) / ops.tile(extent, (1, 1, 2))
        return {
            schema.BOXES: ops.where(found[..., None], ops.clip(boxes, 0.0, 1.0), 0.0),
            schema.SCORES: ops.where(found, scores, 0.0),
            schema.LABELS: ops.where(found, ops.cast(best % self.num_classes, "int32"), schema.PADDING_LABEL),
            schema.NUM_DETECTIONS: ops.sum(ops.cast(found, "int32"), axis=1),
        }


def center_classifier(num_classes=3, **options):
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((None, None, 3))
    for filters in (8, 16, 16):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    network = keras.Model(inputs, keras.layers.Conv2D(num_classes + 4, 1)(x), name="network")
    resizer = FixedShapeResizer(height=tiny.IMAGE_SIZE, width=tiny.IMAGE_SIZE)
    model = CenterClassifier(resizer=resizer, network=network, num_classes=num_classes, **options)
    model.compile(keras.optimizers.Adam(1e-2))
    return model


def test_it_trains_predicts_detects_saves_and_loads(tmp_path):
    model = center_classifier(class_names=["cat", "dog", "owl"])
    x, y = tiny.tiny_batch()
    # 15 equal batches an epoch: its begin and end take longer than its steps
    images, truth = np.concatenate([x] * 15), {key: np.concatenate([value] * 15) for key, value in y.items()}
    trained = model.fit(images, truth, batch_size=4, epochs=10, shuffle=False, validation_data=(x, y), verbose=0)
    history = trained.history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["num_positives"][-1] == pytest.approx((y[schema.LABELS] >= 0).sum() / 4)
    np.testing.assert_allclose(history["loss"], np.add(history["center_loss"], history["side_loss"]), rtol=1e-5)
    detections = model.predict(x, verbose=0)
    assert detections[schema.BOXES].shape == (4, 7, 4)
    assert detections[schema.LABELS][0, 0] == y[schema.LABELS][0, 0]
    result = model.detect(x[0], score_threshold=0.0)
    alone = model.predict(x[:1], verbose=0)  # torch rounds a batch of four otherwise
    np.testing.assert_array_equal(result["scores"], alone[schema.SCORES][0][: len(result["scores"])])
    assert result["class_names"][0] == model.class_names[y[schema.LABELS][0, 0]]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for key, value in loaded.predict(x, verbose=0).items():
        np.testing.assert_array_equal(value, detections[key])
    same = model.with_parts(resizer=model.resizer.with_size((32, 64)))
    assert same.preprocess(x)[schema.IMAGES].shape == (4, 32, 64, 3)
    weights, theirs = tiny.weights_of(model), tiny.weights_of(same)
    assert len(weights) == 8
    assert all(np.array_equal(weights[name], theirs[name]) for name in weights)


def test_wrong_data_are_refused():
    model = center_classifier()
    x, y = tiny.tiny_batch()
    with pytest.raises(ValueError, match="divide pixel boxes"):
        model.fit(x, {**y, schema.BOXES: y[schema.BOXES] * 64}, verbose=0)


def test_what_it_forgets_to_define_is_named():
    class Nothing(DetectionModel):
        pass

    model = Nothing(resizer=FixedShapeResizer(height=8, width=8))
    for call in (
        lambda: model.preprocess(np.zeros((1, 8, 8, 3))),
        lambda: model.compute_losses({}, {}, {}),
        lambda: model.postprocess({}, None),
    ):
        with pytest.raises(TypeError, match="Nothing must define"):
            call()

    class Undeclared(CenterClassifier):
        loss_names = ("center_loss",)

    network = center_classifier().network
    model = Undeclared(resizer=FixedShapeResizer(height=64, width=64), network=network, num_classes=3)
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match=r"`loss_names`.*center_loss, num_positives. Received: .*side_loss"):
        model.train_on_batch(*tiny.tiny_batch())
