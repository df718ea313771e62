import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test sees the results of another, or of the user."""
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
