"""Every run of these tests joins one Ray."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _joined(joined_ray: None) -> None: ...
