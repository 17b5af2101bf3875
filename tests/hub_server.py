"""A small hub on this machine, that speaks with huggingface_hub over HTTP: repositories are folders, a name ends in no commit."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse


class Hub(BaseHTTPRequestHandler):
    """`server.repositories`: name -> folder. `server.private`: names. `server.asked`: what was asked for, in order."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        path, server = unquote(urlparse(self.path).path), self.server
        server.asked.append(("POST", path))
        if self.headers.get("Authorization") != "Bearer hf_secret":
            return self._send(401, {"error": "log in"})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            made = json.loads(data)
            name = f"{made['organization']}/{made['name']}"
            if name in server.repositories:
                return self._send(409, {"error": "You already created it", "url": f"{server.address}/{name}"})
            server.repositories[name] = server.folder / name.replace("/", "--")
            server.repositories[name].mkdir()
            if made.get("visibility") == "private":
                server.private.add(name)
            return self._send(200, {"url": f"{server.address}/{name}"})
        name, _, rest = path.removeprefix("/api/models/").partition("/preupload/")
        if rest:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(data)["files"]
            ]
            return self._send(200, {"files": files})
        name = name.partition("/commit/")[0]
        for line in map(json.loads, data.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                (server.repositories[name] / line["value"]["path"]).write_bytes(content)
        commit = _commit(server.repositories[name])
        return self._send(200, {"commitUrl": f"{server.address}/{name}/commit/{commit}", "commitOid": commit})

    def _answer(self, body):
        path, server = unquote(urlparse(self.path).path), self.server
        server.asked.append((self.command, path))
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        folder = server.repositories.get(name)
        if folder is None:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        commit, files = _commit(folder), sorted(p for p in folder.iterdir() if p.is_file())
        if rest[:1] == ["resolve"]:
            file = folder / "/".join(rest[2:])
            content = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
            return self._send(200, content, headers, body)
        if rest[:1] == ["tree"]:
            listed = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": _commit(folder)} for p in files]
            return self._send(200, listed)
        return self._send(
            200, {"id": name, "sha": commit, "private": name in server.private, "tags": [], "siblings": []}
        )

    def _send(self, code, content, headers=None, body=True):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for key, value in {"Content-Length": len(content), **(headers or {})}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)


def _commit(folder):
    digest = hashlib.sha1()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def hub(folder: Path):
    """A hub whose new repositories come into `folder`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.repositories, server.private, server.asked, server.folder = {}, set(), [], folder
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
