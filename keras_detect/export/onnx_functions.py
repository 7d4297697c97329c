"""Two operations of detectors as ONNX functions: greedy suppression of all classes, and crops of feature maps.

They are written in ONNX's own text form. `onnx_graph` puts calls of them into a model and replaces the calls by the
nodes that they stand for, so that a file holds operators of the standard alone.
"""

DOMAIN = "keras_detect"
OPSET = 17  # of the standard's operators

# What `boxes.nms_greedy` computes. A pair of anchor and class has the number anchor * groups + class. The best
# `pool_size` pairs are settled first; where they do not yield `limit` detections, all pairs are.
_SUPPRESS = """
<opset_import: ["" : 17], domain: "keras_detect">
suppress (boxes, scores, reported, iou_threshold, score_threshold, cap, limit, pool_size) => (best_scores, best_pairs)
{
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    last = Constant <value = int64[1] {-1}> ()
    rows = Constant <value = int64[2] {0, -1}> ()
    box_rows = Constant <value = int64[3] {0, -1, 4}> ()
    column = Constant <value = int64[3] {1, -1, 1}> ()
    none = Constant <value = float {0.0}> ()
    never = Constant <value = float {-inf}> ()
    zero_scalar = Squeeze (zero)
    one_scalar = Squeeze (one)

    batch = Shape <start = 0, end = 1> (scores)
    anchors = Shape <start = 1, end = 2> (scores)
    groups = Shape <start = 2, end = 3> (scores)
    per_anchor = Shape <start = 2, end = 3> (boxes)
    last_box = Sub (per_anchor, one)
    pairs = Mul (anchors, groups)
    flat_boxes = Reshape (boxes, box_rows)
    flat_reported = Reshape (reported, rows)

    best_of_anchor = ReduceMax <axes = [2], keepdims = 0> (scores)
    num_best = Min (anchors, pool_size)
    best_values, best_anchors = TopK (best_of_anchor, num_best)
    in_order, order_of_best = TopK <largest = 0> (best_anchors, num_best)
    in_order_column = Unsqueeze (in_order, last)
    their_scores = GatherND <batch_dims = 1> (scores, in_order_column)
    flat_scores = Reshape (their_scores, rows)
    num_theirs = Mul (num_best, groups)
    size = Min (num_theirs, pool_size)
    pool_scores, pool_flat = TopK (flat_scores, size)
    pool_row = Div (pool_flat, groups)
    pool_row_start = Mul (pool_row, groups)
    pool_group = Sub (pool_flat, pool_row_start)
    pool_anchor = GatherElements <axis = 1> (in_order, pool_row)
    pool_first = Mul (pool_anchor, groups)
    pool_pair = Add (pool_first, pool_group)
    pool_box_first = Mul (pool_anchor, per_anchor)
    pool_box_group = Min (pool_group, last_box)
    pool_box = Add (pool_box_first, pool_box_group)
    pool_box_column = Unsqueeze (pool_box, last)
    pool_boxes = GatherND <batch_dims = 1> (flat_boxes, pool_box_column)
    pool_reported = GatherElements <axis = 1> (flat_reported, pool_box)

    groups_scalar = Squeeze (groups)
    all_groups = Range (zero_scalar, groups_scalar, one_scalar)
    all_groups_column = Reshape (all_groups, column)
    group_row = Unsqueeze (pool_group, one)
    score_row = Unsqueeze (pool_scores, one)
    is_group = Equal (group_row, all_groups_column)
    scores_of_group = Where (is_group, score_row, never)
    selected = NonMaxSuppression (pool_boxes, scores_of_group, cap, iou_threshold, score_threshold)
    image_and_row = Constant <value = int64[2] {0, 2}> ()
    kept_at = Gather <axis = 1> (selected, image_and_row)
    pool_shape = Shape (pool_scores)
    nothing_kept = ConstantOfShape <value = float[1] {0.0}> (pool_shape)
    num_selected = Shape <start = 0, end = 1> (kept_at)
    ones = ConstantOfShape <value = float[1] {1.0}> (num_selected)
    keep = ScatterND (nothing_kept, kept_at, ones)
    is_kept = Cast <to = 9> (keep)
    is_shown = And (is_kept, pool_reported)
    size_scalar = Squeeze (size)
    rising = Range (zero_scalar, size_scalar, one_scalar)
    falling = Sub (size, rising)
    falling_float = Cast <to = 1> (falling)
    value_of_row = Where (is_shown, falling_float, none)
    padding_shape = Concat <axis = 0> (batch, limit)
    padding = ConstantOfShape <value = float[1] {0.0}> (padding_shape)
    padded_value = Concat <axis = 1> (value_of_row, padding)
    rank, order = TopK (padded_value, limit)
    found = Greater (rank, none)
    last_row = Sub (size, one)
    row = Min (order, last_row)
    row_scores = GatherElements <axis = 1> (pool_scores, row)
    row_pairs = GatherElements <axis = 1> (pool_pair, row)
    first_scores = Where (found, row_scores, never)
    first_pairs = Where (found, row_pairs, zero)

    found_int = Cast <to = 7> (found)
    num_found = ReduceSum (found_int, one)
    enough = Equal (num_found, limit)
    last_score = Slice (pool_scores, last_row, size, one)
    exhausted = Equal (last_score, never)
    keep_int = Cast <to = 7> (keep)
    num_kept = ReduceSum (keep_int, one)
    room = Mul (groups, cap)
    full = Equal (num_kept, room)
    whole = Equal (size, pairs)
    enough_or_exhausted = Or (enough, exhausted)
    full_or_whole = Or (full, whole)
    done = Or (enough_or_exhausted, full_or_whole)
    done_int = Cast <to = 6> (done)
    all_done_int = ReduceMin <keepdims = 0> (done_int)
    all_done = Cast <to = 9> (all_done_int)
    best_scores, best_pairs = If (all_done) <
        then_branch = of_pool () => (float[B, D] scores_of_pool, int64[B, D] pairs_of_pool) {
            scores_of_pool = Identity (first_scores)
            pairs_of_pool = Identity (first_pairs)
        },
        else_branch = of_all () => (float[B, D] scores_of_all, int64[B, D] pairs_of_all) {
            images = Mul (batch, per_anchor)
            four = Constant <value = int64[1] {4}> ()
            boxes_shape = Concat <axis = 0> (images, anchors, four)
            scores_shape = Concat <axis = 0> (images, last, anchors)
            boxes_by_class = Transpose <perm = [0, 2, 1, 3]> (boxes)
            scores_by_class = Transpose <perm = [0, 2, 1]> (scores)
            reshaped_boxes = Reshape (boxes_by_class, boxes_shape)
            as_they_are_but_4 = Constant <value = int64[3] {0, 0, 4}> ()
            all_boxes = Reshape (reshaped_boxes, as_they_are_but_4)
            all_scores = Reshape (scores_by_class, scores_shape)
            all_selected = NonMaxSuppression (all_boxes, all_scores, cap, iou_threshold, score_threshold)
            two = Constant <value = int64[1] {2}> ()
            image_and_class = Gather <axis = 1> (all_selected, zero)
            class = Gather <axis = 1> (all_selected, one)
            anchor = Gather <axis = 1> (all_selected, two)
            image = Div (image_and_class, per_anchor)
            image_start = Mul (image, per_anchor)
            class_of_image = Sub (image_and_class, image_start)
            group = Add (class_of_image, class)
            anchor_start = Mul (anchor, groups)
            pair = Add (anchor_start, group)
            score_at = Concat <axis = 1> (image, anchor, group)
            score = GatherND (scores, score_at)
            box_start = Mul (anchor, per_anchor)
            box_group = Min (group, last_box)
            box = Add (box_start, box_group)
            box_at = Concat <axis = 1> (image, box)
            is_reported = GatherND (flat_reported, box_at)
            shown_score = Where (is_reported, score, never)
            width = Add (pairs, limit)
            empty_shape = Concat <axis = 0> (batch, width)
            empty = ConstantOfShape <value = float[1] {-inf}> (empty_shape)
            pair_at = Concat <axis = 1> (image, pair)
            filled = ScatterND (empty, pair_at, shown_score)
            scores_of_all, order_of_all = TopK (filled, limit)
            last_pair = Sub (pairs, one)
            pairs_of_all = Min (order_of_all, last_pair)
        }
    >
}
"""

