"""More connections than the server has places: slow clients make room for quick ones, and no answer is cut."""

import json
import os
import resource
import socket
import threading
import time

from harness import Checks
from serve_harness import MODEL, Server

PLACES = 1024  # the server's connections
CROWD = 1400
LONG = {"model": MODEL, "messages": [{"role": "user", "content": "What is a lighthouse?"}], "temperature": 0,
        "stream": True, "max_tokens": 1900, "ignore_eos": True}


def connect(server, begin):
    client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    client.sendall(begin)
    return client


def slow_clients(server, kind):
    """CROWD connections that never finish what they begin."""
    begins = {"nothing": b"", "half a head": b"GET /health HTTP/1.1\r\nHost: x\r\n",
              "half a body": b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"}
    return [connect(server, begins[kind]) for _ in range(CROWD)]


def probes(checks, server, kind):
    slowest = 0
    for _ in range(5):
        began = time.monotonic()
        try:
            status = server.request("GET", "/health", timeout=10)[0]
        except OSError as error:
            status = error
        slowest = max(slowest, time.monotonic() - began)
        checks.equal(f"{kind}: /health", status, 200)
        try:
            status, text = server.json("POST", "/v1/chat/completions", {**LONG, "stream": False, "max_tokens": 4})
        except OSError as error:
            status, text = error, ""
        checks.equal(f"{kind}: an answer", status, 200)
    checks.check(f"{kind}: /health stays quick", slowest < 5, slowest)


def content(stream):
    """The text of a streamed chat."""
    chunks = [json.loads(line[6:]) for line in stream.split("\n\n") if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def files_of(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 2 * CROWD:
        print(f"skipped: needs {2 * CROWD} open files, the system allows {hard}")
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    checks = Checks()
    with Server(max_model_len=2048) as server:  # inherits the low limit, and must raise it for itself
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * CROWD, hard))
        before = files_of(server)
        alone = server.request("POST", "/v1/chat/completions", LONG)[2]
        for kind in ("nothing", "half a head", "half a body"):
            streamed = []
            reader = threading.Thread(target=lambda kept=streamed: kept.append(
                server.request("POST", "/v1/chat/completions", LONG)[2]))
            reader.start()
            time.sleep(0.1)
            crowd = slow_clients(server, kind)
            # Connections that nobody has accepted yet are no files of the server.
            end = time.monotonic() + 20
            while files_of(server) - before <= PLACES - 10 and time.monotonic() < end:
                time.sleep(0.05)
            held = files_of(server) - before
            checks.check(f"{kind}: all places are taken, and no more", PLACES - 10 < held < PLACES + 200, held)
            probes(checks, server, kind)
            reader.join(120)
            checks.check(f"{kind}: the stream under way is whole", streamed and content(streamed[0]) == content(alone))
            for client in crowd:
                client.close()
            end = time.monotonic() + 20
            while files_of(server) > before + 5 and time.monotonic() < end:
                time.sleep(0.05)
            checks.check(f"{kind}: every place comes back", files_of(server) <= before + 5, files_of(server))
        text = "".join(server.lines)
        checks.check("the log says so, at most once a minute", text.count("connections are in use") in (1, 2, 3), text)
        checks.equal("SIGTERM: exit status", server.stop(), 0)
    checks.finish()


if __name__ == "__main__":
    main()
