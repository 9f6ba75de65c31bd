#!/usr/bin/env python3
"""FP8 products of cuBLASLt as PyTorch calls them (torch._scaled_mm), at the shapes of the 12B pair, beside the share of the read
bandwidth that `tandem bench ops --device cuda` prints. Weights take turns so that none is still in the cache.

usage: tools/device/peer_fp8.py [OUT.json]     needs torch and a GPU
"""

import json
import sys

import torch

SHAPES = {"sliding qkv": (3840, 8192), "sliding o": (4096, 3840), "gate_up": (3840, 30720), "down": (15360, 3840),
          "full qk": (3840, 8704), "full o": (8192, 3840)}
ROWS = (1, 5, 8, 16, 32, 64, 128)
LAUNCHES = 40


def time_us(weights, x, scale, fast):
    def launch(i):
        torch._scaled_mm(x, weights[i % len(weights)].t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16,
                         use_fast_accum=fast)

    launch(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(LAUNCHES):
            launch(i)
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / LAUNCHES)
    return sorted(times)[len(times) // 2]


def main():
    scale = torch.ones((), device="cuda")
    report = []
    for name, (inputs, outputs) in SHAPES.items():
        copies = max(2, 400_000_000 // (inputs * outputs))
        weights = [torch.randn(outputs, inputs, device="cuda").to(torch.float8_e4m3fn) for _ in range(copies)]
        for rows in ROWS:
            padded = (rows + 15) // 16 * 16
            x = torch.randn(padded, inputs, device="cuda").to(torch.float8_e4m3fn)
            us = min(time_us(weights, x, scale, fast) for fast in (True, False))
            report.append({"name": name, "rows": rows, "us": round(us, 2)})
    for name in SHAPES:
        print(f"{name:12}", "  ".join(f"{one['rows']}: {one['us']:.1f}" for one in report if one["name"] == name))
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as out:
            json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "products": report}, out, indent=1)


if __name__ == "__main__":
    main()
