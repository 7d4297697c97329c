"""The harness of kill tests: it finds what is not whole, and counts what is."""

import os
import time

import pytest

from tests import kills

CONTENT = "0123456789" * 20_000


class Atomic(kills.Case):
    """Writes a file beside its place, then renames it."""

    def prepare(self, folder):
        (folder / "file").write_text("old")

    def act(self, folder):
        (folder / "part").write_text(CONTENT)
        os.replace(folder / "part", folder / "file")

    def check(self, folder, error=None):
        content = (folder / "file").read_text()
        assert content in ("old", CONTENT), f"{len(content)} characters"
        return "old" if content == "old" else "new"


class Torn(Atomic):
    """Moves the older file away first: between the two renames there is none."""

    def act(self, folder):
        (folder / "part").write_text(CONTENT)
        (folder / "file").rename(folder / "older")
        (folder / "part").rename(folder / "file")


class Half(Atomic):
    """Writes in place, slowly."""

    def act(self, folder):
        with open(folder / "file", "w", buffering=1) as file:
            for _ in range(100):
                file.write(CONTENT[:2000])
                file.flush()
                time.sleep(0.0002)
        os.replace(folder / "file", folder / "file")


class Failing(Atomic):
    def act(self, folder):
        raise ValueError("as it stands")


def test_a_function_that_is_killed_at_its_renames(tmp_path):
    assert kills.at_every_rename(Atomic, tmp_path) == {"old": 1, "new": 3}
    with pytest.raises(AssertionError, match=r"before rename 2: (.|\n)*FileNotFoundError(.|\n)*'older'"):
        kills.at_every_rename(Torn, tmp_path)
    assert not os.listdir(tmp_path)


def test_a_function_that_is_killed_at_random_moments(tmp_path):
    found = kills.at_random_moments(Atomic, tmp_path, trials=50, seed=1)
    assert sum(found.values()) == 50 and set(found) <= {"old", "new"}
    with pytest.raises(AssertionError, match=r"of seed 0, after .* ms: (.|\n)* characters"):
        kills.at_random_moments(Half, tmp_path, trials=20)


def test_a_full_disk(tmp_path):
    assert kills.on_a_full_disk(Atomic, tmp_path, [0, 1000, len(CONTENT)]) == {"old": 2, "new": 1}


def test_what_fails_by_itself_is_said(tmp_path):
    with pytest.raises(AssertionError, match=r"Failing: before rename 1: (.|\n)*ValueError: as it stands"):
        kills.at_every_rename(Failing, tmp_path)
    with pytest.raises(AssertionError, match=r"Failing: without a kill: (.|\n)*ValueError: as it stands"):
        kills.at_random_moments(Failing, tmp_path, trials=1)
