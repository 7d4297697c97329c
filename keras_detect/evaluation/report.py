"""A folder that shows how good a detector is: report.json, images, and a page that opens without a network."""

import base64
import html
import os
import pathlib
from typing import Any

from keras_detect.evaluation import plots
from keras_detect.evaluation.coco import COCO_METRICS, COCOEvaluator, further_comparisons
from keras_detect.evaluation.confusion import ConfusionMatrix
from keras_detect.evaluation.errors import ERROR_KINDS, ErrorBreakdown
from keras_detect.evaluation.pascal_voc import OpenImagesEvaluator, PascalVOCEvaluator
from keras_detect.evaluation.thresholds import ScoreThresholds
from keras_detect.evaluation.worst import draw_worst_image, worst_images
from keras_detect.files import replacing_folder, write_json

REPORT, PAGE = "report.json", "index.html"


def write_report(
    collected: Any,
    folder: str | os.PathLike[str],
    title: str = "Evaluation",
    details: Any = None,
    score_threshold: float = 0.3,
    dataset: Any = None,
) -> dict[str, Any]:
    """Computes every metric over collected images and writes the report folder.

    The folder holds `report.json` (all numbers), `precision_recall.png`, `class_precision.png`,
    `confusion_matrix.png`, `errors.png`, where a data set is given up to eight `worst_*.jpg` (the images with the most
    errors: confused, missed or found where nothing is, as `ConfusionMatrix` counts them), and `index.html`, which has
    the images inside and links to nothing. It is written under another name and renamed when it is whole; an earlier
    report of that name is replaced.

    Args:
        collected: `Collected`, also without a model: what `update(ground_truth, detections, image_sizes)` was
            given.
        folder: the folder to write.
        title: heading of the page.
        details: dict of texts shown under it (the model, the data).
        score_threshold: of the confusion matrix and of the worst images, see `ConfusionMatrix`.
        dataset: the `DetectionDataset` of the collected images, in the same order; None for no worst images.

    Returns:
        What report.json holds, a dict.

    Raises:
        ValueError: see `report_folder`; images without sizes; or a data set with another number of images.
    """
    folder = report_folder(folder)
    if dataset is not None and len(dataset) != collected.count:
        raise ValueError(
            f"The data set needs the collected images. Received: {len(dataset)} of them, {collected.count} collected."
        )
    report, figures = _measure(collected, score_threshold, dataset)
    report = {"title": title, "details": dict(details or {}), **report}
    with replacing_folder(folder) as part:
        write_json(part / REPORT, report)
        for name, draw in figures.items():
            draw(part / name)
        (part / PAGE).write_text(_page(report, [part / name for name in figures]), encoding="utf-8")
    return report


def report_folder(name):
    """The path of a folder that a report may be written to.

    Raises:
        ValueError: it is a file, or a folder that holds something else than a report.
    """
    folder = pathlib.Path(name).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"A report is a folder. Received a file: {name}. Choose a new folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / REPORT).is_file():
        raise ValueError(f"{name} holds files that are not a report, which would be lost. Choose a new folder.")
    return folder


def _measure(collected, score_threshold, dataset):
    """`(report, {file name: function that draws it})`."""
    names = collected.class_names
    coco = COCOEvaluator(names, collected)
    matcher = ConfusionMatrix(names, score_threshold=score_threshold, collected=collected)
    confusion, found = matcher.result(), collected.found()
    worst = [] if dataset is None else worst_images(matcher.errors_per_image(), dataset)
    errors = ErrorBreakdown(names, collected=collected).result()
    further = {}
    for compare in further_comparisons(collected):
        result = COCOEvaluator(names, collected, compare=compare).result()
        further[f"coco_{compare}"] = {key: value for key, value in result.items() if not isinstance(value, dict)}
        if compare == "masks":
            further["errors_of_masks"] = ErrorBreakdown(names, collected=collected, compare=compare).result()
    per_class = coco.result_per_class()
    report = {
        "images": collected.count,
        "objects": sum(values["objects"] for values in per_class.values()),
        "detections": len(found),
        "coco": {key: value for key, value in coco.result().items() if key in COCO_METRICS},
        "coco_per_class": per_class,
        "pascal_voc": PascalVOCEvaluator(names, collected=collected).result()
        | PascalVOCEvaluator(names, weighted=True, collected=collected).result(),
        "open_images": OpenImagesEvaluator(names, collected=collected).result(),
        "confusion": confusion,
        "errors": errors,
        **further,
        "score_thresholds": ScoreThresholds(names, collected=collected).result(),
        "worst_images": worst,
    }
    matrix, rows = confusion["confusion_matrix"], confusion["confusion_names"]
    curves = coco.curves()
    return report, {
        "precision_recall.png": lambda path: plots.draw_precision_recall(curves, names, path),
        "class_precision.png": lambda path: plots.draw_class_precision(per_class, path),
        "confusion_matrix.png": lambda path: plots.draw_confusion_matrix(matrix, rows, path),
        "errors.png": lambda path: plots.draw_error_breakdown(errors, path),
        **{
            _worst_name(rank): lambda path, entry=entry: draw_worst_image(entry, dataset, found, score_threshold, path)
            for rank, entry in enumerate(worst)
        },
    }


