#!/usr/bin/env python3
"""Opens the report of `tandem eval` in a real browser, at the width of a desktop and of a phone, light and dark.

    python tests/e2e/report_test.py [PROGRAM] [--html FILE] [--screenshots DIR]

PROGRAM defaults to the environment variable TANDEM. Needs PyPI playwright and Debian's chromium; without them it says
so and passes. The page must draw every plot, say nothing on the console, ask for nothing, and never scroll sideways.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEMO = ROOT / "demo"
WIDTHS = (1200, 375)
PLOTS = {
    "Accepted, by position": 8,
    "Acceptance length, by task": 8,
    "Error per layer, target": 60,
    "Error per layer, assistant": 20,
    "Use of the scales, target": 20,
    "Use of the scales, assistant": 20,
    "Largest values (amax)": 3,
}
# What a browser knows of each plot: its heading, the marks that have an area, and the texts outside the picture.
DESCRIBE = """() => [...document.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector('svg'), box = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll('rect')].filter(mark => {
    const r = mark.getBoundingClientRect(); return r.width > 0 && r.height > 0; });
  const outside = [...svg.querySelectorAll('text')].filter(text => {
    const r = text.getBoundingClientRect();
    return r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 2 || r.bottom > box.bottom + 2; });
  const smallest = Math.min(...[...svg.querySelectorAll('text')].map(text => text.getBoundingClientRect().height));
  return {heading: figure.querySelector('h2').textContent, width: box.width, height: box.height, marks: marks.length,
          label: svg.getAttribute('aria-label') || '', role: svg.getAttribute('role'), smallest,
          rows: figure.querySelectorAll('tr').length, outside: outside.map(text => text.textContent)};
})"""


class Failure(Exception):
    pass


def demand(condition, message):
    if not condition:
        raise Failure(message)


def make_report(program, scratch):
    """An FP8 export of the demo pair and its report."""

    def run(*arguments):
        done = subprocess.run([str(a) for a in (program, *arguments)], capture_output=True, text=True, timeout=600)
        demand(done.returncode == 0, f"exit {done.returncode}: {done.stderr[-400:]}")

    run("quantize", "--target", DEMO / "target", "--assistant", DEMO / "assistant", "--out-target", scratch / "target",
        "--out-assistant", scratch / "assistant", "--num-prompts", "12", "--max-new-tokens", "48")  # fmt: skip
    config = json.dumps({"model": str(scratch / "assistant"), "num_speculative_tokens": 4})
    page = scratch / "report.html"
    run("eval", scratch / "target", "--speculative-config", config, "--reference", DEMO / "target",
        "--reference-assistant", DEMO / "assistant", "--prompts", DEMO / "prompts" / "tasks.jsonl", "--limit", "30",
        "--max-new-tokens", "48", "--out-html", page)  # fmt: skip
    return page


def check_page(page, width, scheme):
    """The plots and the page itself at one width."""
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    demand(overflow <= 0, f"{width} px: the page scrolls {overflow} px sideways")
    headline = page.locator("h1")
    demand(headline.count() == 1 and "acceptance length" in headline.inner_text(), "no headline")
    demand(headline.bounding_box()["y"] < 200, "the headline is not at the top")
    demand(page.locator(".tile").count() == 4, f"{page.locator('.tile').count()} tiles")
    plots = {plot["heading"]: plot for plot in page.evaluate(DESCRIBE)}
    demand(list(plots) == list(PLOTS), f"plots: {list(plots)}")
    for heading, least in PLOTS.items():
        plot = plots[heading]
        where = f"{width} px, {scheme}: {heading}"
        demand(plot["marks"] >= least, f"{where}: {plot['marks']} marks")
        demand(plot["width"] > 250 and plot["height"] > 100, f"{where}: {plot['width']} x {plot['height']}")
        demand(plot["role"] == "img" and len(plot["label"]) > 20, f"{where}: no text for a screen reader")
        demand(plot["rows"] > 1, f"{where}: no table")
        demand(not plot["outside"], f"{where}: cut off: {plot['outside']}")
        demand(plot["smallest"] >= 9, f"{where}: text {plot['smallest']} px high")
    colours = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    light = [sum(int(part) for part in colour[4:-1].split(",")) for colour in colours]
    demand((light[0] > light[1]) == (scheme == "light"), f"{scheme}: {colours}")


def open_everywhere(browser, html, screenshots):
    messages, requests = [], []
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            page.on("console", lambda message: messages.append(message.text))
            page.on("pageerror", lambda error: messages.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            page.goto(html.as_uri())
            check_page(page, width, scheme)
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            demand(wide <= 0, f"{width} px: the tables make the page scroll {wide} px sideways")
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
            if screenshots:
                page.screenshot(path=str(screenshots / f"report_{width}_{scheme}.png"), full_page=True)
            context.close()
    outside = [url for url in requests if not url.startswith(("file:", "data:"))]
    demand(len(requests) >= 4 and not outside, f"requests: {outside}")
    demand(not messages, f"console: {messages}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="?", default=os.environ.get("TANDEM"))
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("--html", type=pathlib.Path, help="a report that is there already")
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if sync_playwright is None or chromium is None:
        print(f"skipped: needs {'PyPI playwright' if sync_playwright is None else 'chromium'}")
        return 0
    if not options.program and not options.html:
        parser.error("expected the program's path, or TANDEM in the environment")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        try:
            html = options.html or make_report(options.program, pathlib.Path(scratch))
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            open_everywhere(browser, html.resolve(), options.screenshots)
            browser.close()
        except Failure as failure:
            print(f"FAIL {failure}\n0 passed, 1 failed")
            return 1
    print("1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
