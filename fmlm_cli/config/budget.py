"""How long to train, in one word: 2000-steps, 5M-tokens, 7-epochs, 20m, 2h."""

import re
from typing import Literal, NamedTuple, cast

Unit = Literal["steps", "tokens", "epochs", "minutes"]

SPELLINGS = "2000-steps|5M-tokens|7-epochs|20m"
_BUDGET = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)([kMG]?)[- ]?(steps?|tokens?|epochs?|m|min|h)")
_THOUSANDS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}


class Budget(NamedTuple):
    """How long a run is."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read 2000-steps, 5M-tokens, 7-epochs, 20m or 2h. Raises `ValueError` for anything else."""
        match = _BUDGET.fullmatch(text.strip())
        if match is None or not float(match[1]):
            raise ValueError("write it as 2000-steps, 5M-tokens, 7-epochs, or in time: 20m or 2h")
        number, thousands, unit = match.groups()
        amount = float(number) * _THOUSANDS[thousands]
        if unit in ("m", "min", "h"):
            if thousands:
                raise ValueError("write a time as 20m or 2h")
            return cls(amount * (60 if unit == "h" else 1), "minutes")
        if unit.startswith("step") and amount % 1:
            raise ValueError("write a whole number of steps")
        return cls(amount, cast("Unit", unit.removesuffix("s") + "s"))