# TensorFlow's CropAndResize: n samples from edge to edge of a box. RoiAlign samples the middle of n bins, so that the
# box grows by half a step on each side; its pixels begin half a pixel earlier.
_CROP_AND_RESIZE = """
<opset_import: ["" : 17], domain: "keras_detect">
crop_and_resize <height, width> (features, boxes, images, size) => (crops)
{
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    two = Constant <value = int64[1] {2}> ()
    four = Constant <value = int64[1] {4}> ()
    half = Constant <value = float {0.5}> ()
    unit = Constant <value = float {1.0}> ()
    x_before_y = Constant <value = int64[4] {1, 0, 3, 2}> ()
    features_shape = Shape <start = 1, end = 3> (features)
    features_size = Cast <to = 1> (features_shape)
    last = Sub (features_size, unit)
    low = Slice (boxes, zero, two, one)
    high = Slice (boxes, two, four, one)
    extent = Sub (high, low)
    extent_in_pixels = Mul (extent, last)
    count = Cast <to = 1> (size)
    gaps = Sub (count, unit)
    safe_gaps = Max (gaps, unit)
    step_of_many = Div (extent_in_pixels, safe_gaps)
    is_one = Less (gaps, half)
    sum = Add (low, high)
    middle = Mul (sum, half)
    start = Where (is_one, middle, low)
    first = Mul (start, last)
    half_step = Mul (step_of_many, half)
    half_pixel_later = Add (first, half)
    begin = Sub (half_pixel_later, half_step)
    reach = Mul (step_of_many, count)
    end = Add (begin, reach)
    rois_of_many = Concat <axis = 1> (begin, end)
    rois_of_one = Concat <axis = 1> (half_pixel_later, half_pixel_later)
    one_twice = Concat <axis = 0> (is_one, is_one)
    rois_yx = Where (one_twice, rois_of_one, rois_of_many)
    rois = Gather <axis = 1> (rois_yx, x_before_y)
    images_int64 = Cast <to = 7> (images)
    channels_first = Transpose <perm = [0, 3, 1, 2]> (features)
    aligned = RoiAlign <coordinate_transformation_mode = "half_pixel", mode = "avg", sampling_ratio = 1,
        spatial_scale = 1.0, output_height: int = @height, output_width: int = @width>
        (channels_first, rois, images_int64)
    crops = Transpose <perm = [0, 2, 3, 1]> (aligned)
}
"""

