"""What a LiteRT file says about itself in the metadata that MediaPipe Tasks and LiteRT's code generators read.

A FlatBuffer of the TFLite metadata schema ("M001") is in the file as the entry `TFLITE_METADATA`; the label file is
appended as a zip archive, so that `unzip` opens it too.
"""

import io
import zipfile
from collections.abc import Sequence
from typing import Any

ENTRY = "TFLITE_METADATA"
LABELS = "labels.txt"
_IDENTIFIER = b"M001"
_VERSION = "1.0.0"  # of the schema that a reader must know
_TENSOR_VALUE_LABELS, _RGB, _BOUNDARIES = 3, 1, 1  # AssociatedFileType, ColorSpaceType, BoundingBoxType
_NORMALIZATION, _THRESHOLD, _IMAGE, _BOX = 1, 3, 2, 3  # members of the unions ProcessUnitOptions, ContentProperties
_CORNERS = (1, 0, 3, 2)  # where left, top, right and bottom are in a box
_ITEM_BYTES = 4  # of a vector's items: Float32, Uint32 or offsets
_ENTRY_TIME = (1980, 1, 1, 0, 0, 0)  # of the label file in the archive, always the same: files stay reproducible


class Table(dict):
    """A table of a FlatBuffer: `{number of the field in the schema: value}`.

    A value is a text, a `Table`, a list of texts or of `Table`s, or a pair of a flatbuffers type ("Float32") and a
    number or a list of numbers.
    """


def detector_metadata(
    name: str,
    description: str,
    *,
    mean: float,
    std: float,
    class_names: Sequence[str] | None,
    score_threshold: float,
) -> bytes:
    """Metadata of a file with upstream's input and outputs.

    Args:
        name: of the model.
        description: one line.
        mean: of the pixels 0...255: the input is `(pixel - mean) / std`.
        std: see `mean`.
        class_names: where given, the file has a label file `LABELS`.
        score_threshold: below which clients report nothing by default.
    """
    image = Table({0: ("Int8", _RGB)})
    normalization = Table({0: ("Float32", [mean]), 1: ("Float32", [std])})
    edges = [("Float32", [(side - mean) / std]) for side in (255.0, 0.0)]
    image_input = Table(
        {
            0: "image",
            1: "RGB pixels (value - mean) / std, resized to the input's size.",
            3: Table({0: ("Uint8", _IMAGE), 1: image}),
            4: [Table({0: ("Uint8", _NORMALIZATION), 1: normalization})],
            5: Table({0: edges[0], 1: edges[1]}),
        }
    )
    subgraph = Table(
        {
            2: [image_input],
            3: _outputs(class_names, score_threshold),
            8: [Table({0: "detection_result", 1: ["location", "category", "score"]})],
        }
    )
    return _bytes(Table({0: name, 1: description, 3: [subgraph], 7: _VERSION}))


def _outputs(class_names, score_threshold):
    """Metadata of location, category, score and number of detections."""
    corners = Table({0: ("Uint32", list(_CORNERS)), 1: ("Int8", _BOUNDARIES)})
    per_detection = Table({0: ("Int32", 2), 1: ("Int32", 2)})
    labels = Table({0: LABELS, 1: "One class name per line.", 2: ("Int8", _TENSOR_VALUE_LABELS)})
    category = {0: "category", 1: "Class of each box, from 0.", 3: Table({2: per_detection})}
    if class_names:
        category[6] = [labels]
    threshold = Table({0: ("Float32", score_threshold)})
    return [
        Table(
            {
                0: "location",
                1: "Boxes [ymin, xmin, ymax, xmax], normalized to the image, not clipped.",
                3: Table({0: ("Uint8", _BOX), 1: corners, 2: per_detection}),
            }
        ),
        Table(category),
        Table(
            {
                0: "score",
                1: "Score of each box.",
                3: Table({2: per_detection}),
                4: [Table({0: ("Uint8", _THRESHOLD), 1: threshold})],
            }
        ),
        Table({0: "number of detections", 1: "How many boxes there are."}),
    ]


def with_labels(content: bytes, class_names: Sequence[str] | None) -> bytes:
    """A LiteRT file with the label file behind it; without class names as it is."""
    if not class_names:
        return content
    text = "".join(f"{' '.join(name.splitlines())}\n" for name in class_names)
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, _ENTRY_TIME), text.encode())
    return stream.getvalue()


def _bytes(table: Table) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(_written(builder, table), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _written(builder, table):
    """The offset of a table that is written, after all it holds."""
    scalars = {field: value for field, value in table.items() if _is_scalar(value)}
    offsets = {field: _offset(builder, value) for field, value in table.items() if field not in scalars}
    builder.StartObject(max(table) + 1)
    for field, (kind, number) in scalars.items():
        getattr(builder, f"Prepend{kind}Slot")(field, number, 0)
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    return builder.EndObject()


def _is_scalar(value: Any) -> bool:
    return isinstance(value, tuple) and not isinstance(value[1], list)


def _offset(builder, value):
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Table):
        return _written(builder, value)
    if isinstance(value, tuple):
        kind, numbers = value
        prepend = getattr(builder, f"Prepend{kind}")
    else:
        numbers = [_offset(builder, item) for item in value]
        prepend = builder.PrependUOffsetTRelative
    builder.StartVector(_ITEM_BYTES, len(numbers), _ITEM_BYTES)
    for number in reversed(numbers):
        prepend(number)
    return builder.EndVector()
