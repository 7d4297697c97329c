"""The site: which pages it has, and where links lead that leave `docs/`."""

import re

import pytest

from keras_detect.tf_od_api import build, build_faster_rcnn, build_ssd_features
from tests.docs import config_fields
from tests.docs.blocks import ROOT

pytestmark = pytest.mark.backend_free
UPSTREAM = (ROOT / "docs" / "from_tf_od_api.md").read_text(encoding="utf-8")
SCRIPTS = (
    *("model_main_tf2.py", "exporter_main_v2.py", "export_tflite_graph_tf2.py", "export_inference_graph.py"),
    *("create_coco_tf_record.py", "create_pascal_tf_record.py", "create_pet_tf_record.py", "create_kitti_tf_record.py"),
    *("create_oid_tf_record.py", "label_map_util.py", "config_util.py", "visualization_utils.py", "model_builder.py"),
)


def test_every_field_of_a_pipeline_config_is_on_the_page():
    """Every field that the reader reads, ignores or refuses by value, as its source has them."""
    fields = config_fields.fields()
    assert len(fields) > 150 and {"ssd", "num_steps", "use_matmul_gather", "first_stage_atrous_rate"} <= fields
    assert not sorted(fields - set(re.findall(r"`(\w+)`", UPSTREAM)))
    refused = {name for name in build.MISSING if f"`{name}`" not in UPSTREAM}
    assert not refused


def test_every_extractor_and_script_is_on_the_page():
    for kind in (*build_ssd_features.EXTRACTORS, *build_faster_rcnn.EXTRACTORS):
        stem = re.sub(r"(?<=resnet)(101|152)(?=_)", "50", re.sub(r"_fpn_keras$", "_keras", kind))
        assert re.sub(r"b\d_", "b0_", stem) in UPSTREAM or kind in UPSTREAM or "ssd_resnet50_v1_fpn_keras" in UPSTREAM
    assert not [script for script in SCRIPTS if script not in UPSTREAM]


def test_every_page_is_in_the_navigation():
    """`mkdocs build --strict` says so, too, where it is installed; this says so everywhere."""
    text = (ROOT / "mkdocs.yml").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert not sorted(page for page in pages if not re.search(rf"(- |: ){re.escape(page)}$", text, re.MULTILINE))


def test_llms_txt_names_every_page():
    text = (ROOT / "docs" / "llms.txt").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert not sorted(page for page in pages - {"index.md"} if f"({page.removesuffix('.md')}.html)" not in text)
    linked = set(re.findall(r"\(([^):]+)\.html\)", text))
    there = {page for page in linked if (ROOT / f"{page}.md").is_file() or (ROOT / "docs" / f"{page}.md").is_file()}
    assert linked == there


def test_links_that_leave_the_pages_lead_into_the_site():
    pytest.importorskip("mkdocs")
    from tools import site_pages

    known = {"training.md", "api/models.md", "benchmarks/RESULTS.md", "examples/bccd/README.md", "models/ssd.md"}

    def relinked(text, source, path):
        return site_pages.LINK.sub(lambda link: site_pages._relinked(link, source, path, known), text)

    at = ("docs/models/ssd.md", "models/ssd.md")
    assert relinked("[r](../../benchmarks/RESULTS.md#a)", *at) == "[r](../benchmarks/RESULTS.md#a)"
    assert relinked("[t](../training.md)", *at) == "[t](../training.md)"
    assert relinked("[source](../../keras_detect/schema.py)", *at) == "source"
    assert relinked("[gone](../gone.md)", *at) == "[gone](../gone.md)"  # and the strict build fails
    at = ("examples/bccd/README.md", "examples/bccd/README.md")
    assert relinked("[t](../../docs/training.md)", *at) == "[t](../../training.md)"
