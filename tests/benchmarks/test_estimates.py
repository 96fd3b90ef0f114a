"""The bench of estimates: what it computes; and, slowly, that it runs."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks import __main__ as on_cpu
from tests.benchmarks.estimates import speed_of, table_of, works


def test_steps_that_warm_up_have_no_part_in_the_speed() -> None:
    seconds, tokens = [9.0, 10.0, 12.0, 14.0], [50, 100, 200, 300]
    records = [
        {"step": n, "learning_rate": 1.0, "tokens": t, "seconds": s}
        for n, (t, s) in enumerate(zip(tokens, seconds, strict=True), start=1)
    ]
    evaluation = {"step": 4, "eval_loss": 1.0}
    assert speed_of([[*records, evaluation]]) == pytest.approx(50.0)
    slow = [{**record, "seconds": 10 * record["seconds"]} for record in records]
    assert speed_of([records, slow]) == pytest.approx(400 / 44)


def test_what_is_far_off_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    was = {"tokens/s": 100.0, "memory": 1e9, "time": 10.0, "disk": 1e6}
    said = {"tokens/s": 114.0, "memory": 1.11e9, "time": 30.0, "disk": 3e6}
    Console(width=100).print(table_of({"tiny": (said, was)}))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "(far)" in line] == [line for line in lines if "memory" in line]


def test_each_work_is_another(tmp_path: Path) -> None:
    titles = [work.title for work in works(tmp_path, quick=False)]
    assert titles == ["bert-tiny", "bert-mini", "continue", "finetune", "compare-masks"]


@pytest.mark.slow
def test_a_quick_bench_runs_the_real_commands(tmp_path: Path) -> None:
    on_cpu.main(["--quick", "--only", "estimates", "--json", str(tmp_path / "bench.json")])
    found = json.loads((tmp_path / "bench-estimates.json").read_text())
    assert len(found) == 5
    for figures in found.values():
        assert figures["estimate"]["memory"] == pytest.approx(figures["run"]["memory"], rel=0.25)
        assert figures["estimate"]["disk"] >= 0.9 * figures["run"]["disk"]
