"""The conventions of the package, and the tables of what belongs to an object and to an image. Cited everywhere else.

Axes
----
``B`` images in a batch, ``H`` and ``W`` their height and width, ``A`` anchors, ``M`` padded ground-truth rows, ``P``
proposals, ``Q`` queries, ``D`` detections, ``K`` classes (background is never counted), ``N`` keypoints.

Boxes
-----
``[ymin, xmin, ymax, xmax]``, float32, normalized to the *true* image (without padding). A tensor whose name ends in
``_abs`` is in pixels. Inside a model, anchors and raw boxes are normalized to the *preprocessed* (padded) image;
`postprocess` brings them back to the true image. There is no format argument: readers, evaluation and drawing convert.

Classes and scores
------------------
Labels are integers in ``[0, K)``; padded rows carry `PADDING_LABEL`. Scores only order detections.

Input ``x``
-----------
``images [B, H, W, 3]`` uint8 or float in 0...255, or the dict ``{"images", "true_image_shapes" [B, 3] int32}`` when
images of different size share a batch padded at the right and the bottom. Further per-image inputs are rows of the
table `image_fields`.

Ground truth ``y``
------------------
A dict of rows of the table `object_fields`: ``{"boxes" [B, M, 4], "labels" [B, M] int32}`` and any of the others, such
as ``"weights" [B, M]``, ``"is_crowd" [B, M]``, ``"masks" [B, M, H, W]``. ``"classes"`` (KerasCV's name) is accepted for
``"labels"``.

Detections
----------
A dict of rows of the same table: ``{"boxes" [B, D, 4], "scores" [B, D], "labels" [B, D] int32}`` and any of the others,
with ``"num_detections" [B] int32``; rows past it hold each field's padding: zeros, and label `PADDING_LABEL`. A raster
of a detection lies over its box and not over the image: ``"masks" [B, D, h, w]`` float32 in 0...1, whose outermost
cells' centers are on the edges of the box; from 0.5 on a pixel belongs to the object (`keras_detect.masks.paste`).

Proposals
---------
``[B, P, 4]`` with ``num_proposals [B]``, normalized to the preprocessed image; rows past the count are zeros.
"""

import collections
import collections.abc
import dataclasses
import re
from typing import Any

PADDING_LABEL = -1

# x
IMAGES = "images"
TRUE_IMAGE_SHAPES = "true_image_shapes"
RESIZED_IMAGE_SHAPES = "resized_image_shapes"

# y and detections
BOXES = "boxes"
LABELS = "labels"
CLASSES = "classes"  # KerasCV's synonym of LABELS, accepted in y
SCORES = "scores"
WEIGHTS = "weights"
IS_CROWD = "is_crowd"
IS_DIFFICULT = "is_difficult"
IS_GROUP_OF = "is_group_of"
AREAS = "areas"
MASKS = "masks"
KEYPOINTS = "keypoints"
KEYPOINT_VISIBILITY = "keypoint_visibility"
KEYPOINT_SCORES = "keypoint_scores"
TRACK_IDS = "track_ids"
NUM_DETECTIONS = "num_detections"
IMAGE_SIZE = "image_size"
VERIFIED_LABELS = "verified_labels"

# raw predictions
BOX_ENCODINGS = "box_encodings"
CLASS_LOGITS = "class_logits"
ANCHORS = "anchors"
ANCHOR_LEVELS = "anchor_levels"  # [A] int32, the feature map of each anchor, where post-processing expects it
IMAGE_SHAPE = "image_shape"

# raw predictions of a two-stage model's first stage
RPN_BOX_ENCODINGS = "rpn_box_encodings"
RPN_OBJECTNESS = "rpn_objectness"
PROPOSALS = "proposals"
NUM_PROPOSALS = "num_proposals"
FEATURES_TO_CROP = "features_to_crop"
ROI_FEATURES = "roi_features"  # [B, P, h, w, D], what the box classifier sees of each proposal
RASTER_WINDOWS = "raster_windows"  # [B, 4], the true image in the rasters of y, where those have another frame

# where a field occurs
GROUND_TRUTH = "ground truth"
DETECTIONS = "detections"
BOTH = "both"
INPUT = "input"
EXAMPLE = "example"

