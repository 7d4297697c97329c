"""Matchers: which ground-truth box each anchor is responsible for, from a similarity `[..., M, A]`.

Ground-truth boxes are the rows. Both work on any leading axes at once and need a static `M`. A similarity that is NaN
or minus infinity never matches, so a caller takes a ground-truth box out by giving its row minus infinity. `M` may be
0: every anchor is negative.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_detect.kernels.top_k import top_k
from keras_detect.registry import part, register_matcher

_NEVER = float("-inf")


class Match(NamedTuple):
    """One row index and two masks per anchor; an anchor that is neither positive nor ignored is negative."""

    matched_row: Any  # [..., A] int32 in [0, M), 0 where not positive
    positive: Any  # [..., A] bool
    ignored: Any  # [..., A] bool, never together with positive


@register_matcher("argmax", matched_threshold=0.5, force_match_for_each_row=True)
@part
class ArgMaxMatcher:
    """Every anchor takes the ground truth most similar to it, if that is similar enough.

    Args:
        matched_threshold: an anchor is positive if its best similarity is at least this; `None`: always.
        unmatched_threshold: between this (included) and `matched_threshold` (excluded) an anchor is ignored and below
            it is negative; `None`: equal to `matched_threshold`, so that none is ignored.
        negatives_lower_than_unmatched: False swaps the two: negative between the thresholds, ignored below.
        force_match_for_each_row: give each valid ground-truth box its most similar anchor, at any similarity. If
            ground-truth boxes claim the same anchor the one with the lowest index has it, and the others keep what the
            thresholds gave.

    Among equal similarities the lowest index wins.
    """

    matched_threshold: float | None
    unmatched_threshold: float | None = None
    negatives_lower_than_unmatched: bool = True
    force_match_for_each_row: bool = False

    def __post_init__(self):
        matched, unmatched = self.matched_threshold, self.unmatched_threshold
        if unmatched is not None and (matched is None or unmatched > matched):
            raise ValueError(
                "An ArgMaxMatcher needs unmatched_threshold <= matched_threshold. "
                f"Received: matched_threshold={matched}, unmatched_threshold={unmatched}"
            )
        if not self.negatives_lower_than_unmatched and unmatched in (None, matched):
            raise ValueError(
                "With negatives_lower_than_unmatched=False negatives lie between the thresholds, which must differ. "
                f"Received: matched_threshold={matched}, unmatched_threshold={unmatched}"
            )

    def __call__(self, similarity: Any, valid_rows: Any) -> Any:
        """Matches anchors.

        Args:
            similarity: `[..., M, A]` float.
            valid_rows: `[..., M]` bool: the ground-truth boxes that are forced on an anchor, if forcing is on. The
                others can still match by threshold, as upstream does.

        Returns:
            `Match` of `[..., A]` tensors.
        """
        similarity, valid_rows = _prepared(similarity, valid_rows)
        best = ops.max(similarity, axis=-2)
        row = ops.cast(ops.argmax(similarity, axis=-2), "int32")
        possible = best > _NEVER
        if self.matched_threshold is None:
            positive, ignored = possible, ops.zeros_like(possible)
        else:
            positive = best >= self.matched_threshold
            ignored = ops.logical_and(possible, self._ignored(best))
        if self.force_match_for_each_row:
            column = ops.cast(ops.argmax(similarity, axis=-1), "int32")
            wanted = ops.logical_and(valid_rows, ops.max(similarity, axis=-1) > _NEVER)
            forced_row, forced = _rows_of_columns(column, wanted, ops.shape(similarity)[-1])
            row = ops.where(forced, forced_row, row)
            positive = ops.logical_or(positive, forced)
            ignored = ops.logical_and(ignored, ops.logical_not(forced))
        return Match(ops.where(positive, row, 0), positive, ignored)

    def _ignored(self, best):
        lower = self.matched_threshold if self.unmatched_threshold is None else self.unmatched_threshold
        if self.negatives_lower_than_unmatched:
            return ops.logical_and(best >= lower, best < self.matched_threshold)
        return best < lower


@register_matcher("bipartite")
@part
class BipartiteMatcher:
    """Each valid ground-truth box gets one anchor of its own, greedily: the most similar pair first.

    Anchors left over are negative, none is ignored. With more ground-truth boxes than anchors every anchor is taken and
    the ground-truth boxes left over have none. Among equal similarities the lowest ground-truth box wins, then the
    lowest anchor.
    """

    def __call__(self, similarity: Any, valid_rows: Any) -> Any:
        """As `ArgMaxMatcher.__call__`; rows that are not valid match nothing."""
        similarity, valid_rows = _prepared(similarity, valid_rows)
        similarity = ops.where(ops.expand_dims(valid_rows, -1), similarity, _NEVER)
        rows, anchors = similarity.shape[-2:]
        # A ground-truth box loses at most M - 1 anchors to the others, so its M best anchors are all it can ever need.
        kept = min(rows, anchors)
        values, columns = top_k(ops.reshape(similarity, (-1, anchors)), kept)
        shape = (*ops.shape(similarity)[:-1], kept)
        values, columns = ops.reshape(values, shape), ops.reshape(columns, shape)
        row_numbers = ops.arange(rows, dtype="int32")

        def take_best_pair(_, state):
            values, taken = state
            flat = ops.reshape(values, (*ops.shape(values)[:-2], rows * kept))
            place = ops.cast(ops.argmax(flat, axis=-1, keepdims=True), "int32")
            found = ops.max(flat, axis=-1, keepdims=True) > _NEVER
            is_row = ops.equal(row_numbers, place // kept)
            is_place = ops.equal(ops.arange(rows * kept, dtype="int32"), place)
            flat_columns = ops.reshape(columns, ops.shape(flat))
            column = ops.sum(ops.where(is_place, flat_columns, 0), axis=-1, keepdims=True)
            taken = ops.where(ops.logical_and(is_row, found), column, taken)
            gone = ops.logical_or(is_row[..., None], ops.equal(columns, column[..., None]))
            return ops.where(gone, _NEVER, values), taken

        state = (values, ops.full_like(columns[..., 0], -1))
        _, taken = ops.fori_loop(0, kept, take_best_pair, state)
        row, positive = _rows_of_columns(ops.maximum(taken, 0), taken >= 0, anchors)
        return Match(row, positive, ops.zeros_like(positive))


def _prepared(similarity, valid_rows):
    """Float32 without NaN, and at least one row: no ground truth is one impossible box."""
    similarity = ops.cast(ops.convert_to_tensor(similarity), "float32")
    valid_rows = ops.cast(ops.convert_to_tensor(valid_rows), "bool")
    if similarity.shape[-2] == 0:
        shape = ops.shape(similarity)
        similarity = ops.full((*shape[:-2], 1, shape[-1]), _NEVER, dtype="float32")
        valid_rows = ops.zeros((*shape[:-2], 1), dtype="bool")
    return ops.where(similarity > _NEVER, similarity, _NEVER), valid_rows


def _rows_of_columns(column, wanted, num_columns):
    """The lowest row that claims each column: `[..., M]` int32 and bool to `[..., A]` int32 (0 if none) and bool.

    A scatter by segments: comparing every row with every column would make another `[..., M, A]`.
    """
    shape = ops.shape(column)
    rows = shape[-1]
    order = ops.where(wanted, rows - ops.arange(rows, dtype="int32"), 0)  # the lowest row has the highest number
    column, order = ops.reshape(column, (-1, rows)), ops.reshape(order, (-1, rows))
    batch = ops.shape(column)[0]
    segments = column + num_columns * ops.expand_dims(ops.arange(batch, dtype="int32"), -1)
    best = ops.segment_max(ops.reshape(order, (-1,)), ops.reshape(segments, (-1,)), num_segments=batch * num_columns)
    best = ops.reshape(best, (*shape[:-1], num_columns))
    found = best > 0
    return ops.where(found, rows - best, 0), found
