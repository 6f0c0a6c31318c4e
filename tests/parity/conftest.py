"""Without TRL and verl (they live in an environment of their own) this folder is skipped before it imports anything."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

ABSENT = [name for name in ("trl", "verl") if find_spec(name) is None]


class NotComparable(pytest.Module):
    """A test module that is reported as skipped instead of being imported."""

    def collect(self):
        pytest.skip(
            f"{' and '.join(ABSENT)} not installed here; `make parity` runs these tests", allow_module_level=True
        )


def pytest_pycollect_makemodule(module_path, parent) -> pytest.Module | None:
    return NotComparable.from_parent(parent, path=module_path) if ABSENT else None
