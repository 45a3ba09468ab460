"""As much of the Hugging Face hub as its own client needs, on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

from huggingface_hub import constants
from pytest import MonkeyPatch


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory, each a list of commits: ``{path: content}``.

    Attributes:
        token: The only one that is accepted.
        commits: By repository, oldest first, each with its message.
        private: Repositories that were made private.
        requests: ``method path`` of each request that was answered.
        break_after: Bytes of a download after which the connection is closed, once, and the server
            then answers no download.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = "good"
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.break_after: int | None = None
        self.broken = False
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repository: str, files: dict[str, bytes], message: str = "by hand") -> str:
        """One more commit, on top of the last one; its id."""
        history = self.commits.setdefault(repository, [])
        history.append((message, {**(history[-1][1] if history else {}), **files}))
        return self.commit_id(repository, len(history) - 1)

    def commit_id(self, repository: str, index: int) -> str:
        return hashlib.sha1(f"{repository} {index}".encode()).hexdigest()

    def resolve(self, repository: str, revision: str) -> int | None:
        """Index of a commit: ``main``, ``v1`` for the first one, …, or its id."""
        count = len(self.commits[repository])
        known = {self.commit_id(repository, i): i for i in range(count)}
        known |= {f"v{i + 1}": i for i in range(count)} | {"main": count - 1}
        return known.get(revision)


@contextmanager
def fake_hub(monkeypatch: MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    """A hub that the client asks instead of its own, and an empty cache."""
    made = FakeHub()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # what it would upload to is no hub
    monkeypatch.setattr(constants, "ENDPOINT", made.endpoint)
    template = made.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield made
    made.shutdown()
    made.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.read()

    def do_GET(self) -> None:
        self.read()

    def do_POST(self) -> None:
        self.write()

    def do_PUT(self) -> None:
        self.write()

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, values: object) -> None:
        self.answer(200, json.dumps(values).encode())

    def read(self) -> None:
        hub = self.server
        path = unquote(self.path.split("?")[0])
        hub.requests.append(f"{self.command} {path}")
        if path in ("", "/"):
            return self.answer(200)
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repository, rest = "/".join(parts[:2]), parts[2:]
        given = self.headers.get("Authorization")
        if given and given != f"Bearer {hub.token}":
            text = "Invalid credentials in Authorization header"
            return self.answer(401, X_Error_Message=text)
        hidden = repository in hub.private and not given
        if repository not in hub.commits or hidden:
            return self.answer(401, X_Error_Code="RepoNotFound")
        revision = rest[1] if len(rest) > 1 else "main"
        index = hub.resolve(repository, revision)
        if index is None:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        commit, files = hub.commit_id(repository, index), hub.commits[repository][index][1]
        if rest[:1] == ["tree"]:
            rows = [
                {"type": "file", "path": name, "oid": _oid(content), "size": len(content)}
                for name, content in files.items()
            ]
            return self.answer_json(rows)
        if rest[:1] == ["resolve"]:
            name = "/".join(rest[2:])
            if name not in files:
                return self.answer(404, X_Error_Code="EntryNotFound")
            return self.download(files[name], commit)
        siblings = [{"rfilename": name} for name in files]
        self.answer_json({"id": repository, "sha": commit, "siblings": siblings})

    def download(self, content: bytes, commit: str) -> None:
        hub = self.server
        headers = {"ETag": f'"{_oid(content)}"', "X_Repo_Commit": commit}
        if self.command == "GET" and hub.broken:
            return self.answer(503)
        if self.command == "GET" and hub.break_after is not None and len(content) > hub.break_after:
            hub.broken, self.close_connection = True, True
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: hub.break_after])
            return None
        start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        part = content[int(start) :]
        return self.answer(206 if int(start) else 200, part, **headers)

    def write(self) -> None:
        hub = self.server
        path = unquote(self.path.split("?")[0])
        hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path.startswith("/large/"):
            hub.large[path.removeprefix("/large/")] = body
            return self.answer(200)
        if path == "/api/validate-yaml":
            return self.answer_json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401, X_Error_Message="Invalid username or password.")
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked['organization']}/{asked['name']}"
            found = json.dumps({"url": f"{hub.endpoint}/{repository}"}).encode()
            if repository in hub.commits:
                return self.answer(409, found)
            hub.add(repository, {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial")
            if asked.get("visibility") == "private" or asked.get("private"):
                hub.private.add(repository)
            return self.answer(200, found)
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.endpoint}/large/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self.answer_json({"transfer": "basic", "objects": objects})
        _, _, _, owner, name, action, _ = path.split("/")
        if action == "preupload":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.answer_json({"files": modes})
        header, *rows = [json.loads(line) for line in body.splitlines()]
        files = {
            row["value"]["path"]: hub.large[row["value"]["oid"]]
            if row["key"] == "lfsFile"
            else base64.b64decode(row["value"]["content"])
            for row in rows
        }
        commit = hub.add(f"{owner}/{name}", files, header["value"]["summary"])
        url = f"{hub.endpoint}/{owner}/{name}/commit/{commit}"
        return self.answer_json({"commitUrl": url, "commitOid": commit})


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
