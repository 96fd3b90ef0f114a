"""The Hugging Face Hub: a name becomes a local folder, files a repository; or one clear line says why not."""

import contextlib
import json
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
    is_offline_mode,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import hf_raise_for_status, validate_repo_id
from transformers.utils import logging as transformers_logging

from fmlm_cli.errors import OutOfSpaceError, UserError, is_out_of_space, one_line, shortened

_SECONDS = 4.0  # how long the Hub may take to answer at all before it counts as out of reach
_SMALL = ("*.json", "*.txt", "*.model")  # configurations and vocabularies
# Where a model's weights lie, in the order in which they are looked for; an index names several parts.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What a model is read from, at the top of its repository: files of an earlier one must not be read with it.
_OF_A_MODEL = (
    *("config.json", "generation_config.json", "finetuned.json", "adapter_config.json", "adapter_model.*"),
    *(
        "model*.safetensors",
        "model.safetensors.index.json",
        "pytorch_model*.bin",
        "pytorch_model*.index.json",
    ),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "*.model"),
)
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")  # of one saved without its model


@dataclass(frozen=True)
class Located:
    """A local folder; for a Hub name also the commit that it holds."""

    folder: Path
    revision: str | None = None


def locate(name: str, *, revision: str | None = None, weights: bool = True, code: bool = False) -> Located:
    """The folder of a model: a local one as it is, or a Hub name's, downloaded at a commit.

    `revision`: a branch, tag or commit of a Hub name. `weights`: its weights too, pickles only where there
    are no safetensors. `code`: its Python files too; nothing here runs them. Only files at the top are
    fetched: folders hold variants for other frameworks. Where the Hub is out of reach, the local cache
    serves. Raises `UserError`.
    """
    if not name.strip():
        raise UserError("the checkpoint's name is empty: give a local folder or a Hub name")
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise UserError(
                f"{name} is a local folder, which has no revisions: drop the revision '{revision}'"
            )
        return Located(path)
    if path.exists():
        raise UserError(f"{name} is a file: give the model's folder")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"no such checkpoint: {name}")
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UserError(
            f"no such checkpoint: '{name}' is no local folder, and no name that the Hub could have"
        ) from None
    return _from_hub(name, revision, weights, code)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' remarks about their own insides from the user; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _from_hub(name: str, revision: str | None, weights: bool, code: bool) -> Located:
    """A Hub name's folder. The Hub is asked once first: huggingface_hub would try for most of a minute."""
    if why := out_of_reach():
        folder = _cached(name, revision, weights)
        if folder is None:
            at_revision = f" at revision '{revision}'" if revision else ""
            raise UserError(
                f"'{name}' is no local folder, not in the Hub's local cache{at_revision}, and {why}: "
                "give a local folder"
            )
        return Located(folder, folder.name)
    try:
        with quiet():
            folder = _download(name, revision, weights, code)
    except Exception as error:  # huggingface_hub, the network and the disk raise kinds of their own
        refused = refusal(error, name, revision, "model")
        cached = None if refused else _cached(name, revision, weights)
        if cached is None:
            raise refused or UserError(
                f"'{name}' could not be had from {constants.ENDPOINT}: {one_line(error)}"
            ) from error
        folder = cached
    return Located(folder, folder.name)


def out_of_reach() -> str | None:
    """Why the Hub cannot be asked now, in words that follow "and"; None if it answers. Takes seconds."""
    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    return None if _answers() else f"{constants.ENDPOINT} cannot be reached"


def _answers() -> bool:
    """Whether the Hub answers one request soon; in a thread, as looking up its address has no time limit."""
    answers: list[int] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            answers.append(get_session().head(constants.ENDPOINT, timeout=_SECONDS).status_code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return bool(answers)


def _download(name: str, revision: str | None, weights: bool, code: bool) -> Path:
    patterns = [*_SMALL, *(["*.py"] if code else [])]
    if weights:
        files = {file.rfilename for file in HfApi().model_info(name, revision=revision).siblings or ()}
        own = "model*.safetensors" if files & set(WEIGHTS[:2]) else "pytorch_model*.bin"
        adapter = [name for name in ADAPTER_WEIGHTS if name in files][:1]
        patterns += [own] if files & set(WEIGHTS) else adapter
    return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))


def refusal(
    error: Exception, name: str, revision: str | None, kind: Literal["model", "data set"]
) -> UserError | None:
    """What to say of an error that the local cache is no answer to."""
    if is_out_of_space(error):
        return OutOfSpaceError(
            f"no space left in {constants.HF_HUB_CACHE} for '{name}': make room, or set HF_HOME"
        )
    if isinstance(error, RevisionNotFoundError):
        return UserError(
            f"'{name}' has no revision '{revision}': give a branch, a tag or a commit that it has"
        )
    if isinstance(error, GatedRepoError):  # a RepositoryNotFoundError too
        page = f"{constants.ENDPOINT}/{'' if kind == 'model' else 'datasets/'}{name}"
        return UserError(f"'{name}' is gated: ask for access at {page}, then log in with `hf auth login`")
    if isinstance(error, RepositoryNotFoundError):
        no_folder = f"'{name}' is no local folder, and " if kind == "model" else f"'{name}': "
        return UserError(
            f"{no_folder}{constants.ENDPOINT} has no such {kind}: check the name, "
            "or log in with `hf auth login` if it is private"
        )
    return None


def _cached(name: str, revision: str | None, weights: bool) -> Path | None:
    """The folder of a revision in the Hub's local cache, if it is there with its weights."""
    try:
        # Asked for one file alone: huggingface_hub takes the lack of any other for an incomplete snapshot.
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns="config.json", local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return None
    return None if weights and not _has_weights(folder) else folder


