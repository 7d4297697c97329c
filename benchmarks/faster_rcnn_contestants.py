"""The Faster R-CNNs with a feature pyramid of `race.py`: ours, TorchVision's, and our bare convolutions.

    python benchmarks/faster_rcnn_contestants.py keras_detect predict 1

Every contestant has ResNet50, P2 to P6 and 90 classes; all its batch norms train. How many proposals the second stage
gets differs: we, as upstream, take 300 at inference and sample 64 of 300 in training; TorchVision takes 1000 at
inference and samples 512 of 2000. Each runs with its own numbers and with the other's.
"""

import dataclasses

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
    graph_work,
    network_graph,
    serve,
    settle,
    torch_images,
    torch_settle,
    torch_targets,
    torch_work,
    torchvision_runs,
)

# numbers of proposals: classified at inference; found in training, of which so many are sampled
FEW = {"predict": (300, 64), "train": (300, 64)}
MANY = {"predict": (1000, 512), "train": (2000, 512)}


def keras_detect_contestant(task, images, ground_truth, build, numbers, constants=False, policy="float32"):
    """Ours, the whole way of `predict_on_batch` and `train_on_batch`.

    Args:
        task: "predict" or "train".
        images, ground_truth: as in `contestant.py`.
        build: makes the model.
        numbers: `FEW` or `MANY`.
        constants: its weights are constants of the graph.
        policy: dtype policy.
    """
    import keras

    keras.utils.set_random_seed(0)
    model = with_numbers(build(), *numbers[task])
    one = model.preprocess(images[:1])
    settle(model, lambda training: both_stages(model, one))
    spread(model, one)
    if policy != "float32":
        weights = model.get_weights()
        keras.config.set_dtype_policy(policy)
        model = with_numbers(build(), *numbers[task])
        model.set_weights(weights)
    predictions = model(one)
    built = describe(model, model.preprocess(images), predictions["class_logits"], len(images))
    built["proposals"] = int(predictions["num_proposals"][0])
    return compiled(model, task, images, ground_truth, built, constants)


def pyramid():
    """Our Faster R-CNN with a feature pyramid, as `from_backbone` makes it."""
    from keras_detect.meta_architectures.faster_rcnn import FasterRCNN

    return FasterRCNN.from_backbone("resnet_v1_50", neck="fpn", num_classes=CLASSES, image_size=SIZE)


def with_numbers(model, proposals, sampled):
    """Sets how many proposals there are, how many are sampled in training, and the detections' threshold."""
    first, second = model.proposal_stage, model.box_stage
    limits = {"max_detections_per_class": proposals, "max_total_detections": proposals}
    model.proposal_stage = replace_nms(first, **limits)
    second = replace_nms(second, score_threshold=THRESHOLD, max_detections_per_class=100, max_total_detections=100)
    model.box_stage = dataclasses.replace(second, batch_size=sampled)
    return model


def replace_nms(stage, **settings):
    """A stage with other settings of its suppression."""
    nms = dataclasses.replace(stage.postprocessor.nms, **settings)
    return dataclasses.replace(stage, postprocessor=dataclasses.replace(stage.postprocessor, nms=nms))


def both_stages(model, inputs):
    """Runs a network in training mode, its second stage on all proposals."""
    first = model(inputs, training=True)
    model.classify(first["features_to_crop"], first["proposals"], tuple(inputs["images"].shape[1:3]), training=True)


def spread(model, inputs):
    """Scales the class head's kernel and shifts the background's bias so that `PASSING` pairs pass `THRESHOLD`."""
    head = model.box_predictor.class_head
    kernel = head.kernel.numpy()
    kernel *= SPREAD / model(inputs)["class_logits"].numpy().std()
    head.kernel.assign(kernel)
    head.bias.assign(background_bias(model(inputs)["class_logits"].numpy()[0], head.bias.numpy()))


