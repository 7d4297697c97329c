"""As much of YAML as a `data.yaml` uses: keys with scalars, lists or mappings, one level deep. No library is needed."""

import re

_MAX_LENGTH = 4 * 2**20
_PIECE = re.compile(r""",|[^,"']+|"(?:[^"\\]|\\.)*"|'[^']*'""")


def parse_yaml(text):
    """A dict of the top-level keys: str, int, float, bool or None, a list of them, or a dict of them.

    Raises:
        ValueError: anything else of YAML; the message names the line.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"{len(text)} characters are more than {_MAX_LENGTH}")
    content, key = {}, None
    lines = enumerate(text.replace("\ufeff", "").splitlines(), start=1)
    for number, line in lines:
        line = _without_comment(line)
        if not line.strip() or line.strip() in ("---", "..."):
            continue
        try:
            item = re.match(r"\s*-\s+(.*)|\s*-$", line)
            if item and key is not None:
                content[key] = content[key] if isinstance(content[key], list) else []
                content[key].append(_scalar(item[1] or ""))
            elif line[0].isspace() and key is not None:
                name, value = _pair(line)
                content[key] = content[key] if isinstance(content[key], dict) else {}
                content[key][name] = _scalar(value)
            else:
                key, value = _pair(line)
                content[key] = _value(_to_the_bracket(value, lines))
        except (ValueError, StopIteration):
            raise ValueError(f"line {number}: {line.strip()[:60]!r} is not understood") from None
    return content


def _to_the_bracket(value, lines):
    """The value with the lines that follow, as many as a list in brackets goes on over."""
    if value[:1] not in ("[", "{"):
        return value
    opening, closing = value[0], "]" if value[0] == "[" else "}"
    parts, depth = [value], value.count(value[0]) - value.count(closing)
    while depth > 0:
        parts.append(_without_comment(next(lines)[1]).strip())
        depth += parts[-1].count(opening) - parts[-1].count(closing)
    return " ".join(parts)


def _without_comment(line):
    """The line up to a `#` that stands outside quotes, at the start or after a space."""
    quote = None
    for position, letter in enumerate(line):
        if quote:
            quote = None if letter == quote and line[position - 1] != "\\" else quote
        elif letter in "\"'" and (position == 0 or line[position - 1] in " [{,:-"):
            quote = letter
        elif letter == "#" and (position == 0 or line[position - 1].isspace()):
            return line[:position].rstrip()
    return line.rstrip()


def _pair(text):
    match = re.match(r"""\s*("(?:[^"\\]|\\.)*"\s*|'[^']*'\s*|[^\s:\[\]{}"'][^:]*):(?:\s+(.*)|)$""", text)
    if not match:
        raise ValueError
    key = match[1].rstrip()
    return str(_scalar(key)) if key[0] in "\"'" else key, (match[2] or "").strip()


def _value(text):
    if text[:1] == "[" and text[-1:] == "]":
        return [_scalar(part) for part in _split(text[1:-1])]
    if text[:1] == "{" and text[-1:] == "}":
        return {name: _scalar(value) for name, value in (_pair(part) for part in _split(text[1:-1]))}
    return _scalar(text)


def _split(text):
    """The parts between commas outside quotes. Raises `ValueError` for a quote that stays open."""
    parts, position = [""], 0
    while position < len(text):
        match = _PIECE.match(text, position)
        if match is None:
            raise ValueError
        position = match.end()
        if match.group() == ",":
            parts.append("")
        else:
            parts[-1] += match.group()
    return [part.strip() for part in parts if part.strip()]


def _scalar(text):
    text = text.strip()
    if text[:1] in "\"'" and text[:1]:
        if len(text) < 2 or text[-1] != text[0]:
            raise ValueError
        if text[0] == "'":
            return text[1:-1].replace("''", "'")
        return re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text[1:-1])
    if text[:1] in tuple("[{&*!|>%@`"):
        raise ValueError
    if text in ("", "~", "null"):
        return None
    if re.fullmatch(r"[-+]?\d{1,18}", text):
        return int(text)
    return text
