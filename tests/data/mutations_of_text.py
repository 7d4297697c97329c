"""Spoiled annotations: COCO's JSON, VOC's XML, tables, lines and label maps."""

import copy
import json

from tests.data.mutation import Mutation, changed, written

# ---------------------------------------------------------------------------------------------------------------- COCO

_DELETE = object()
_ODD = {
    "null": None,
    "text": "x",
    "a list": [],
    "an object": {},
    "-1": -1,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "1e308": 1e308,
    "10**400": 10**400,
    "true": True,
    "a lone surrogate": "\ud800",
    "a zero byte": "a\0b",
    "100,000 letters": "a" * 100_000,
    "absent": _DELETE,
}
_PLACES = {
    "images[0]": ("id", "file_name", "height", "width"),
    "annotations[0]": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints"),
    "categories[0]": ("id", "name"),
}


def of_coco():
    for key in ("images", "annotations", "categories"):
        for what in ("null", "text", "a list", "an object", "-1", "absent"):
            yield _json_mutation(what, key, None, None, _ODD[what])
        yield _json_mutation("a list of nulls", key, None, None, [None])
    for place, keys in _PLACES.items():
        for key in keys:
            for what, value in _ODD.items():
                yield _json_mutation(what, place[:-3], 0, key, value)
    boxes = {"three numbers": [1, 2, 3], "texts": ["a"] * 4, "lists": [[1]] * 4, "nulls": [None] * 4}
    boxes |= {"NaN": [float("nan")] * 4, "Infinity": [0, 0, float("inf"), 5], "1e308": [1e308] * 4}
    boxes |= {"10**400": [10**400] * 4, "negative sides": [20, 20, -5, -5], "no area": [3, 3, 0, 0]}
    boxes |= {"far outside": [900, 900, 5, 5], "an object": {"x": 1}, "reals": ["1", "2", "3", "4"]}
    for what, value in boxes.items():
        yield _json_mutation(f"a bbox of {what}", "annotations", 0, "bbox", value, seen=what != "reals")
    runs = {
        "too short": [5],
        "negative": [-5, 48 * 48 + 5],
        "of text": ["a"],
        "10**12": [10**12],
        "NaN": [float("nan")],
    }
    for what, counts in runs.items():
        value = {"size": [48, 48], "counts": counts}
        yield _json_mutation(f"run lengths {what}", "annotations", 0, "segmentation", value, seen=True)
    texts = {"junk": "\x7f\x80zz", "empty": "", "millions": "o" * 100_000, "10**18": "oooooooooooo0"}
    for what, counts in texts.items():
        value = {"size": [48, 48], "counts": counts}
        yield _json_mutation(f"compressed run lengths: {what}", "annotations", 0, "segmentation", value, seen=True)
    value = {"size": [2**31, 2**31], "counts": "o"}
    yield _json_mutation("run lengths of 2**62 pixels", "annotations", 0, "segmentation", value, seen=True)
    polygons = {
        "texts": [["a"] * 6],
        "NaN": [[float("nan")] * 6],
        "10**400": [[10**400] * 6],
        "1e300": [[1e300, 0] * 3],
    }
    for what, value in polygons.items():
        yield _json_mutation(f"a polygon of {what}", "annotations", 0, "segmentation", value)
    for what, value in {
        "texts": ["a"] * 3,
        "NaN": [float("nan")] * 3,
        "10**400": [10**400] * 3,
        "lists": [[]] * 3,
    }.items():
        yield _json_mutation(f"keypoints of {what}", "annotations", 0, "keypoints", value, seen=True)
    yield _json_mutation("the id of another image", "images", 0, "id", 2, seen=True)
    yield _json_mutation("a file outside", "images", 0, "file_name", "../../../../etc/passwd", seen=True)
    yield _json_mutation("a name twice", "categories", 0, "name", "star", seen=True)
    for what, text in {
        "100,000 lists deep": "[" * 100_000,
        "100,000 objects deep": '{"a":' * 100_000,
        "closed, 100,000 lists deep": "[" * 100_000 + "]" * 100_000,
        "a number of 100,000 digits": '{"images": ' + "9" * 100_000 + "}",
        "only a number": "5",
        "only null": "null",
        "an image": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }.items():
        yield Mutation("coco", "instances.json", what, written(text), seen=True)


