#!/usr/bin/env python3
"""Asks for one streamed answer directly and through proxies: the same text, in as many pieces, as early.

    tools/soak/stream_check.py NAME=URL...     the first is the server itself

Prints a line for each; exits 1 when a proxy changes the text, holds chunks back, hides a disconnect, or breaks a request
after an idle connection.
"""

import http.client
import json
import re
import sys
import time
import urllib.parse

BODY = {"messages": [{"role": "user", "content": "What is a lighthouse?"}], "temperature": 0, "stream": True,
        "max_tokens": 800, "ignore_eos": True}


class Site:
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.address, self.folder = (parts.hostname, parts.port), parts.path.rstrip("/")
        self.connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    def open(self, body, connection=None):
        connection = connection or self.connection(*self.address, timeout=60)
        connection.request("POST", self.folder + "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"{reply.status} {reply.read()[:200]}")
        return connection, reply

    def get(self, path):
        connection = self.connection(*self.address, timeout=30)
        connection.request("GET", self.folder + path)
        return connection.getresponse().read().decode()

    def metric(self, name):
        return float(re.search(rf"^{re.escape(name)}\{{[^}}]*\}} (\S+)$", self.get("/metrics"), re.MULTILINE).group(1))


def stream(site):
    """-> (text, seconds to the first text, seconds, number of reads that brought something)."""
    began = time.monotonic()
    connection, reply = site.open(BODY)
    text, first, reads, rest = "", None, 0, b""
    while piece := reply.read1(65536):
        reads += 1
        *lines, rest = (rest + piece).split(b"\n\n")
        for line in lines:
            if line.startswith(b"data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"].get("content")
                if delta and first is None:
                    first = time.monotonic() - began
                text += delta or ""
    connection.close()
    return text, first, time.monotonic() - began, reads


def disconnect(server, site):
    """Seconds until the server has noticed that a client behind the proxy went away."""
    connection, reply = site.open({**BODY, "max_tokens": 3000})
    received = 0
    while received < 4000:
        received += len(reply.read1(1000))
    if server.metric("vllm:num_requests_running") == 0:
        return float("nan")  # it ended too early to tell
    connection.sock and connection.sock.close()
    reply.close()
    began = time.monotonic()
    while server.metric("vllm:num_requests_running") > 0 and time.monotonic() - began < 30:
        time.sleep(0.02)
    return time.monotonic() - began


def after_idle(site, pauses=(4.5, 5.0, 5.5)):
    """Requests after pauses about as long as the server keeps an idle connection; -> how many failed."""
    failed = 0
    for pause in pauses:
        for _ in range(4):
            connection, reply = site.open({**BODY, "stream": False, "max_tokens": 1})
            reply.read()
            connection.close()
        time.sleep(pause)
        try:
            _, reply = site.open({**BODY, "stream": False, "max_tokens": 1})
            reply.read()
        except (RuntimeError, OSError):
            failed += 1
    return failed


def main():
    sites = {name: Site(url) for name, url in (argument.split("=", 1) for argument in sys.argv[1:])}
    server = next(iter(sites.values()))
    expected, bad = None, 0
    stream(server)  # warm
    for name, site in sites.items():
        text, first, seconds, reads = stream(site)
        expected = expected or text
        gone = disconnect(server, site)
        failed = after_idle(site)
        page = "Tandem" in site.get("/") and "import" in site.get("/web/main.js")
        good = text == expected and reads > 50 and first < seconds / 3 and gone < 2 and failed == 0 and page
        bad += not good
        print(f"{name:12} {'ok ' if good else 'BAD'} text {'the same' if text == expected else 'DIFFERS'}, {reads} reads, "
              f"first text after {first:.3f} s of {seconds:.3f} s; a disconnect ends the request in {gone:.2f} s; "
              f"{failed} of 3 failed after a pause; the page {'is there' if page else 'IS MISSING'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
