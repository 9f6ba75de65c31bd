"""What the server logs: JSON lines when asked, one for each request that ends, with its id and never its words."""

import json
import os
import time

from harness import Checks
from serve_harness import MODEL, Server

SECRET = "my aunt Petronella's recipe"
BODY = {"model": MODEL, "prompt": SECRET, "max_tokens": 5, "temperature": 0}


def main():
    checks = Checks()
    os.environ["TANDEM_LOG_FORMAT"] = "json"
    with Server("--enable-log-requests") as server:
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
    checks.finish()


if __name__ == "__main__":
    main()