# how a per-object field moves with the image
AS_BOX = "box"  # [ymin, xmin, ymax, xmax], normalized to the image
AS_POINTS = "points"  # [..., 2], (y, x), normalized to the image
AS_RASTER = "raster"  # [H, W], one value per pixel of the image
FIXED = "fixed"  # not at all
OF_STORED_IMAGE = "stored image"  # says something about the image as stored only: augmentation leaves it out


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectField:
    """One row of the table of per-object fields.

    Attributes:
        key: name in examples, `y` and detections, a plural ("boxes").
        singular: name of one object's value in annotation files and in detections.json ("box").
        shape: sizes behind the object axis: ints, or one of the letters "N", "H", "W" (see "Axes") or any other letter.
            An axis with a letter is padded to the largest of a data set; "H" and "W" are those of the image.
        dtype: name of the dtype.
        padding: value of a padding row.
        default: value of an object about which the annotation says nothing while it does about others; None: the
            field takes part only where every object of a data set has it.
        occurs: `GROUND_TRUTH`, `DETECTIONS` or `BOTH`.
        moves: how it moves with the image: `AS_BOX`, `AS_POINTS`, `AS_RASTER`, `FIXED` or `OF_STORED_IMAGE`.
        visibility: key of the field that says which points of an `AS_POINTS` field are visible (0: not annotated, or
            outside of the image), or None.
    """

    key: str
    singular: str
    shape: tuple = ()
    dtype: str = "float32"
    padding: Any = 0
    default: Any = None
    occurs: str = BOTH
    moves: str = FIXED
    visibility: str | None = None

    def __post_init__(self):
        if self.occurs not in (GROUND_TRUTH, DETECTIONS, BOTH):
            raise ValueError(
                f"occurs is schema.GROUND_TRUTH, schema.DETECTIONS or schema.BOTH. Received: {self.occurs!r}"
            )
        ends = {AS_BOX: (4,), AS_POINTS: (2,), AS_RASTER: ("H", "W"), FIXED: (), OF_STORED_IMAGE: ()}
        if self.moves not in ends:
            raise ValueError(f"moves must be one of {', '.join(map(repr, ends))}. Received: {self.moves!r}")
        end = ends[self.moves]
        if tuple(self.shape[len(self.shape) - len(end) :]) != end:
            raise ValueError(
                f"A field that moves as {self.moves} has a shape that ends in {end}. Received: {self.shape}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageField:
    """One row of the table of per-image inputs and entries.

    Attributes:
        key: its name.
        shape: sizes behind the batch axis; an axis with a letter is padded to the largest of a data set ("H" and "W"
            to the size of the batch).
        dtype: name of the dtype.
        padding: value that fills axes up.
        occurs: `INPUT` (x), `GROUND_TRUTH` (y), `DETECTIONS`, or `EXAMPLE` (of single examples, not in batches).
        annotated: whether data sets carry it from annotation to batches; the others are made by pipeline or model.
    """

    key: str
    shape: tuple = ()
    dtype: str = "float32"
    padding: Any = 0
    occurs: str = INPUT
    annotated: bool = False

    def __post_init__(self):
        if self.occurs not in (INPUT, GROUND_TRUTH, DETECTIONS, EXAMPLE):
            raise ValueError(
                "occurs is schema.INPUT, schema.GROUND_TRUTH, schema.DETECTIONS or schema.EXAMPLE. "
                f"Received: {self.occurs!r}"
            )


_OBJECT_FIELDS: dict[str, ObjectField] = {}
_IMAGE_FIELDS: dict[str, ImageField] = {}


def object_fields(occurs: str = BOTH) -> tuple[ObjectField, ...]:
    """The rows of the table of per-object fields, those of ground truth, of detections, or all."""
    fields = tuple(_OBJECT_FIELDS.values())
    return fields if occurs == BOTH else tuple(field for field in fields if field.occurs in (occurs, BOTH))


def image_fields(occurs: str | None = None) -> tuple[ImageField, ...]:
    """The rows of the table of per-image inputs and entries: those of one place, or all."""
    return tuple(field for field in _IMAGE_FIELDS.values() if occurs is None or field.occurs == occurs)


def register_object_field(field: ObjectField) -> ObjectField:
    """Adds a row to the table of per-object fields; every reader, batch, model output, file and drawing then has it.

    Raises:
        ValueError: the key or the singular is already used by another row.
    """
    _check_free(field, _OBJECT_FIELDS)
    names = {other.singular: other.key for other in _OBJECT_FIELDS.values() if other.key != field.key}
    if field.singular in names:
        raise ValueError(
            f"singular={field.singular!r} is already used by the field {names[field.singular]!r}. Choose another."
        )
    _OBJECT_FIELDS[field.key] = field
    return field


def register_image_field(field: ImageField) -> ImageField:
    """Adds a row to the table of per-image inputs and entries. Raises `ValueError` if the key is taken."""
    _check_free(field, _IMAGE_FIELDS)
    _IMAGE_FIELDS[field.key] = field
    return field


def _check_free(field, table):
    taken = (_OBJECT_FIELDS | _IMAGE_FIELDS).get(field.key)
    if taken is not None and taken != field:
        raise ValueError(f"The key {field.key!r} is already used by {taken}. Choose another. Received: {field}")


for _field in (
    ObjectField(key=BOXES, singular="box", shape=(4,), moves=AS_BOX),
    ObjectField(key=LABELS, singular="label", dtype="int32", padding=PADDING_LABEL),
    ObjectField(key=SCORES, singular="score", occurs=DETECTIONS),
    ObjectField(key=WEIGHTS, singular="weight", default=1.0, occurs=GROUND_TRUTH),
    ObjectField(key=IS_CROWD, singular="is_crowd", dtype="bool", padding=False, default=False, occurs=GROUND_TRUTH),
    ObjectField(
        key=IS_DIFFICULT, singular="difficult", dtype="bool", padding=False, default=False, occurs=GROUND_TRUTH
    ),
    ObjectField(key=IS_GROUP_OF, singular="group_of", dtype="bool", padding=False, default=False, occurs=GROUND_TRUTH),
    ObjectField(key=AREAS, singular="area", occurs=GROUND_TRUTH, moves=OF_STORED_IMAGE),
    ObjectField(key=MASKS, singular="mask", shape=("H", "W"), dtype="uint8", default=0, moves=AS_RASTER),
    ObjectField(key="mask_weights", singular="mask_weight", default=1.0, occurs=GROUND_TRUTH),
    ObjectField(
        key=KEYPOINTS,
        singular="keypoints",
        shape=("N", 2),
        default=float("nan"),
        moves=AS_POINTS,
        visibility=KEYPOINT_VISIBILITY,
    ),
    ObjectField(
        key=KEYPOINT_VISIBILITY,
        singular="keypoint_visibility",
        shape=("N",),
        dtype="int32",
        default=0,
        occurs=GROUND_TRUTH,
    ),
    ObjectField(key=KEYPOINT_SCORES, singular="keypoint_scores", shape=("N",), occurs=DETECTIONS),
    ObjectField(key=TRACK_IDS, singular="track_id", dtype="int32", padding=-1, default=-1),
):
    register_object_field(_field)

for _image_field in (
    ImageField(key=IMAGES, shape=("H", "W", 3), dtype="uint8"),
    ImageField(key=TRUE_IMAGE_SHAPES, shape=(3,), dtype="int32"),
    ImageField(key=RESIZED_IMAGE_SHAPES, shape=(3,), dtype="int32"),  # of images that need no further resizing
    ImageField(key="context_features", shape=("C", "F"), annotated=True),
    ImageField(key="given_boxes", shape=("G", 4), annotated=True),
    ImageField(key=IMAGE_SIZE, shape=(2,), dtype="int32", occurs=GROUND_TRUTH),  # height and width as stored, in pixels
    ImageField(
        key="image_labels", shape=("L",), dtype="int32", padding=PADDING_LABEL, occurs=GROUND_TRUTH, annotated=True
    ),
    ImageField(
        key=VERIFIED_LABELS, shape=("V",), dtype="int32", padding=PADDING_LABEL, occurs=GROUND_TRUTH, annotated=True
    ),
    ImageField(key=NUM_DETECTIONS, dtype="int32", occurs=DETECTIONS),
    ImageField(key="image_id", dtype="object", occurs=EXAMPLE),
    ImageField(key="file_name", dtype="object", occurs=EXAMPLE),
):
    register_image_field(_image_field)


# Control characters, and halves of a character as damaged JSON can hold them: not every file takes them.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def check_class_names(class_names: Any, num_classes: int | None = None) -> tuple[str, ...]:
    """The class names as a tuple of K different strings.

    Args:
        class_names: sequence of names, in label order.
        num_classes: K, or None for as many as there are names.

    Raises:
        ValueError: one string, a mapping or a set instead of a sequence; a repeated name; a name that files cannot
            hold; another number of names than `num_classes`.
    """
    if isinstance(class_names, str | bytes):
        raise ValueError(
            f"class_names is a list of names. Received one text: {class_names!r}. For one class pass [{class_names!r}]."
        )
    if isinstance(class_names, collections.abc.Mapping | collections.abc.Set):
        raise ValueError(
            f"class_names is a list of names, in label order. Received a {type(class_names).__name__}: "
            f"{ascii(class_names)[:100]}. Pass the names alone, sorted by label."
        )
    try:
        names = tuple(str(name) for name in class_names)
    except TypeError:
        raise ValueError(f"class_names is a list of names. Received: {class_names!r}") from None
    unwritable = [name for name in names if _UNWRITABLE.search(name)]
    if unwritable:
        raise ValueError(f"Class names are text that can be written. Received: {ascii(unwritable[0])[:100]}")
    repeated = sorted(name for name, count in collections.Counter(names).items() if count > 1)
    if repeated:
        more = f", ... ({len(repeated)})" if len(repeated) > 6 else ""
        listed = ", ".join(repeated[:6])
        raise ValueError(f"Class names must differ from one another. Received repeated: {listed}{more}")
    if num_classes is not None and len(names) != num_classes:
        raise ValueError(
            f"class_names must name each of the {num_classes} classes. Received {len(names)}: {list(names[:5])}. "
            f"Pass num_classes={len(names)} or the matching names."
        )
    return names
