"""Which keypoints change places in a mirrored image, so that a left ear stays a left ear."""

import re
from collections.abc import Sequence

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
# A side is a word of its own, or "left" and "right" at the beginning or the end of the name.
_SIDE = re.compile(r"^(left|right)|(left|right)$|(?<![a-z])(left|right|l|r)(?![a-z])")


def pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of places whose names differ in left and right alone, such as "left_ear" and "right_ear", "ear_l", "ear_r".

    Args:
        names: of the keypoints, in order; upper and lower case are alike.
    """
    places = {str(name).lower(): place for place, name in enumerate(names)}
    pairs = []
    for name, place in places.items():
        other = places.get(_SIDE.sub(lambda side: _SIDES[side[0]], name))
        if other is not None and place < other:
            pairs.append((place, other))
    return tuple(pairs)


def checked_pairs(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The pairs as ints. Raises `ValueError` unless they are pairs of places from 0, each place in one pair at most."""
    try:
        found = tuple((int(first), int(last)) for first, last in pairs)
    except (TypeError, ValueError):
        raise ValueError(f"flip_pairs are pairs of keypoints, counted from 0. Received: {pairs!r}") from None
    places = [place for pair in found for place in pair]
    if len(set(places)) != len(places) or min(places, default=0) < 0:
        raise ValueError(f"flip_pairs has each keypoint in one pair at most, counted from 0. Received: {found}")
    return found


def permutation(pairs: Sequence[tuple[int, int]], number: int) -> tuple[int, ...]:
    """The order of `number` keypoints in a mirrored image. Raises `ValueError` for a pair of other keypoints."""
    order = list(range(number))
    for first, last in pairs:
        if max(first, last) >= number:
            raise ValueError(
                f"flip_pairs names keypoint {max(first, last)}, counted from 0, and the objects have {number}. "
                f"Received: {tuple(pairs)}"
            )
        order[first], order[last] = last, first
    return tuple(order)