# 1 where the samples of `crop_and_resize` lie inside the features, else 0, with TensorFlow's rounding.
_INSIDE = """
<opset_import: ["" : 17], domain: "keras_detect">
inside (features, boxes, size) => (mask)
{
    axes = Constant <value = int64[1] {1}> ()
    last_axis = Constant <value = int64[1] {-1}> ()
    unit = Constant <value = float {1.0}> ()
    features_shape = Shape <start = 1, end = 3> (features)
    features_size = Cast <to = 1> (features_shape)
    lasts = Sub (features_size, unit)
    count = Cast <to = 1> (size)
    last_y, last_x = Split (lasts)
    count_y, count_x = Split (count)
    number_y, number_x = Split (size)
    y1, x1, y2, x2 = Split <axis = 1> (boxes)
    inside_y = keras_detect.inside_axis (y1, y2, last_y, count_y, number_y)
    inside_x = keras_detect.inside_axis (x1, x2, last_x, count_x, number_x)
    rows = Unsqueeze (inside_y, last_axis)
    columns = Unsqueeze (inside_x, axes)
    both = And (rows, columns)
    every_channel = Unsqueeze (both, last_axis)
    mask = Cast <to = 1> (every_channel)
}
"""

_INSIDE_AXIS = """
<opset_import: ["" : 17], domain: "keras_detect">
inside_axis (low, high, last, count, number) => (is_inside)
{
    zero = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    none = Constant <value = float {0.0}> ()
    half = Constant <value = float {0.5}> ()
    unit = Constant <value = float {1.0}> ()
    number_scalar = Squeeze (number)
    numbers = Range (zero, number_scalar, one)
    sample = Cast <to = 1> (numbers)
    gaps = Sub (count, unit)
    safe_gaps = Max (gaps, unit)
    extent = Sub (high, low)
    extent_in_pixels = Mul (extent, last)
    step = Div (extent_in_pixels, safe_gaps)
    first = Mul (low, last)
    further = Mul (sample, step)
    position_of_many = Add (first, further)
    sum = Add (low, high)
    middle = Mul (sum, half)
    position_of_one = Mul (middle, last)
    is_one = Less (gaps, half)
    position = Where (is_one, position_of_one, position_of_many)
    too_low = Less (position, none)
    too_high = Greater (position, last)
    is_outside = Or (too_low, too_high)
    is_inside = Not (is_outside)
}
"""

SUPPRESS, CROP_AND_RESIZE, INSIDE, INSIDE_AXIS = "suppress", "crop_and_resize", "inside", "inside_axis"
_TEXTS = {SUPPRESS: _SUPPRESS, CROP_AND_RESIZE: _CROP_AND_RESIZE, INSIDE: _INSIDE, INSIDE_AXIS: _INSIDE_AXIS}


def functions():
    """The `onnx.FunctionProto` of each."""
    import onnx.parser

    return [onnx.parser.parse_function(text) for text in _TEXTS.values()]
