"""Weights & Biases, online where the user is logged in there, else offline in RUN/wandb."""

import contextlib
import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb

from fmlm_cli.engine.trackers.sent import Sent
from fmlm_cli.engine.trackers.tracker import RunFacts, Values
from fmlm_cli.errors import one_line
from fmlm_cli.events import Caution, Emit

_SECONDS = 30  # in which W&B has to answer, at the beginning and the end; what waits stays on the disk


class Wandb:
    """It cannot rewind: a resumed run goes on in the same run of W&B's, and sends what is new.

    Modes are W&B's own (WANDB_MODE, `wandb offline`); one who has never logged in is not asked to, but keeps
    the records offline, and so does a run that cannot reach the server.
    """

    def __init__(self, facts: RunFacts, emit: Emit) -> None:
        self._facts, self._emit, self._sent = facts, emit, Sent(facts, "wandb")
        self._run: wandb.Run | None = None

    def begin(self, step: int, evaluated: int) -> tuple[int, int]:
        """Go on in the same run, or begin one."""
        if not step:
            self._sent.begin_anew()
        try:
            self._run = self._init(None if _may_log_in() else "offline")
        except Exception as error:
            self._emit(Caution(f"W&B cannot be reached ({one_line(error)}): its records are kept offline"))
            wandb.teardown()  # or the run would be in use
            self._run = self._init("offline")
        self._sent.keep()
        return self._sent.trained, self._sent.evaluated

    def _init(self, mode: Any) -> wandb.Run:
        wanted = {
            "console": "off",  # it would print what the console prints, and spoil the live line
            "silent": True,
            "init_timeout": _SECONDS,
            "finish_timeout": _SECONDS,  # newer versions have it
        }
        known = {name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or self._facts.project,
            name=os.environ.get("WANDB_NAME") or self._facts.name,
            id=self._sent.id,
            resume="allow" if self._sent.is_known and mode != "offline" else None,
            config=dict(self._facts.config),
            dir=os.environ.get("WANDB_DIR") or str(self._facts.root),
            mode=mode,
            settings=wandb.Settings(**known),
        )

    def log(self, step: int, values: Values) -> None:
        """A process of W&B's own sends them."""
        assert self._run is not None
        self._run.log(dict(values), step=step)
        self._sent.note(step, values)

    def finish(self, *, complete: bool) -> str:
        """Send what waits."""
        if self._run is None:
            return ""
        run = self._run
        run.finish(exit_code=0 if complete else 1)
        if run.disabled:
            return ""
        return f"kept offline: wandb sync {Path(run.dir).parent}" if run.offline else str(run.url)


def _may_log_in() -> bool:
    """Whether W&B would not have to ask for a key: it has one, or is not to go online."""
    settings = wandb.setup(wandb.Settings(silent=True)).settings
    named = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    if settings.mode != "online" or settings.api_key or any(os.environ.get(name) for name in named):
        return True
    host = urlparse(settings.base_url).hostname or ""
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if name and netrc.netrc(str(Path(name).expanduser())).authenticators(host):
                return True
    return False


def open_tracker(facts: RunFacts, emit: Emit) -> Wandb:
    """A tracker of one run."""
    return Wandb(facts, emit)
