"""What tests share: small units, and the folder of real text, if there is one."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Tests share few cores with each other's processes; threads that spin for more would stall them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The first example of a property may have numba compile; no example has to be fast.
settings.register_profile("tokenmill", deadline=None)
settings.load_profile("tokenmill")


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some ten units from some kilobytes of text."""
    from pipeline_runs import SMALL_UNIT_BYTES  # with all that a build imports

    monkeypatch.setattr("tokenmill.pipeline.plan.UNIT_BYTES", SMALL_UNIT_BYTES)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder that TOKENMILL_TEST_DATA names; without it the test is skipped, loudly."""
    folder = os.environ.get("TOKENMILL_TEST_DATA")
    if not folder:
        pytest.skip("TOKENMILL_TEST_DATA names no folder of real text")
    if not Path(folder).is_dir():
        pytest.fail(f"TOKENMILL_TEST_DATA={folder}: no such folder")
    return Path(folder)
