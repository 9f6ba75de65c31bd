"""The server's web page in Debian's chromium, for tests: opening it, asking, faking replies, measuring."""

import json
import shutil

ANSWER = ".answer >> nth=-1"
# Every text on the page whose contrast to what is behind it is below 4.5 (3 for large text).
LOW_CONTRAST = """() => {
  const parse = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = node => { for (; node; node = node.parentElement) {
    const colour = parse(getComputedStyle(node).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour; } return [255, 255, 255]; };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    const style = getComputedStyle(node);
    if (!own || !node.checkVisibility() || node.closest(':disabled, .hidden, noscript, option')) continue;
    const [a, b] = [light(parse(style.color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05), large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) found.push([node.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return found; }"""
SMALL_TARGETS = """() => [...document.querySelectorAll('button, summary, select, input, textarea')]
  .filter(node => node.checkVisibility() && !node.closest('.hidden') && node.type !== 'checkbox')
  .map(node => [node.textContent.slice(0, 20) || node.id, node.getBoundingClientRect().height])
  .filter(([, height]) => height < 24)"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def chromium():
    """-> (sync_playwright, path of chromium), or why not as text."""
    path = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "PyPI playwright"
    return (sync_playwright, path) if path else "chromium"


def sse(*deltas, done=True, finish="stop"):
    """The body of a streamed chat completion with these deltas."""
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if done:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return text + ("data: [DONE]\n\n" if done else "")


class Visit:
    """A tab with the page open; remembers what the browser says and asks for."""

    def __init__(self, browser, url, width=1100, height=800, scheme="light", touch=False):
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme,
                                           has_touch=touch, is_mobile=touch)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.url = url
        self.messages, self.requests = [], []
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.messages.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self):
        self.page.goto(self.url + "/")
        return self

    def __enter__(self):
        return self.open()

    def __exit__(self, *_):
        self.context.close()

    def fake(self, body, status=200, content_type="text/event-stream", headers=None):
        """Chat completions get this reply from now on."""
        self.page.unroute("**/v1/chat/completions")
        self.page.route("**/v1/chat/completions", lambda route: route.fulfill(
            status=status, headers={"Content-Type": content_type, **(headers or {})}, body=body))

    def change(self, **fields):
        """Chat completions go to the server with these fields changed."""
        def alter(route):
            route.continue_(post_data=json.dumps({**json.loads(route.request.post_data), **fields}))

        self.page.unroute("**/v1/chat/completions")
        self.page.route("**/v1/chat/completions", alter)

    def set(self, **values):
        """Fills settings by the ids of their fields (max_tokens is max-tokens)."""
        self.page.click("#open-settings")
        for name, value in values.items():
            field = self.page.locator("#" + name.replace("_", "-"))
            if isinstance(value, bool):
                field.set_checked(value)
            elif name == "theme":
                field.select_option(value)
            else:
                field.fill(str(value))
        self.page.click("#close-settings")

    def idle(self, seconds=60):
        self.page.wait_for_selector("#log[aria-busy=false]", timeout=seconds * 1000)

    def ask(self, text, wait=True):
        self.page.fill("#question", text)
        self.page.press("#question", "Enter")
        if wait:
            self.idle()

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def texts(self, selector):
        return self.page.locator(selector).all_text_contents()

    def count(self, selector):
        return self.page.locator(selector).count()

    def focus(self):
        """What has the focus: an id, else the element's text."""
        return self.page.evaluate("() => document.activeElement.id || document.activeElement.textContent.trim()")

    def outside(self):
        """Requests to anybody but the server."""
        return [url for url in self.requests if not url.startswith(self.url + "/")]
