"""Label maps: which id an annotation gives to which class, in JSON, in upstream's `.pbtxt`, or one name a line."""

import collections
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Sequence

from keras_detect.data.paths import FILE, kind_of, read_text
from keras_detect.files import write_file
from keras_detect.messages import one_line, shown
from keras_detect.text_proto import parser as text_proto

MAX_BYTES = 2 * 2**20

# how upstream's form begins, after comments
_ITEM = re.compile(r"(?:\s|#[^\n]*\n)*item\s*:?\s*[{<]")


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """Classes with the ids that annotations use.

    Attributes:
        names: `{id: name}`, in the order of the ids.
        display_names: `{id: readable name}` where it differs from the name.
        keypoint_names: names of the keypoints of all classes, in the order of their ids, or ().
        class_keypoints: `{class id: names of its keypoints}` of the classes that have some.
    """

    names: dict
    display_names: dict = dataclasses.field(default_factory=dict)
    keypoint_names: tuple = ()
    class_keypoints: dict = dataclasses.field(default_factory=dict)

    @property
    def class_names(self) -> list[str]:
        """The names to show, in the order of the ids: display names where there are some."""
        return [self.display_names.get(key, name) for key, name in self.names.items()]

    def ids_by_text(self) -> dict[str, int]:
        """`{text: id}` for `image/object/class/text`: names, and display names that are no other class's name."""
        return {name: key for key, name in self.display_names.items()} | {name: key for key, name in self.names.items()}


def read_label_map(path: str | os.PathLike[str]) -> LabelMap:
    """Reads a label map: upstream's `.pbtxt`, `.json`, or text with a name per line (ids from 1).

    Upstream's form is recognized by its `item {`, also under another file name.

    JSON is `{"1": "cat", ...}`, `["cat", ...]` (ids from 1), or `{"class_names": [...]}` as presets have it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a label map; the message names file and cause.
    """
    path = pathlib.Path(path)
    if kind_of(path) != FILE:
        raise FileNotFoundError(f"No such label map: {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is not a label map: it holds {path.stat().st_size} bytes, more than {MAX_BYTES}.")
    try:
        text = read_text(path, MAX_BYTES, "utf-8-sig")
        if path.suffix.lower() == ".json":
            return _from_json(json.loads(text))
        if path.suffix.lower() in (".pbtxt", ".prototxt") or _ITEM.match(text):
            return _from_node(text_proto.parse(text, str(path)))
        return _checked({number + 1: line.strip() for number, line in enumerate(text.splitlines()) if line.strip()})
    except text_proto.PipelineConfigError as error:
        raise ValueError(f"{error}. This is not a label map: correct it or write it again.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a label map ({one_line(error, 300)}). Correct it or write it again.") from None


def write_label_map(path: str | os.PathLike[str], class_names: Sequence[str]) -> pathlib.Path:
    """Writes ids from 1 in the order of `class_names`: `.pbtxt`, `.json`, or else one name a line."""
    path = pathlib.Path(path)
    items = {number + 1: str(name) for number, name in enumerate(class_names)}
    if path.suffix == ".json":
        text = json.dumps(items, indent=1, ensure_ascii=False) + "\n"
    elif path.suffix == ".pbtxt":
        text = "".join(f'item {{\n  id: {key}\n  name: "{_escaped(name)}"\n}}\n' for key, name in items.items())
    else:
        text = "".join(f"{name}\n" for name in items.values())
    return write_file(path, text)


def find_label_map(folders):
    """The label map that is in the first of `folders` with one, or None; several in a folder are an error."""
    for folder in folders:
        files = sorted({*folder.glob("*.pbtxt"), *folder.glob("label_map.json")})
        if len(files) > 1:
            raise ValueError(f"{folder} holds several label maps: {', '.join(file.name for file in files)}. Keep one.")
        if files:
            return files[0]
    return None


def _from_json(content):
    if isinstance(content, dict) and isinstance(content.get("class_names"), list):
        content = content["class_names"]
    if isinstance(content, list):
        content = {number + 1: name for number, name in enumerate(content)}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise ValueError('expected {"1": "cat", ...} or ["cat", ...]')
    return _checked({int(key): name for key, name in content.items()})


def _from_node(root):
    """The map of a parsed text; `root` is the top `Node`. Fields that say nothing about names are passed over."""
    for name in root.names():
        if name != "item":
            raise root.error(name, "a label map consists of item {...}")
    names, displayed, points, owned = {}, {}, {}, {}
    for item in root.repeated("item"):
        key, name, display = item.scalar("id", int), item.scalar("name", str), item.scalar("display_name", str)
        if key is None or (name is None and display is None):
            raise item.error(None, f"an item needs an id and a name, received {shown(sorted(item.names()))}")
        if key in names:
            raise item.error("id", f"an item's id is a unique integer, received {shown(key)} twice")
        names[key] = display if name is None else name
        if display is not None and display != names[key]:
            displayed[key] = display
        for number, point in enumerate(item.repeated("keypoints")):
            label = point.scalar("label", str)
            if label is not None:
                points.setdefault(point.scalar("id", int, number), label)
                owned.setdefault(key, []).append(label)
    # Upstream gives id 0 to the background where a map lists it.
    background = names.pop(0, None) if names.get(0) == "background" else None
    if background:
        displayed.pop(0, None)
    keypoints = tuple(points[number] for number in sorted(points))
    return _checked(names, displayed, keypoints, {key: tuple(labels) for key, labels in owned.items()})


def _checked(names, displayed=None, keypoints=(), class_keypoints=None):
    if not names:
        raise ValueError("it lists no class")
    repeated = [name for name, count in collections.Counter(names.values()).items() if count > 1]
    if repeated:
        raise ValueError(f"the name '{shown(repeated[0])}' is used for two classes")
    return LabelMap({key: names[key] for key in sorted(names)}, displayed or {}, keypoints, class_keypoints or {})


def _escaped(name):
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
