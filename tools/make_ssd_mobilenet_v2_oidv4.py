"""Makes the packaged preset `ssd_mobilenet_v2_oidv4` from Google's LiteRT file.

    python tools/make_ssd_mobilenet_v2_oidv4.py --weights ../shared/weights/ssd_mobilenet_v2_oidv4 \\
        --photos ../shared/data/coco_free

Three steps: every variable of upstream's `ssd_mobilenet_v2_320x320` architecture with 23 classes is restored from the
LiteRT file; its folded batch norm is un-folded on the photos; the model is measured on the persons in the photos and
written with float16 kernels. The LiteRT file must be the one of `SHA256`, which MediaPipe's build file
`third_party/external_files.bzl` states for `object_detection_ssd_mobilenetv2_oidv4_fp16.tflite`; it is inside the npm
package `@mediapipe/objectron` 0.4.1675468480 (`objectron_solution_packed_assets.data`, from byte 184).
"""

import argparse
import hashlib
import json
import pathlib

import keras_detect
from keras_detect.evaluation.callback import evaluate_coco
from keras_detect.presets import packaged, preset
from keras_detect.presets.directory import build_model, save_preset

NAME = "ssd_mobilenet_v2_oidv4"
ARCHITECTURE = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
SHA256 = "d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6"
PERSON = "Person"


def restored(weights: pathlib.Path) -> keras_detect.SSD:
    """The model with the LiteRT file's weights, batch norm folded."""
    file = weights / "detect_fp16.tflite"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{file} has the SHA-256 {digest}. Expected: {SHA256}")
    names = (weights / "labelmap.txt").read_text().split("\n")[1:]  # the first line is the background
    names = [name.strip() for name in names if name.strip()]
    model, _ = build_model(preset.CONFIGS / f"{ARCHITECTURE}.json", num_classes=len(names))
    model.class_names = tuple(names)
    model.restore(file)
    model.started_from = f"{NAME}, Google's detector of Open Images V4 (LiteRT, float16)"
    return model


def persons(photos: pathlib.Path, class_names) -> keras_detect.DetectionDataset:
    """The photos with the boxes of persons alone, under the model's class."""
    content = json.loads((photos / "instances.json").read_text())
    (person,) = (entry["id"] for entry in content["categories"] if entry["name"] == PERSON.lower())
    examples = {}
    for image in content["images"]:
        path = str(photos / "images" / image["file_name"])
        examples[image["id"]] = {"image": path, "image_id": image["id"], "boxes_abs": [], "labels": [], "is_crowd": []}
    for annotation in content["annotations"]:
        if annotation["category_id"] == person:
            x, y, width, height = annotation["bbox"]
            example = examples[annotation["image_id"]]
            example["boxes_abs"].append([y, x, y + height, x + width])
            example["labels"].append(list(class_names).index(PERSON))
            example["is_crowd"].append(bool(annotation.get("iscrowd", 0)))
    return keras_detect.DetectionDataset.from_examples(list(examples.values()), list(class_names))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", type=pathlib.Path, required=True, help="folder of detect_fp16.tflite, labelmap.txt"
    )
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="coco_free: images/ and instances.json")
    parser.add_argument("--output", type=pathlib.Path, default=packaged.FOLDER / NAME)
    arguments = parser.parse_args()
    model = restored(arguments.weights)
    data = persons(arguments.photos, model.class_names)
    count = keras_detect.weights.unfold_batchnorm(model, data)
    metrics = evaluate_coco(model, data)
    measured = {"map": metrics["map_per_class"][PERSON], "map_50": metrics["map_50"]}  # one class has boxes
    print(f"{count} batch norms un-folded; persons: {measured}")
    save_preset(
        model,
        arguments.output,
        metadata={
            "name": NAME,
            "source": "npm package @mediapipe/objectron 0.4.1675468480 (author: Google), "
            "objectron_solution_packed_assets.data from byte 184, "
            "object_detection_ssd_mobilenetv2_oidv4_fp16.tflite of MediaPipe",
            "source_sha256": SHA256,
            "made_by": "tools/make_ssd_mobilenet_v2_oidv4.py",
            "changes": "read from LiteRT; batch norm un-folded on 72 photos of COCO 2017, detections unchanged",
            "license": "Apache-2.0",
            "notice": "NOTICE in the repository and among the license files of the package",
            "data": "Open Images V4, 23 classes",
            "measured": {"split": "persons (204 boxes) in 72 photos of COCO 2017 with free licenses", **measured},
        },
        weights_dtype="float16",
    )


if __name__ == "__main__":
    main()
