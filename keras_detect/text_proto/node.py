"""One message of a `pipeline.config`: its fields, where they are, and the book of what was read of them.

The reader only knows syntax. What a field means, its type and its default are said by the code that builds from the
`Node`; the node keeps the book of what was asked for, so that nothing in a file can be overlooked in silence.
"""

import dataclasses
import functools
import math
import re
from typing import NamedTuple

import numpy as np

_LONGEST = 600  # characters of what is wrong, in a message
_TRUE, _FALSE = ("true", "True", "t", "1"), ("false", "False", "f", "0")


class PipelineConfigError(ValueError):
    """A config that cannot be read or holds what is not supported: `file:line: field: what is wrong; what to do`."""


class Unread(NamedTuple):
    """A field that no reader asked for: `path` from the top of the file ("model.ssd.num_classes"), `line` from 1."""

    path: str
    line: int


@dataclasses.dataclass(frozen=True)
class Scalar:
    """One value as written. `kind` is "number", "name" or "string"; a string's text is already unescaped."""

    kind: str
    text: str
    line: int


class Node:
    """One message of the text format: its fields, where they are, and which of them have been read.

    As in upstream's parser, the last of several values of a single field wins and several blocks of a single
    message are merged. All readers raise `PipelineConfigError` when a value is not of the kind asked for.

    Attributes:
        source: the file's name, as errors show it.
        name: of the field that the message is the value of, "" at the top.
        path: the message's place ("model.ssd.box_coder"), "" at the top (a property).
        line: the line where the message opens, from 1; of an absent message, its parent's.
        present: whether the message is in the file; an absent one reads as all defaults.
    """

    def __init__(self, source, line, parent=None, name="", present=True):
        self.source, self.line, self.present = source, line, present
        self._parent, self.name = parent, name
        self._index = len(parent._fields.get(name, ())) if parent is not None else 0
        self._fields = {}
        self._asked = {}  # used as an ordered set
        self._ignored = set()

    @property
    def path(self):
        """The message's place in the file; one of several of its name carries its index, from 0."""
        if self._parent is None:
            return ""
        several = len(self._parent._fields.get(self.name, ())) > 1
        return join(self._parent.path, self.name + (f"[{self._index}]" if several else ""))

    def __contains__(self, name):
        return bool(self._fields.get(name))

    def __repr__(self):
        return (
            f"<Node {self.path or '(top)'} at {self.source}:{self.line}, fields: {', '.join(self._fields) or 'none'}>"
        )

    def has(self, name):
        """Whether the field `name` is written in the file. Asking does not count as reading."""
        return name in self

    def names(self):
        """Names of the fields written in this message, in the file's order."""
        return [name for name, values in self._fields.items() if values]

    def line_of(self, name):
        """Line of the last value of `name`; the message's own line if there is none."""
        values = self._fields.get(name)
        return values[-1].line if values else self.line

    def error(self, name, message, line=None):
        """A `PipelineConfigError` about the field `name` (None: the message itself), for the caller to raise."""
        path = self.path if name is None else join(self.path, name)
        line = line or (self.line if name is None else self.line_of(name))
        return located_error(self.source, line, path, message)

    def refusal(self, error):
        """A `PipelineConfigError` for what a part that is built from this message refused.

        Its place is the field that the error names as `field=value`, where this message or one below it holds that
        value; else the message itself.
        """
        named = re.findall(r"\b(\w+)=(-?[\w.]*\w)", str(error))
        owner, name = next((found for pair in named if (found := self._holder(*pair))), (self, None))
        return owner.error(name, f"cannot be built: {error}")

    def _holder(self, name, text):
        """`(message, name)` of the field `name` with the value `text`, in this message or below; None without one."""
        values = self._fields.get(name)
        if values and not isinstance(values[-1], Node) and _same_value(values[-1], text):
            return self, name
        children = [value for values in self._fields.values() for value in values if isinstance(value, Node)]
        return next((found for child in children if (found := child._holder(name, text))), None)

    def scalar(self, name, kind, default=None):
        """The value of the field `name`, or `default` if it is not written.

        Args:
            kind: `bool`, `int`, `float`, `str`, or an enum as a dict `{name: number}` or a sequence of names.
                A float is rounded to float32, as upstream stores it, and returned as the shortest decimal that
                rounds there: 0.9900000095367432 reads as 0.99. An enum's value is returned as its name.
        """
        self._asked[name] = None
        values = self._fields.get(name)
        return self._convert(name, values[-1], kind) if values else default

    def repeated(self, name, kind=None):
        """All values of the field `name` in order, `()` if there is none: of a scalar `kind`, or (None) messages."""
        self._asked[name] = None
        values = self._fields.get(name, ())
        if kind is None:
            return tuple(self._message(name, value) for value in values)
        return tuple(self._convert(name, value, kind) for value in values)

    def message(self, name, required=False):
        """The message `name`; if it is absent, an empty node (`present` is False), or with `required` an error."""
        self._asked[name] = None
        values = self._fields.get(name)
        if not values:
            if required:
                raise self.error(name, "is missing and cannot be omitted")
            return Node(self.source, self.line, self, name, present=False)
        blocks = [self._message(name, value) for value in values]
        if len(blocks) > 1:
            for block in blocks[1:]:
                for field, entries in block._fields.items():
                    blocks[0]._fields.setdefault(field, []).extend(entries)
            self._fields[name] = blocks[:1]
        return blocks[0]

    def oneof(self, *names, required=True):
        """`(name, message)` of the one message among `names` that is written; `(None, None)` if none is.

        Raises `PipelineConfigError` when more than one is written, or (`required`) none: the error names what stands
        there instead and what is supported.
        """
        written = [name for name in names if name in self]
        self._asked.update(dict.fromkeys(names))
        supported = f"supported: {', '.join(names)}"
        if len(written) > 1:
            raise self.error(written[1], f"only one of {', '.join(written)} can be given; {supported}")
        if written:
            return written[0], self.message(written[0])
        if not required:
            return None, None
        written = self.names()
        others = ", ..." if len(written) > 10 else ""
        found = f"found: {', '.join(map(clip, written[:10])) or 'nothing'}{others}"
        raise self.error(None, f"holds none of what is supported ({found}); {supported}")

    def numbers(self):
        """`(message, name, Scalar, number)` of every number in this message and below; none counts as read."""
        pending = [self]
        while pending:
            node = pending.pop()
            for name, values in node._fields.items():
                pending += [value for value in values if isinstance(value, Node)]
                for value in values:
                    number = _to_number(value) if isinstance(value, Scalar) and value.kind != "string" else None
                    if number is not None:
                        yield node, name, value, number

    def ignore(self, *names):
        """Marks these fields and everything below them as read; returns them as a list of `Unread`."""
        found = []
        for name in names:
            self._asked[name] = None
            if name in self:
                self._ignored.add(name)
                found.append(Unread(join(self.path, name), self.line_of(name)))
        return found

    def unread(self):
        """What no reader asked for in this message and below, as a list of `Unread` in the file's order."""
        found = []
        for name, values in self._fields.items():
            for index, value in enumerate(values):
                if name not in self._asked:
                    path = join(self.path, name) + (f"[{index}]" if len(values) > 1 else "")
                    found.append(Unread(path, value.line))
                elif name not in self._ignored and isinstance(value, Node):
                    found.extend(value.unread())
        return sorted(found, key=lambda entry: entry.line)

    def refuse_unread(self):
        """Raises `PipelineConfigError` for the first unread field, naming the fields that its message may have."""
        unread = self.unread()
        if not unread:
            return
        path, line = unread[0]
        owner = self._owner(unread[0])
        more = f" (nor are {len(unread) - 1} more fields)" if len(unread) > 1 else ""
        supported = ", ".join(sorted(owner._asked)) or "none"
        place = owner.path or "the file"
        raise located_error(self.source, line, path, f"is not supported{more}; supported in {place}: {supported}")

    def _owner(self, entry):
        """The message that holds the unread `entry`."""
        for name, values in self._fields.items():
            for value in values:
                if isinstance(value, Node) and name in self._asked and entry in value.unread():
                    return value._owner(entry)
        return self

    def _message(self, name, value):
        if not isinstance(value, Node):
            message = f"found {_show(value)}; supported: a message {{ }}"
            raise located_error(self.source, value.line, join(self.path, name), message)
        return value

    def _convert(self, name, value, kind):
        def refuse(wanted):
            message = f"found {_show(value)}; supported: {wanted}"
            raise located_error(self.source, value.line, join(self.path, name), message)

        if isinstance(value, Node):
            refuse(_wanted(kind))
        if kind is str and value.kind == "string":
            return value.text
        if kind is bool and value.kind != "string" and value.text in _TRUE + _FALSE:
            return value.text in _TRUE
        if kind in (int, float) and value.kind != "string":
            number = _to_int(value) if kind is int else _to_float(value)
            if number is not None:
                return number
        if not isinstance(kind, type):
            return _to_enum(value, kind) or refuse(_wanted(kind))
        return refuse(_wanted(kind))


