"""A reader of the protobuf text format, as far as a `pipeline.config` needs it: no protoc, no descriptors.

`read` and `parse` return the top `Node` (see `node.py`); what cannot be read is a `PipelineConfigError`.
"""

import os
import pathlib
import re

from keras_detect.text_proto.node import Node, PipelineConfigError, Scalar, clip, join, located_error

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "Node", "PipelineConfigError", "parse", "read"]

MAX_BYTES = 4 * 1024 * 1024  # the largest config of the zoo has 12 kB
MAX_DEPTH = 100  # protobuf's own limit
MAX_VALUES = 250_000  # fields and messages of a text; the largest config of the zoo has 400
_MAX_NUMBER_LENGTH = 400

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n\f\v]+|\#[^\n]*)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>\.?[0-9](?:[eE][+-]|[A-Za-z0-9_.])*+)
      | (?P<string>"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+')
      | (?P<symbol>[{}<>\[\]:;,-])
    """,
    re.VERBOSE,
)
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?")
_ESCAPE = re.compile(
    r"\\(?:(?P<octal>[0-7]{1,3})|[xX](?P<hex>[0-9a-fA-F]{1,2})|u(?P<short>[0-9a-fA-F]{4})"
    r"|U(?P<long>[0-9a-fA-F]{8})|(?P<letter>.))",
    re.DOTALL,
)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_LETTERS.update({quoted: quoted for quoted in "\\'\"?"})
_CLOSING = {"{": "}", "<": ">"}


def read(path_or_text):
    """Reads a config from a path, from a directory that holds a `pipeline.config`, or from the text itself.

    Returns the top `Node`. A string with a line break or a `{` is taken as text. Raises `FileNotFoundError` if there
    is no such file and `PipelineConfigError` if it cannot be read.
    """
    if isinstance(path_or_text, str) and ("\n" in path_or_text or "{" in path_or_text):
        return parse(path_or_text)
    if not isinstance(path_or_text, str | os.PathLike):
        raise TypeError(f"A pipeline config is a path or text. Received: {path_or_text!r}")
    path = pathlib.Path(path_or_text).expanduser()
    path = path / "pipeline.config" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"No pipeline config at {str(path)!r}. Pass the path of the file, or its text.")
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise located_error(str(path), 1, "", _too_large(path.stat().st_size))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise located_error(
            str(path), line, "", "is not UTF-8 text; supported: the protobuf text format of a pipeline.config"
        ) from None
    return parse(text, str(path))


def parse(text, source="<text>"):
    """Parses text in the protobuf text format; `source` is shown in errors. Returns the top `Node`."""
    if len(text) > MAX_BYTES:
        raise located_error(source, 1, "", _too_large(len(text)))
    return _Parser(text, source).parse()


def _too_large(size):
    return f"holds {size} bytes; supported: pipeline configs of at most {MAX_BYTES} bytes"


class _Parser:
    """Reads tokens one after the other and keeps the open messages on a stack of its own: no recursion."""

    def __init__(self, text, source):
        self.text, self.source = text, source
        self.position, self.next_line, self.count = 0, 1, 0
        self.open = [(Node(source, 1), "", None)]  # (message, its closing bracket, the field whose list it is in)
        self.advance()

    def advance(self):
        """Moves to the next token: `kind` (None at the end), `token`, `line`."""
        while self.position < len(self.text):
            match = _TOKEN.match(self.text, self.position)
            if match is None:
                self.line = self.next_line
                raise self.error(self.unreadable())
            self.kind, self.token, self.line = match.lastgroup, match.group(), self.next_line
            self.position = match.end()
            self.next_line += self.token.count("\n")
            if self.kind != "blank":
                return
        self.kind, self.token, self.line = None, "", self.next_line

    def unreadable(self):
        rest = self.text[self.position : self.position + 20]
        if rest[0] in "\"'":
            return f"the string {clip(rest.splitlines()[0])} has no closing quote on its line"
        return f"unexpected character {rest[0]!r}"

    def error(self, message, name=None):
        path = self.open[-1][0].path
        return located_error(self.source, self.line, join(path, name) if name else path, message)

    def parse(self):
        while self.kind is not None:
            if self.kind == "symbol" and self.token == self.open[-1][1]:
                self.close()
            else:
                self.field()
        if len(self.open) > 1:
            node, closing, _ = self.open[-1]
            raise self.error(f"the text ends, but the message opened in line {node.line} has no closing '{closing}'")
        return self.open[0][0]

    def field(self):
        """One field at the front: its name and its value or values; of a message, only the opening bracket."""
        if self.token == "[":
            raise self.error("extensions and Any fields ([...]) are not supported; supported: plain field names")
        if self.kind != "name":
            raise self.error(f"expected a field name, found {self.found()}")
        name = self.token
        self.advance()
        colon = self.token == ":" and self.kind == "symbol"
        if colon:
            self.advance()
        values = self.open[-1][0]._fields.setdefault(name, [])
        if self.kind == "symbol" and self.token in _CLOSING:
            self.open_message(name, values)
        elif self.kind == "symbol" and self.token == "[":
            self.list(name, values, colon)
        elif colon:
            self.add(values, self.scalar(name))
            self.separator()
        else:
            raise self.error(f"expected ':' or '{{', found {self.found()}", name)

    def add(self, values, value):
        self.count += 1
        if self.count > MAX_VALUES:
            raise self.error(f"the text holds more than the {MAX_VALUES} fields that are supported")
        values.append(value)

    def open_message(self, name, values, in_list=False):
        if len(self.open) > MAX_DEPTH:
            raise self.error(f"messages are nested deeper than {MAX_DEPTH} levels; supported: {MAX_DEPTH}")
        node = Node(self.source, self.line, self.open[-1][0], name)
        self.add(values, node)
        self.open.append((node, _CLOSING[self.token], name if in_list else None))
        self.advance()

    def close(self):
        listed = self.open.pop()[2]
        self.advance()
        if listed is None:
            self.separator()
        else:
            self.next_in_list(listed, self.open[-1][0]._fields[listed])

    def list(self, name, values, colon):
        """`[a, b]` of scalars, or of messages, which return here through `next_in_list`."""
        self.advance()
        if self.token == "]" and self.kind == "symbol":
            self.advance()
            self.separator()
            return
        self.list_item(name, values, colon)

    def list_item(self, name, values, colon):
        while True:
            if self.kind == "symbol" and self.token in _CLOSING:
                self.open_message(name, values, in_list=True)
                return
            if not colon:
                raise self.error("a list of scalars needs a ':' after the field's name", name)
            self.add(values, self.scalar(name))
            if not self.more_in_list(name):
                return

    def next_in_list(self, name, values):
        if self.more_in_list(name):
            self.list_item(name, values, colon=True)

    def more_in_list(self, name):
        """After an item: steps over ',' (True) or over ']' (False)."""
        if self.kind != "symbol" or self.token not in (",", "]"):
            raise self.error(f"expected ',' or ']' in a list, found {self.found()}", name)
        more = self.token == ","
        self.advance()
        if not more:
            self.separator()
        return more

    def scalar(self, name):
        line, minus = self.line, self.kind == "symbol" and self.token == "-"
        if minus:
            self.advance()
        kind, text = self.kind, self.token
        if kind not in ("number", "name") and (minus or kind != "string"):
            raise self.error(f"expected a value, found {self.found()}", name)
        if kind == "string":
            return Scalar(kind, self.string(name), line)
        if len(text) > _MAX_NUMBER_LENGTH:
            raise self.error(f"a value of {len(text)} characters; supported: {_MAX_NUMBER_LENGTH}", name)
        if kind == "number" and not _NUMBER.fullmatch(text):
            raise self.error(f"{clip(text)} is not a number; supported: numbers like 5, -0.5, 4e-05, 0x1F", name)
        self.advance()
        return Scalar(kind, "-" + text if minus else text, line)

    def string(self, name):
        """Adjacent strings are one. Escapes stand for bytes; together the bytes must be UTF-8."""
        pieces = []
        while self.kind == "string":
            try:
                pieces.append(_ESCAPE.sub(_unescape, self.token[1:-1]).encode("utf-8", "surrogateescape"))
            except ValueError as error:
                raise self.error(str(error), name) from None
            self.advance()
        try:
            return b"".join(pieces).decode("utf-8")
        except UnicodeDecodeError:
            raise self.error("the string's escapes do not form UTF-8 text; supported: text", name) from None

    def separator(self):
        if self.kind == "symbol" and self.token in (",", ";"):
            self.advance()

    def found(self):
        return "the end of the text" if self.kind is None else f"'{clip(self.token)}'"


def _unescape(match):
    """One escape as text, where a byte above 127 is a surrogate that `encode(..., "surrogateescape")` turns back."""
    if match["octal"] or match["hex"]:
        byte = int(match["octal"], 8) if match["octal"] else int(match["hex"], 16)
        if byte > 255:
            raise ValueError(f"the escape {match.group()} is not a byte")
        return bytes([byte]).decode("utf-8", "surrogateescape")
    if match["short"] or match["long"]:
        code = int(match["short"] or match["long"], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise ValueError(f"the escape {match.group()} is not a Unicode character")
        return chr(code)
    if match["letter"] not in _LETTERS and match["letter"] not in "xXuUN":
        return match.group()  # a Windows path, which upstream's parser reads as it stands
    if match["letter"] not in _LETTERS:
        raise ValueError(
            f"unknown escape {clip(match.group())} in a string; supported: \\n \\t \\r \\\\ \\' \\\" \\x41 \\101"
        )
    return _LETTERS[match["letter"]]
