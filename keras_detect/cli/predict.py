"""`keras-detect predict`: covers `keras_detect.inference.detect_files`."""

import sys

from keras_detect.cli._data import add_max_pixels
from keras_detect.cli._parser import image_size

HELP = "detect objects in images, videos or a camera, draw them and write detections.json"
EXAMPLE = "--model runs/cells/model.keras --images photo.jpg folder/ clip.mp4 --output drawn"


def add_arguments(parser):
    parser.add_argument("--model", required=True, help=".keras file, preset, .tflite, .onnx, .xml or SavedModel folder")
    parser.add_argument(
        "--images", required=True, nargs="+", help="images, videos, folders, globs ('a/**/*.jpg'), or a camera's index"
    )
    parser.add_argument("--recursive", action="store_true", help="search subfolders, too")
    add_max_pixels(parser)
    parser.add_argument("--output", required=True, help="folder for the drawn images and videos and detections.json")
    parser.add_argument("--batch_size", type=int, default=8, help="images per batch; default: %(default)s")
    parser.add_argument(
        "--score_threshold",
        type=float,
        help="minimum score of a detection; default: the model's own threshold, else 0.3",
    )
    parser.add_argument(
        "--tile",
        type=int,
        nargs="+",
        help="pixels of a tile, one side or height and width: finds small objects in large images; default: no tiles",
    )
    parser.add_argument("--overlap", type=float, help="fraction of a tile that its neighbors cover, too; default: 0.2")
    parser.add_argument("--tiles_only", action="store_true", help="with --tile: skip the pass over the whole image")
    parser.add_argument(
        "--max_frames",
        type=int,
        help="frames to read of each video or camera; default: all (a camera runs until Ctrl-C)",
    )
    parser.add_argument(
        "--coco_results", action="store_true", help="write coco_results.json in COCO's results format, too"
    )
    parser.add_argument(
        "--annotations",
        help="COCO annotation file with the ids for --coco_results; default: the order of the files, from 1",
    )


def run(arguments):
    from keras_detect.inference import check_sources, detect_files, find_sources, load_detector
    from keras_detect.messages import counted

    _check_options(arguments)
    sources = find_sources(arguments.images, arguments.recursive, leave_out=arguments.output)
    check_sources(sources)  # refused before the model is loaded
    found = detect_files(
        load_detector(arguments.model),
        sources,
        arguments.output,
        score_threshold=arguments.score_threshold,
        batch_size=arguments.batch_size,
        max_frames=arguments.max_frames,
        coco_results=arguments.coco_results,
        annotations=arguments.annotations,
        tile=image_size(arguments.tile, "--tile"),
        overlap=0.2 if arguments.overlap is None else arguments.overlap,
        whole_image=not arguments.tiles_only,
    )
    count = sum(len(entry["labels"]) for entry in found.images.values())
    of_images = f"{counted(count, 'detection')} in {counted(len(found.images), 'image')}"
    done = [of_images] if found.images or not found.videos else []
    done += [f"{counted(entry['frames'], 'frame')} of {entry['video']}" for entry in found.videos.values()]
    print(f"{', '.join(done)}: {arguments.output}")
    for error in found.errors:
        print(f"skipped: {error}", file=sys.stderr)
    return 1 if found.errors else 0


def _check_options(arguments):
    """Raises `ValueError` for an option that would be ignored."""
    if arguments.tile is None and (arguments.overlap is not None or arguments.tiles_only):
        raise ValueError("--overlap and --tiles_only belong to --tile, which is missing.")
    if arguments.max_frames is not None and arguments.max_frames < 1:
        raise ValueError(f"--max_frames must be at least 1. Received: {arguments.max_frames}")
    if arguments.annotations is not None and not arguments.coco_results:
        raise ValueError("--annotations has the ids for --coco_results, which is missing.")
