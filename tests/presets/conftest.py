"""Shared by the tests of presets."""

import urllib.request

import pytest


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Any download fails, and nothing may enter the cache."""

    def refuse(*_, **__):
        raise AssertionError("a packaged preset needs no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "home"))
    yield
    assert not (tmp_path / "home").exists()
