"""`python -m tests.benchmarks` (`make bench`): fmlm's speed on this CPU, against transformers.

training   every line below: `fmlm pretrain` against transformers' Trainer
batch      making a batch, against transformers' collator
estimates  what --dry-run says of time, speed and memory, against the runs themselves
checkpoint what saving holds up, at once and in the background, and resuming, against transformers' Trainer
processes  two processes that train one model, against one
padding    what of the rows is padding, and what of that is computed
startup    from a store's name to the first batch, for stores of three sizes
tokenize   `fmlm tokenize` against datasets.map; --text FILE and --tokenizer FOLDER for real ones
tune       fine-tuning on GLUE, where there is some, against transformers' Trainer
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.benchmarks.bench import Plan, chosen_lines, options, run_bench
from tests.benchmarks.commands import leave_in_order
from tests.benchmarks.contest import Fmlm, Line, Pace, Stock, Workload
from tests.benchmarks.tables import WIDTH

COMPARED = """\
fmlm pretrain, by the command line (documents isolated), against what run_mlm.py does: transformers' Trainer
with DataCollatorForLanguageModeling, all else as it comes (dropout 0.1, fused AdamW, documents not
isolated). The same token store, rows a step, model and threads, float32; each in a process of its own, turn
about. Steps after a warm-up are timed in windows; speeds are medians of windows, and a ratio is that of
every window to every window of the other side in the same round. Padding is not counted. Useful share:
FLOPs by formula, the head on a seventh of the tokens, over the peak; the floor is a step at the peak.
Memory: the most that was resident."""

SAME_DROPOUT = ("model.dropout=0.1",)
SMALL, LARGE = Pace(warm_up=2, windows=4, steps=2), Pace(warm_up=1, windows=3, steps=1)


def _lines(model: str, rows: int, pace: Pace) -> tuple[Line, Line]:
    """With the stock Trainer's dropout, and without any, as a run from scratch comes."""
    work = Workload(model, rows, 128)
    title, stock = f"{model} {rows} x 128", Stock(work, pace)
    return (
        Line(f"{model}-dropout", f"{title}, both dropout 0.1", Fmlm(work, pace, SAME_DROPOUT), stock),
        Line(model, f"{title}, dropout 0", Fmlm(work, pace), stock),
    )


REAL = Workload("bert-mini", 32, 128, "real")
LINES = (
    *_lines("bert-tiny", 32, SMALL),
    *_lines("bert-mini", 32, SMALL),
    Line("real", "bert-mini 32 x 128, real lengths", Fmlm(REAL, SMALL), Stock(REAL, SMALL)),
    *_lines("bert-base", 16, LARGE),
)
PLAN = Plan(
    LINES,
    COMPARED,
    "cpu",
    rounds=3,
    json="bench-cpu.json",
    others=("batch", "checkpoint", "estimates", "padding", "processes", "startup", "tokenize", "tune"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(PLAN, "python -m tests.benchmarks", __doc__)
    parser.add_argument("--text", type=Path, help="what tokenize reads, a document a line; default: made up")
    parser.add_argument("--tokenizer", type=Path, help="what tokenize uses; default: one that is learnt")
    chosen = parser.parse_args(arguments)
    console = Console(width=WIDTH)
    others = [name for name in PLAN.others if name in (chosen.only or (() if chosen.quick else PLAN.others))]
    if chosen_lines(PLAN, chosen.only):
        run_bench(PLAN, chosen, console)
    if "batch" in others:
        # Not before: what this process holds counts as the others' memory.
        from tests.benchmarks import batches

        batches.main(console)
    if "checkpoint" in others:
        from tests.benchmarks import checkpoints

        checkpoints.main(console, chosen.json, quick=chosen.quick)
    if "estimates" in others:
        from tests.benchmarks import estimates

        estimates.main(console, chosen.json, quick=chosen.quick)
    if "processes" in others:
        from tests.benchmarks import processes

        processes.main(console, chosen.json, rounds=chosen.rounds, quick=chosen.quick)
    if "padding" in others:
        from tests.benchmarks import padding

        padding.main(console, chosen.data)
    if "startup" in others:
        from tests.benchmarks import startup

        startup.main(console, rounds=chosen.rounds, quick=chosen.quick)
    if "tokenize" in others:
        from tests.benchmarks import tokenizing

        which = {"text": chosen.text, "tokenizer": chosen.tokenizer}
        tokenizing.main(console, chosen.json, rounds=chosen.rounds, quick=chosen.quick, **which)
    if "tune" in others:
        from tests.benchmarks import finetune

        finetune.run_if_there()


if __name__ == "__main__":
    leave_in_order()
    main()
