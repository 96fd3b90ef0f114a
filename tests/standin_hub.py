"""A small server in the Hub's place, on this machine alone: repositories to read from and to write to."""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants, hf_api

from fmlm_cli import hub

COMMIT = "a" * 40
JSON = {"Content-Type": "application/json"}
Answer = tuple[int, Mapping[str, str], bytes]


@dataclass
class Repository:
    """What it holds. `revisions`: names of the one commit that it has."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)


def user(name: str, *, role: str = "write", orgs: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Who a token is of, as the Hub says it. `orgs`: by name, what the user may do there."""
    return {
        "type": "user",
        "name": name,
        "orgs": [{"name": org, "roleInOrg": may} for org, may in (orgs or {}).items()],
        "auth": {"type": "access_token", "accessToken": {"displayName": "t", "role": role}},
    }


def answer_of(value: Any, status: int = 200) -> Answer:
    return status, JSON, json.dumps(value).encode()


def error(status: int, code: str = "", message: str = "") -> Answer:
    """huggingface_hub tells errors apart by these headers."""
    return status, {"X-Error-Code": code, "X-Error-Message": message}, b""


@dataclass
class Hub:
    """What the server holds, and what it was asked for.

    `repositories`: by name, data sets' by datasets/NAME. `users`: by their tokens. `broken`: where (a pattern
    of "METHOD path") it answers with an error, and its `status`: after a 500 of an upload huggingface_hub tries
    again for long, after a 507 it does not. `endpoint`: its address, while it is served.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: str = ""
    status: int = 500
    asked: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    endpoint: str = ""
    _stored: dict[str, bytes] = field(default_factory=dict)

    @property
    def written(self) -> list[str]:
        """The requests that change something."""
        reading = ("GET", "HEAD", "POST /api/validate-yaml")
        return [asked for asked in self.asked if not asked.startswith(reading)]

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Status, headers and body, as the Hub answers."""
        path, query = unquote(urlsplit(url).path), parse_qs(urlsplit(url).query)
        self.asked.append(f"{method} {path}")
        broken = bool(self.broken and re.search(self.broken, f"{method} {path}"))
        if broken or path == "/":
            return self.status if broken else 200, {}, b""
        owner = self.users.get(headers.get("Authorization", "").removeprefix("Bearer "))
        if path in ("/api/whoami-v2", "/api/validate-yaml"):
            if path.endswith("yaml"):
                return _validated(json.loads(body)["content"])
            return answer_of(owner) if owner else error(401, message="Invalid credentials")
        if path.startswith("/lfs/"):
            self._stored[path.removeprefix("/lfs/")] = body
            return 200, {}, b""
        if path == "/api/repos/create":
            return self._create(json.loads(body), owner)
        return self._of_repository(method, path, query, headers, body, owner)

    def _create(self, asked: dict[str, Any], owner: dict[str, Any] | None) -> Answer:
        if owner is None:
            return error(401)
        name = f"{asked.get('organization') or owner['name']}/{asked['name']}"
        if name in self.repositories:
            return answer_of({"error": "You already created this model repo"}, 409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.repositories[name] = Repository(private=private)
        return answer_of({"url": f"{self.endpoint}/{name}"})

    def _of_repository(
        self,
        method: str,
        path: str,
        query: Mapping[str, list[str]],
        headers: Mapping[str, str],
        body: bytes,
        owner: dict[str, Any] | None,
    ) -> Answer:
        plain = re.sub(r"^/api/(models/)?", "/", path).removeprefix("/").replace(".git/", "/")
        name = next((name for name in self.repositories if f"{plain}/".startswith(f"{name}/")), None)
        if name is None or (self.repositories[name].private and owner is None):
            return error(404 if owner else 401, "RepoNotFound")
        repository, rest = self.repositories[name], plain.removeprefix(name).strip("/")
        if method in ("POST", "PUT"):
            may_write = owner is not None and owner["auth"]["accessToken"]["role"] != "read"
            return self._write(name, rest, body) if may_write else error(403)
        verb, _, rest = rest.partition("/")
        revision, _, rest = rest.partition("/")
        if verb and revision not in (*repository.revisions, repository.commit):
            return error(404, "RevisionNotFound")
        if verb == "tree":
            return answer_of(_tree(repository, rest, recursive=query.get("recursive") == ["True"]))
        if verb == "resolve":
            return _contents(repository, rest, headers.get("Range"))
        siblings = [{"rfilename": file, "size": len(data)} for file, data in repository.files.items()]
        facts = {
            "id": name.removeprefix("datasets/"),
            "sha": repository.commit,
            "private": repository.private,
        }
        return answer_of({**facts, "siblings": siblings})

    def _write(self, name: str, what: str, body: bytes) -> Answer:
        repository = self.repositories[name]
        if what == "info/lfs/objects/batch":
            asked = json.loads(body)
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.endpoint}/lfs/{item['oid']}"}}}
                for item in asked["objects"]
            ]
            return answer_of({"transfer": "basic", "objects": objects})
        if what.startswith("preupload/"):
            files = [file["path"] for file in json.loads(body)["files"]]
            large = [file.endswith(".safetensors") for file in files]
            modes = [
                {"path": f, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
                for f, lfs in zip(files, large, strict=True)
            ]
            return answer_of({"files": modes})
        if what == "settings":
            asked = json.loads(body)
            repository.private = (
                asked.get("visibility", "private" if asked.get("private") else "public") == "private"
            )
            return answer_of({})
        assert what.startswith("commit/"), what
        for line in body.decode().splitlines():
            self._apply(repository, json.loads(line))
        return answer_of({"commitUrl": f"{self.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def _apply(self, repository: Repository, line: dict[str, Any]) -> None:
        value = line["value"]
        if line["key"] == "header":
            self.messages.append(value["summary"])
        elif line["key"] == "deletedFile":
            del repository.files[value["path"]]
        elif line["key"] == "lfsFile":
            assert hashlib.sha256(self._stored[value["oid"]]).hexdigest() == value["oid"]
            repository.files[value["path"]] = self._stored[value["oid"]]
        else:
            repository.files[value["path"]] = base64.b64decode(value["content"])


def _validated(card: str) -> Answer:
    """As strict as the Hub about the front matter of a card, in what is asked of it here."""
    front = yaml.safe_load(card.split("---\n", 2)[1])
    licenses = ("mit", "apache-2.0", "cc-by-4.0", "other", None)
    wrong = (
        []
        if front.get("license") in licenses
        else [{"message": '"license" must be one of [apache-2.0, mit]'}]
    )
    for model in front.get("model-index", []):
        for result in model["results"]:
            assert {"type"} <= set(result["task"]) and {"name", "type"} <= set(result["dataset"])
            assert all({"type", "value"} <= set(metric) for metric in result["metrics"])
    return answer_of({"errors": wrong, "warnings": []}, 400 if wrong else 200)


def _tree(repository: Repository, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    inside = {f: data for f, data in repository.files.items() if not folder or f.startswith(f"{folder}/")}
    parts = {name: name.removeprefix(folder).strip("/").split("/") for name in inside}
    folders = {"/".join(filter(None, (folder, first))) for first, *rest in parts.values() if rest}
    return [
        *({"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
          for name, data in inside.items() if recursive or len(parts[name]) == 1),
        *({"type": "directory", "path": name, "size": 0, "oid": COMMIT} for name in folders),
    ]  # fmt: skip


def _contents(repository: Repository, name: str, wanted: str | None) -> Answer:
    """A file, or the bytes of it that are `wanted`."""
    body = repository.files.get(name)
    if body is None:
        return error(404, "EntryNotFound")
    if repository.gated:
        return error(403, "GatedRepo")
    etag = hashlib.sha1(body).hexdigest()
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
    if wanted is None:
        return 200, headers, body
    first, last = (int(place) for place in wanted.removeprefix("bytes=").split("-"))
    return 206, headers | {"Content-Range": f"bytes {first}-{last}/{len(body)}"}, body[first : last + 1]


@contextmanager
def serving(content: Hub) -> Iterator[str]:
    """Serve at an address of this machine, which is given."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = content.answer(self.command, self.path, self.headers, sent)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = _do  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        content.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        yield content.endpoint
        server.shutdown()
        thread.join()


@contextmanager
def in_place_of_the_hub(content: Hub, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """This process takes it for the Hub, and reaches no other machine."""
    reach_no_other_machine(patch)
    with serving(content) as endpoint:
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(
            hf_api.api, "endpoint", endpoint
        )  # by one of these transformers asks, as it was at first
        patch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(hub, "is_offline_mode", lambda: False)
        yield content


def reach_no_other_machine(patch: pytest.MonkeyPatch) -> None:
    look_up: Callable[..., object] = socket.getaddrinfo

    def guarded(host: object, *args: object, **settings: object) -> object:
        if host not in ("127.0.0.1", b"127.0.0.1", "localhost"):
            raise socket.gaierror("no network in tests")
        return look_up(host, *args, **settings)

    patch.setattr(socket, "getaddrinfo", guarded)
