"""A stand-in for the Hugging Face hub on loopback: serves and takes the folders `root/models/OWNER/NAME` and `root/datasets/OWNER/NAME`."""
import base64, hashlib, json, threading, urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sentiment_nbdev.settings import PINS

COMMIT = "a"*40
KNOWN = {COMMIT, "main", *PINS.values()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): pass

    def answer(self, code, body=b"{}", **headers):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items(): self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)

    def do_GET(self):
        self.server.requests.append(f"{self.command} {self.path}")
        parts = urllib.parse.unquote(urllib.parse.urlparse(self.path).path).strip("/").split("/")
        if parts[0] == "api": return self.api(*parts[1:])
        kind = parts.pop(0) if parts[0] == "datasets" else "models"
        file = self.server.root.joinpath(kind, *parts[:2], *parts[4:])
        commit = parts[3] if parts[3:4] and parts[3] != "main" else COMMIT
        if not file.is_file(): return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        body = file.read_bytes()
        self.answer(200, body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

    def api(self, kind, owner="", name="", what="", revision="", *_):
        folder = self.server.root/kind/owner/name
        if not (name and folder.is_dir()): return self.answer(404, X_Error_Code="RepoNotFound")
        if what == "revision" and revision not in KNOWN: return self.answer(404, X_Error_Code="RevisionNotFound")
        files = [file for file in sorted(folder.iterdir()) if file.is_file()]
        tree = [dict(type="file", path=f.name, size=f.stat().st_size, oid=hashlib.sha1(f.read_bytes()).hexdigest()) for f in files]
        info = dict(id=f"{owner}/{name}", sha=revision if revision in KNOWN - {"main"} else COMMIT, private=False, tags=[], siblings=[dict(rfilename=f.name) for f in files])
        self.answer(200, json.dumps(tree if what == "tree" else info).encode(), Content_Type="application/json")

    def do_POST(self):
        self.server.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(200, json.dumps(self.take(urllib.parse.unquote(self.path).strip("/").split("/")[1:], body)).encode(), Content_Type="application/json")

    def take(self, parts, body):
        "What an upload asks for: a repository, the way to send each file, and the commit with the files in it"
        if parts == ["repos", "create"]:
            told = json.loads(body)
            name = f"{told.get('organization') or 'me'}/{told['name'].split('/')[-1]}"
            (self.server.root/"models"/name).mkdir(parents=True, exist_ok=True)
            return dict(url=f"http://{self.headers['Host']}/{name}", name=name, private=told.get("private"))
        if parts[-2:-1] == ["preupload"]:
            return dict(files=[dict(path=f["path"], uploadMode="regular", shouldIgnore=False) for f in json.loads(body)["files"]])
        if "commit" in parts:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file": (self.server.root/"models"/parts[1]/parts[2]/line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
            return dict(commitUrl=f"http://{self.headers['Host']}/{parts[1]}/{parts[2]}/commit/{COMMIT}", commitOid=COMMIT)
        return dict(errors=[], warnings=[])


@contextmanager
def serve(root, requests=None):
    "The address of a stand-in hub that serves `root` while the block runs"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.root, server.requests = root, [] if requests is None else requests
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
