"""Writes docs/zoo.md from the presets: `python tools/zoo_page.py`.

Names, tasks, parameters, published figures, parity, licenses and addresses are those of `keras_detect.presets`;
operations were counted by `tools/zoo_gflop.py`. `tests/docs/test_zoo_page.py` holds the page to this program's output.
"""

import json
import pathlib

from keras_detect import presets

TOOLS = pathlib.Path(__file__).resolve().parent
PAGE = TOOLS.parent / "docs" / "zoo.md"
COUNTS = TOOLS / "zoo_gflop.json"

#: heading, how the names of its presets begin, page of the architecture
FAMILIES = (
    ("SSD", ("ssd_mobilenet_v2_320", "ssd_mobilenet_v2_oidv4"), "models/ssd.md"),
    ("RetinaNet: SSD with a feature pyramid", ("ssd_", "retinanet_"), "models/retinanet.md"),
    ("EfficientDet", ("efficientdet_",), "models/efficientdet.md"),
    ("Faster R-CNN", ("faster_rcnn_", "frcnn_", "rfcn_"), "models/faster_rcnn.md"),
    ("Mask R-CNN", ("mask_rcnn_",), "models/mask_rcnn.md"),
    ("CenterNet", ("centernet_",), "models/center_net.md"),
)
HEAD = """# The zoo

<!-- Written by `python tools/zoo_page.py`: edit the presets or that program, not this page. -->

Every name here goes into `keras_detect.Model.from_preset(name)`, and `--model` of every command. The packaged ones
need no network. The others are fetched once from their publisher, converted, checked and kept in the cache
(`KERAS_DETECT_HOME`); `keras-detect presets show NAME` says where from, `keras-detect presets clear NAME` removes one.

- *Parameters*: weights of our model. *GFLOP*: 10⁹ operations of one image of the given size, a multiplication and an
  addition as two, convolutions and matrix products only, Faster R-CNN with all its proposals; counted in the graph by
  `tools/zoo_gflop.py`.
- *Published mAP and ms*: COCO 2017 val (of TensorFlow 1's models the 2014 minival), in percent, or the metric in
  brackets, and milliseconds per image, as the authors published them, on their hardware. **We did not measure them
  again.** For mAP measured here see *measured*, with what it was measured on.
- *Parity*: the largest relative error of the raw heads, and the largest difference of a score, between upstream's
  program and this one with the same random weights ([how, and what it does not say](parity.md)). "—": not compared.

"""


def family(name):
    """Index in `FAMILIES` of the first family that a name belongs to."""
    return next(number for number, (_, starts, _) in enumerate(FAMILIES) if name.startswith(starts))


def number(value, form):
    return "—" if value is None else format(value, form)


def row(entry, count):
    """The cells of one preset."""
    size = "—" if count is None else f"{count['image_side']} x {count['image_side']}"
    metric = entry["published_metric"]
    noted = "" if metric.startswith("mAP on COCO") else f" ({metric})"
    published = f"{number(entry['published_map'], 'g')}{noted} / {number(entry['published_ms'], 'g')}"
    heads, scores = entry["parity_heads"], entry["parity_scores"]
    return (
        f"`{entry['name']}`",
        ", ".join(entry["outputs"] or ["boxes"]),
        size,
        number(entry["parameters"], ",d"),
        number(count and count["gflop"], ",.1f"),
        published if published != "— / —" else "—",
        "—" if heads is None else f"{heads:.0e} / {scores:.0e}",
        entry["license"] or "—",
    )


def table(head, rows):
    """A Markdown table."""
    align = ["---", *("---:" if cell in ("Parameters", "GFLOP") else "---" for cell in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, align, *rows)) + "\n"


def page():
    """The text of the page."""
    counts = json.loads(COUNTS.read_text())
    entries = [entry for entry in presets.descriptions() if entry["kind"] in ("zoo", "packaged")]
    text = HEAD
    head = ("Name", "Finds", "Image", "Parameters", "GFLOP", "Published mAP / ms", "Parity: heads / scores", "License")
    for index, (title, _, link) in enumerate(FAMILIES):
        of_family = [entry for entry in entries if family(entry["name"]) == index]
        rows = [row(entry, counts.get(entry["name"])) for entry in of_family]
        text += f"## {title}\n\n[How it works, and its settings]({link}).\n\n{table(head, rows)}\n"
    measured = [
        f"- `{entry['name']}`: {entry['measured_map']:.1f} on {entry['measured_on']}"
        for entry in entries
        if entry["measured_map"] is not None
    ]
    if measured:
        text += "## Measured\n\nCOCO AP in percent, measured by us:\n\n" + "\n".join(measured) + "\n\n"
    rows = [(f"`{entry['name']}`", "<br>".join(f"`{address}`" for address in entry["addresses"])) for entry in entries]
    text += "## Addresses\n\nTried in this order; of packaged models, where their weights come from.\n\n"
    return text + table(("Name", "Address"), rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
