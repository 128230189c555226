"""A small Hugging Face Hub on this machine, which speaks the part of its protocol that we use.

Downloads: `/api/models/REPO/revision/REV`, then `/REPO/resolve/REV/FILE`, which leads to `/cdn/`.
Uploads: `/api/repos/create`, `/api/validate-yaml`, `preupload`, the batch of Git LFS, `commit`.
"""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_made_up"
NOT_FOUND = {"repo": (404, "RepoNotFound"), "revision": (404, "RevisionNotFound"),
             "file": (404, "EntryNotFound"), "gated": (403, "GatedRepo")}


@dataclass
class Repository:
    """Commits of files, the last one is main; who may read it."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def add(self, files: dict[str, bytes]) -> str:
        """Add a commit of these files to those there; return its hash."""
        content = {**(list(self.commits.values())[-1] if self.commits else {}), **files}
        name = hashlib.sha1(repr((len(self.commits), sorted(content))).encode()).hexdigest()
        self.commits[name] = content
        return name

    def find(self, revision: str) -> str | None:
        """Return the commit that a revision means, None if there is no such."""
        if revision == "main" and self.commits:
            return list(self.commits)[-1]
        return revision if revision in self.commits else None


class Hub(ThreadingHTTPServer):
    """The server: its repositories, and every request with its body, and its headers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, bytes]] = []
        self.headers: list[bytes] = []
        self.blobs: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def cdn(self) -> str:
        """Where files are: on another host than the Hub, and without its headers."""
        return f"http://localhost:{self.server_port}/cdn"

    def sent(self, method: str, part: str) -> list[bytes]:
        """Return the bodies of the requests whose path has this part in it."""
        return [body for verb, path, body in self.requests if verb == method and part in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    do_GET = do_POST = do_PUT = do_HEAD

    def _serve(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, body))
        self.server.headers.append(self.headers.as_bytes())
        parts = path.strip("/").split("/")
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command in ("POST", "PUT") and parts[0] != "cdn" and not known:
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif parts[0] == "cdn":
            self._blob(parts[1], body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[4:], body, known)
        elif parts[2:3] != ["resolve"]:
            self._answer(404)
        else:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), known)

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def _answer(self, status: int, content: object = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, what: str) -> None:
        status, code = NOT_FOUND[what]
        self._answer(status, {"error": code}, X_Error_Code=code)

    def _find(self, repo: str, known: bool) -> Repository | None:
        """Return a repository that the request may see; else answer as the Hub does."""
        one = self.server.repositories.get(repo)
        if one is None or (one.private and not known):
            if known:
                self._refuse("repo")
            else:  # strangers are not told whether there is one
                self._answer(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        return one

    def _create(self, wanted: dict) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        private = wanted.get("private", wanted.get("visibility") == "private")
        self.server.repositories[repo] = Repository(private)
        self.server.repositories[repo].add({".gitattributes": b"*.safetensors filter=lfs"})
        self._answer(200, {"url": f"{self.server.url}/{repo}", "name": repo, "id": "1"})

    def _api(self, repo: str, rest: list[str], body: bytes, known: bool) -> None:
        one = self._find(repo, known)
        if one is None:
            return
        what, revision = (rest or ["revision"])[0], "/".join(rest[1:]) or "main"
        commit = one.find(revision)
        if commit is None:
            self._refuse("revision")
        elif what == "revision":
            files = [{"rfilename": name} for name in one.commits[commit]]
            self._answer(200, {"id": repo, "modelId": repo, "sha": commit, "private": one.private,
                               "gated": "auto" if one.gated else False, "siblings": files,
                               "tags": [], "downloads": 0, "likes": 0})
        elif what == "preupload":
            self._answer(200, {"files": [
                {"path": file["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(body)["files"]]})
        elif what == "commit":
            files = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.blobs[value["oid"]]
            made = one.add(files)
            self._answer(200, {"success": True, "commitOid": made,
                               "commitUrl": f"{self.server.url}/{repo}/commit/{made}"})

    def _batch(self, wanted: dict) -> None:
        self._answer(200, {"transfer": "basic", "objects": [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/cdn/{one['oid']}"}}}
            for one in wanted["objects"]]})

    def _blob(self, oid: str, body: bytes) -> None:
        if self.command == "PUT":
            self.server.blobs[oid] = body
        self._answer(200, b"" if self.command == "PUT" else self.server.blobs[oid])

    def _resolve(self, repo: str, revision: str, file: str, known: bool) -> None:
        one = self._find(repo, known)
        commit = one and one.find(revision)
        if one is None:
            return
        if one.gated:
            self._refuse("gated")
        elif commit is None:
            self._refuse("revision")
        elif file not in one.commits[commit]:
            self._refuse("file")
        else:
            content = one.commits[commit][file]
            oid = hashlib.sha256(content).hexdigest()
            self.server.blobs[oid] = content
            self._answer(302, b"", Location=f"{self.server.cdn}/{oid}", X_Repo_Commit=commit,
                         X_Linked_Etag=f'"{oid}"', X_Linked_Size=str(len(content)))


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a Hub without repositories within this block."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()