def located(build):
    """Decorator of a function that builds a part from its first argument, a `Node`.

    What the part refuses (a `ValueError`) is raised as a `PipelineConfigError` with its place in the file.
    """

    @functools.wraps(build)
    def wrapped(node, *args, **kwargs):
        try:
            return build(node, *args, **kwargs)
        except PipelineConfigError:
            raise
        except ValueError as error:
            raise node.refusal(error) from error

    return wrapped


def _same_value(value, text):
    """Whether a written value is the one that an error shows as `text`."""
    try:
        return value.text == text or float(np.float32(value.text)) == float(np.float32(text))
    except ValueError:
        return False


def _to_int(value):
    """An integer of at most 64 bits: decimal, 0x hexadecimal, 0 octal. None if it is none."""
    sign, digits = (-1, value.text[1:]) if value.text.startswith("-") else (1, value.text)
    if digits[:2].lower() == "0x":
        number = int(digits, 16)
    elif not re.fullmatch("[0-9]+", digits):
        return None
    elif len(digits) > 1 and digits[0] == "0":
        if not re.fullmatch("[0-7]+", digits):
            return None
        number = int(digits, 8)
    else:
        number = int(digits)
    return sign * number if -(2**63) <= sign * number < 2**64 else None


def _to_float(value):
    """The shortest decimal of the float32 next to the written number; inf and nan by name. None if it is none."""
    text = value.text.lower()
    if value.kind == "name" or text.lstrip("-").isalpha():
        named = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}.get(text.lstrip("-"))
        return -named if named is not None and text.startswith("-") else named
    if "x" in text:
        return None
    with np.errstate(over="ignore"):
        return float(str(np.float32(text.rstrip("f"))))


