"""`tandem serve` against raw sockets: broken requests, disconnects at every phase, slow senders, pipelining."""

import json
import re
import socket
import threading
import time

from harness import Checks
from serve_harness import MODEL, Server

BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Tell me of the sea."}], "temperature": 0,
                   "max_tokens": 900, "ignore_eos": True})
PATH = "/v1/chat/completions"


def post(body, *headers, path=PATH, stream=False):
    """A whole request as bytes."""
    if stream:
        body = body[:-1] + ', "stream": true}'
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class Raw:
    def __init__(self, server, timeout=20):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=timeout)

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # refused already
        return self

    def read_all(self):
        """All that comes until the server closes."""
        data = b""
        try:
            while part := self.socket.recv(65536):
                data += part
        except OSError:
            pass
        return data

    def read_some(self, count=1):
        data = b""
        while len(data) < count and (part := self.socket.recv(65536)):
            data += part
        return data

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def status_of(server, data):
    with Raw(server) as raw:
        reply = raw.send(data).read_all()
    return int(reply.split(b" ")[1]) if reply.startswith(b"HTTP/1.1 ") else None


class HealthProbe:
    """Asks /health all the time; keeps the slowest answer."""

    def __init__(self, server):
        self.server, self.slowest, self.bad, self.count = server, 0, [], 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over.wait(0.2):
            start = time.monotonic()
            try:
                status = self.server.request("GET", "/health", timeout=10)[0]
            except OSError as error:
                status = error
            self.slowest = max(self.slowest, time.monotonic() - start)
            self.count += 1
            if status != 200:
                self.bad.append(status)

    def stop(self):
        self.over.set()
        self.thread.join()


