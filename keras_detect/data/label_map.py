"""Label maps: which id an annotation gives to which class, in JSON, in the original's `.pbtxt`, or one name a line."""

import collections
import dataclasses
import json
import pathlib
import re

from keras_detect.data.writing import replace_file

MAX_BYTES = 2 * 2**20

_TOKEN = re.compile(
    r"""(?P<blank>[\s,;]+|\#[^\n]*)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<number>[-+]?\.?[0-9][\w.+-]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<symbol>[{}<>:])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """Classes with the ids that annotations use.

    Attributes:
        names: `{id: name}`, in the order of the ids.
        display_names: `{id: readable name}` where it differs from the name.
        keypoint_names: names of the keypoints in order, of the one class that has some, or ().
    """

    names: dict
    display_names: dict = dataclasses.field(default_factory=dict)
    keypoint_names: tuple = ()

    @property
    def class_names(self):
        """The names to show, in the order of the ids: display names where there are some."""
        return [self.display_names.get(key, name) for key, name in self.names.items()]

    def ids_by_text(self):
        """`{text: id}` for `image/object/class/text`: names, and display names that are no other class's name."""
        return {name: key for key, name in self.display_names.items()} | {name: key for key, name in self.names.items()}


def read_label_map(path):
    """Reads a label map: `.pbtxt` of the original, `.json`, or text with a name a line (ids from 1).

    JSON is `{"1": "cat", ...}`, `["cat", ...]` (ids from 1), or `{"class_names": [...]}` as presets have it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a label map; the message names file and cause.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No such label map: {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is not a label map: it holds {path.stat().st_size} bytes, more than {MAX_BYTES}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return _from_json(json.loads(text))
        if path.suffix.lower() in (".pbtxt", ".prototxt"):
            return _from_items(_parse(text))
        return _checked({number + 1: line.strip() for number, line in enumerate(text.splitlines()) if line.strip()})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a label map ({error}). Correct it or write it again.") from None


def write_label_map(path, class_names):
    """Writes ids from 1 in the order of `class_names`: `.pbtxt`, `.json`, or else one name a line."""
    path = pathlib.Path(path)
    items = {number + 1: str(name) for number, name in enumerate(class_names)}
    if path.suffix == ".json":
        text = json.dumps(items, indent=1, ensure_ascii=False) + "\n"
    elif path.suffix == ".pbtxt":
        text = "".join(f'item {{\n  id: {key}\n  name: "{_escaped(name)}"\n}}\n' for key, name in items.items())
    else:
        text = "".join(f"{name}\n" for name in items.values())
    return replace_file(path, text)


def find_label_map(folders):
    """The label map that lies in the first of `folders` with one, or None; several in a folder are an error."""
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
        raise ValueError('wanted {"1": "cat", ...} or ["cat", ...]')
    return _checked({int(key): name for key, name in content.items()})


def _from_items(items):
    names, shown, keypoints = {}, {}, ()
    for item in items:
        if "id" not in item or not ("name" in item or "display_name" in item):
            raise ValueError(f"an item needs an id and a name, received {sorted(item)}")
        key = item["id"]
        if not isinstance(key, int) or key in names:
            raise ValueError(f"an item's id is an integer of its own, received {key}")
        names[key] = str(item.get("name", item.get("display_name")))
        if item.get("display_name", names[key]) != names[key]:
            shown[key] = str(item["display_name"])
        points = item.get("keypoints", ())
        points = [point for point in points if "label" in point] if isinstance(points, list) else []
        keypoints = keypoints or tuple(str(point["label"]) for point in points)
    # The original gives id 0 to the background where a map lists it.
    background = names.pop(0, None) if names.get(0) == "background" else None
    if background:
        shown.pop(0, None)
    return _checked(names, shown, keypoints)


def _checked(names, shown=None, keypoints=()):
    if not names:
        raise ValueError("it lists no class")
    repeated = [name for name, count in collections.Counter(names.values()).items() if count > 1]
    if repeated:
        raise ValueError(f"the name {repeated[0]!r} stands for two classes")
    return LabelMap({key: names[key] for key in sorted(names)}, shown or {}, keypoints)


def _parse(text):
    """The `item` messages as dicts: scalars by name, `keypoints` as a list of dicts; other messages are passed over."""
    items, stack, position = [], [], 0
    pending, expects_value = None, False
    line = 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"line {line}: unexpected {text[position : position + 10]!r}")
        position, kind, token = match.end(), match.lastgroup, match.group()
        if kind == "blank":
            line += token.count("\n")
            continue
        if kind == "symbol" and token in "{<":
            if pending is None or len(stack) > 20:
                raise ValueError(f"line {line}: unexpected {token!r}")
            message = {}
            if not stack and pending == "item":
                items.append(message)
            elif len(stack) == 1 and pending == "keypoints":
                stack[-1].setdefault("keypoints", []).append(message)
            elif not stack:
                raise ValueError(f"line {line}: a label map consists of item {{...}}, received {pending!r}")
            stack.append(message)
            pending, expects_value = None, False
        elif kind == "symbol" and token in "}>":
            if not stack or pending is not None:
                raise ValueError(f"line {line}: unexpected {token!r}")
            stack.pop()
        elif kind == "symbol":
            expects_value = pending is not None
        elif expects_value:
            if not stack:
                raise ValueError(f"line {line}: a label map consists of item {{...}}, received {pending!r}")
            stack[-1][pending] = _value(kind, token, line)
            pending, expects_value = None, False
        elif kind == "name" and pending is None:
            pending = token
        else:
            raise ValueError(f"line {line}: unexpected {token!r}")
    if stack or pending:
        raise ValueError("the text ends inside an item")
    return items


def _value(kind, token, line):
    if kind == "string":
        # Escapes stand for bytes, which together must be UTF-8: protobuf writes \303\251 for an e with an accent.
        return _ESCAPE.sub(_unescaped, token[1:-1]).encode("utf-8", "surrogateescape").decode("utf-8")
    if kind == "number":
        try:
            return int(token)
        except ValueError:
            return token
    return token


def _unescaped(match):
    code = match[1]
    if (code[0] in "xX" and len(code) > 1) or code[0].isdigit():
        byte = int(code[1:], 16) if code[0] in "xX" else int(code, 8) & 255
        return bytes([byte]).decode("utf-8", "surrogateescape")
    return _ESCAPES.get(code, code)


def _escaped(name):
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
