"""`keras-detect predict`: covers `keras_detect.inference.detect_files`."""

import sys

from keras_detect.cli._data import add_max_pixels

HELP = "detect objects in images, draw them and write detections.json"
EXAMPLE = "--model runs/cells/model.keras --images photo.jpg folder/ --output drawn"


def add_arguments(parser):
    parser.add_argument("--model", required=True, help=".keras file or preset")
    parser.add_argument("--images", required=True, nargs="+", help="images, or folders of images")
    add_max_pixels(parser)
    parser.add_argument("--output", required=True, help="folder for the drawn images and detections.json")
    parser.add_argument("--batch_size", type=int, default=8, help="images per batch (%(default)s)")
    parser.add_argument("--score_threshold", type=float, help="leave out weaker detections (the model's, else 0.3)")


def run(arguments):
    from keras_detect.inference import detect_files, image_files
    from keras_detect.meta_architectures.detection_model import DetectionModel

    paths = image_files(arguments.images)  # refused before the model is loaded
    found, unreadable = detect_files(
        DetectionModel.from_preset(arguments.model),
        paths,
        arguments.output,
        score_threshold=arguments.score_threshold,
        batch_size=arguments.batch_size,
    )
    count = sum(len(entry["labels"]) for entry in found.values())
    print(f"{count} detections in {len(found)} images: {arguments.output}")
    for error in unreadable:
        print(f"left out: {error}", file=sys.stderr)
    return 1 if unreadable else 0
