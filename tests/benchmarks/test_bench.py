"""The benches' lines and options; and, slowly, that the benches run."""

import json
import time
from pathlib import Path

import pytest

from fmlm_cli.model.presets import PRESETS
from tests.benchmarks import __main__ as on_cpu
from tests.benchmarks import gpu
from tests.benchmarks.bench import Plan, chosen_lines, options, run_bench
from tests.benchmarks.contest import Line
from tests.benchmarks.material import LONGEST_REAL, model_configs
from tests.benchmarks.tables import WIDTH

PLANS = {"cpu": on_cpu.PLAN, "gpu": gpu.make_plan("cuda"), "gpu's on a cpu": gpu.make_plan("cpu")}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_lines_are_told_apart_and_both_sides_do_the_same_work(plan: Plan) -> None:
    names = [line.name for line in plan.lines]
    assert len({*names, *plan.others}) == len(names) + len(plan.others)
    for line in plan.lines:
        assert line.ours.workload == line.theirs.workload and line.ours.pace == line.theirs.pace
        work = line.ours.workload
        assert work.model in model_configs()
        assert work.text == "full" or work.length == LONGEST_REAL + 2


def test_the_bare_command_does_the_work_that_it_is_compared_by() -> None:
    first = gpu.LINES[0]
    assert first.ours.bare and first.ours.pace.total == 100
    work = first.ours.workload
    assert PRESETS[work.model].batch_size == work.rows and work.length == 128
    assert not any(line.ours.bare for line in PLANS["gpu's on a cpu"].lines)


def test_only_names_lines_or_parts() -> None:
    def chosen(*only: str) -> list[Line]:
        return chosen_lines(on_cpu.PLAN, only)

    assert [line.name for line in chosen("real", "bert-tiny")] == ["bert-tiny", "real"]
    assert chosen("batch") == []
    assert chosen_lines(on_cpu.PLAN, None) == list(on_cpu.PLAN.lines)
    with pytest.raises(SystemExit, match="no line is called bert-huge: known are batch, bert-base"):
        chosen("bert-tiny", "bert-huge")


def test_a_gpu_bench_says_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit, match="torch sees no GPU here: `make bench` measures the CPU"):
        gpu.main([])


def test_a_bench_without_time_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    begin, path = time.monotonic(), tmp_path / "bench.json"
    with pytest.raises(SystemExit, match="the bench could not begin: no time left"):
        gpu.main(["--device", "cpu", "--seconds", "0.2", "--json", str(path)])
    assert time.monotonic() - begin < 20 and not path.exists()


def test_without_accelerate_it_is_said_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    chosen = options(on_cpu.PLAN, "bench", None).parse_args([])
    with pytest.raises(SystemExit, match="pip install accelerate"):
        run_bench(on_cpu.PLAN, chosen, None)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_quick_bench_runs_the_real_commands(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    arguments = ["--quick", "--only", "bert-tiny", "--json", str(path)]
    if name == "cpu":
        on_cpu.main(arguments)
    else:
        gpu.main([*arguments, "--device", "cpu"])
    [line] = json.loads(path.read_text())["lines"]
    assert line["name"] == "bert-tiny" and line["tokens_per_step"] == pytest.approx(32 * 128, rel=0.05)
    for side in ("fmlm", "stock"):
        assert line[side]["tokens_per_second"] > 0 and line[side]["memory_gib"] > 0.1
        assert 0 < line[side]["useful_share"] < 1
    printed = capsys.readouterr().out
    assert "bert-tiny 32 x 128" in printed and all(len(row) <= WIDTH for row in printed.splitlines())


@pytest.mark.parametrize(
    "wrong", [("--data", "no-such-store"), ("--json", "no/such/folder/x.json"), ("--json", ".")]
)
def test_what_a_bench_cannot_use_is_refused_before_anything_is_measured(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options(on_cpu.PLAN, "bench", None).parse_args(wrong)
    assert f"argument {wrong[0]}: {wrong[1]} " in capsys.readouterr().err
