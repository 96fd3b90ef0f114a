"""A server in the Hub's place, whose user is logged in here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.standin_hub import Hub, in_place_of_the_hub, user

TOKEN = "hf_somebody"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """It has no repository yet; an organization and a guest's place go with the user."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    me = user("somebody", orgs={"lab": "write", "guests": "read"})
    with in_place_of_the_hub(Hub(users={TOKEN: me}, status=507), monkeypatch) as content:
        yield content
