"""The RetinaNets of `race.py`: ours, KerasHub's, KerasCV's, TorchVision's, and our bare convolutions.

    python benchmarks/retinanet_contestants.py keras_detect predict 1

Every contestant is a RetinaNet with ResNet50, C3 to C7, 90 classes. See `contestant.py`.
"""

import numpy as np
from contestant import (
    CLASSES,
    PASSING,
    SIZE,
    SPREAD,
    THRESHOLD,
    compiled,
    convolutions,
    describe,
    network_graph,
    serve,
    settle,
    torch_images,
    torch_settle,
    torch_work,
    torchvision_runs,
)

PRESET = "ssd_resnet50_v1_fpn_640x640_coco17_tpu-8"


def spread_and_shift(logits, kernel, bias, batch_size):
    """Kernel and bias of a class head whose logits were `logits`, so that `PASSING` pairs per image pass."""
    factor = SPREAD / logits.std()
    ranked = np.sort((logits - bias.mean()) * factor, axis=None)
    wanted = np.log(THRESHOLD / (1.0 - THRESHOLD)) - ranked[-PASSING * batch_size - 1]
    return kernel * factor, np.full_like(bias, wanted)


def keras_detect_contestant(task, images, ground_truth, policy="float32", constants=False):
    """Ours, the whole way of `predict_on_batch` and `train_on_batch`."""
    model = ours(images, policy)
    built = describe(model, model.preprocess(images), model(model.preprocess(images[:1]))["class_logits"])
    return compiled(model, task, images, ground_truth, built, constants)


def ours(images, policy):
    """Our network, settled in float32, with another dtype policy if wanted."""
    import dataclasses

    import keras

    from keras_detect.meta_architectures.detection_model import DetectionModel

    keras.utils.set_random_seed(0)
    model = DetectionModel.from_preset(PRESET, load_weights=False)
    one = model.preprocess(images[:1])
    settle(model, lambda training: model(one, training=training)["class_logits"][..., 1:])
    spread(model, lambda: model(one)["class_logits"][..., 1:], model.box_predictor.class_head)
    if policy != "float32":
        weights = model.get_weights()
        keras.config.set_dtype_policy(policy)
        model = DetectionModel.from_preset(PRESET, load_weights=False)
        model.set_weights(weights)
    nms = dataclasses.replace(model.postprocessor.nms, score_threshold=THRESHOLD)
    model.postprocessor = dataclasses.replace(model.postprocessor, nms=nms)
    return model


def keras_hub_contestant(task, images, ground_truth):
    """KerasHub's RetinaNet; its preprocessor and its class-blind suppression run inside `predict_on_batch`."""
    import keras
    import keras_hub
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    shape = (SIZE, SIZE, 3)
    encoder = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=shape,
    )
    backbone = keras_hub.models.RetinaNetBackbone(encoder, min_level=3, max_level=7, use_p5=False, image_shape=shape)
    converter = keras_hub.layers.RetinaNetImageConverter(image_size=(SIZE, SIZE), scale=1 / 255.0)
    model = keras_hub.models.RetinaNetObjectDetector(
        backbone,
        num_classes=CLASSES,
        bounding_box_format="yxyx",
        preprocessor=keras_hub.models.RetinaNetObjectDetectorPreprocessor(image_converter=converter),
    )
    model.prediction_decoder = keras_hub.layers.NonMaxSuppression(
        bounding_box_format="yxyx", from_logits=True, confidence_threshold=THRESHOLD, max_detections=100
    )
    x = images / np.float32(255)
    settle(model, lambda training: model(x[:1], training=training)["cls_logits"])
    spread(model, lambda: model(x[:1])["cls_logits"], model.classification_head.prediction_layer)
    built = describe(model, x, model(x[:1])["cls_logits"])
    built["version"] = f"KerasHub {keras_hub.__version__}, TensorFlow {tf.__version__}, Keras {keras.__version__}"
    if task == "train":
        model.compile(keras.optimizers.SGD(0.0, momentum=0.9))
        y = {"boxes": ground_truth[0] * SIZE, "labels": ground_truth[1].astype("float32")}
        return train_by_parts(lambda x: tf.cast(x, "float32") / 255, model, images, y), built
    # Its `predict_step` wants a bare tensor, `predict_on_batch` of Keras 3.15 hands over a tuple: hence its parts here.
    return predict_by_parts(lambda x: model.preprocessor(x), model, images, built)


