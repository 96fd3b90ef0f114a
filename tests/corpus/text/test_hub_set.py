"""Data sets of the Hub, streamed from a server in its place, by a process of its own: it is found when imported."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmlm_cli import hub
from fmlm_cli.corpus.text.corpus import TextCorpus
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.errors import UserError
from fmlm_cli.events import ignore
from tests.standin_hub import Hub, Repository, serving

NAME, COMMIT = "someone/texts", "0123456789" * 4
FILES = {
    "README.md": b"---\nconfigs:\n- config_name: default\n  data_files:\n"
    b"  - split: train\n    path: data/train-*\n  - split: test\n    path: data/test-*\n---\n",
    **{
        f"data/train-{piece}.jsonl": "".join(
            json.dumps({"id": n, "text": f"text {n} of piece {piece}"}) + "\n" for n in range(600)
        ).encode()
        for piece in range(2)
    },
    "data/test-0.jsonl": b'{"id": 1, "text": "held out"}\n',
}
TEXTS = Repository(FILES, commit=COMMIT, revisions=("main", "v1"))

READ = """
import json, sys
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.corpus.text.hub_set import HubSet
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.errors import UserError

def read(source):
    stats = ReadStats()
    return list(source.documents(stats)), stats

told = {}
found = HubSet.find("hub:someone/texts", ReadOptions(revision="v1"))
documents, stats = read(found)
told["documents"], told["again"] = documents, read(found)[0]
told["in turn"] = [text for part in found.parts for text in read(part)[0]]
told["sizes"] = [stats.disk_bytes, found.size, len(found.parts)]
told["identity"] = found.identity()
told["test"] = read(HubSet.find("hub:someone/texts:default", ReadOptions(split="test")))[0]
said = []
for name, options in [
    ("hub:someone/texts", ReadOptions(split="dev")), ("hub:someone/texts:fr", ReadOptions()),
    ("hub:someone/none", ReadOptions()), ("hub:someone/texts", ReadOptions(revision="v9")),
]:
    try:
        HubSet.find(name, options)
    except UserError as error:
        said.append(str(error))
told["said"] = said
print(json.dumps(told))
"""


def test_a_data_set_of_the_hub_is_streamed(tmp_path: Path) -> None:
    with serving(Hub({f"datasets/{NAME}": TEXTS})) as endpoint:
        home = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
        }
        done = subprocess.run(  # noqa: PLW1510, its code is looked at
            [sys.executable, "-c", READ],
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    wanted = [f"text {n} of piece {piece}" for piece in range(2) for n in range(600)]
    assert told["documents"] == told["again"] == told["in turn"] == wanted
    size = sum(map(len, FILES.values()))
    assert told["sizes"] == [size, size, 2]
    assert told["identity"] == [{"name": f"hub:{NAME}", "split": "train", "commit": COMMIT}]
    assert told["test"] == ["held out"]
    split, config, name, revision = told["said"]
    assert "Available splits: ['train', 'test']" in split and "--split" in split
    assert "'fr' not found. Available: ['default']" in config
    assert "has no such data set: check the name" in name
    assert "has no revision 'v9'" in revision
    assert not any("\n" in line for line in told["said"])


def test_without_a_network_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    begin = time.perf_counter()
    with pytest.raises(UserError, match="hub:a/b cannot be read: HF_HUB_OFFLINE is set; give files"):
        TextCorpus.find(["hub:a/b"], ReadOptions(), ignore)
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize("name", ["hub:", "hub:a b", "hub:a/b/c", "hub:../x"])
def test_names_that_the_hub_cannot_have(name: str) -> None:
    with pytest.raises(UserError, match="not a name that the Hub could have; write hub:OWNER/NAME"):
        TextCorpus.find([name], ReadOptions(), ignore)
