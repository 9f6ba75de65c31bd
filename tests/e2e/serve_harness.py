"""A running `tandem serve` for tests: started on a free port, asked over HTTP, stopped by a signal."""

import http.client
import json
import re
import signal
import subprocess
import threading
import time

from harness import DEMO_ASSISTANT, DEMO_TARGET, TANDEM, speculative

START_SECONDS = 60
MODEL = "demo"


class Server:
    """with Server("--max-num-seqs", 4) as server: ..."""

    def __init__(self, *flags, drafts=4, max_model_len=1024, **more):
        """drafts: None leaves --speculative-config out; more: further keys of it."""
        pair = [] if drafts is None else speculative(DEMO_ASSISTANT, drafts, **more)
        arguments = ["serve", DEMO_TARGET, *pair, "--port", 0, "--served-model-name", MODEL,
                     "--max-model-len", max_model_len, *flags]
        self.started = time.monotonic()
        self.process = subprocess.Popen([TANDEM, *map(str, arguments)], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE)
        self.lines = []
        self.port = None
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not self.ready.wait(START_SECONDS) or self.port is None:
            self.process.kill()
            raise RuntimeError("no server: " + "".join(self.lines))
        self.start_seconds = time.monotonic() - self.started

    def _read(self):
        for raw in self.process.stderr:
            line = raw.decode("utf-8", "replace")
            self.lines.append(line)
            found = re.search(r"ready: http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                self.ready.set()
        self.ready.set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def request(self, method, path, body=None, headers=None, timeout=60):
        """-> (status, headers, body as text)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            headers = dict(headers or {})
            if body is not None and not isinstance(body, (str, bytes)):
                body = json.dumps(body)
            if body is not None:
                headers.setdefault("Content-Type", "application/json")
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read().decode("utf-8")
        finally:
            connection.close()

    def json(self, method, path, body=None, **more):
        status, _, text = self.request(method, path, body, **more)
        return status, json.loads(text)

    def metric(self, name):
        """The value of the first sample of that name."""
        text = self.request("GET", "/metrics")[2]
        found = re.search(rf"^{re.escape(name)}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
        return float(found.group(1)) if found else None

    def wait_idle(self, seconds=20):
        """True once nothing runs, nothing waits and no KV page is held."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
            if all(self.metric(name) == 0 for name in names):
                return True
            time.sleep(0.05)
        return False

    def stop(self, seconds=40):
        """SIGTERM; -> exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        self.reader.join(5)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