def broken_requests(checks, server):
    end = b"\r\n\r\n"
    long_name = b"X-A: " + b"a" * 9000
    cases = [
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01" + b"\x00" * 64 + end, 400),
        ("no version", b"GET /health" + end, 400),
        ("version 2.0", b"GET /health HTTP/2.0\r\nHost: x" + end, 400),
        ("no host", b"GET /health HTTP/1.1" + end, 400),
        ("two hosts", b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y" + end, 400),
        ("absolute form", b"GET http://x:8000/health HTTP/1.1\r\nHost: x\r\nConnection: close" + end, 200),
        ("absolute form of another scheme", b"GET ftp://x/health HTTP/1.1\r\nHost: x" + end, 400),
        ("absolute form without a host", b"GET http:///health HTTP/1.1\r\nHost: x" + end, 400),
        ("long header", b"GET /health HTTP/1.1\r\nHost: x\r\n" + long_name + end, 431),
        ("long path", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x" + end, 431),
        ("300 headers", b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"".join(b"A%d: b\r\n" % i for i in range(300)) + b"\r\n", 431),
        ("space in a name", b"GET /health HTTP/1.1\r\nHost: x\r\nA b: c" + end, 400),
        ("folded header", b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n c: d\r\n\tNo" + end, None),
        ("two lengths", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3" + end + b"{}x", 400),
        ("two equal lengths", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2" + end + b"{}", 400),
        ("length and chunks", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked" + end + b"{}", 400),
        ("odd encoding", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked" + end, 400),
        ("negative length", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: -1" + end, 400),
        ("length of letters", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 0x10" + end, 400),
        ("length of 20 digits", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999" + end, 400),
        ("body of 65 MiB", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: %d" % (65 << 20) + end, 413),
        ("chunk of 4 GiB", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" + end + b"ffffffff\r\n", 413),
        ("chunk of letters", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" + end + b"xyz\r\n", 400),
        ("chunk line of 100 KB", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" + end + b"1;" + b"a" * 100000, 400),
        ("unknown expectation", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: magic" + end, 417),
        ("gzip body", post("{}", "Content-Encoding: gzip", "Connection: close", path="/tokenize"), 415),
        ("NUL in the body", post('{"prompt": "\x00"}', "Connection: close", path="/tokenize"), 400),
        ("no body", b"POST /tokenize HTTP/1.1\r\nHost: x\r\nConnection: close" + end, 400),
        ("zero-length line first", b"\r\n\r\nGET /health HTTP/1.1\r\nHost: x" + end, 400),
    ]
    for name, data, status in cases:
        got = status_of(server, data)
        if status is None:
            checks.check(f"{name}: an answer or a closed connection", got in (200, 400, None), got)
        else:
            checks.equal(f"{name}: status", got, status)


def well_formed(checks, server):
    chunked = (b"POST /detokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
               b'5\r\n{"tok\r\nc\r\nens": [300]}\r\n0\r\n\r\n')
    checks.equal("a body in chunks", status_of(server, chunked), 200)
    with Raw(server) as raw:
        raw.send(b"POST /detokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\nExpect: 100-continue\r\n\r\n")
        checks.check("100 Continue", raw.read_some().startswith(b"HTTP/1.1 100 "))
        checks.check("then the answer", raw.send(b'{"tokens": [300]}').read_some().startswith(b"HTTP/1.1 200 "))
    with Raw(server) as raw:
        reply = raw.send(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n" * 20 +
                         b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").read_all()
        checks.equal("21 requests at once: 21 answers", reply.count(b"HTTP/1.1 200 OK"), 21)
    short = BODY.replace("900", "3")
    with Raw(server) as raw:
        reply = raw.send(post(short) + post(short, "Connection: close")).read_all()
        checks.equal("two chats in one write: two answers", reply.count(b'"finish_reason":"length"'), 2)
    with Raw(server) as raw:
        reply = raw.send(post(short, "Connection: close", stream=True)).read_all()
        checks.check("a stream ends whole", reply.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"), reply[-60:])
        checks.check("a stream's headers", b"text/event-stream" in reply and b"X-Accel-Buffering: no" in reply)
    old = post(short, stream=True).replace(b"HTTP/1.1", b"HTTP/1.0")
    with Raw(server) as raw:
        reply = raw.send(old).read_all()
        checks.check("HTTP/1.0: no chunks, closed at the end", reply.endswith(b"data: [DONE]\n\n") and b"chunked" not in reply)


def num_aborted(server):
    text = server.request("GET", "/metrics")[2]
    return int(re.search(r'finished_reason="abort"\} (\d+)', text).group(1))


def disconnects(checks, server):
    """The client goes away after each of these; nothing may stay behind."""
    whole, stream = post(BODY), post(BODY, stream=True)
    phases = [("nothing", b"", 0), ("half a header", whole[:30], 0), ("half a body", whole[:-20], 0),
              ("the request", whole, 0), ("the request of a stream", stream, 0), ("the first bytes", stream, 1),
              ("some kilobytes", stream, 3000)]
    for name, data, read in phases:
        before = num_aborted(server)
        for _ in range(3):
            with Raw(server) as raw:
                raw.send(data)
                if read:
                    raw.read_some(read)
                elif data in (whole, stream):
                    time.sleep(0.1)
        checks.check(f"gone after {name}: everything is free again", server.wait_idle())
        checks.equal(f"gone after {name}: ended before its 900 tokens", num_aborted(server) - before,
                     3 if data in (whole, stream) else 0)
    before = num_aborted(server)
    with Raw(server) as raw:
        raw.send(stream).read_some()
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    checks.check("gone with a reset: everything is free again", server.wait_idle())
    with Raw(server) as raw:
        raw.send(post(BODY) + b"GET /version HTTP/1.1\r\n")
        time.sleep(0.1)
    checks.check("gone with more bytes behind the request: everything is free again", server.wait_idle())
    checks.equal("gone in both ways: ended before its 900 tokens", num_aborted(server) - before, 2)


def slow_senders(checks, server):
    """Forty connections that never finish; others are served meanwhile."""
    slow = [Raw(server) for _ in range(40)]
    for index, raw in enumerate(slow):
        raw.send(b"GET /health HTTP/1.1\r\nHost: x\r\n" if index % 2 else post(BODY)[:200])
    with Raw(server) as raw:
        reply = raw.send(post(BODY.replace("900", "3"), "Connection: close")).read_all()
        checks.check("served beside slow senders", b'"finish_reason":"length"' in reply, reply[:200])
    idle = Raw(server)
    start = time.monotonic()
    checks.equal("an idle connection is closed", idle.read_all(), b"")
    checks.check("after five seconds", 3 < time.monotonic() - start < 15, time.monotonic() - start)
    start = time.monotonic()
    closed = slow[1].read_all()
    checks.check("a header that never ends is cut off", time.monotonic() - start < 15, closed)
    for raw in slow:
        raw.close()
    checks.check("slow senders: everything is free again", server.wait_idle())


def overload(checks, server):
    """Many more requests than places: each gets 200 or 429, refusals come at once."""
    results = []

    def ask():
        start = time.monotonic()
        status, _, text = server.request("POST", PATH, BODY.replace("900", "20"))
        results.append((status, time.monotonic() - start, text))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted({status for status, _, _ in results})
    checks.equal("overload: 200 or 429", (len(results), statuses), (40, [200, 429]))
    texts = {json.loads(text)["choices"][0]["message"]["content"] for status, _, text in results if status == 200}
    checks.equal("overload: all answers are the same", len(texts), 1)
    checks.check("overload: everything is free again", server.wait_idle())


def main():
    checks = Checks()
    with Server("--max-num-seqs", 4, "--max-num-queued-reqs", 4) as server:
        probe = HealthProbe(server)
        well_formed(checks, server)
        broken_requests(checks, server)
        disconnects(checks, server)
        slow_senders(checks, server)
        overload(checks, server)
        probe.stop()
        checks.equal("health: always 200", probe.bad, [])
        checks.check("health: asked often", probe.count > 10, probe.count)
        checks.check("health: below one second", probe.slowest < 1, probe.slowest)
        checks.equal("exit status", server.stop(), 0)
    checks.finish()


if __name__ == "__main__":
    main()
