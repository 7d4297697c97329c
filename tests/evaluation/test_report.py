"""The report folder: whole or not there, every number in it, and a page that needs no network."""

import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from keras_detect.evaluation import COCOEvaluator, Collected, plots, write_report
from tests.evaluation.test_coco import random_images

NAMES = ["cat & dog", "$5 note", "<script>x</script>", "unseen"]
IMAGES = {"precision_recall.png", "class_precision.png", "confusion_matrix.png", "errors.png"}


def collected(images=6):
    rows = Collected(NAMES)
    for ground_truth, detections in random_images(np.random.default_rng(0), images):
        rows.update(ground_truth, detections)
    return rows


class Page(html.parser.HTMLParser):
    """Tags, the values that could load something, and the text of the cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.texts.append(data)


def test_a_report_is_whole_and_opens_offline(tmp_path):
    rows = collected()
    report = write_report(rows, tmp_path / "deep" / "report", details={"model": "a.keras"})
    folder = tmp_path / "deep" / "report"
    assert {path.name for path in folder.iterdir()} == IMAGES | {"report.json", "index.html"}
    assert [path.name for path in folder.parent.iterdir()] == ["report"]
    text = (folder / "report.json").read_text()
    assert json.loads(text) == report
    assert "NaN" not in text
    coco = COCOEvaluator(NAMES, rows).result()
    assert report["coco"]["map_50"] == coco["map_50"]
    assert report["images"] == 6
    for name in IMAGES:
        with Image.open(folder / name) as image:
            assert len(image.convert("L").getcolors(256)) > 8, f"{name} is all but empty"
    page = Page((folder / "index.html").read_text())
    assert page.tags.count("img") == 4
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "script" not in page.tags
    assert "url(" not in (folder / "index.html").read_text()
    shown = re.sub(r"\s", "", "".join(page.texts))
    assert all(part in shown for part in ("cat&dog", "<script>x</script>", f"{coco['map']:.4f}", "a.keras"))


def test_an_earlier_report_is_replaced_and_other_files_are_not(tmp_path):
    write_report(collected(2), tmp_path / "report", title="first")
    write_report(collected(2), tmp_path / "report", title="second")
    assert json.loads((tmp_path / "report" / "report.json").read_text())["title"] == "second"
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.keras").write_text("weights")
    with pytest.raises(ValueError, match="Choose a new folder"):
        write_report(collected(2), tmp_path / "run")
    with pytest.raises(ValueError, match="Received a file"):
        write_report(collected(2), tmp_path / "run" / "model.keras")
    assert (tmp_path / "run" / "model.keras").read_text() == "weights"


def test_a_failure_leaves_the_earlier_report(tmp_path, monkeypatch):
    write_report(collected(2), tmp_path / "report", title="first")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(plots, "draw_error_breakdown", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(collected(2), tmp_path / "report", title="second")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert json.loads((tmp_path / "report" / "report.json").read_text())["title"] == "first"


def test_nothing_to_measure_is_a_report_too(tmp_path):
    report = write_report(Collected(["a"]), tmp_path / "empty")
    assert (report["images"], report["coco"]["map"], report["errors"]["error_ap"]) == (0, -1.0, -1.0)
    assert "\N{EM DASH}" in (tmp_path / "empty" / "index.html").read_text()
    nothing_found = Collected(["a"])
    empty = {"boxes": np.zeros((1, 0, 4)), "labels": np.zeros((1, 0), int), "scores": np.zeros((1, 0))}
    ground_truth = {"boxes": np.array([[[0.1, 0.1, 0.3, 0.3]]]), "labels": np.array([[0]])}
    nothing_found.update(ground_truth, empty, image_sizes=[(50, 50)])
    report = write_report(nothing_found, tmp_path / "nothing_found")
    assert (report["coco"]["map"], report["errors"]["error_counts"]["missed"]) == (0.0, 1)


def test_many_classes_are_drawn_as_far_as_they_can_be_read(tmp_path):
    names = [f"class {k}" for k in range(80)]
    matrix = np.diag(np.arange(81))
    matrix[70, 3] = 500  # the most confused pair is among those drawn
    plots.draw_confusion_matrix(matrix, [*names, "background"], tmp_path / "matrix.png")
    per_class = {name: {"map": k / 100, "map_50": k / 80} for k, name in enumerate(names)}
    buffer = io.BytesIO()
    plots.draw_class_precision(per_class, buffer)
    curves = {"iou": np.arange(50, 100, 5) / 100, "recall": np.linspace(0, 1, 101), "precision": np.ones((10, 101, 80))}
    plots.draw_precision_recall(curves, names, tmp_path / "curves.png")
    for image in (tmp_path / "matrix.png", buffer, tmp_path / "curves.png"):
        with Image.open(image) as opened:
            assert max(opened.size) < 2500
