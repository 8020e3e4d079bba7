"""What the unit tests of the actors share."""

import pytest

from actors import settings


@pytest.fixture(autouse=True)
def fresh_settings():
    """Let every test read the environment anew."""
    settings.reset()
    yield
    settings.reset()
