"""Reports of invented rows differ by so much that few flips find it."""

import pytest

from recbole_farzi.report import uncertainty


@pytest.fixture(autouse=True, scope="module")
def fewer_flips():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uncertainty, "FLIPS", 1999)
        yield
