"""A strict reader of Prometheus' text format 0.0.4, with the naming rules that `promtool check metrics` holds.

The names of vLLM break two of those rules, on purpose: they contain ':', and the histogram iteration_tokens_total ends
in _total. Both are named here and everything else must be clean.
"""

import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf'({NAME})(?:\{{((?:[^"}}]|"(?:[^"\\]|\\.)*")*)\}})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)')
TYPES = ("counter", "gauge", "histogram")
TOTAL_ANYWAY = {"vllm:iteration_tokens_total"}
UNITS = re.compile(r"_(milliseconds|ms|minutes|hours|kilobytes|megabytes|percent)(_|$)")


class Family:
    def __init__(self, name, text):
        self.name, self.help, self.type = name, text, None
        self.samples = []  # (name, labels as a sorted tuple of pairs, value)

    def value(self, suffix="", **labels):
        """The sum of the samples that have these labels."""
        wanted = set(labels.items())
        found = [value for name, pairs, value in self.samples if name == self.name + suffix and wanted <= set(pairs)]
        return sum(found) if found else None


def labels_of(text, fault):
    pairs, at = [], 0
    while at < len(text):
        match = LABEL.match(text, at)
        if not match:
            fault(f"broken labels: {text[at:]!r}")
            break
        pairs.append((match.group(1), re.sub(r"\\(.)", lambda m: "\n" if m.group(1) == "n" else m.group(1), match.group(2))))
        at = match.end()
    if len({name for name, _ in pairs}) < len(pairs):
        fault("a label twice")
    return tuple(sorted(pairs))


def parse(text):
    """-> ({name: Family}, faults)."""
    families, faults, current = {}, [], None
    if not text.endswith("\n"):
        faults.append("no line feed at the end")
    for number, line in enumerate(text.split("\n")[:-1], 1):
        def fault(message, number=number):
            faults.append(f"line {number}: {message}")

        if line.startswith("# HELP "):
            name, _, words = line[7:].partition(" ")
            if name in families or not re.fullmatch(NAME, name):
                fault(f"HELP of {name} twice, or no name")
            current = families[name] = Family(name, words)
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            if current is None or name != current.name or current.type or current.samples or kind not in TYPES:
                fault(f"TYPE {line[7:]} out of place")
            else:
                current.type = kind
        else:
            match = SAMPLE.fullmatch(line)
            base = re.sub("_(bucket|sum|count)$", "", match.group(1)) if match and current and current.type == "histogram" else match and match.group(1)
            if not match or current is None or base != current.name or not current.type:
                fault(f"no sample of the metric above: {line[:80]!r}")
                continue
            try:
                current.samples.append((match.group(1), labels_of(match.group(2) or "", fault), float(match.group(3))))
            except ValueError:
                fault(f"no number: {match.group(3)!r}")
    for family in families.values():
        faults += [f"{family.name}: {what}" for what in lint(family)]
    return families, faults


def lint(family):
    """What is wrong with a family by promtool's rules and the format's own."""
    total = family.name.endswith("_total")
    if not family.help.strip():
        yield "no help text"
    if (family.type == "counter") != total and family.name not in TOTAL_ANYWAY:
        yield "counters, and nothing else, end in _total"
    if UNITS.search(family.name):
        yield "expected base units"
    if re.search(f"_({'|'.join(TYPES)})(_|$)", family.name) or re.search("[a-z][A-Z]", family.name):
        yield "a type or capitals in the name"
    if re.search("_(bucket|count|sum|info)$", family.name) and family.type != "gauge":
        yield "a suffix that is kept for others"
    seen = [(name, labels) for name, labels, _ in family.samples]
    if len(set(seen)) < len(seen):
        yield "a sample twice"
    for name, labels, value in family.samples:
        if family.type != "gauge" and not (value >= 0 and math.isfinite(value)):
            yield f"{name}: expected a finite count, got {value}"
        if "quantile" in dict(labels) or ("le" in dict(labels)) != name.endswith("_bucket"):
            yield f"{name}: le is for buckets"
    if family.type == "histogram":
        yield from lint_histogram(family)


def lint_histogram(family):
    series = {}
    for name, labels, value in family.samples:
        if name.endswith("_bucket"):
            le = float(dict(labels)["le"])
            series.setdefault(tuple(pair for pair in labels if pair[0] != "le"), []).append((le, value))
    if not series:
        yield "no buckets"
    for labels, buckets in series.items():
        bounds, counts = [le for le, _ in buckets], [count for _, count in buckets]
        if bounds != sorted(set(bounds)) or bounds[-1] != math.inf:
            yield f"bounds that do not rise to +Inf: {bounds}"
        if counts != sorted(counts):
            yield "counts that fall"
        totals = {name: value for name, pairs, value in family.samples if pairs == labels}
        if totals.get(family.name + "_count") != counts[-1] or family.name + "_sum" not in totals:
            yield "no _sum, or a _count that is not the last bucket's"
