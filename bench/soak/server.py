"""A tandem server for measuring: starts it, watches its process, reads its metrics, ends it."""

import datetime
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TANDEM = os.environ.get("TANDEM", str(ROOT / "build" / "release" / "tandem"))
TARGET = str(ROOT / "demo" / "target")
ASSISTANT = str(ROOT / "demo" / "assistant")


def speculative_config(drafts, **more):
    return json.dumps({"model": ASSISTANT, "num_speculative_tokens": drafts, **more})


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(port, path):
    """(status, body) of a GET; (0, "") while nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while part := one.recv(65536):
                data += part
    except OSError:
        return 0, ""
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode(errors="replace")


class Server:
    def __init__(self, *flags, drafts=4, target=TARGET):
        self.port = free_port()
        self.log = tempfile.TemporaryFile("w+")
        command = [TANDEM, "serve", target, "--port", str(self.port), "--disable-log-stats", *flags]
        if drafts:
            command += ["--speculative-config", speculative_config(drafts)]
        self.command = command
        self.began = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        while get(self.port, "/health")[0] != 200:
            if self.process.poll() is not None:
                raise SystemExit("the server ended: " + self.output())
            time.sleep(0.002)
        self.ready_seconds = time.perf_counter() - self.began

    def shown_command(self):
        """The command with paths from the root of the tree, for reports."""
        return "tandem " + " ".join(self.command[1:]).replace(f"{ROOT}/", "")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.terminate()
        if self.process.wait(60) != 0:
            raise SystemExit("the server did not end well: " + self.output())

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def metric(self, name):
        """The sum of a metric's series."""
        body = get(self.port, "/metrics")[1]
        values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", body, re.MULTILINE)
        return sum(float(value) for value in values)

    def label(self, metric, name):
        return re.search(rf'{re.escape(metric)}{{[^}}]*\b{name}="([^"]*)"', get(self.port, "/metrics")[1]).group(1)

    def usage(self):
        """Memory, threads and open files of the process now."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        field = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if ":" in line and len(line.split()) > 1}
        return {"rss_kb": int(field["VmRSS"]), "threads": int(field["Threads"]),
                "files": len(os.listdir(f"/proc/{self.process.pid}/fd"))}

    def idle(self, seconds=30):
        """Waits until nothing runs and no block is held; what is left otherwise."""
        end = time.time() + seconds
        while True:
            left = {name: self.metric("vllm:" + name)
                    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")}
            if not any(left.values()) or time.time() > end:
                return left
            time.sleep(0.1)


class Watch(threading.Thread):
    """Samples usage() every second until stop()."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.samples, self.ended = server, [], threading.Event()
        self.start()

    def run(self):
        began = time.time()
        while not self.ended.wait(1):
            self.samples.append({"s": round(time.time() - began, 1), **self.server.usage()})

    def stop(self):
        self.ended.set()
        self.join()
        return self.samples


def slope_kb_per_minute(samples):
    """Least squares over the samples of the second half, when all buffers have grown."""
    half = samples[len(samples) // 2:]
    if len(half) < 2:
        return 0.0
    mean_x = sum(one["s"] for one in half) / len(half)
    mean_y = sum(one["rss_kb"] for one in half) / len(half)
    square = sum((one["s"] - mean_x) ** 2 for one in half)
    return 60 * sum((one["s"] - mean_x) * (one["rss_kb"] - mean_y) for one in half) / square


def bench_serve(port, *flags):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "result.json"
        done = subprocess.run([TANDEM, "bench", "serve", "--port", str(port), "--history", "none",
                               "--output-json", str(path), *flags], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)
        return json.loads(path.read_text())


def report_head(what):
    try:
        commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    cpu = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown")
    return {"what": what, "commit": commit,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": {"cpu": cpu, "cores": os.cpu_count()},
            "load_average_before": [round(load, 2) for load in os.getloadavg()]}


def write(report, path):
    report["load_average_after"] = [round(load, 2) for load in os.getloadavg()]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"wrote {path}")