def _to_number(value):
    """The number that a field of any type would be; None for a name that is not a number."""
    number = _to_int(value) if value.kind == "number" else None
    return _to_float(value) if number is None else number


def _to_enum(value, kind):
    """The enum's name for a value written as name or number; None if it is not among `kind`."""
    if value.kind == "name" and value.text in kind:
        return value.text
    if value.kind == "number" and isinstance(kind, dict):
        return next((name for name, number in kind.items() if number == _to_int(value)), None)
    return None


def _wanted(kind):
    if isinstance(kind, type):
        return {bool: "true or false", int: "an integer", float: "a number", str: "a string in quotes"}[kind]
    return f"one of {', '.join(kind)}"


def _show(value):
    if isinstance(value, Node):
        return "a message"
    return f"the string {clip(repr(value.text))}" if value.kind == "string" else clip(value.text)


def clip(text):
    """A piece of the file for an error: one line, at most 40 characters, no control characters."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:40])
    return shown + "..." if len(text) > 40 else shown


def join(path, name):
    """A field's place below the message at `path`."""
    return f"{path}.{name}" if path else name


def located_error(source, line, path, message):
    """A `PipelineConfigError` in its one form, a line; `path` may be empty, and a long message is cut."""
    text = " ".join(message.split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return PipelineConfigError(f"{source}:{line}: {_clip_path(path)}{text}")


def _clip_path(path):
    if not path:
        return ""
    return f"{path}: " if len(path) <= 200 else f"...{path[-200:]}: "
