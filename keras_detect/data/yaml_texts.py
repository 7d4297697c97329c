"""The texts of a YAML file, read so that no content costs more than a bounded time and memory."""

import pathlib
from typing import Any

import yaml

from keras_detect.data.paths import read_text
from keras_detect.messages import one_line, shown

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_NODES = 250_000  # texts, lists and mappings, counted again wherever an alias repeats them
# PyYAML's loader that makes nothing but texts, lists and dicts, of C where PyYAML was built with it
_TEXTS_ONLY = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class YAMLFileError(ValueError):
    """A YAML file that cannot be read as keys with texts; the message names the file, the cause and the fix."""


def read_yaml(file: pathlib.Path) -> dict[str, Any]:
    """The keys of a YAML file, all of its documents together; a key without a value has None.

    Scalars stay texts, so that a class called `no` or `007` keeps its name.

    Raises:
        YAMLFileError: no YAML, no keys, or more than `MAX_BYTES`, `MAX_DEPTH` or `MAX_NODES`.
    """
    try:
        content = parse_yaml(read_text(file, MAX_BYTES, "utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = one_line(error, 300)
        raise YAMLFileError(f"{shown(file, 400)} is not readable as data.yaml ({reason}). Correct it.") from None
    return content


def parse_yaml(text: str) -> dict[str, Any]:
    """The keys of a YAML text, see `read_yaml`. Raises `ValueError` with the cause."""
    try:
        _check_costs(text)
        documents = list(yaml.load_all(text, Loader=_TEXTS_ONLY))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"line {mark.line + 1}: {error.problem}" if mark is not None else str(error)) from None
    documents = [document for document in documents if document not in (None, "")]
    if not all(isinstance(document, dict) for document in documents):
        raise ValueError("no keys such as train and names")
    pairs = [pair for document in documents for pair in document.items()]
    return {key: None if value in ("", "~", "null") else value for key, value in pairs}


def _check_costs(text):
    """Raises `ValueError` where nesting or aliases would make reading, or showing, the content expensive.

    The events of the parser come one by one, so that nothing of the content is built before it is measured.
    """
    meanings: dict[str, int] = {}  # nodes that are behind each anchor
    open_nodes = [(None, 0)]
    for event in yaml.parse(text, Loader=_TEXTS_ONLY):
        anchor, nodes = getattr(event, "anchor", None), 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((anchor, 1))
            if len(open_nodes) > MAX_DEPTH:
                raise ValueError(f"line {event.start_mark.line + 1}: nested more than {MAX_DEPTH} deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, nodes = open_nodes.pop()
        elif isinstance(event, yaml.ScalarEvent):
            nodes = 1
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in meanings:
                raise ValueError(f"line {event.start_mark.line + 1}: the alias {shown(anchor)} stands for nothing yet")
            nodes, anchor = meanings[anchor], None
        if anchor is not None:
            meanings[anchor] = nodes
        outer, count = open_nodes.pop()
        open_nodes.append((outer, count + nodes))
        if count + nodes > MAX_NODES:
            raise ValueError(f"line {event.start_mark.line + 1}: more than {MAX_NODES} entries, repeated ones included")
