#!/usr/bin/env python3
"""The web page of `tandem serve` in a real browser: ask, stream, stop, tools, faults, keyboard, widths, hostile text.

    python tests/e2e/page_test.py [--screenshots DIR]

Needs PyPI playwright and Debian's chromium; without them it says so and passes.
"""

import argparse
import json
import pathlib
import re
import sys

from harness import ROOT, Checks
from page_harness import ANSWER, LOW_CONTRAST, OVERFLOW, SMALL_TARGETS, Visit, chromium, sse
from serve_harness import MODEL, Server

QUESTION = "What is a lighthouse?"
LONG = {"ignore_eos": True, "max_completion_tokens": 900}
HOSTILE = ("<img src=x onerror='window.hit=1'><script>window.hit=1</script>"
           "<a href='javascript:window.hit=1'>link</a> ![](http://elsewhere.invalid/x.png) **<b>bold</b>** `<i>`")
MARKDOWN = ("# Title\n\nA **bold** word, *slanted*, and `code` of snake_case and 2 * 3 * 4.\nSecond line.\n\n"
            "- one\n- two\n  - inner\n\n3. three\n4. four\n\n```python\nprint('<b>')\n\n# no heading\n```\nAfter.")
WIDE = "w" * 400 + "\n\n```\n" + "x" * 300 + "\n```\n\n" + "Plain words. " * 30