def keras_cv_contestant(task, images, ground_truth, layers=3):
    """KerasCV's RetinaNet; the backbone divides by 255, suppression is class-blind, its heads have 3 `layers`."""
    import keras
    import keras_cv
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 128, 256, 512],
        stackwise_blocks=[3, 4, 6, 3],
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=True,
        input_shape=(SIZE, SIZE, 3),
    )
    heads = {
        name: keras_cv.models.retinanet.PredictionHead(
            output_filters=9 * columns, bias_initializer="zeros", num_conv_layers=layers
        )
        for name, columns in (("classification_head", CLASSES), ("box_head", 4))
    }
    model = keras_cv.models.RetinaNet(backbone, num_classes=CLASSES, bounding_box_format="yxyx", **heads)
    model.prediction_decoder = keras_cv.layers.NonMaxSuppression(
        bounding_box_format="yxyx", from_logits=True, confidence_threshold=THRESHOLD, max_detections=100
    )
    x = images.astype("float32")
    settle(model, lambda training: model(x[:1], training=training)["classification"])
    spread(model, lambda: model(x[:1])["classification"], model.classification_head.prediction_layer)
    built = describe(model, x, model(x[:1])["classification"])
    built["version"] = f"KerasCV {keras_cv.__version__}, TensorFlow {tf.__version__}, Keras {keras.__version__}"
    if task == "train":
        model.compile(
            optimizer=keras.optimizers.SGD(0.0, momentum=0.9), box_loss="smoothl1", classification_loss="focal"
        )
        y = {"boxes": ground_truth[0] * SIZE, "classes": ground_truth[1].astype("float32")}
        return train_by_parts(lambda x: x, model, images, y), built
    return predict_by_parts(lambda x: x, model, images, built)


def predict_by_parts(preprocess, model, images, built):
    """Preprocessing, network and decoding of a peer in one graph, from uint8 images to numpy detections."""
    import tensorflow as tf

    def predict(x):
        x = preprocess(x)
        return model.decode_predictions(model(x, training=False), x)

    predict, tensors = tf.function(predict), tf.constant(images)
    built["found"] = predict(tensors)["num_detections"].numpy().tolist()
    return lambda: {key: value.numpy() for key, value in predict(tensors).items()}, built


def train_by_parts(preprocess, model, images, y):
    """A peer's `train_step` in one graph: neither peer's `train_on_batch` runs with Keras 3.15."""
    import tensorflow as tf

    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda x, y: model.train_step((preprocess(x), y)))
    tensors = tf.constant(images), tf.nest.map_structure(tf.constant, y)
    return lambda: {key: value.numpy() for key, value in step(*tensors).items()}


def spread(model, logits, head):
    """Gives a class head the spread and the shift that `spread_and_shift` computes."""
    values = logits().numpy()
    kernel, bias = spread_and_shift(values, head.kernel.numpy(), head.bias.numpy(), len(values))
    head.kernel.assign(kernel)
    head.bias.assign(bias)


def floor(task, images, ground_truth, constants=True):
    """Our network's convolutions alone."""
    from keras_detect.meta_architectures.detection_model import DetectionModel

    model = DetectionModel.from_preset(PRESET, load_weights=False)
    return convolutions(task, network_graph(model, model.preprocess(images)), constants)


def torchvision_contestant(task, images, ground_truth, memory="contiguous_format"):
    """TorchVision's RetinaNet."""
    import torch
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.detection.retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=SIZE,
        max_size=SIZE,
        score_thresh=THRESHOLD,
        detections_per_img=100,
    )
    built = {
        "anchors": sum(9 * (-(-SIZE // 2**level)) ** 2 for level in range(3, 8)),
        "gflop": torchvision_settle(model, images[:1]) * len(images),
    }
    return torchvision_runs(model, task, images, ground_truth, built, memory)


def torchvision_settle(model, images):
    """As `settle` and `spread` for TorchVision's network; returns the convolutions' GFLOP."""
    import torch

    tensors = torch.stack([model.transform.normalize(image) for image in torch_images(images)])

    def logits():
        with torch.inference_mode():
            features = list(model.backbone(tensors).values())
            return model.head.classification_head(features).numpy()

    torch_settle(model, logits)
    head = model.head.classification_head.cls_logits
    values = logits()[..., 1:]
    kernel, bias = spread_and_shift(values, head.weight.detach().numpy(), head.bias.detach().numpy(), len(images))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(kernel))
        head.bias.copy_(torch.from_numpy(bias))
    return torch_work(model, lambda: model.head(list(model.backbone(tensors).values())))


CONTESTANTS = {
    "convolutions": floor,
    "convolutions, variables": lambda *a: floor(*a, constants=False),
    "keras_detect": keras_detect_contestant,
    "keras_detect, constants": lambda *a: keras_detect_contestant(*a, constants=True),
    "keras_detect, bfloat16": lambda *a: keras_detect_contestant(*a, policy="mixed_bfloat16"),
    "KerasHub": keras_hub_contestant,
    "KerasCV": keras_cv_contestant,
    "KerasCV, 4 layers": lambda *a: keras_cv_contestant(*a, layers=4),
    "TorchVision": torchvision_contestant,
    "TorchVision, NHWC": lambda *a: torchvision_contestant(*a, memory="channels_last"),
}

if __name__ == "__main__":
    serve(CONTESTANTS)
