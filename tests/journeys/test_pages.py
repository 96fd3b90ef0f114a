"""What runs the pages: what it takes for commands, what for output, and what it does not let pass."""

from pathlib import Path

import pytest

from tests.journeys.pages import PageError, Scaling, execute, first_unmatched, steps_of

PAGE = """
# A page

```sh
# not this
mkdir -p a && \\
    touch a/b

ls a
```

```console
$ ls a
b
$ echo "1,234 tokens in 5.2 s"; echo; echo "0.3 lost"
77 tokens
  in ... s
...
$ false
$ echo $?
1
$ cat job.yaml
# job.yaml
steps: 6
```

Some words.

```yaml
# job.yaml
steps: 100000
```

```text
never run
```
"""


def page(tmp_path: Path, text: str) -> Path:
    (tmp_path / "work").mkdir()
    path = tmp_path / "page.md"
    path.write_text(text)
    return path


def block(*lines: str, language: str = "console") -> str:
    return "\n".join([f"```{language}", *lines, "```", ""])


def test_what_a_page_asks_for() -> None:
    steps = list(steps_of(PAGE))
    assert [(step.line, step.command, list(step.shown)) for step in steps if step.command] == [
        (6, "mkdir -p a && \\\n    touch a/b", []),
        (9, "ls a", []),
        (13, "ls a", ["b"]),
        (15, 'echo "1,234 tokens in 5.2 s"; echo; echo "0.3 lost"', ["77 tokens", "  in ... s", "..."]),
        (19, "false", []),
        (20, "echo $?", ["1"]),
        (22, "cat job.yaml", ["# job.yaml", "steps: 6"]),
    ]
    assert [(step.line, step.file, step.text) for step in steps if step.file] == [
        (30, "job.yaml", "# job.yaml\nsteps: 100000\n")
    ]


def test_a_page_comes_true(tmp_path: Path) -> None:
    text = PAGE.replace("$ cat job.yaml\n# job.yaml\nsteps: 6\n", "")
    text += block("$ cat job.yaml", "# job.yaml", "steps: 6") + block(
        "open('c', 'w').write('100000')", language="python"
    )
    ran = execute(page(tmp_path, text), tmp_path / "work", Scaling({"100000": "6"}))
    assert [done.code for done in ran] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert ran[-2].said == "# job.yaml\nsteps: 6\n"
    assert (tmp_path / "work/c").read_text() == "6"


def test_what_is_put_in_a_place_is_not_replaced_itself() -> None:
    assert Scaling({"ab": "b", "a": "c", "b": "a"})("ab a b") == "b c a"
    assert Scaling()("a") == "a"


def test_a_command_is_in_a_terminal_and_runs_fmlm(tmp_path: Path) -> None:
    """Of the width that was asked for."""
    text = block("$ test -t 1 && echo $COLUMNS", "64") + block("$ fmlm --help", "Usage: fmlm ...", "...")
    done = execute(page(tmp_path, text), tmp_path / "work", columns=64)[-1]
    assert max(map(len, done.said.splitlines())) <= 64


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (block("true", "false", language="sh"), "line 3: false\nended with 1"),
        (block("$ false"), "line 2: false\nended with 1"),
        (block("$ false", "$ true", "$ echo $?", "1"), "line 2: false\nended with 1"),
        (block("$ (exit 3)", "$ echo $?", "2"), "from this line on: 2\n--- it printed\n3"),
        (block("$ echo one; echo two", "one"), "there is more than) one"),
        (block("$ echo one; echo two", "one", "...", "three"), "from this line on: three"),
        (block("$ echo one; echo two", "two"), "from this line on: two"),
        (block("$ no-such-command"), "ended with 127"),
        (block("$ echo one", "one") + block("# a.txt", "x", language=""), "no '100000' to put"),
    ],
)
def test_a_page_that_does_not(tmp_path: Path, text: str, line: str) -> None:
    scaling = Scaling({"100000": "6"} if "a.txt" in text else {})
    with pytest.raises(PageError) as caught:
        execute(page(tmp_path, text), tmp_path / "work", scaling)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("loss 3.46, +0.2 (0.1 to 1e-05)", "loss 12, -1,000.5 (3 to 0.4)"),
        ("model   run/final", "model run/final"),
        ("a line that is folded", "a line\n   that is folded"),
        ("a line\n   that was folded", "a line that was folded"),
        ("... in a line ... of it", "text in a line and more of it"),
        ("first\n\nsecond", "first\nsecond\n\n"),
        ("first\n...\nlast", "first\nlast"),
        ("14 kB, 3 seconds, 2 bytes", "2.3 MB, 7.1 hours, 1 byte"),
        ("step-12/weights", "step-3/weights"),
        ("...\nend", "1\n2\nend"),
    ],
)
def test_output_that_is_as_shown(shown: str, said: str) -> None:
    assert first_unmatched(shown.splitlines(), said) is None


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("loss 3.46", "loss nan"),
        ("a b", "ab"),
        ("14 kB", "14 seconds"),
        ("14 kB,", "14 kB"),
        ("one\ntwo", "one\nand two"),
        ("one\ntwo", "one two"),
        ("one\n...", "none"),
        ("a (b) .", "a b ."),
        ("a.c", "abc"),
        ("a ... c\nd", "a b\nc\nd"),
    ],
)
def test_output_that_is_not(shown: str, said: str) -> None:
    assert first_unmatched(shown.splitlines(), said) is not None
