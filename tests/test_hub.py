"""Names and folders become places on the disk: local ones, the Hub's cache, and a small server in the Hub's
place.
"""

import json
import logging
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from fmlm_cli import hub
from fmlm_cli.errors import OutOfSpaceError, UserError
from tests.standin_hub import COMMIT, Hub, Repository, in_place_of_the_hub, reach_no_other_machine

OLDER = "b" * 40
NAME = "fmlm-tests/model"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of the Hub's, and no way to any other machine."""
    reach_no_other_machine(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return tmp_path / "cache"


def fill_cache(cache: Path, files: dict[str, str], *, commit: str = COMMIT, ref: str = "main") -> Path:
    """A snapshot as huggingface_hub lays it out (docs: 'Understand caching'): refs/NAME and snapshots/COMMIT."""
    repository = cache / "models--fmlm-tests--model"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / ref).write_text(commit)
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def refused(name: str, **settings: object) -> str:
    """The one line with which a name is refused."""
    with pytest.raises(UserError) as caught:
        hub.locate(name, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_why_the_hub_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(hub, "_answers", lambda: True)
    assert hub.out_of_reach() is None
    monkeypatch.setattr(hub, "_answers", lambda: False)
    assert hub.out_of_reach() == f"{constants.ENDPOINT} cannot be reached"
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    assert hub.out_of_reach() == "HF_HUB_OFFLINE is set"


# ---------------------------------------------------------------- local names


def test_a_local_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_answers", lambda: pytest.fail("the Hub was asked"))
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert hub.locate(str(tmp_path)) == hub.Located(tmp_path, None)
    monkeypatch.chdir(tmp_path)
    assert hub.locate("owner/model") == hub.Located(Path("owner/model"), None)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.locate("~/owner", weights=False).folder == tmp_path / "owner"


def test_local_names_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_answers", lambda: pytest.fail("the Hub was asked"))
    (tmp_path / "file").write_text("")
    assert "has no revisions" in refused(str(tmp_path), revision="main")
    assert "is a file: give the model's folder" in refused(str(tmp_path / "file"))
    for name in ("./none", "../none", "/no/such", "~/no-such-x", "a/b/c", str(tmp_path / "none")):
        assert refused(name) == f"no such checkpoint: {name}"
    assert "name is empty" in refused("")
    for name in ("a b", "a--b", "-a/b", "owner/" + "x" * 200):
        assert "no name that the Hub could have" in refused(name)


# ---------------------------------------------------------------- without the Hub


@pytest.fixture(params=["offline", "unreachable", "silent"])
def away(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The Hub is out of reach; gives what is to be said of that."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        if request.param == "silent":
            silent.listen()
        else:
            silent.close()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(hub, "_SECONDS", 0.3)
        if request.param == "offline":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
            yield "HF_HUB_OFFLINE is set"
        else:
            yield f"http://127.0.0.1:{port} cannot be reached"


def test_the_cache_serves(away: str, cache: Path) -> None:
    begun = time.monotonic()
    assert away in refused(NAME)
    whole = fill_cache(cache, {"config.json": "{}", "model.safetensors": "w"})
    older = fill_cache(cache, {"config.json": "{}", "pytorch_model.bin": "w"}, commit=OLDER, ref="v1")
    assert hub.locate(NAME) == hub.Located(whole, COMMIT)
    assert hub.locate(NAME, revision="v1") == hub.Located(older, OLDER)
    assert hub.locate(NAME, revision=OLDER).folder == older
    for revision in ("v2", "c" * 40):
        said = refused(NAME, revision=revision)
        assert revision in said
        assert away in said
    assert time.monotonic() - begun < 8


def test_a_snapshot_without_all_its_weights_serves_only_who_needs_none(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    folder = fill_cache(cache, {"tokenizer.json": "{}", "training_args.bin": "x"})
    for file, text in (("model.safetensors.index.json", index), ("model-1.safetensors", "w")):
        assert hub.locate(NAME, weights=False).folder == folder
        assert "not in the Hub's local cache" in refused(NAME)
        (folder / file).write_text(text)
    (folder / "model-2.safetensors").write_text("w")
    assert hub.locate(NAME).folder == folder


def test_nothing_is_written_while_the_hub_is_away(away: str, cache: Path) -> None:
    refused(NAME)
    assert not cache.exists()


# ---------------------------------------------------------------- with a Hub


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server in the Hub's place, with a model."""
    with in_place_of_the_hub(Hub({NAME: Repository()}), monkeypatch) as content:
        yield content


SMALL = {"config.json", "tokenizer.json", "vocab.txt", "merges.txt", "spiece.model"}
OTHERS = {
    "README.md",
    "tf_model.h5",
    "flax_model.msgpack",
    "training_args.bin",
    "onnx/model.onnx",
    "onnx/config.json",
}


def offering(*names: str) -> dict[str, bytes]:
    return {name: f"{name}'s contents".encode() for name in {*SMALL, *OTHERS, *names}}


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_is_fetched(served: Hub) -> None:
    weights = {"model-1.safetensors", "model.safetensors.index.json"}
    served.repositories[NAME].files = offering(*weights, "pytorch_model.bin", "modeling.py", "deep/er.py")
    found = hub.locate(NAME, weights=False)
    assert found.revision == COMMIT
    assert names_in(found.folder) - {"model.safetensors.index.json"} == SMALL
    assert hub.locate(NAME) == found
    assert names_in(found.folder) == SMALL | weights
    hub.locate(NAME, code=True)
    assert names_in(found.folder) == SMALL | weights | {"modeling.py"}
    assert (found.folder / "vocab.txt").read_bytes() == served.repositories[NAME].files["vocab.txt"]


def test_pickles_are_fetched_where_there_are_no_safetensors(served: Hub) -> None:
    served.repositories[NAME].files = offering("pytorch_model.bin", "adapter_model.safetensors")
    assert names_in(hub.locate(NAME, revision="main").folder) == SMALL | {"pytorch_model.bin"}


def test_an_adapter_is_fetched_where_there_is_no_model(
    served: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.repositories[NAME].files = offering(
        "adapter_model.bin", "adapter_model.safetensors", "optimizer.bin"
    )
    found = hub.locate(NAME, revision="main")
    assert names_in(found.folder) == SMALL | {"adapter_model.safetensors"}
    monkeypatch.setattr(hub, "_answers", lambda: False)
    assert hub.locate(NAME) == found


def test_what_was_fetched_serves_when_the_hub_is_away(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    served.repositories[NAME].files = offering("model.safetensors", "pytorch_model.bin")
    found = hub.locate(NAME)
    served.broken = "fmlm-tests"
    assert hub.locate(NAME) == found
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    served.asked.clear()
    assert hub.locate(NAME) == hub.locate(NAME, revision=COMMIT) == found
    assert not served.asked


def test_what_the_hub_does_not_have(served: Hub) -> None:
    served.repositories[NAME].files = offering("model.safetensors")
    said = refused("fmlm-tests/other")
    assert f"{constants.ENDPOINT} has no such model" in said
    assert "hf auth login" in said
    for revision in ("v9", "c" * 40):
        assert f"'{NAME}' has no revision '{revision}': give a branch" in refused(NAME, revision=revision)
    served.repositories[NAME].gated = True
    said = refused(NAME)
    assert f"'{NAME}' is gated" in said
    assert f"{constants.ENDPOINT}/{NAME}" in said


def test_other_failures_say_what_happened(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    served.broken = "fmlm-tests"
    assert f"could not be had from {constants.ENDPOINT}: Server error '500" in refused(NAME)
    monkeypatch.setattr(hub, "_download", fail)
    with pytest.raises(OutOfSpaceError, match=r"no space left in .*cache for"):
        hub.locate(NAME)


# ---------------------------------------------------------------- what is said


def test_quiet_lasts_no_longer_than_asked(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    with pytest.raises(KeyError), hub.quiet():
        logger.error("unheard")
        warnings.warn("unheard", stacklevel=1)
        raise KeyError
    assert logger.level == level
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UserWarning):
        warnings.warn("heard", stacklevel=1)
