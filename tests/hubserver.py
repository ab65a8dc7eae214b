"""A loopback server that speaks as much of the Hugging Face hub's protocol as downloads and uploads ask for."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

LARGE = (".safetensors", ".bin", ".onnx")
"""Files that the hub keeps in its large-file storage: with a SHA-256, and behind a redirect."""
API = re.compile(r"/api/(models|spaces)/([^/]+/[^/?]+)(?:/(revision|tree)/([^/?]+))?")
FILE = re.compile(r"/(spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
BLOB = re.compile(r"/blobs/([0-9a-f]{64})")
WRITE = re.compile(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main")
BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """The server's repositories, what is wrong with it, and what it was asked.

    storage: the address under another name, as the hub's large files lie with another host. repositories: by
    "model/OWNER/NAME" or "space/OWNER/NAME", files by path. cut: bytes after which the next answer with a large file's
    content breaks off, once. forged: SHA-256 that is announced for a path in place of its own. requests: method, path
    and Range of every request. token: what who writes must show; None for nothing. refused: large files are not taken.
    private: the repositories that were made so. uploaded: large files by SHA-256 that no commit has named yet.
    """

    address: str = ""
    storage: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    cut: int | None = None
    forged: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    token: str | None = None
    refused: bool = False
    private: set[str] = field(default_factory=set)
    uploaded: dict[str, bytes] = field(default_factory=dict)

    def put(self, name: str, folder: Path, inside: str = "") -> None:
        """Serve a folder's files as a repository, below the folder `inside` of it."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        table = {f"{inside}{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}
        self.repositories[name] = self.repositories.get(name, {}) | table

    def commit(self, name: str) -> str:
        """The repository's commit: it follows from the content."""
        files = sorted(self.repositories[name].items())
        return hashlib.sha1(repr([(path, git_hash(content)) for path, content in files]).encode()).hexdigest()

    def contents(self) -> dict[str, bytes]:
        """Every large file by its true SHA-256."""
        everything = [content for files in self.repositories.values() for content in files.values()]
        return {hashlib.sha256(content).hexdigest(): content for content in everything}

    def asked_for(self, words: str) -> list[tuple[str, str, str | None]]:
        """The requests whose path holds the words."""
        return [request for request in self.requests if words in request[1]]


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._write()

    def do_PUT(self) -> None:
        self._write()

    def log_message(self, *_: object) -> None:
        pass

    def _write(self) -> None:
        path = unquote(self.path)
        self.hub.requests.append((self.command, path, None))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        shown = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if match := BLOB.fullmatch(path):  # with another host, which asks for no token
            taken = hashlib.sha256(body).hexdigest() == match[1] and not self.hub.refused
            if taken:
                self.hub.uploaded[match[1]] = body
            self._send(200 if taken else 400, b"", {})
        elif self.hub.token not in (None, shown):
            self._send(401, b"{}", {"Content-Type": "application/json", "X-Error-Message": "Invalid credentials"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := BATCH.fullmatch(path):
            self._json(
                {"transfer": "basic", "objects": [self._upload_of(item) for item in json.loads(body)["objects"]]}
            )
        elif (match := WRITE.fullmatch(path)) and f"model/{match[1]}" in self.hub.repositories:
            answer = self._preupload if match[2] == "preupload" else self._commit
            answer(f"model/{match[1]}", body)
        else:
            self._nothing("RepoNotFound")

    def _create(self, wanted: dict[str, str]) -> None:
        identifier = f"{wanted['organization']}/{wanted['name']}"
        name, is_new = f"model/{identifier}", f"model/{identifier}" not in self.hub.repositories
        self.hub.repositories.setdefault(name, {})
        if is_new and wanted.get("visibility") == "private":
            self.hub.private.add(name)
        table = {"url": f"{self.hub.address}/{identifier}", "id": identifier, "name": identifier}
        self._send(200 if is_new else 409, json.dumps(table).encode(), {"Content-Type": "application/json"})

    def _upload_of(self, item: dict[str, object]) -> dict[str, object]:
        return {**item, "actions": {"upload": {"href": f"{self.hub.storage}/blobs/{item['oid']}"}}}

    def _preupload(self, name: str, body: bytes) -> None:
        files = []
        for item in json.loads(body)["files"]:
            held = self.hub.repositories[name].get(item["path"])
            mode = "lfs" if item["path"].endswith(LARGE) else "regular"
            oid = None if held is None else git_hash(held)
            files.append({"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                self.hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                self.hub.repositories[name][value["path"]] = self.hub.uploaded[value["oid"]]
        commit = self.hub.commit(name)
        address = f"{self.hub.address}/{name.split('/', 1)[1]}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": address, "pullRequestUrl": None})

    def _answer(self) -> None:
        path = unquote(self.path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if match := API.fullmatch(path.split("?")[0]):
            self._api(f"{match[1][:-1]}/{match[2]}", match[3] or "revision", match[4] or "main")
        elif match := FILE.fullmatch(path):
            self._file(f"{'space' if match[1] else 'model'}/{match[2]}", match[3], match[4])
        elif match := BLOB.fullmatch(path):
            self._content(self.hub.contents()[match[1]], {"ETag": f'"{match[1]}"'})
        else:
            self._nothing("EntryNotFound")

    def _api(self, name: str, kind: str, revision: str) -> None:
        if not self._known(name, revision):
            return
        commit = self.hub.commit(name)
        if kind == "revision":
            self._json({"id": name.split("/", 1)[1], "sha": commit, "siblings": []})
            return
        items = []
        for path, content in self.hub.repositories[name].items():
            item: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            if path.endswith(LARGE):
                digest = self.hub.forged.get(path) or hashlib.sha256(content).hexdigest()
                item["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
            items.append(item)
        self._json(items)

    def _file(self, name: str, revision: str, path: str) -> None:
        if not self._known(name, revision):
            return
        content = self.hub.repositories[name].get(path)
        if content is None:
            self._nothing("EntryNotFound")
            return
        headers = {"X-Repo-Commit": self.hub.commit(name), "ETag": f'"{git_hash(content)}"'}
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            self._send(302, b"", headers | {"Location": f"{self.hub.storage}/blobs/{digest}"})
        else:
            self._content(content, headers)

    def _known(self, name: str, revision: str) -> bool:
        if name not in self.hub.repositories:
            self._nothing("RepoNotFound")
            return False
        if revision not in ("main", self.hub.commit(name)):
            self._nothing("RevisionNotFound")
            return False
        return True

    def _content(self, content: bytes, headers: dict[str, str]) -> None:
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        part = content[start:]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.hub.cut if self.command == "GET" and "/blobs/" in self.path else None
        if cut is None or cut >= len(part):
            self._send(206 if start else 200, part, headers)
            return
        self.hub.cut = None
        self._send(200, part[:cut], headers | {"Content-Length": str(len(part))})
        self.close_connection = True  # in the middle of what was promised

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _nothing(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that listens on a free port of the loopback interface."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        hub.address = f"http://127.0.0.1:{listening.server_port}"
        hub.storage = f"http://localhost:{listening.server_port}"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield hub
        listening.shutdown()