def api_answer(server, question=QUESTION, **more):
    """-> (text, its drafted runs joined, mean acceptance length) as the API gives them."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "temperature": 0, "stream": True,
            "return_draft_info": True, "chat_template_kwargs": {"enable_thinking": False}, **more}
    lines = server.request("POST", "/v1/chat/completions", body)[2].split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    infos = [choice["draft_info"] for chunk in chunks for choice in chunk["choices"]]
    runs = [run for info in infos for run in info["content"]]
    rounds = [info for info in infos if info["num_drafted"] > 0]
    mean = 1 + sum(info["num_accepted"] for info in rounds) / max(len(rounds), 1)
    return "".join(run["text"] for run in runs), "".join(run["text"] for run in runs if run["drafted"]), mean


def files(checks, server):
    folder = ROOT / "src" / "server" / "web"
    for path in sorted(folder.iterdir()):
        url = "/" if path.name == "index.html" else f"/web/{path.name}"
        status, headers, text = server.request("GET", url)
        checks.equal(f"files: {path.name}", (status, text), (200, path.read_text(encoding="utf-8")))
        policy = headers.get("Content-Security-Policy", "")
        checks.check(f"files: {path.name}: policy", "default-src 'none'" in policy and "unsafe" not in policy, policy)
        checks.equal(f"files: {path.name}: no guessing", headers.get("X-Content-Type-Options"), "nosniff")
    for method, path, expected in (("GET", "/web/", 404), ("GET", "/web/none.js", 404), ("GET", "/web/../main.js", 404),
                                   ("POST", "/", 405), ("POST", "/web/main.js", 405)):
        checks.equal(f"files: {method} {path}", server.request(method, path)[0], expected)


def other_pages(checks, server):
    """Pages of other sites cannot read replies; they cannot keep the server busy either."""
    body = {"prompt": "a", "max_tokens": 1}
    for site, expected in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        status, _, text = server.request("POST", "/v1/completions", body, {"Sec-Fetch-Site": site})
        checks.equal(f"other pages: {site}", status, expected)
        checks.check(f"other pages: {site}: the fault is named", expected == 200 or "Sec-Fetch-Site" in text, text)
    checks.equal("other pages: links lead to the page", server.request("GET", "/", headers={"Sec-Fetch-Site": "cross-site"})[0], 200)


def ask_and_stream(checks, server, browser, screenshots):
    text, drafted, mean = api_answer(server)
    checks.check("API: some text was drafted and some not", 0 < len(drafted) < len(text), (text, drafted))
    with Visit(browser, server.url) as visit:
        page = visit.page
        page.wait_for_selector(f"#model:text-is('{MODEL}')")
        checks.equal("open: the title names the model", page.title(), f"{MODEL} · Tandem")
        checks.equal("open: the message box has the focus", visit.focus(), "question")
        visit.set(temperature=0)
        page.evaluate("""() => { window.grown = []; new MutationObserver(() => {
            const node = document.querySelector('.answer .content');
            if (node && window.grown.at(-1) !== node.textContent.length) window.grown.push(node.textContent.length);
            }).observe(document.getElementById('log'), {subtree: true, childList: true, characterData: true}); }""")
        visit.ask(QUESTION)
        checks.equal("ask: the answer is the API's", visit.texts(f"{ANSWER} >> .content p"), [text])
        checks.equal("ask: the tinted text is what was drafted", "".join(visit.texts(f"{ANSWER} >> .drafted")), drafted)
        meter = visit.text(f"{ANSWER} >> .meter")
        checks.check("ask: the mean acceptance length", f"{mean:.2f} tokens a round" in meter, (mean, meter))
        checks.check("ask: it counts", re.search(r"\d+ tokens, first after \d+\.\d\d s", meter), meter)
        checks.equal("ask: said to a screen reader", bool(re.match(r"Answered, \d+ tokens", visit.text("#announcer"))), True)
        visit.ask("Write a letter from Emma to apologize to Maria for being late.")
        tint = "() => getComputedStyle(document.querySelector('.answer .drafted:not(.lead)')).backgroundColor"
        before = page.evaluate(tint)
        page.click("#tint")
        checks.check("tint: can be switched off", page.evaluate(tint) != before)
        page.click("#tint")
        page.click(".copy >> nth=0")
        page.wait_for_selector("text=Copied")
        checks.equal("copy", page.evaluate("() => navigator.clipboard.readText()"), text)
        if screenshots:
            page.screenshot(path=str(screenshots / "page_chat.png"))
        visit.change(**LONG)
        page.evaluate("() => { window.grown = []; }")
        page.click("#new-chat")
        visit.ask(QUESTION)
        grown = page.evaluate("() => window.grown")
        checks.check("stream: the text grew in steps", len(grown) > 5 and grown == sorted(grown), grown)
        page.click("#new-chat")
        checks.equal("new chat: nothing is left", (visit.count("#log > *"), page.is_visible("#welcome")), (0, True))
        page.reload()
        page.click("#open-settings")
        checks.equal("settings: kept", page.input_value("#temperature"), "0")
        checks.equal("ask: quiet console", visit.messages, [])
        checks.equal("ask: nobody else is asked", visit.outside(), [])


def thinking_and_tools(checks, server, browser, screenshots):
    with Visit(browser, server.url) as visit:
        page = visit.page
        visit.set(temperature=0, thinking=True)
        visit.ask("What is 3 + 4?")
        checks.equal("thinking: folded", page.locator("details.thinking").get_attribute("open"), None)
        checks.check("thinking: says how long", visit.text("summary").startswith("Thought for "), visit.text("summary"))
        page.focus("summary")
        page.keyboard.press("Enter")
        checks.check("thinking: opens from the keyboard", len(visit.text(".thoughts")) > 10)
        checks.check("thinking: the answer stands apart", "7" in visit.text(f"{ANSWER} >> .content"))
        page.click("#new-chat")
        visit.set(thinking=False, tools="[{]")
        checks.check("tools: a mistake is named and the dialog stays", page.is_visible("#settings")
                     and "Not valid JSON" in visit.text("#tools-fault"), visit.text("#tools-fault"))
        page.click("#tools-example")
        page.click("#close-settings")
        visit.ask("What is the weather in Paris?")
        checks.equal("tools: the call", visit.texts(".call h3"), ["The model calls get_weather"])
        checks.equal("tools: its arguments", json.loads(visit.text(".call pre")), {"city": "Paris"})
        checks.check("tools: the result's field has the focus", visit.focus().startswith("result-"), visit.focus())
        if screenshots:
            page.screenshot(path=str(screenshots / "page_tool.png"))
        page.keyboard.type("18 degrees and sunny")
        page.keyboard.press("Enter")
        visit.idle()
        page.wait_for_selector(f"{ANSWER} >> .content")
        checks.check("tools: the answer uses the result", "18" in visit.text(f"{ANSWER} >> .content"), visit.text("#log"))
        visit.ask("What is the weather in Rome?")
        visit.ask(QUESTION)  # instead of a result
        checks.check("tools: a call may stay unanswered", visit.count(".trouble") == 0 and visit.text(ANSWER), visit.text("#log"))
        checks.equal("tools: quiet console", visit.messages, [])


def stop(checks, server, browser):
    aborted = 'vllm:request_success_total{model_name="demo",engine="0",finished_reason="abort"} %d\n'
    with Visit(browser, server.url) as visit:
        visit.change(**LONG)
        for count, how in ((1, lambda: visit.page.click("#stop")), (2, lambda: visit.page.keyboard.press("Escape"))):
            visit.page.click("#new-chat")
            visit.ask(QUESTION, wait=False)
            visit.page.wait_for_selector(f"{ANSWER} >> .content p")
            checks.check(f"stop {count}: Stop in place of Send", visit.page.is_visible("#stop") and not visit.page.is_visible("#send"))
            how()
            visit.idle(5)
            checks.check(f"stop {count}: the place is free", server.wait_idle())
            checks.check(f"stop {count}: counted as aborted", aborted % count in server.request("GET", "/metrics")[2])
            checks.check(f"stop {count}: says so and keeps the text", visit.text(f"{ANSWER} >> .outcome") == "Stopped"
                         and visit.text(f"{ANSWER} >> .content p >> nth=0"), visit.text("#log"))
            checks.equal(f"stop {count}: back in the message box", visit.focus(), "question")
        visit.page.unroute("**/v1/chat/completions")
        visit.ask("What is 3 + 4?")
        checks.equal("stop: the chat goes on", visit.count(".trouble"), 0)
        visit.set(max_tokens=3)
        visit.ask(QUESTION)
        checks.equal("cut: says so", visit.text(f"{ANSWER} >> .outcome"), "Cut at the most tokens")
        checks.equal("stop: quiet console", visit.messages, [])


def hostile(checks, server, browser):
    call = {"index": 0, "id": "call_1", "function": {"name": HOSTILE, "arguments": json.dumps({"a": HOSTILE})}}
    with Visit(browser, server.url) as visit:
        page = visit.page
        page.route("**/v1/models", lambda route: route.fulfill(
            content_type="application/json", body=json.dumps({"data": [{"id": HOSTILE, "max_model_len": 9}]})))
        page.reload()
        visit.fake(sse({"reasoning": HOSTILE}, {"content": HOSTILE}, {"tool_calls": [call]}, finish="tool_calls"))
        visit.ask(HOSTILE)
        page.click("summary")
        checks.equal("hostile: the question stays text", visit.texts(".question"), [HOSTILE])
        checks.equal("hostile: thoughts stay text", visit.texts(".thoughts"), [HOSTILE])
        checks.check("hostile: the answer stays text", "<img src=x onerror='window.hit=1'>" in visit.texts(".content")[0])
        checks.check("hostile: the call stays text", HOSTILE in visit.texts(".call h3")[0])
        visit.fake(json.dumps({"error": {"message": HOSTILE, "code": HOSTILE}}), 400, "application/json")
        visit.ask("again")
        checks.equal("hostile: the fault stays text", visit.texts(".trouble .detail"), [HOSTILE])
        visit.fake("<html><script>window.hit=1</script>", 502, "text/html")
        visit.ask("again")
        page.wait_for_timeout(300)
        checks.equal("hostile: no element was made", visit.count("main img, main script, main a, main i:not(.waiting i), main b"), 0)
        checks.equal("hostile: nothing ran", page.evaluate("() => window.hit"), None)
        refused = page.evaluate("""() => { try { document.getElementById('log').innerHTML = '<b>x</b>'; return false; }
                                  catch (error) { return error instanceof TypeError; } }""")
        checks.check("hostile: the browser itself refuses HTML from text", refused)
        checks.equal("hostile: nobody else is asked", visit.outside(), [])


def markdown(checks, server, browser):
    with Visit(browser, server.url) as visit:
        visit.fake(sse(*({"content": MARKDOWN[i : i + 3]} for i in range(0, len(MARKDOWN), 3))))
        visit.ask("Show me.")
        content = f"{ANSWER} >> .content >> "
        for selector, expected in (("h3", ["Title"]), ("strong", ["bold"]), ("em", ["slanted"]), ("p code", ["code"]),
                                   ("pre", ["print('<b>')\n\n# no heading"]), ("ol li", ["three", "four"]),
                                   ("ul ul li", ["inner"]), ("p >> nth=-1", ["After."])):
            checks.equal(f"markdown: {selector}", visit.texts(content + selector), expected)
        checks.equal("markdown: numbers go on", visit.page.locator(content + "ol").get_attribute("start"), "3")
        checks.check("markdown: stars between numbers stay", "2 * 3 * 4" in visit.texts(content + "p")[0])
        visit.ask("**not bold** here")
        checks.equal("markdown: questions are shown as typed", visit.texts(".question")[-1], "**not bold** here")


def faults(checks, browser):
    """A server with a key, one place and no queue."""
    with Server("--api-key", "secret", "--max-num-seqs", 1, "--max-num-queued-reqs", 0, max_model_len=4096) as server:
        checks.equal("key: the API needs it", server.request("GET", "/v1/models")[0], 401)
        with Visit(browser, server.url) as visit:
            page = visit.page
            page.wait_for_selector(".trouble")
            checks.equal("key: the page says so at once", visit.texts(".trouble h3"), ["This server asks for a key"])
            page.click("text=Open settings")
            checks.equal("key: its field has the focus", visit.focus(), "api-key")
            page.keyboard.type("wrong")
            page.keyboard.press("Enter")
            visit.ask(QUESTION)
            checks.check("key: a wrong one is named", "The key was refused" in visit.texts(".trouble h3"), visit.text("#log"))
            visit.set(api_key="secret")
            page.click("text=Try again >> nth=-1")
            page.wait_for_selector(f"{ANSWER} >> .content p")
            visit.idle()
            checks.equal("key: asked once more, the question stands once", visit.texts(".question"), [QUESTION])
            with Visit(browser, server.url) as other:
                other.set(api_key="secret")
                visit.change(**{**LONG, "max_completion_tokens": 3800})
                visit.ask(QUESTION, wait=False)
                page.wait_for_selector(f"{ANSWER} >> .content p")
                other.ask(QUESTION)
                checks.equal("busy: says so", other.texts(".trouble h3 >> nth=-1"), ["The server is busy"])
                page.keyboard.press("Escape")
                visit.idle()
                other.page.wait_for_timeout(1000)  # what the reply's Retry-After says
                other.page.click("text=Try again >> nth=-1")
                other.page.wait_for_selector(f"{ANSWER} >> .content p")
                other.idle()
                checks.check("busy: trying again works", other.count(".trouble h3:text-is('The server is busy')") == 0)
            visit.fake(sse({"content": "Half an ans"}, done=False))
            visit.ask("And then?")
            checks.equal("broken: says so and keeps the text", (visit.texts(".trouble h3")[-1], visit.texts(".content")[-1]),
                         ("The connection broke off", "Half an ans"))
            page.unroute("**/v1/chat/completions")
            visit.set(max_tokens=100000)
            visit.ask("And then?")
            checks.equal("too long: says so", visit.texts(".trouble h3")[-1], "The conversation is too long")
            server.stop()
            visit.ask("Anybody?")
            checks.equal("gone: says so", visit.texts(".trouble h3")[-1], "The server cannot be reached")
            checks.check("gone: says what to do", "Check that it is running" in visit.texts(".trouble p")[-1])
            checks.equal("faults: each is announced", visit.count(".trouble[role=alert]"), visit.count(".trouble"))


def keyboard(checks, server, browser):
    with Visit(browser, server.url) as visit:
        page = visit.page
        page.wait_for_selector(f"#model:text-is('{MODEL}')")
        page.keyboard.type("one")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("two")
        checks.equal("Shift+Enter: a line, not sent", (page.input_value("#question"), visit.count(".question")), ("one\ntwo", 0))
        page.keyboard.press("Tab")
        checks.equal("Tab: from the box to Send", visit.focus(), "send")
        page.fill("#question", "")
        page.focus(".skip")
        order = []
        while len(order) < 12 and "question" not in order:
            page.keyboard.press("Tab")
            order.append(visit.focus())
        checks.equal("Tab: the bar, the examples, the box", order,
                     ["tint", "new-chat", "open-settings", *visit.texts(".example"), "question"])
        page.focus("#open-settings")
        page.keyboard.press("Enter")
        checks.check("settings: open from the keyboard", page.is_visible("#settings") and visit.focus() == "system", visit.focus())
        page.keyboard.press("Escape")
        checks.check("settings: Esc closes", not page.is_visible("#settings"))
        page.focus(".skip")
        page.keyboard.press("Enter")
        page.keyboard.type("What is 3 + 4?")
        checks.equal("skip link: leads to the box", page.input_value("#question"), "What is 3 + 4?")
        page.keyboard.press("Enter")
        visit.idle()
        checks.equal("Enter: sends", visit.texts(".question"), ["What is 3 + 4?"])
        named = page.evaluate("""() => [...document.querySelectorAll('button, input, textarea, select')]
            .filter(node => !(node.textContent.trim() || node.labels?.length || node.ariaLabel)).map(node => node.outerHTML)""")
        checks.equal("every control has a name", named, [])


def widths(checks, server, browser, screenshots):
    for width, scheme in ((1200, "light"), (1200, "dark"), (375, "light"), (375, "dark"), (320, "light")):
        where = f"{width} px, {scheme}"
        with Visit(browser, server.url, width, 812, scheme, touch=width < 500) as visit:
            page = visit.page
            checks.check(f"{where}: welcome has contrast", not page.evaluate(LOW_CONTRAST), page.evaluate(LOW_CONTRAST))
            visit.set(temperature=0, thinking=True)
            visit.ask("What is 3 + 4?")
            page.click("summary")
            visit.fake(sse({"content": WIDE}, {"tool_calls": [{"index": 0, "id": "c", "function": {
                "name": "f" * 80, "arguments": json.dumps({"x": "y" * 200})}}]}, finish="tool_calls"))
            visit.ask("z" * 200)
            visit.fake(json.dumps({"error": {"message": "m" * 200}}), 400, "application/json")
            visit.ask("again")
            checks.check(f"{where}: no sideways scroll", page.evaluate(OVERFLOW) <= 0, page.evaluate(OVERFLOW))
            sideways = page.evaluate("() => { const s = document.getElementById('scroller'); return s.scrollWidth - s.clientWidth; }")
            checks.check(f"{where}: none in the conversation", sideways <= 0, sideways)
            checks.check(f"{where}: contrast", not page.evaluate(LOW_CONTRAST), page.evaluate(LOW_CONTRAST))
            checks.check(f"{where}: targets", not page.evaluate(SMALL_TARGETS), page.evaluate(SMALL_TARGETS))
            box = page.locator("#composer").bounding_box()
            checks.check(f"{where}: the message box is in view", box["y"] + box["height"] <= 812, box)
            dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
            checks.equal(f"{where}: the scheme", sum(map(int, re.findall(r"\d+", dark)[:3])) < 300, scheme == "dark")
            if screenshots:
                page.screenshot(path=str(screenshots / f"page_{width}_{scheme}.png"))
            page.click("#open-settings")
            checks.check(f"{where}: settings fit", page.evaluate(OVERFLOW) <= 0 and not page.evaluate(LOW_CONTRAST))
            page.select_option("#theme", "light" if scheme == "dark" else "dark")
            other = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
            checks.check(f"{where}: the other colours when asked", other != dark, (other, dark))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--screenshots", type=pathlib.Path)
    options = parser.parse_args()
    found = chromium()
    if isinstance(found, str):
        print(f"skipped: needs {found}")
        return
    checks = Checks()
    with found[0]() as playwright, Server() as server:
        browser = playwright.chromium.launch(executable_path=found[1], args=["--no-sandbox"])
        files(checks, server)
        other_pages(checks, server)
        stop(checks, server, browser)
        ask_and_stream(checks, server, browser, options.screenshots)
        thinking_and_tools(checks, server, browser, options.screenshots)
        hostile(checks, server, browser)
        markdown(checks, server, browser)
        keyboard(checks, server, browser)
        widths(checks, server, browser, options.screenshots)
        faults(checks, browser)
        browser.close()
        checks.equal("SIGTERM with the page's connections open", server.stop(), 0)
    checks.finish()


if __name__ == "__main__":
    sys.exit(main())
