"""`python -m tests.pins REVISION`: whether this working tree behaves as that revision did.

Runs `scenario` with both and compares every file that they leave, byte by byte but for what was timed. Prints
what differs; exit code 1 if anything does. `--keep FOLDER` keeps what was run, and takes the older half from
there if it is already done.
"""

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMED = {"seconds", "train_seconds", "tokens_per_second", "peak_share", "examples_per_second"} | {
    "data_wait_share",
    "memory_gib",
}
# Hashes of files that hold something timed.
UNSTABLE = {"files"}
DURATIONS = (
    (re.compile(r"\d+(\.\d+)? min(utes)?\b"), "T min"),
    (re.compile(r"\d+:\d\d(:\d\d)? left"), "T left"),
    (re.compile(r"[\d,.]+ (tokens|MB|documents|examples)/s"), r"N \1/s"),
    (re.compile(r"\d+% of peak(  data wait \d+%)?(  [\d.]+ GiB)?"), "P of peak"),
    (re.compile(r"about [\d.]+ (s|min|h) "), "about T "),
    (re.compile(r"training at .* tokens a second"), "training at N tokens a second"),
)
TOLD = (
    (re.compile(r"^.*\d+/\d+.*of \d+ done.*\n", re.MULTILINE), ""),  # told now and then
    (re.compile(r" +[\d.]+( k)? *$", re.MULTILINE), " N"),  # tokens a second, the last column
)


def main(arguments: Sequence[str]) -> int:
    """Compare; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.pins", description=__doc__)
    parser.add_argument("revision")
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.keep or Path(temporary)).resolve()
        before, after = folder / "before" / "here", folder / "after" / "here"
        if not (before / "said.txt").is_file():
            code = folder / "code"
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(code)], check=True)
            subprocess.run(["git", "checkout", "--quiet", chosen.revision], cwd=code, check=True)
            run(code, before)
        run(ROOT, after)
        return report(before, after)


def run(code: Path, where: Path) -> None:
    """Run the scenario in an empty folder with the fmlm in `code`."""
    subprocess.run(["rm", "-rf", str(where)], check=True)
    where.mkdir(parents=True)
    environment = os.environ | {
        "PYTHONPATH": str(code),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "HF_HUB_OFFLINE": "1",
    }
    script = Path(__file__).with_name("scenario.py")
    subprocess.run([sys.executable, str(script)], cwd=where, env=environment, check=True)


def report(before: Path, after: Path) -> int:
    """Print what differs."""
    names = [
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (before, after)
    ]
    print(f"{len(names[0] & names[1])} files in common")
    differing = 0
    for name in sorted(names[0] ^ names[1]):
        differing += 1
        print(f"only {'before' if name in names[0] else 'after'}: {name}")
    for name in sorted(names[0] & names[1]):
        old, new = (content(folder / name) for folder in (before, after))
        if old != new:
            differing += 1
            print(f"differs: {name}")
            if isinstance(old, str) and isinstance(new, str):
                lines = difflib.unified_diff(
                    old.splitlines(), new.splitlines(), "before", "after", lineterm="", n=0
                )
                print("".join(f"    {line[:300]}\n" for line in list(lines)[2:30]), end="")
    print(f"{differing} differ" if differing else "no difference")
    return int(differing > 0)


def content(path: Path) -> str | bytes:
    """What of a file is to be the same: text without what was timed, other bytes as they are."""
    if path.suffix in (".jsonl", ".json"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        return "\n".join(json.dumps(timeless(json.loads(line)), indent=1) for line in lines if line.strip())
    if path.suffix in (".txt", ".md", ".yaml", ".tex", ".html", ".log"):
        text = path.read_text(errors="replace")
        for pattern, instead in DURATIONS + (TOLD if path.name == "said.txt" else ()):
            text = pattern.sub(instead, text)
        return text
    return path.read_bytes()


def timeless(value: Any) -> Any:
    """A value of JSON without what was timed."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMED | UNSTABLE}
    return [timeless(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
