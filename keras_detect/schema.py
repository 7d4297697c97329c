"""The laws of the house: axes, keys and the box convention. Stated here once; every docstring cites them.

Axes
----
``B`` images in a batch, ``A`` anchors, ``M`` padded ground-truth rows, ``P`` proposals, ``D`` detections,
``K`` classes (background is never counted).

Boxes
-----
``[ymin, xmin, ymax, xmax]``, float32, normalised to the *true* image (the picture without padding). A tensor whose
name ends in ``_abs`` is in pixels. Inside a model, anchors and raw boxes are normalised to the *preprocessed* (padded)
image; `postprocess` brings them back to the true image. There is no format argument: readers, evaluation and drawing
convert at the door.

Classes and scores
------------------
Class labels are integers in ``[0, K)``; padded rows carry `PADDING_LABEL`. Scores only order detections.

Input ``x``
-----------
``images [B, H, W, 3]`` uint8 or float in 0...255, or the dict ``{"images", "true_image_shapes" [B, 3] int32}`` when
pictures of different size share a batch padded at the right and the bottom.

Truth ``y``
-----------
``{"boxes" [B, M, 4], "labels" [B, M] int32}``; optional ``"weights" [B, M]``, ``"is_crowd" [B, M]``. ``"classes"``
(KerasCV's name) is accepted for ``"labels"`` at the door.

Detections
----------
``{"boxes" [B, D, 4], "scores" [B, D], "labels" [B, D] int32, "num_detections" [B] int32}``; rows past
``num_detections`` are zeros with label `PADDING_LABEL`.

Proposals
---------
``[B, P, 4]`` with ``num_proposals [B]``, normalised to the preprocessed image; rows past the count are zeros.
"""

PADDING_LABEL = -1

# x
IMAGES = "images"
TRUE_IMAGE_SHAPES = "true_image_shapes"

# y and detections
BOXES = "boxes"
LABELS = "labels"
CLASSES = "classes"  # KerasCV's synonym of LABELS, accepted at the door only
WEIGHTS = "weights"
IS_CROWD = "is_crowd"
SCORES = "scores"
NUM_DETECTIONS = "num_detections"

# raw predictions
BOX_ENCODINGS = "box_encodings"
CLASS_LOGITS = "class_logits"
ANCHORS = "anchors"
IMAGE_SHAPE = "image_shape"

# raw predictions of a two-stage model's first stage
RPN_BOX_ENCODINGS = "rpn_box_encodings"
RPN_OBJECTNESS = "rpn_objectness"
PROPOSALS = "proposals"
NUM_PROPOSALS = "num_proposals"
FEATURES_TO_CROP = "features_to_crop"