def _worst_name(rank):
    return f"worst_{rank + 1}.jpg"


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1a202c; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse; margin: .5rem 0 } td, th { padding: .2rem .7rem; border-bottom: 1px solid #e2e8f0 }
th { text-align: left } td { text-align: right; font-variant-numeric: tabular-nums }
td:first-child { text-align: left } img { max-width: 100% } p.note { color: #4a5568; max-width: 48rem }
"""

_COCO_TABLES = ("coco", "coco_masks", "coco_keypoints")
_COLUMNS = ("objects", "detections", "map", "map_50", "map_75", "mar_100")


def _page(report, images):
    """The HTML page, its images inside."""
    images = {
        path.name: f"data:image/{'png' if path.suffix == '.png' else 'jpeg'};base64,"
        + base64.b64encode(path.read_bytes()).decode()
        for path in images
    }
    confusion, errors = report["confusion"], report["errors"]
    iou, score = confusion["confusion_thresholds"]["iou"], confusion["confusion_thresholds"]["score"]
    details = [*report["details"].items()]
    details += [(key, f"{report[key]:,}") for key in ("images", "objects", "detections")]
    others = {
        "Pascal VOC mAP, IoU 0.5": report["pascal_voc"]["voc_map"],
        "weighted Pascal VOC mAP, IoU 0.5": report["pascal_voc"]["weighted_voc_map"],
        "Open Images mAP, IoU 0.5": report["open_images"]["open_images_map"],
        f"precision at score {score:g}, IoU {iou:g}": confusion["precision"],
        f"recall at score {score:g}, IoU {iou:g}": confusion["recall"],
    }
    weakest_first = sorted(report["coco_per_class"].items(), key=lambda entry: (entry[1]["map"] < 0, entry[1]["map"]))
    by_class = [(name, *(values[key] for key in _COLUMNS)) for name, values in weakest_first]
    kinds = [
        (kind, errors["error_counts"][kind], errors["error_costs"][kind], ERROR_KINDS[kind]) for kind in ERROR_KINDS
    ]
    thresholds = errors["error_thresholds"]
    parts = [
        _table(("", ""), details, head=False),
        "<h2>COCO</h2>",
        _table(("metric", "value"), [row for key in _COCO_TABLES for row in report.get(key, {}).items()]),
        "<h2>Other metrics</h2>",
        _table(("metric", "value"), others.items()),
        "<h2>Precision and recall</h2>",
        _image(images, "precision_recall.png"),
        "<h2>Classes</h2>",
        _image(images, "class_precision.png"),
        _table(("class", *_COLUMNS), by_class),
        "<h2>Confusion matrix</h2>",
        _note(
            f"Detections with a score from {score:g}, matched one to one at IoU {iou:g}, first within their class. "
            "Column “background”: missed objects; row “background”: false alarms."
        ),
        _image(images, "confusion_matrix.png"),
        "<h2>Errors</h2>",
        _note(
            "After TIDE (Bolya et al. 2020), over the 100 strongest detections of an image; foreground threshold IoU "
            f"{thresholds['foreground']:g}, background threshold IoU {thresholds['background']:g}. A cost is the AP50 "
            f"that would be won without that kind alone, measured from {_number(errors['error_ap'])}."
        ),
        _image(images, "errors.png"),
        _table(("kind", "number", "cost", "a detection that is"), kinds),
        *_errors_of_masks(report.get("errors_of_masks")),
        *_thresholds(report["score_thresholds"]),
        *_worst(report["worst_images"], images, score),
        _note("A dash means that there were no objects to measure the number on (-1 in report.json)."),
    ]
    title = html.escape(report["title"])
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{title}</h1>{"".join(parts)}</body></html>\n'


def _errors_of_masks(errors):
    """The part of the page about the errors by the overlap of masks; nothing without masks."""
    if errors is None:
        return []
    numbers, costs = errors["mask_error_counts"], errors["mask_error_costs"]
    kinds = [(kind, numbers[kind], costs[kind]) for kind in ERROR_KINDS]
    note = f"The same by the overlap of masks; costs are measured from {_number(errors['mask_error_ap'])}."
    return [_note(note), _table(("kind", "number", "cost"), kinds)]


def _thresholds(result):
    """The part of the page about the best score thresholds."""
    columns = ("score_threshold", "f1", "precision", "recall")
    rows = [(name, *(values[key] for key in columns)) for name, values in result["score_thresholds_per_class"].items()]
    return [
        "<h2>Score thresholds</h2>",
        _note("The score from which on detections give the largest F1 (IoU 0.5), of each class and of all together."),
        _table(("class", *columns), [*rows, ("all together", result["score_threshold"], result["f1"], "", "")]),
    ]


def _worst(entries, images, score):
    """The part of the page with the images of the most errors; nothing where there are none."""
    if not entries:
        return []
    parts = [
        "<h2>Worst images</h2>",
        _note(
            f"The images with the most errors at score {score:g}: ground truth at the left, detections at the right."
        ),
    ]
    for rank, entry in enumerate(entries):
        numbers = f"{entry['confused']} confused, {entry['false_alarms']} false alarms, {entry['missed']} missed"
        parts += [_note(f"{entry['file_name']}: {numbers}"), _image(images, _worst_name(rank))]
    return parts


def _table(head_cells, rows, head=True):
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head_cells)
    body = "".join("<tr>" + "".join(f"<td>{_number(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{cells}</tr>' if head else ''}{body}</table>"


def _number(value):
    """A cell: text escaped, whole numbers as they are, others with four decimals, undefined ones as a dash."""
    if isinstance(value, str):
        return html.escape(value)
    if value < 0:
        return "\N{EM DASH}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _image(images, name):
    return f'<p><img src="{images[name]}" alt="{html.escape(name)}"></p>'


def _note(text):
    return f'<p class="note">{html.escape(text)}</p>'
