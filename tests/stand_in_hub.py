"""A stand-in for the Hugging Face hub on loopback: serves the folders `root/models/OWNER/NAME` and `root/datasets/OWNER/NAME`."""
import hashlib, json, threading, urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a"*40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): pass

    def answer(self, code, body=b"{}", **headers):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items(): self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET": self.wfile.write(body)

    def do_GET(self):
        parts = urllib.parse.unquote(urllib.parse.urlparse(self.path).path).strip("/").split("/")
        if parts[0] == "api": return self.api(*parts[1:])
        kind = parts.pop(0) if parts[0] == "datasets" else "models"
        file = self.server.root.joinpath(kind, *parts[:2], *parts[4:])
        if not file.is_file(): return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        body = file.read_bytes()
        self.answer(200, body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def api(self, kind, owner="", name="", what="", revision="", *_):
        folder = self.server.root/kind/owner/name
        if not (name and folder.is_dir()): return self.answer(404, X_Error_Code="RepoNotFound")
        if what == "revision" and revision not in (COMMIT, "main"): return self.answer(404, X_Error_Code="RevisionNotFound")
        files = [file for file in sorted(folder.iterdir()) if file.is_file()]
        tree = [dict(type="file", path=f.name, size=f.stat().st_size, oid=hashlib.sha1(f.read_bytes()).hexdigest()) for f in files]
        info = dict(id=f"{owner}/{name}", sha=COMMIT, private=False, tags=[], siblings=[dict(rfilename=f.name) for f in files])
        self.answer(200, json.dumps(tree if what == "tree" else info).encode(), Content_Type="application/json")


@contextmanager
def serve(root):
    "The address of a stand-in hub that serves `root` while the block runs"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.root = root
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
