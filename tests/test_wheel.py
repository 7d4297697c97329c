"""What `python -m build` makes: an sdist that builds a wheel again, and a wheel with all that the package reads."""

import email
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

import keras_detect
from tests import wheel

pytestmark = [
    pytest.mark.backend_free,
    pytest.mark.skipif(not wheel.has_backend(), reason="pip install -e '.[test]' brings setuptools>=77, which builds"),
]
NAME = f"keras_detect-{keras_detect.__version__}"
MEGABYTES = 30


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The folder that the sdist unpacks to."""
    sources, folder = (tmp_path_factory.mktemp(name) for name in ("sources", "sdist"))
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, cwd=wheel.copy_sources(sources), check=True, capture_output=True)
    with tarfile.open(folder / f"{NAME}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
        assert {name.split("/")[0] for name in archive.getnames()} == {NAME}
    return folder / NAME


@pytest.fixture(scope="module")
def built(sdist, tmp_path_factory):
    """The wheel that the sdist builds, as `python -m build` has it."""
    return wheel.build(tmp_path_factory.mktemp("wheel"), sdist)


def of_package(folder):
    """The files of the package below `folder`, without what Python compiled."""
    files = (path for path in (folder / "keras_detect").rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files if path.suffix != ".pyc"}


def metadata(built):
    with zipfile.ZipFile(built) as archive:
        return email.message_from_bytes(archive.read(f"{NAME}.dist-info/METADATA"))


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"{NAME}.dist-info/")}
    assert names == of_package(wheel.ROOT)
    assert {"keras_detect/py.typed", "keras_detect/photos/control_room.jpg"} < names
    assert sum(name.endswith("/weights.h5") for name in names) == 2
    assert built.stat().st_size < MEGABYTES * 1e6


def test_the_sdist_holds_no_tests_and_no_benchmarks(sdist):
    assert of_package(sdist) == of_package(wheel.ROOT)
    there = {path.name for path in sdist.iterdir()} - {"build"}  # of the wheel that was built here
    assert there == {*wheel.SOURCES, "PKG-INFO", "keras_detect", "keras_detect.egg-info", "setup.cfg"}


def test_the_metadata_state_the_one_version(built):
    stated = metadata(built)
    assert stated["Version"] == keras_detect.__version__
    places = [*wheel.ROOT.glob("*.toml"), *(wheel.ROOT / "keras_detect").rglob("*.py")]
    pattern = re.compile(rf'version\w*\s*=\s*"{re.escape(keras_detect.__version__)}"')
    assert [path.name for path in places if pattern.search(path.read_text())] == ["__init__.py"]
    licenses = ("License-Expression", "Apache-2.0"), ("Requires-Python", ">=3.11")
    assert all(stated[key] == value for key, value in licenses)
    with zipfile.ZipFile(built) as archive:
        points = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
        assert {f"{NAME}.dist-info/licenses/{name}" for name in ("LICENSE", "NOTICE")} < set(archive.namelist())
    assert points.split() == ["[console_scripts]", "keras-detect", "=", "keras_detect.cli:main"]


def test_the_package_page_has_no_link_that_a_package_index_could_not_follow(built):
    page = metadata(built).get_payload()
    assert metadata(built)["Description-Content-Type"] == "text/markdown"
    assert page.strip() == (wheel.ROOT / "PACKAGE.md").read_text().strip()
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|href)=[\"']([^\"']*)", page)
    assert [target for pair in targets for target in pair if target and not target.startswith("https://")] == []
    first = (wheel.ROOT / "README.md").read_text().split("\n\n")[1]
    assert first in page  # what it is, as README says it


def test_every_extra_is_on_the_package_page(built):
    extras = set(metadata(built).get_all("Provides-Extra")) - {"test", "docs"}
    page = metadata(built).get_payload()
    assert not [name for name in sorted(extras) if f"[{name}]" not in page]


def test_the_installed_command_runs(tmp_path):
    """From a folder outside of the checkout, with nothing but the wheel on the path."""
    command = [sys.executable, wheel.installed() / "bin" / "keras-detect", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=wheel.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"keras-detect {keras_detect.__version__}\n"), done.stderr
