"""A double of the Hub on localhost: the endpoints that huggingface_hub's client uses, with repositories in memory.

With it the real client runs end to end without a network. `Hub.fail` lets chosen requests fail. Client code has to run
in a process of its own, with `Hub.environment` set before huggingface_hub is imported.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKENS = {"hf_writersSecret": ("someone", "write"), "hf_readersSecret": ("reader", "read")}  # token → user, rights
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """A repository: its visibility, its commits (id → files; main is the newest) and other branches (name → id)."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    off_main: set[str] = field(default_factory=set)  # commits made on other branches

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        names = sorted((name, git_oid(data)) for name, data in files.items())
        identity = hashlib.sha1(repr((len(self.commits), names)).encode()).hexdigest()
        self.commits[identity] = files
        if branch != "main":
            self.branches[branch] = identity
            self.off_main.add(identity)
        return identity

    def resolve(self, revision: str) -> str | None:
        if revision == "main":
            return [identity for identity in self.commits if identity not in self.off_main][-1]
        revision = self.branches.get(revision, revision)
        return revision if revision in self.commits else None


@dataclass
class Fault:
    """A failure of matching requests: a status, or "truncate", "corrupt", "hang up", "lose the answer"; how often."""

    method: str
    path: str  # regular expression
    kind: int | str
    times: int = 1_000_000


