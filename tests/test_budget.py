"""A budget in one word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.config import Budget, CompareSettings, build
from fmlm_cli.config.section import Unit
from fmlm_cli.errors import UserError


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2000-steps", 2000, "steps"),
        ("1 step", 1, "steps"),
        ("5M-tokens", 5e6, "tokens"),
        ("2e9-tokens", 2e9, "tokens"),
        ("7-epochs", 7, "epochs"),
        ("0.5-epochs", 0.5, "epochs"),
        ("1.5k steps", 1500, "steps"),
        ("20m", 20, "minutes"),
        ("2h", 120, "minutes"),
    ],
)
def test_budgets(text: str, amount: float, unit: Unit) -> None:
    assert Budget.parse(text) == (amount, unit)


@given(st.integers(1, 10**9), st.sampled_from(["steps", "tokens", "epochs"]))
def test_whole_numbers_come_back(amount: int, unit: str) -> None:
    assert Budget.parse(f"{amount}-{unit}") == (amount, unit)


@pytest.mark.parametrize(
    "text",
    ["", "20", "m", "-5-steps", "0-steps", "0m", "5kh", "1.5-steps", "7-passes", "1,000-steps", "1e-3-steps"],
)
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        Budget.parse(text)
    with pytest.raises(UserError, match="budget"):
        build(CompareSettings, {"budget": text})
