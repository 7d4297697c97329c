"""docs/zoo.md is what `tools/zoo_page.py` writes, and every preset that can be built has its operations counted."""

import json

import pytest

from tools import zoo_gflop, zoo_page

pytestmark = pytest.mark.backend_free


def test_the_page_is_the_output_of_its_program():
    text = zoo_page.PAGE.read_text(encoding="utf-8")
    assert text == zoo_page.page(), "Run `python tools/zoo_page.py`."


def test_every_preset_is_counted():
    counts = json.loads(zoo_gflop.COUNTS.read_text())
    assert sorted(counts) == zoo_gflop.buildable()


def test_operations_of_a_small_preset():
    """28 x 28 to 300 x 300: what the file says is what the program counts."""
    counts = json.loads(zoo_gflop.COUNTS.read_text())["ssd_mobilenet_v2_oidv4"]
    side, number = zoo_gflop.operations(zoo_gflop.build("ssd_mobilenet_v2_oidv4"))
    assert (side, round(number / 1e9, 2)) == (counts["image_side"], counts["gflop"])
