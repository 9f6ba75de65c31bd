"""`tandem chat` on a pseudo-terminal and on a pipe: history, commands, Ctrl-C, Ctrl-D, editing, colours."""

import json
import os
import pathlib
import pty
import re
import select
import signal
import tempfile
import termios
import threading
import time

from harness import DEMO_ASSISTANT, DEMO_TARGET, TANDEM, Checks, speculative, tandem

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()][AB0]|\r|\x07|\x1b[=>]")
ARGUMENTS = [DEMO_TARGET, *speculative(DEMO_ASSISTANT, 4), "--temperature", 0]
LONG = ["--ignore-eos", "--max-tokens", 3000]


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *arguments, term="xterm", **environment):
        self.raw = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM=term, LC_ALL="C.UTF-8", **environment)
            os.execv(TANDEM, [TANDEM, "chat", *map(str, [*ARGUMENTS, *arguments])])
        self.status = None

    def text(self):
        return ESCAPES.sub("", self.raw)

    def read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        self.raw += data.decode("utf-8", "replace")
        return bool(data)

    def wait_for(self, pattern, seconds=60, start=0):
        """Whether the pattern came, looking at the text from `start` on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if re.search(pattern, self.text()[start:]):
                return True
            self.read(0.1)
        return False

    def type(self, text):
        start = len(self.text())
        os.write(self.fd, text.encode())
        return start

    def ask(self, line, pattern, seconds=60):
        start = self.type(line + "\r")
        return self.wait_for(pattern, seconds, start)

    def prompt(self, start=0):
        """Whether the prompt came and takes single keys: the line editor shows it a moment before it listens."""
        if not self.wait_for(r"\n> $", 60, start):
            return False
        end = time.monotonic() + 20
        while termios.tcgetattr(self.fd)[3] & termios.ECHO:
            if time.monotonic() > end:
                return False
            self.read(0.01)
        return True

    def exit_status(self, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            self.read(0.1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return "still running"


def conversation(checks):
    chat = Terminal()
    checks.check("it greets", chat.wait_for(r"/help lists the commands"), chat.text())
    checks.check("it answers", chat.ask("My favorite color is green.", r"color"), chat.text())
    chat.prompt()
    checks.check("it remembers", chat.ask("What is my favorite color?", r"color is green\."), chat.text())
    checks.check("/stats", chat.ask("/stats", r"2 answers; \d+ tokens in .*mean acceptance length \d"), chat.text())
    checks.check("/help lists /think", chat.ask("/help", r"/think on\|off"), chat.text())
    checks.check("an unknown command names the nearest", chat.ask("/rest", r"did you mean /reset\?"), chat.text())
    checks.check("/reset", chat.ask("/reset", r"the conversation is empty"), chat.text())
    checks.check("/think", chat.ask("/think on", r"/think on"), chat.text())
    checks.check("it thinks", chat.ask("What is 28 + 237?", r"265(.|\n)*\n.*265"), chat.text())
    checks.check("the channel's name is not shown", "thought\n" not in chat.text(), chat.text())
    chat.ask("/quit", r"\n")
    checks.equal("/quit: exit status", chat.exit_status(), 0)


def editing(checks):
    chat = Terminal()
    chat.prompt()
    # "What is 2 + 9?", one character back, the 9 replaced by a 3.
    checks.check("arrow keys and backspace edit", chat.ask("What is 2 + 9?\x1b[D\x7f3", r"5"), chat.text())
    chat.prompt()
    start = chat.type("\x1b[A")
    checks.check("arrow up brings the last line", chat.wait_for(r"What is 2 \+ 3\?", 20, start), chat.text())
    chat.type("\x03")
    checks.check("Ctrl-C at the prompt says how to leave", chat.wait_for(r"Ctrl-D or /quit leaves"), chat.text())
    start = chat.type("Schrödinger 日本\r")
    checks.check("other scripts pass", chat.wait_for(r"日本", 20, start), chat.text())
    chat.prompt(start)
    chat.type("\x04")
    checks.equal("Ctrl-D leaves", chat.exit_status(), 0)


def interruption(checks):
    chat = Terminal(*LONG)
    chat.prompt()
    start = chat.type("Tell a short story about Paul the wizard.\r")
    chat.wait_for(r"wizard.*\n.{20}", 60, start)
    chat.type("\x03")
    checks.check("Ctrl-C stops the answer", chat.wait_for(r"\(stopped\)", 20, start), chat.text())
    checks.check("and not the program", chat.prompt(start), chat.text())
    start = len(chat.text())
    chat.type("What is the capital of Cuba?\r")
    checks.check("the next question is answered", chat.wait_for(r"Havana", 60, start), chat.text())
    chat.type("\x03")
    chat.prompt(start)
    chat.type("/quit\r")
    checks.equal("and it leaves in peace", chat.exit_status(), 0)
    chat = Terminal("--ignore-eos", "--max-tokens", 400)
    chat.prompt()
    start = chat.type("Tell a short story about Paul the wizard.\r")
    chat.wait_for(r"wizard.*\n.{20}", 60, start)
    chat.type("\x04")
    checks.equal("Ctrl-D typed during an answer leaves after it", chat.exit_status(60), 0)


def pasted(checks, folder):
    """Tabs and bytes that are no UTF-8 arrive, and the key behind such a byte counts, Enter too."""
    saved = folder / "pasted.json"
    chat = Terminal("--max-tokens", 4)
    chat.prompt()
    for line in (b"if x:\tpass\r", b"caf\xe9\r", b"\xc3\xc3\xa9\r"):
        start = len(chat.text())
        os.write(chat.fd, line)
        chat.wait_for(r"cut off", 20, start)
        chat.prompt(start)
    chat.ask(f"/save {saved}", r"6 messages written")
    texts = [message["content"] for message in json.loads(saved.read_text())[::2]] if saved.exists() else chat.text()
    checks.equal("what was pasted arrives", texts, ["if x:\tpass", "caf\ufffd", "\ufffd\u00e9"])
    chat.type("/quit\r")
    chat.exit_status()


def typed_ahead(checks, folder):
    """A line typed during an answer arrives whole: a terminal that collects lines keeps 4095 bytes of one."""
    saved, line = folder / "ahead.json", "What is the sea? " * 360
    chat = Terminal("--ignore-eos", "--max-tokens", 1500)
    modes = termios.tcgetattr(chat.fd)
    chat.prompt()
    start = chat.type("Tell a short story about Paul the wizard.\r")
    chat.wait_for(r"wizard.*\n.{20}", 60, start)
    writer = threading.Thread(target=chat.type, args=(line + "\x7f!\r",))  # the blank at its end becomes a mark
    writer.start()
    checks.check("typed ahead: both are answered", chat.wait_for(r"cut off(.|\n)*cut off", 120, start), chat.text()[-500:])
    writer.join()
    chat.prompt(start)
    chat.ask(f"/save {saved}", r"4 messages written")
    texts = [message["content"] for message in json.loads(saved.read_text())[::2]] if saved.exists() else ["", chat.text()]
    checks.equal("typed ahead: the line is whole", texts[1], line[:-1] + "!")
    chat.type("/quit\r")
    checks.equal("typed ahead: exit status", chat.exit_status(), 0)
    checks.equal("and the terminal has the modes that it had", termios.tcgetattr(chat.fd), modes)


def termination(checks, folder):
    path = folder / "terminated"
    chat = Terminal("--history-file", path, *LONG)
    chat.prompt()
    start = chat.type("Tell a short story about Paul the wizard.\r")
    chat.wait_for(r"wizard.*\n.{20}", 60, start)
    os.kill(chat.pid, signal.SIGTERM)
    checks.equal("SIGTERM during an answer ends the program", chat.exit_status(), 130)
    checks.check("and history is kept", path.exists() and "wizard" in path.read_text(), path)
    chat = Terminal()
    chat.prompt()
    os.kill(chat.pid, signal.SIGTERM)
    checks.equal("SIGTERM at the prompt ends the program", chat.exit_status(), 130)


def colours(checks):
    chat = Terminal("--show-accepted")
    chat.prompt()
    chat.ask("What is a lighthouse?", r"rocks|ships|light")
    chat.prompt(20)
    checks.check("accepted drafts are green", "\x1b[32m" in chat.raw, repr(chat.raw[-500:]))
    chat.ask("/accepted off", r"/accepted off")
    start = len(chat.raw)
    chat.ask("What is a lighthouse?", r"light")
    chat.prompt(len(chat.text()) - 5)
    checks.check("and are not when switched off", "\x1b[32m" not in chat.raw[start:], repr(chat.raw[start:]))
    chat.type("/quit\r")
    chat.exit_status()
    plain = Terminal("--show-accepted", NO_COLOR="1")
    plain.prompt()
    plain.ask("What is a lighthouse?", r"light")
    plain.type("/quit\r")
    plain.exit_status()
    checks.check("NO_COLOR: no colour", "\x1b[32m" not in plain.raw and "\x1b[2m" not in plain.raw, repr(plain.raw))


def history_file(checks, folder):
    path = folder / "history"
    chat = Terminal("--history-file", path)
    chat.prompt()
    chat.ask("What is 1 + 1?", r"2")
    chat.type("/quit\r")
    chat.exit_status()
    checks.check("the history file holds the line", path.exists() and "1\\040+\\0401" in path.read_text(),
                 path.read_text() if path.exists() else "no file")
    chat = Terminal("--history-file", path)
    chat.prompt()
    start = chat.type("\x1b[A\x1b[A")
    checks.check("and gives it back", chat.wait_for(r"What is 1 \+ 1\?", 20, start), chat.text())
    chat.type("\x03/quit\r")
    chat.exit_status()


def history_of_others(checks, folder):
    """What is no history stays as it is, and nothing waits for the end of a device."""
    notes, empty = folder / "notes.txt", folder / "empty"
    notes.write_text("dear diary\n")
    empty.touch()
    for path, said in ((notes, True), ("/dev/zero", True), (empty, False)):
        chat = Terminal("--history-file", path)
        checks.check(f"{path}: chat begins", chat.prompt(), chat.text())
        checks.equal(f"{path}: said to be no history", f"{path}: expected a history file" in chat.text(), said)
        chat.type("/quit\r")
        checks.equal(f"{path}: exit status", chat.exit_status(), 0)
    checks.equal("what is no history is left as it is", notes.read_text(), "dear diary\n")
    checks.check("an empty file becomes one", "/quit" in empty.read_text(), empty.read_text())


def pipe(checks, folder):
    saved = folder / "chat.json"
    lines = f"My favorite color is green.\nWhat is my \\\nfavorite color?\n/save {saved}\n/undo\n/system Be brief.\n/quit\nnever\n"
    status, out, err = tandem("chat", *ARGUMENTS, stdin=lines.encode())
    checks.check("pipe: answers only", status == 0 and "green" in out and "> " not in out and err == "", (out, err))
    messages = json.loads(saved.read_text())
    checks.equal("pipe: /save wrote both turns", [message["role"] for message in messages],
                 ["user", "assistant", "user", "assistant"])
    checks.equal("pipe: a backslash joins lines", messages[2]["content"], "What is my \nfavorite color?")
    checks.equal("pipe: the answer is what was shown", messages[1]["content"], out.split("\n")[0])
    status, out, _ = tandem("chat", *ARGUMENTS, stdin=b"What is 2 + 3?")
    checks.check("pipe: a last line without its end", status == 0 and "5" in out, out)
    status, out, _ = tandem("chat", *ARGUMENTS, stdin=f"My favorite \\\r\ncolor is green.\r\n/save {saved}\r\n".encode())
    checks.equal("pipe: CRLF ends a line, behind a backslash too", json.loads(saved.read_text())[0]["content"],
                 "My favorite \ncolor is green.")
    thinks = ["--chat-template-kwargs", '{"enable_thinking": true}']
    status, out, _ = tandem("chat", *ARGUMENTS, *thinks, stdin=b"/think maybe\nWhat is 28 + 237?\n/think\n")
    checks.check("a refused /think changes nothing", "expected on or off, got maybe" in out and "thought\n" in out, out)
    checks.check("and /think switches off what a flag switched on", "/think off" in out, out)
    status, out, _ = tandem("chat", *ARGUMENTS, "--max-model-len", 64, stdin=("word " * 200 + "\n/stats\n").encode())
    checks.check("pipe: too long is said, and it goes on", status == 0 and "fewer than 64 tokens" in out and "0 answers" in out, out)


def main():
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder:
        pipe(checks, pathlib.Path(folder))
        conversation(checks)
        editing(checks)
        interruption(checks)
        colours(checks)
        history_file(checks, pathlib.Path(folder))
        history_of_others(checks, pathlib.Path(folder))
        pasted(checks, pathlib.Path(folder))
        typed_ahead(checks, pathlib.Path(folder))
        termination(checks, pathlib.Path(folder))
    checks.refused("an assistant alone", tandem("chat", DEMO_ASSISTANT), "no standalone text model")
    checks.finish()


if __name__ == "__main__":
    main()