def background_bias(logits, bias):
    """The bias whose first entry, the background's, lets `PASSING` pairs of proposal and class pass `THRESHOLD`."""
    low, high = -100.0, 100.0
    for _ in range(50):
        shift = 0.5 * (low + high)
        shifted = logits + shift * (np.arange(logits.shape[1]) == 0)
        scores = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        passing = (scores[:, 1:] > THRESHOLD).sum()
        low, high = (shift, high) if passing > PASSING else (low, shift)
    bias = np.array(bias)
    bias[0] += high
    return bias


def floor(task, images, ground_truth, build, constants=True):
    """Our network's convolutions alone; in training the second stage sees as many crops as are sampled."""
    model = build()
    proposals, sampled = FEW[task]
    model = with_numbers(model, sampled if task == "train" else proposals, sampled)
    graph = network_graph(model, model.preprocess(images))
    run, built = convolutions(task, graph, constants)
    return run, {**built, "gflop": graph_work(graph, FEW[task][task == "train"] * len(images))}


def torchvision_pyramid(proposals, sampled, **settings):
    """TorchVision's published Faster R-CNN with a feature pyramid."""
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    return fasterrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        **torchvision_settings(proposals, sampled),
        **settings,
    )


def torchvision_settings(proposals, sampled):
    """Arguments of TorchVision's `FasterRCNN`: image size, numbers of proposals, what is detected."""
    return {
        "min_size": SIZE,
        "max_size": SIZE,
        "rpn_post_nms_top_n_train": proposals,
        "rpn_post_nms_top_n_test": proposals,
        "box_batch_size_per_image": sampled,
        "box_score_thresh": THRESHOLD,
        "box_detections_per_img": 100,
    }


def torchvision_contestant(task, images, ground_truth, build, numbers, memory="contiguous_format"):
    """TorchVision's, ready to run; `build` makes it from two numbers of proposals."""
    import torch

    torch.manual_seed(0)
    model = build(*numbers[task])
    one, seen = torch_images(images[:1]), {}

    def settling():
        with torch.no_grad():
            model(one, torch_targets([rows[:1] for rows in ground_truth]))

    torch_settle(model, settling)
    head = model.roi_heads.box_predictor.cls_score
    hook = head.register_forward_hook(lambda layer, inputs, output: seen.update(logits=output.numpy()))
    with torch.inference_mode():
        model(one)
        head.weight.copy_(head.weight * float(SPREAD / seen["logits"].std()))
        model(one)
        head.bias.copy_(torch.from_numpy(background_bias(seen["logits"], head.bias.numpy())))
    hook.remove()
    built = {"gflop": torch_work(model, lambda: model(one)) * len(images), "proposals": len(seen["logits"])}
    return torchvision_runs(model, task, images, ground_truth, built, memory)


def contestants(build, torchvision_build, many=True):
    """The family's contestants by name; `many` for those with TorchVision's numbers of proposals too."""

    def ours(numbers=FEW, **settings):
        return lambda *a: keras_detect_contestant(*a, build=build, numbers=numbers, **settings)

    def theirs(numbers=FEW, **settings):
        return lambda *a: torchvision_contestant(*a, build=torchvision_build, numbers=numbers, **settings)

    few = {
        "convolutions": lambda *a: floor(*a, build=build),
        "convolutions, variables": lambda *a: floor(*a, build=build, constants=False),
        "keras_detect": ours(),
        "keras_detect, constants": ours(constants=True),
        "keras_detect, bfloat16": ours(policy="mixed_bfloat16"),
        "TorchVision, few": theirs(),
        "TorchVision, few, NHWC": theirs(memory="channels_last"),
    }
    if not many:
        return few
    return {
        **few,
        "keras_detect, many": ours(MANY),
        "TorchVision": theirs(MANY),
        "TorchVision, NHWC": theirs(MANY, memory="channels_last"),
    }


CONTESTANTS = contestants(pyramid, torchvision_pyramid)

if __name__ == "__main__":
    serve(CONTESTANTS)