def _has_weights(folder: Path) -> bool:
    """Whether a folder holds weights, all parts of them."""
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        return any((folder / name).is_file() for name in ADAPTER_WEIGHTS)
    if weights.suffix != ".json":
        return True
    try:
        parts = set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return True  # damage is told of by whoever loads it
    return all((folder / str(part)).is_file() for part in parts)


# ---------------------------------------------------------------- writing to it


@dataclass(frozen=True)
class Target:
    """A model's repository that the user may write to. `name`: with its owner. `is_new`: still to be made."""

    name: str
    is_new: bool
    private: bool

    @property
    def page(self) -> str:
        """Its address."""
        return f"{constants.ENDPOINT}/{self.name}"


def check_target(name: str, *, public: bool, card: str) -> Target:
    """Check all that can be before files are uploaded to NAME or OWNER/NAME: nothing is written.

    `public`: whether everybody may see it. `card`: at least the front matter. Raises `UserError`.
    """
    if not _can_be_a_name(name):
        raise UserError(
            f"'{name}' is no name that a model could have on the Hub: write NAME or OWNER/NAME, of letters, "
            "digits, -, _ and ."
        )
    if why := out_of_reach():
        raise UserError(f"nothing can be pushed to {name} now: {why}")
    try:
        with quiet():
            full_name = _owned(name)
            _check_card(card)
            target = _looked_up(full_name)
    except UserError:
        raise
    except Exception as error:  # huggingface_hub and the network raise kinds of their own
        raise UserError(f"{constants.ENDPOINT} could not be asked about {name}: {_said(error)}") from error
    if not (target.private or public):
        raise UserError(f"{target.page} is there, and public: say --public too, or choose another name")
    return target


def upload(target: Target, files: Mapping[str, Path | bytes], message: str, *, public: bool) -> None:
    """Make these, by their paths in the repository, its model in one commit; a new repository is private.

    What an earlier model was read from, and this one has no more, goes in the same commit; all else stays.
    `public`: let everybody see it, once all is there. Raises `UserError`.
    """
    api = HfApi()
    done = "it may be there, and empty" if target.is_new else "nothing has changed there"
    try:
        with quiet():
            there = [] if target.is_new else api.list_repo_files(target.name)
            if target.is_new:
                api.create_repo(target.name, private=True, exist_ok=True)
            changes: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationAdd(file, content) for file, content in files.items()
            ]
            old = [file for file in there if file not in files and _is_of_a_model(file)]
            changes += [CommitOperationDelete(file) for file in old]
            api.create_commit(target.name, changes, commit_message=message)
            if public and target.private:
                done = "all files are there, but it is still private"
                api.update_repo_settings(target.name, private=False)
    except Exception as error:  # huggingface_hub, the network and the disk raise kinds of their own
        raise UserError(f"{target.page} could not be written to ({_said(error)}); {done}") from error


def _can_be_a_name(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.isascii() and all(part and part[0] not in ".-" for part in name.split("/"))


def _owned(name: str) -> str:
    """The name with its owner, who is the user or an organization of theirs."""
    remedy = (
        f"make one that may write at {constants.ENDPOINT}/settings/tokens, and log in with `hf auth login`"
    )
    token = get_token()
    if token is None:
        raise UserError(f"there is no token to push to {name} with: {remedy}, or set HF_TOKEN")
    try:
        me = HfApi().whoami(token)
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise UserError(f"{constants.ENDPOINT} does not know your token, or no longer: {remedy}") from error
    if _reads_only(me):
        raise UserError(f"your token may only read: {remedy}")
    owner, slash, last = name.rpartition("/")
    if not slash:
        return f"{me['name']}/{last}"
    orgs = [str(org["name"]) for org in me.get("orgs", ()) if org.get("roleInOrg") != "read"]
    if owner not in (me["name"], *orgs):
        others = f", or to {', '.join(orgs)}" if orgs else ""
        raise UserError(
            f"you may not write to {owner}'s models, but to {me['name']}'s{others}: name one of these"
        )
    return name


def _check_card(card: str) -> None:
    """Have the Hub look at the front matter, as it does before it takes a card."""
    asked = {"repoType": "model", "content": card}
    response = get_session().post(f"{constants.ENDPOINT}/api/validate-yaml", json=asked)
    if response.status_code == HTTPStatus.BAD_REQUEST:
        wrong = "; ".join(str(error.get("message")) for error in response.json().get("errors", ()))
        raise UserError(f"{constants.ENDPOINT} refuses the card: {shortened(wrong, 200)}")
    hf_raise_for_status(response)


def _reads_only(me: Mapping[str, Any]) -> bool:
    """Whether the token that was used may write nothing."""
    token = (me.get("auth") or {}).get("accessToken") or {}
    if token.get("role") != "fineGrained":
        return token.get("role") == "read"
    scopes = (token.get("fineGrained") or {}).get("scoped") or ()
    return bool(scopes) and not any(
        "write" in may for scope in scopes for may in scope.get("permissions", ())
    )


def _looked_up(name: str) -> Target:
    try:
        return Target(name, is_new=False, private=bool(HfApi().model_info(name).private))
    except RepositoryNotFoundError:
        return Target(name, is_new=True, private=True)


def _is_of_a_model(file: str) -> bool:
    return any(fnmatchcase(file, pattern) for pattern in _OF_A_MODEL) and "/" not in file


def _said(error: Exception) -> str:
    """What a library says, in one line."""
    return shortened(one_line(error), 200)
