"""Seeded damage of model files: of their bytes, and of the values in their JSON."""

import copy
import io
import json
import math
import zipfile

VALUES = (
    None,
    True,
    0,
    -1,
    10**9,
    10**400,
    0.5,
    -1e308,
    math.nan,
    math.inf,
    "",
    "x",
    "sgd",
    "../..",
    [],
    [0],
    [[]],
    {},
)


def damaged_bytes(generator, content):
    """`content` with a flipped bit, another piece, or less of it."""
    content = bytearray(content)
    kind, place = (
        generator.choice(["flip", "flip", "flip", "cut", "zeros", "drop", "swap"]),
        generator.randrange(len(content)),
    )
    if kind == "flip":
        content[place] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "zeros":
        content[place : place + 100] = bytes(len(content[place : place + 100]))
    elif kind == "drop":
        del content[place : place + generator.randint(1, 50)]
    else:
        other = generator.randrange(len(content))
        content[place], content[other] = content[other], content[place]
    return bytes(content)


def damaged_json(generator, content):
    """A copy of a JSON value in which one place was replaced, dropped, renamed or wrapped."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    owner, key = generator.choice(places)
    kind = generator.choice(["value", "value", "value", "drop", "rename", "wrap", "swap"])
    if kind == "value":
        owner[key] = generator.choice(VALUES)
    elif kind == "drop":
        del owner[key]
    elif kind == "rename" and isinstance(owner, dict):
        owner[f"{key}_"] = owner.pop(key)
    elif kind == "wrap":
        for _ in range(generator.choice([1, 3, 300])):
            owner[key] = [owner[key]] if generator.random() < 0.5 else {"layer": owner[key]}
    else:
        other, other_key = generator.choice(places)
        owner[key] = copy.deepcopy(other[other_key]) if other is not owner else 7
    return content


def _places(value):
    """`(container, key)` of every value inside `value`."""
    entries = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in entries:
        yield value, key
        yield from _places(inner)


def with_member(archive, name, content):
    """The bytes of a zip archive with another content of the member `name`; None drops it."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(result, "w") as after:
        for member in before.namelist():
            if member != name:
                after.writestr(member, before.read(member))
        if content is not None:
            after.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return result.getvalue()