class Hub:
    """The server, a context manager; `repositories` and `requests` (method and path) are public."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: object, token: str | None = "hf_writersSecret") -> dict[str, str]:
        names = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        return {**names, "HF_HUB_DISABLE_TELEMETRY": "1", **({"HF_TOKEN": token} if token else {})}

    def fail(self, method: str, path: str, kind: int | str, times: int = 1_000_000) -> None:
        self.faults.append(Fault(method, path, kind, times))

    def fault_for(self, method: str, path: str) -> int | str | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault.kind
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    routes = (  # method, path, name of the handler
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("GET", rf"/api/models/{REPO}(/revision/(?P<revision>[^/]+))?", "info"),
        ("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", "tree"),
        ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", rf"/api/models/{REPO}/branch/(?P<branch>[^/]+)", "branch"),
        ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/objects/(?P<oid>\w+)", "put"),
        ("POST", rf"/{REPO}\.git/info/lfs/verify", "verify"),
        ("GET", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", "file"),
    )

    def answer(self) -> None:
        method, path = self.command, unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.hub.requests.append(f"{method} {path}")
        self.fault = self.hub.fault_for(method, path)
        self.user, self.rights = TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "), (None, ""))
        if isinstance(self.fault, int):
            return self.send(self.fault, {"error": "as the test wishes"})
        if self.fault == "hang up":
            return self.hang_up()
        for verb, pattern, name in self.routes:
            found = re.fullmatch(pattern, path) if verb == method.replace("HEAD", "GET") else None
            if found is None:
                continue
            self.found = found.groupdict()
            if self.found.get("repo") and not self.find_repository(writing=method == "POST"):
                return None
            return getattr(self, name)()
        return self.send(404, {"error": f"the double has no {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def find_repository(self, writing: bool) -> bool:
        self.repository = self.hub.repositories.get(self.found["repo"])
        owner = self.found["repo"].split("/")[0]
        if self.repository is None or (self.repository.private and self.user != owner):
            status = 401 if self.user is None else 404
            self.send(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif writing and (self.user != owner or self.rights != "write"):
            self.send(403, {"error": "this token may not write"})
        else:
            self.commit_id = self.repository.resolve(self.found.get("revision") or "main")
            if self.commit_id is not None:
                return True
            self.send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return False

    @property
    def files(self) -> dict[str, bytes]:
        return self.repository.commits[self.commit_id]

    def whoami(self) -> None:
        self.send(200 if self.user else 401, {"name": self.user, "type": "user", "error": "Invalid username"})

    def create(self) -> None:
        wanted = json.loads(self.body)
        owner = wanted.get("organization") or self.user
        name = f"{owner}/{wanted['name']}"
        if self.user is None:
            self.send(401, {"error": "Invalid username or password."})
        elif owner != self.user or self.rights != "write":
            self.send(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif name in self.hub.repositories:
            self.send(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        else:
            private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            self.hub.repositories[name] = repository = Repository(private)
            repository.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
            self.send(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def validate(self) -> None:
        header = re.match(r"---\n(.*?)\n---", json.loads(self.body)["content"], re.DOTALL)
        try:
            good = isinstance(yaml.safe_load(header[1]) if header else {}, dict)
        except yaml.YAMLError:
            good = False
        self.send(200 if good else 400, {"errors": [] if good else [{"message": "not YAML"}], "warnings": []})

    def info(self) -> None:
        siblings = [{"rfilename": name} for name in sorted(self.files)]
        about = {"id": self.found["repo"], "sha": self.commit_id, "private": self.repository.private, "tags": []}
        self.send(200, {**about, "siblings": siblings, "downloads": 0, "likes": 0})

    def entry(self, name: str) -> dict[str, object]:
        data = self.files[name]
        entry = {"type": "file", "path": name, "size": len(data), "oid": git_oid(data)}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def tree(self) -> None:
        folder = f"{self.found['folder']}/" if self.found["folder"] else ""
        names = [name for name in sorted(self.files) if name.startswith(folder)]
        if not names:
            return self.send(404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"})
        return self.send(200, [self.entry(name) for name in names])

    def preupload(self) -> None:
        answers = []
        for wanted in json.loads(self.body)["files"]:
            name, large = wanted["path"], wanted["path"].endswith(".safetensors")
            data = self.files.get(name)
            oid = None if data is None else hashlib.sha256(data).hexdigest() if large else git_oid(data)
            mode = "lfs" if large else "regular"
            answers.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send(200, {"files": answers})

    def batch(self) -> None:
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                upload = {"href": f"{self.hub.url}/objects/{wanted['oid']}", "header": {}}
                verify = {"href": f"{self.hub.url}/{self.found['repo']}.git/info/lfs/verify", "header": {}}
                answer["actions"] = {"upload": upload, "verify": verify}
            answers.append(answer)
        self.send(200, {"objects": answers, "transfer": "basic"})

    def put(self) -> None:
        self.hub.objects[self.found["oid"]] = self.body[::-1] if self.fault == "corrupt" else self.body
        self.send(200, {})

    def verify(self) -> None:
        oid = json.loads(self.body)["oid"]
        if hashlib.sha256(self.hub.objects[oid]).hexdigest() == oid:
            return self.send(200, {})
        del self.hub.objects[oid]
        return self.send(422, {"error": "what arrived has another SHA-256"})

    def commit(self) -> None:
        files = dict(self.files)
        for line in self.body.splitlines():
            kind, value = (entry := json.loads(line))["key"], entry["value"]
            if kind == "header" and value.get("parentCommit") not in (None, self.commit_id):
                return self.send(412, {"error": "A commit has happened since. Please refresh and try again."})
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        identity = self.repository.commit(files, self.found["revision"])
        url = f"{self.hub.url}/{self.found['repo']}/commit/{identity}"
        return self.send(200, {"commitUrl": url, "commitOid": identity, "hookOutput": ""})

    def branch(self) -> None:
        self.repository.branches[self.found["branch"]] = self.commit_id
        self.send(200, {})

    def file(self) -> None:
        name, headers = self.found["name"], {"X-Repo-Commit": self.commit_id}
        if name not in self.files:
            return self.send(404, {"error": "Entry not found"}, {**headers, "X-Error-Code": "EntryNotFound"})
        entry, data = self.entry(name), self.files[name]
        oid = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers |= {"ETag": f'"{oid}"', "X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data))}
        data = data[:-8] + data[:-9:-1] if self.fault == "corrupt" else data
        status, start = 200, int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        if start:
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.send(status, data[start:], headers)

    def send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if self.fault == "lose the answer":
            return self.hang_up()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if self.fault == "truncate" else data)
            self.close_connection = self.close_connection or self.fault == "truncate"
        return None

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Print nothing; `Hub.requests` has all requests."""