def _json_mutation(what, key, number, entry, value, seen=False):
    def spoil(path):
        content = json.loads(path.read_text())
        holder, name = (content, key) if number is None else (content[key][number], entry)
        if value is _DELETE:
            holder.pop(name, None)
        else:
            holder[name] = copy.deepcopy(value)
        path.write_text(json.dumps(content))

    place = key if number is None else f"{key}[{number}].{entry}"
    return Mutation("coco", "instances.json", f"{place}: {what}", spoil, seen)


# ----------------------------------------------------------------------------------------------------------- XML, text

_NUMBERS = {
    "empty": "",
    "words": "many",
    "nan": "nan",
    "inf": "inf",
    "1e400": "1e400",
    "-7": "-7",
    "10,000 digits": "9" * 10_000,
    "hexadecimal": "0x10",
}


def of_voc():
    file = "Annotations/shapes_0_00000.xml"
    for tag in ("width", "height", "xmin", "ymin", "xmax", "ymax", "name", "filename", "difficult"):
        for what, text in _NUMBERS.items():
            yield Mutation("voc", file, f"{tag}: {what}", _with_tag(tag, text))
        yield Mutation("voc", file, f"{tag}: absent", changed(lambda c, t=tag: c.replace(t.encode(), b"other")))
    laughs = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    long = f'<!ENTITY a "{"x" * 100_000}">'
    for what, text in {
        "a billion laughs": f"<!DOCTYPE annotation [{laughs}]><annotation><filename>&a11;</filename></annotation>",
        "a long entity often": f"<!DOCTYPE annotation [{long}]><annotation>{'&a;' * 9999}</annotation>",
        "an entity of another file": '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
        "100,000 elements deep": "<annotation>" * 100_000,
        "closed, 100,000 elements deep": "<annotation>" * 100_000 + "</annotation>" * 100_000,
        "100,000 objects deep": "<object>" * 100_000 + "</object>" * 100_000,
        "an unknown encoding": '<?xml version="1.0" encoding="klingon"?><annotation/>',
        "an encoding it has not": '<?xml version="1.0" encoding="utf-16"?><annotation/>',
        "another root": "<svg/>",
    }.items():
        yield Mutation("voc", file, what, written(text), seen=True)


def _with_tag(tag, text):
    def change(content):
        start = content.index(f"<{tag}>".encode()) + len(tag) + 2
        return content[:start] + text.encode() + content[content.index(b"<", start) :]

    return changed(change)


