"""What fine-tuning found, in words: Markdown, LaTeX, the console's rows, and what to do next."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fmlm_cli import storage
from fmlm_cli.analysis.report.checkpoints import HOW, comparison_table, next_steps
from fmlm_cli.analysis.report.markdown import fenced, literal, table_lines
from fmlm_cli.analysis.report.parts import ReportTable
from fmlm_cli.analysis.results.comparison import TaskResult
from fmlm_cli.analysis.results.finetuning import CheckpointScores, Statistics, TaskScores
from fmlm_cli.config import LEAST_STEPS, to_yaml
from fmlm_cli.events import counted
from fmlm_cli.recipes.finetuning.plan import FinetunePlan
from fmlm_cli.recipes.finetuning.summary import SCORE

_SPREAD = ("median", "mean", "sd", "best", "least")  # over seeds, in the order of the tables
_ENOUGH_SEEDS = 3  # of which a spread can be told at all
# Characters that mean something to TeX, or come out as another in its default font.
_TEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


@dataclass(frozen=True)
class Findings:
    """What a report tells. `compared` and `sentences`: of several checkpoints; empty for one."""

    plan: FinetunePlan
    scores: Sequence[CheckpointScores]
    compared: Mapping[str, TaskResult]
    sentences: Sequence[str]

    @property
    def subject(self) -> str:
        """What was fine-tuned."""
        first, *others = self.scores
        return f"{', '.join(own.name for own in others)} against {first.name}" if others else first.checkpoint

    @property
    def tasks(self) -> Iterator[tuple[str, CheckpointScores, str, TaskScores]]:
        """Every task of every checkpoint: (in words, checkpoint, task, scores)."""
        for task in self.plan.data:
            for own in self.scores:
                yield f"{task} {own.name}".rstrip(), own, task, own.tasks[task]

    def rows(self) -> Iterator[tuple[str, str, str, Statistics]]:
        """(task, split, measure, statistics) for every measure of the best points, dev before test."""
        for words, _, _, scores in self.tasks:
            for kind, splits in (("dev", scores.dev), ("test", scores.test)):
                for split, measures in splits.items():
                    for measure, over_seeds in measures.items():
                        if measure != SCORE or len(scores.measures) > 1:
                            shown = kind if split == kind else f"{kind} {split}"
                            yield words, shown, measure.replace("_", "-"), over_seeds


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def console_rows(found: Findings) -> Iterator[tuple[str, str]]:
    """Every measure, and its spread over seeds."""
    for name, split, measure, over_seeds in found.rows():
        label = f"{name} {measure}" + ("" if split == "dev" else f" ({split})")
        spread = (
            f"median {_percent(over_seeds.median)}, mean {_percent(over_seeds.mean)} ± "
            f"{_percent(over_seeds.sd)}, best {_percent(over_seeds.best)}, least {_percent(over_seeds.least)}"
        )
        yield label, spread if over_seeds.n > 1 else f"{_percent(over_seeds.mean)}, one seed"


# ---------------------------------------------------------------- what to know, and to do


def notes_of(found: Findings) -> list[str]:
    """What has to be known to read the numbers rightly."""
    length = found.plan.settings.max_length or 0
    notes = [note for name, _, _, scores in found.tasks for note in _notes(name, scores, length)]
    for own in found.scores:
        if own.glue_average is not None:
            average = _percent(own.glue_average)
            whose = f"{own.name}: " if own.name else ""
            notes.append(
                f"{whose}GLUE average of the mean development scores, WNLI left out as is usual: {average}"
            )
    return notes


def _notes(name: str, task: TaskScores, length: int) -> Iterator[str]:
    for split, number in task.cut.items():
        if number:
            yield f"{name}: {counted(number, 'sequence')} of {split} cut to {length} tokens"
    if task.not_above_baseline and task.baseline is not None:
        yield (
            f"{name}: {task.not_above_baseline} of {counted(task.n, 'seed')} no better than always naming "
            f"the most frequent class ({_percent(task.baseline[SCORE])})"
        )
    if task.diverged:
        every = counted(task.n + task.diverged, "seed")
        yield (
            f"{name}: {task.diverged} of {every} diverged, and no figure counts them: lower the learning rate"
        )
    if len(task.points) > 1:
        yield (
            f"{name}: {task.point} has the best median of {len(task.points)} points of the grid; choosing it "
            "on the development split makes its score there a little too good"
        )


def next_of(found: Findings) -> list[str]:
    """What to do next."""
    plan = found.plan
    again = shlex.join(["fmlm", "finetune", str(plan.root / storage.RUN_CONFIG)])
    steps = list(_of_what_failed(found))
    if plan.compares:
        return [*steps, *next_steps(found.compared, found.scores[0].name, again)]
    if plan.settings.seeds < _ENOUGH_SEEDS:
        steps.append(f"see how much seeds differ: `{again} --seeds 5 --resume`")
    other = ["fmlm", "finetune", "--from", "OTHER", "--from", found.scores[0].checkpoint, *task_words(plan)]
    return [*steps, f"see whether another checkpoint is better: `{shlex.join(other)} --out DIR`"]


def _of_what_failed(found: Findings) -> Iterator[str]:
    """What to do about tasks that nothing was learnt of."""
    for name, _, _, task in found.tasks:
        if not task.n:
            yield f"{name}: lower the learning rate, in another --out: every run diverged"
        elif 2 * task.not_above_baseline > task.n:
            yield (
                f"{name}: hardly anything was learnt: try other learning rates (--grid paper), or more than "
                f"{LEAST_STEPS} steps (training.min_steps), in another --out"
            )


def task_words(plan: FinetunePlan) -> list[str]:
    """What names the tasks on the command line."""
    tasks = plan.settings.tasks
    words = [word for name in tasks.names for word in ("--task", name)]
    named = {
        "--data-dir": tasks.folder,
        "--train": tasks.train,
        "--dev": tasks.dev,
        "--test": tasks.test,
        "--name": tasks.name,
    }
    return words + [word for flag, value in named.items() if value is not None for word in (flag, value)]


# ---------------------------------------------------------------- documents


def markdown(found: Findings, notes: Sequence[str]) -> str:
    """The report."""
    lines = [f"# Fine-tuning of {literal(found.subject)}", ""]
    lines += [line for text in found.sentences for line in (f"**{literal(text)}**", "")]
    lines += ["Next:", "", *(f"- {_with_code(text)}" for text in next_of(found)), ""]
    if found.compared:
        table = comparison_table(found.compared, found.scores[0].name)
        lines += [*table_lines(table), "", literal(_how(found)), ""]
    lines += _scores(found)
    lines += ["## Notes", "", *(f"- {literal(note)}" for note in notes), ""] if notes else []
    lines += ["![development score by seed](plots/scores.png)", "", "## All settings", ""]
    lines += [*fenced(to_yaml(found.plan.settings), "yaml"), ""]
    return "\n".join(lines)


def _with_code(text: str) -> str:
    """Markdown of a text that ends in a command in backticks, or has none."""
    words, tick, command = text.partition("`")
    return literal(words) + (" `" + command if tick else "")


def _how(found: Findings) -> str:
    """How the comparison was made."""
    of_grid = any(len(scores.points) > 1 for _, _, _, scores in found.tasks)
    chosen = (
        " Hyperparameters are chosen for each checkpoint by itself, on the development split."
        if of_grid
        else ""
    )
    on_dev = (
        " The epoch is chosen on the same development split, which flatters all checkpoints alike."
        if found.plan.settings.select == "best"
        and any(task.split != "test" for task in found.compared.values())
        else ""
    )
    return HOW + chosen + on_dev


def _scores(found: Findings) -> Iterator[str]:
    """Every measure's table, and that of the grid's points."""
    settings = found.plan.settings
    best = settings.select == "best"
    counts = "the epoch with the best development score" if best else "the last epoch"
    from_mnli = {name for name, _, _, scores in found.tasks if scores.begun_from_mnli}
    measures = [
        [name + " (from MNLI)" * (name in from_mnli), split, measure, *_figures(over_seeds)]
        for name, split, measure, over_seeds in found.rows()
    ]
    points = [
        [name, point + " (chosen)" * (point == scores.point), *_figures(of_point)]
        for name, _, _, scores in found.tasks
        for point, of_point in scores.points.items()
    ]
    yield from (
        f"In percent, over {counted(settings.seeds, 'seed')}. Of each run {counts} counts; sd is the "
        "standard deviation of the sample.",
        "",
        *table_lines(ReportTable(["task", "split", "measure", "seeds", *_SPREAD], measures)),
        "",
    )
    if len(points) > len(list(found.tasks)):
        yield from ("## Grid", "", "Scores that decide between points:", "")
        yield from (*table_lines(ReportTable(["task", "point", "seeds", *_SPREAD], points)), "")


def _figures(over_seeds: Statistics) -> list[str]:
    """How many seeds, and what `_SPREAD` names."""
    figures = over_seeds.median, over_seeds.mean, over_seeds.sd, over_seeds.best, over_seeds.least
    return [str(over_seeds.n), *map(_percent, figures)]


def latex(found: Findings) -> str:
    """Tables for a paper (booktabs): mean and standard deviation over seeds; differences of checkpoints."""
    seeds = counted(found.plan.settings.seeds, "seed")
    note = f"% fine-tuning of {tex(found.subject)}, {seeds}: mean, standard deviation, median, best"
    rows = []
    for name, split, measure, over in found.rows():
        mean, sd, median, best = map(_percent, (over.mean, over.sd, over.median, over.best))
        rows.append([tex(name), split, measure, rf"{mean} $\pm$ {sd}", median, best])
    header = ["task", "split", "measure", r"mean $\pm$ sd", "median", "best"]
    lines = [note, *_tabular("lllrrr", header, rows)]
    if found.compared:
        table = comparison_table(found.compared, found.scores[0].name)
        # TeX's own font has neither sign as a character.
        cells = [[tex(cell).replace("−", "$-$").replace("–", "--") for cell in row] for row in table.rows]
        lines += [
            "% differences in points, paired by seed",
            *_tabular("llrrrrrr", map(tex, table.header), cells),
        ]
    return "\n".join([*lines, ""])


def _tabular(columns: str, header: Iterable[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def tex(text: str) -> str:
    """One line that TeX sets as it stands, whatever it holds."""
    return " ".join(text.split()).translate(_TEX)
