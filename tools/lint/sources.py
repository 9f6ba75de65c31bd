"""What the lints share: the list of source files, their includes, C++ text without comments."""

import hashlib
import pathlib
import re
import subprocess

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
CPP_SUFFIXES = (".h", ".cc", ".cu", ".cuh")

# Comments, raw strings, strings, characters; a digit separator (1'000) is not a character.
_TOKENS = re.compile(
    r"//[^\n]*"
    r"|/\*.*?\*/"
    r'|R"([^()\s\\]{0,16})\(.*?\)\1"'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-zA-Z_])'(?:\\.|[^'\\\n])+'",
    re.DOTALL,
)


def files(root, folders, suffixes):
    """Sorted paths under root/folder, for each of the folders, that end in one of the suffixes."""
    found = []
    for folder in folders:
        for path in (root / folder).rglob("*"):
            if path.suffix in suffixes and path.is_file():
                found.append(path)
    return sorted(found)


def without_comments(text, keep_strings=False):
    """The text with comments (and strings) emptied; every newline stays where it was."""

    def blank(match):
        token = match.group(0)
        if keep_strings and not token.startswith("/"):
            return token
        return '""' + "\n" * token.count("\n") if token[0] in "\"R'" else "\n" * token.count("\n")

    return _TOKENS.sub(blank, text)


def includes(path):
    """(line number, kind '<' or '"', name) for every include of a file."""
    text = without_comments(path.read_text(encoding="utf-8"), keep_strings=True)
    return [
        (text.count("\n", 0, match.start(2)) + 1, match.group(1), match.group(2))
        for match in INCLUDE.finditer(text)
    ]


def closure(path, roots):
    """The file and every file of ours that it includes, directly or not, sorted."""
    seen = {path}
    todo = [path]
    while todo:
        for _, kind, name in includes(todo.pop()):
            if kind != '"':
                continue
            for root in roots:
                target = root / name
                if target.is_file() and target not in seen:
                    seen.add(target)
                    todo.append(target)
    return sorted(seen)


def content_key(path, roots, *more):
    """A hash of everything of ours that compiling this file depends on, and of `more`."""
    digest = hashlib.sha256()
    for text in more:
        digest.update(str(text).encode() + b"\0")
    for source in closure(path, roots):
        digest.update(str(source).encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


class PassedCache:
    """Names of content keys that passed before, one a line; the newest 20,000 are kept."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.keys = dict.fromkeys(self.path.read_text().split()) if self.path.is_file() else {}

    def __contains__(self, key):
        return key in self.keys

    def add(self, key):
        self.keys[key] = None

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join(list(self.keys)[-20000:]) + "\n")


def tool_version(command):
    """What `command --version` prints: part of a cache key."""
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