def of_text():
    table = "annotations.csv"
    for column in range(8):
        for what, text in _NUMBERS.items():
            yield Mutation("csv", table, f"column {column}: {what}", _with_cell(column, text))
    for what, text in {
        "a cell of 1 MB": "filename,class,xmin,ymin,xmax,ymax\n" + "a" * 10**6 + ",circle,1,1,5,5\n",
        "a quote that never ends": 'filename,class,xmin,ymin,xmax,ymax\n"a,circle,1,1,5,5\n',
        "zero bytes": "filename,class,xmin,ymin,xmax,ymax\na\0b.png,circle,1,1,5,5\n",
        "100,000 columns": "filename,class,xmin,ymin,xmax,ymax" + ",a" * 100_000 + "\n",
        "rows longer than the head": "filename,class,xmin,ymin,xmax,ymax\nshapes_0_00000.png,circle,1,1,5,5,6,7\n",
    }.items():
        yield Mutation("csv", table, what, written(text), seen=True)
    label = "labels/train/shapes_0_00000.txt"
    for what, text in _NUMBERS.items():
        for place in range(5):
            cells = ["0", "0.5", "0.5", "0.2", "0.2"]
            cells[place] = text
            yield Mutation("yolo", label, f"number {place}: {what}", written(" ".join(cells) + "\n"), seen=True)
    polygon = "0 " + " ".join(["1e308 -1e308"] * 4)
    for what, text in {"class 10**30": f"{10**30} .5 .5 .1 .1", "six numbers": "0 1 1 1 1 1", "1e308": polygon}.items():
        yield Mutation("yolo", label, what, written(text), seen=True)
    for what, text in {
        "class 10**17": "train: images/train\nnames:\n  100000000000000000: circle\n",
        "a class of a word": "train: images/train\nnames:\n  one: circle\n",
        "names that are a number": "train: images/train\nnames: 5\n",
        "a folder that is a number": "train: 5\nnames: [circle, star]\n",
        "a folder that is a mapping": "train: {a: b}\nnames: [circle, star]\n",
        "a folder with a zero byte": 'train: "images\0"\nnames: [circle, star]\n',
        "10,000 lists deep": "names: " + "[" * 10_000,
        "500,000 lines of an open list": "names: [\n" + "a,\n" * 500_000,
        "an open quote after 50,000 spaces": "names: [" + " " * 50_000 + "']\n",
        "100,000 spaces in a key": "a" + " " * 100_000 + "b\n",
        "an anchor of its own": "names: &a [*a]\n",
        "a tag": "names: !!python/object/apply:os.system ['true']\n",
        "20,000 classes": "train: images/train\nnames: [" + ", ".join(f"c{i}" for i in range(20_000)) + "]\n",
        "a class twice": "train: images/train\nnames: [circle, circle]\n",
    }.items():
        yield Mutation("yolo", "data.yaml", what, written(text), seen=True)
    yield from _of_label_maps()


def _with_cell(column, text):
    def change(content):
        lines = content.decode().splitlines()
        cells = lines[1].split(",")
        cells[column] = text
        return "\n".join([lines[0], ",".join(cells), *lines[2:], ""]).encode()

    return changed(change)


def _of_label_maps():
    for what, text in {
        "10,000 messages deep": "item {" * 10_000,
        "2 MB of fields": "item { id: 1 name: 'circle' " + "a: 1 " * 400_000 + "}",
        "100,000 classes of one name": "".join(
            f"item {{ id: {i + 1} name: 'c{i // 2 * 2}' }}\n" for i in range(100_000)
        ),
        "an id of 5,000 digits": f"item {{ id: {'9' * 5000} name: 'circle' }}",
        "an id that is a word": "item { id: one name: 'circle' }",
        "an id twice": "item { id: 1 name: 'circle' } item { id: 1 name: 'star' }",
        "an open quote": "item { id: 1 name: 'circle }",
        "bytes that are not text": b"item { id: 1 name: '\xff\xfe' }",
        "an escape of such bytes": "item { id: 1 name: '\\377\\376' }",
        "another class": "item { id: 1 name: 'square' }",
        "5 MB": "#" * (5 * 2**20),
    }.items():
        yield Mutation("tfrecord", "label_map.pbtxt", what, written(text), seen=True)
    for what, text in {
        "100,000 lists deep": "[" * 100_000,
        "100,000 objects deep": '{"a":' * 100_000,
        "a list of numbers": "[1, 2]",
        "ids that are words": '{"one": "circle", "two": "star"}',
        "an id of 5,000 digits": '{"' + "9" * 5000 + '": "circle"}',
        "null": "null",
        "a name twice": '["circle", "circle"]',
        "a lone surrogate": '["circle", "\\ud800"]',
        "no class": "[]",
        "100,000 classes of one name": json.dumps([f"c{i // 2}" for i in range(100_000)]),
    }.items():
        yield Mutation("json_map", "label_map.json", what, written(text), seen=True)
