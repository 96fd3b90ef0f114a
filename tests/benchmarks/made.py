"""Runs as benches find them, made up."""

from tests.benchmarks.contest import Fmlm, Line, Measured, Pace, Stock, Workload

PACE = Pace(warm_up=2, windows=2, steps=3)


def line(name: str, model: str = "bert-tiny") -> Line:
    work = Workload(model, 32, 128)
    return Line(name, name, Fmlm(work, PACE), Stock(work, PACE))


def measured(*speeds: float, process: float = 10.0, memory: float | None = 1.0) -> Measured:
    """Windows of three steps of 32 x 128 tokens, at these tokens a second."""
    tokens = 3 * 32 * 128
    return Measured(tuple((tokens, tokens / speed) for speed in speeds), 1.5, process, memory)
