"""What the server logs: JSON lines when asked, one for each request that ends, with its id and never its words."""

import http.client
import json
import os
import re
import subprocess
import time

from harness import DEMO_TARGET, TANDEM, Checks
from serve_harness import MODEL, Server

SECRET = "my aunt Petronella's recipe"
BODY = {"model": MODEL, "prompt": SECRET, "max_tokens": 5, "temperature": 0}


def check_closed_log(checks):
    """A pipe behind the log whose reader has gone away: nobody reads lines any more, clients still get answers."""
    process = subprocess.Popen([TANDEM, "serve", DEMO_TARGET, "--port", "0", "--enable-log-requests"],
                               stderr=subprocess.PIPE)
    ports = (re.search(rb"ready: http://127\.0\.0\.1:(\d+)", line) for line in process.stderr)
    port = int(next(found for found in ports if found).group(1))
    process.stderr.close()
    statuses = []
    try:
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "hi", "max_tokens": 2}))
            statuses.append(connection.getresponse().status)
            connection.close()
            time.sleep(0.2)
    except (OSError, http.client.HTTPException) as error:
        statuses.append(repr(error))
    checks.equal("nobody reads the log: answers", statuses, [200, 200])
    process.terminate()
    checks.equal("nobody reads the log: exit status", process.wait(40), 0)


def unknown_values(checks):
    for name, value, known in (("TANDEM_LOG", "warn", True), ("TANDEM_LOG_FORMAT", "xml", True), ("TANDEM_LOG", "info", False),
                               ("TANDEM_LOG_FORMAT", "text", False), ("TANDEM_LOG", "", False)):
        done = subprocess.run([TANDEM, "tokenize", DEMO_TARGET, "--text", "x"], capture_output=True, text=True,
                              env={**os.environ, name: value})
        checks.equal(f"{name}={value}: warned of", done.stderr.startswith(f"tandem: warning: {name}: expected one of "), known)


def main():
    checks = Checks()
    unknown_values(checks)
    os.environ["TANDEM_LOG_FORMAT"] = "json"
    # A GPU would be through with all 900 tokens before the client leaves.
    with Server("--enable-log-requests", "--device", "cpu") as server:
        server.request("POST", "/v1/completions", BODY, {"X-Request-Id": "mine-1"})
        server.request("POST", "/v1/completions", {**BODY, "stream": True}, {"X-Request-Id": "mine-2"})
        server.request("POST", "/v1/completions", {**BODY, "max_tokens": SECRET}, {"X-Request-Id": "mine-3"})
        server.request("POST", "/v1/completions", {**BODY, SECRET: 1}, {"X-Request-Id": "mine-5"})
        server.request("GET", "/nowhere", headers={"X-Request-Id": "mine-6"})
        try:
            server.request("POST", "/v1/completions", {**BODY, "max_tokens": 900, "ignore_eos": True},
                           {"X-Request-Id": "mine-4"}, timeout=0.3)
        except TimeoutError:
            pass
        checks.check("the one that the client left is over", server.wait_idle())
        time.sleep(0.2)
        checks.equal("exit status", server.stop(), 0)
        lines = [json.loads(line) for line in server.lines]
    checks.check("every line is an object of time, level and message",
                 all(sorted(line) == ["level", "message", "time"] and line["level"] in ("info", "warning") and
                     line["time"].endswith("Z") for line in lines), lines)
    about = {f"mine-{i}": [line["message"] for line in lines if f"mine-{i}" in line["message"]] for i in range(1, 7)}
    for name, how in (("mine-1", "finished"), ("mine-2", "finished"), ("mine-4", "aborted by the client")):
        checks.check(f"{name}: one line", len(about[name]) == 1 and f"request {name}: {how}, " in about[name][0], about[name])
    checks.check("mine-1: numbers", "5 output tokens" in "".join(about["mine-1"]), about["mine-1"])
    checks.equal("a refusal: its field, not its value", about["mine-3"], ["request mine-3: refused with 400 for max_tokens"])
    checks.equal("a field of the client's own making is not repeated", about["mine-5"], ["request mine-5: refused with 400"])
    checks.equal("a route that is not there", about["mine-6"], ["request mine-6: refused with 404"])
    checks.check("no word of a prompt", "Petronella" not in "".join(server.lines))
    del os.environ["TANDEM_LOG_FORMAT"]
    with Server() as server:
        server.request("POST", "/v1/completions", BODY, {"X-Request-Id": "mine-1"})
        server.stop()
        checks.check("not asked for: no line", "mine-1" not in "".join(server.lines), server.lines)
        checks.check("plain lines", all(line.startswith("tandem: ") for line in server.lines), server.lines)
    check_closed_log(checks)
    checks.finish()


if __name__ == "__main__":
    main()
