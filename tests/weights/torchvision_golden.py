"""What torchvision's detectors compute from weights made by rule, kept in `tests/golden/data/torchvision_*.npz`.

`python -m tests.weights.torchvision_golden` writes the files, with torchvision (made with torch 2.14.1 and torchvision
0.29.1); a folder and names of models as arguments write those there. A weight is drawn by `weight` from its name alone,
so that the tests make the same ones without torch.
"""

import pathlib
import sys
import zlib

import numpy as np

DATA = pathlib.Path(__file__).parents[1] / "golden" / "data"
NAMES = (
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
)
SIZE = {"min_size": 128, "max_size": 160}
#: every so many rows of a large array are kept
KEPT = {"class_logits": 61, "box_codes": 11, "objectness": 11, "roi_logits": 31, "roi_codes": 67}
#: so that some scores of the second stage pass its threshold
GAINS = {("fasterrcnn_resnet50_fpn_v2", "roi_heads.box_predictor.cls_score.weight"): 12.0}


def image():
    """`[100, 140, 3]` uint8, of blocks of 10 x 10 pixels."""
    return np.kron(np.random.default_rng(0).integers(0, 256, (10, 14, 3)), np.ones((10, 10, 1))).astype("uint8")


def weight(model, name, shape):
    """The value of the variable `name` of `model`, of `shape`, from a generator that is seeded by the name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.asarray(7)
    if len(shape) > 1:
        drawn = rng.standard_normal(shape, dtype="float32") * np.float32(np.sqrt(2.0 / np.prod(shape[1:])))
        return drawn * np.float32(GAINS.get((model, name), 1.0))
    low, high = (-0.1, 0.1)
    if name.endswith("running_var"):
        low, high = 0.5, 1.5
    elif name.endswith(".weight"):
        low, high = 0.25, 0.75
    elif name.endswith("running_mean"):
        low, high = -0.3, 0.3
    return rng.uniform(low, high, shape).astype("float32")


def golden(name, folder=DATA):
    """The arrays of a file."""
    with np.load(folder / f"torchvision_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def state(name, arrays):
    """`{variable: value}`, by the names and shapes that the file has of torchvision's own."""
    shapes = [tuple(int(side) for side in text.split("x") if side) for text in arrays["shapes"]]
    return {key: weight(name, key, shape) for key, shape in zip(arrays["names"].tolist(), shapes, strict=True)}


def compute(name):
    """The arrays, by torchvision."""
    import torch
    from torchvision.models import detection

    network = getattr(detection, name)(weights=None, weights_backbone=None, **SIZE).eval()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    network.load_state_dict({key: torch.tensor(weight(name, key, shape)) for key, shape in shapes.items()})
    arrays = {
        "names": np.array(list(shapes)),
        "shapes": np.array(["x".join(map(str, shape)) for shape in shapes.values()]),
    }
    pixels = torch.tensor(image().transpose(2, 0, 1) / np.float32(255))
    with torch.no_grad():
        images, _ = network.transform([pixels])
        features = network.backbone(images.tensors)
        heads = _one_stage if "retinanet" in name else _two_stages
        found = heads(network, images, features)
        arrays |= {key: value.numpy()[:: KEPT.get(key, 1)] for key, value in found.items()}
        arrays |= {f"detected_{key}": value.numpy() for key, value in network([pixels])[0].items()}
    return arrays


def _one_stage(network, images, features):
    heads = network.head(list(features.values()))
    anchors = network.anchor_generator(images, list(features.values()))[0]
    return {"class_logits": heads["cls_logits"][0], "box_codes": heads["bbox_regression"][0], "anchors": anchors[::61]}


def _two_stages(network, images, features):
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    maps = list(features.values())
    objectness, codes = concat_box_prediction_layers(*network.rpn.head(maps))
    proposals, _ = network.rpn(images, features)
    rois = network.roi_heads.box_head(network.roi_heads.box_roi_pool(features, proposals, images.image_sizes))
    logits, roi_codes = network.roi_heads.box_predictor(rois)
    return {
        "objectness": objectness[:, 0],
        "box_codes": codes,
        "anchors": network.rpn.anchor_generator(images, maps)[0][::61],
        "proposals": proposals[0],
        "roi_logits": logits,
        "roi_codes": roi_codes,
    }


if __name__ == "__main__":
    folder, names = pathlib.Path(sys.argv[1]) if sys.argv[1:] else DATA, sys.argv[2:] or NAMES
    for each in names:
        np.savez_compressed(folder / f"torchvision_{each}.npz", **compute(each))
