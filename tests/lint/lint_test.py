"""The lints refuse what they should and accept what they should: each on small trees made here."""

import importlib.machinery
import importlib.util
import pathlib
import shutil
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools" / "lint"))
import sources  # noqa: E402


def load(name):
    """tools/<name>, a script without a suffix, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "tools" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


include_lint, size_lint, header_check = load("include_lint"), load("size_lint"), load("header_check")


class TreeTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="tandem_lint_"))
        self.addCleanup(shutil.rmtree, self.root)
        (self.root / "tools").mkdir()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def assert_one(self, complaints, part):
        self.assertEqual(len(complaints), 1, complaints)
        self.assertIn(part, complaints[0])


class IncludeLint(TreeTest):
    def complaints(self):
        return include_lint.run(self.root)[0]

    def header(self, name, *lines):
        self.write(f"src/{name}", "#pragma once\n" + "".join(f"{line}\n" for line in lines))

    def test_allowed(self):
        self.header("base/status.h", "#include <string>")
        self.header("core/dtype.h", '#include "base/status.h"')
        self.header("io/safetensors.h", '#include "core/dtype.h"', '#include "base/status.h"')
        self.write("src/io/safetensors.cc", '#include "io/safetensors.h"\n#include <nlohmann/json.hpp>\n')
        self.assertEqual(self.complaints(), [])

    def test_upward_include(self):
        self.header("model/target.h")
        self.header("ops/linear.h", '#include "model/target.h"')
        self.assert_one(self.complaints(), "src/ops/linear.h:2: ops/ may include base, core, ops, got model/target.h")

    def test_engine_knows_no_bytes(self):
        self.header("io/safetensors.h")
        self.write("src/engine/engine.cc", '\n#include "io/safetensors.h"\n')
        self.assert_one(self.complaints(), "src/engine/engine.cc:2: engine/ may include")

    def test_relative_and_missing_paths(self):
        self.header("io/config.h")
        self.write("src/io/config.cc", '#include "config.h"\n#include "../io/config.h"\n')
        self.assertEqual([c.split(":")[1] for c in self.complaints()], ["1", "2"])

    def test_commented_include_is_none(self):
        self.write("src/base/a.cc", '// #include "model/x.h"\n/*\n#include "model/x.h"\n*/\n')
        self.assertEqual(self.complaints(), [])

    def test_cycle(self):
        self.header("io/a.h", '#include "io/b.h"')
        self.header("io/b.h", '#include "io/c.h"')
        self.header("io/c.h", '#include "io/a.h"')
        self.assert_one(self.complaints(), "include cycle: io/a.h -> io/b.h -> io/c.h -> io/a.h")

    def test_heavy_headers(self):
        self.header("io/json.h", "#include <nlohmann/json.hpp>")
        self.assert_one(self.complaints(), "src/io/json.h:2: <nlohmann/json.hpp>")
        self.header("io/json.h", "#include <nlohmann/json_fwd.hpp>")
        self.assertEqual(self.complaints(), [])
        self.write("src/text/split.cc", "#include <regex>\n")
        self.assert_one(self.complaints(), "<regex>")

    def test_backends(self):
        self.header("ops/cuda/stream.cuh", "#include <cuda_runtime.h>")
        self.header("ops/cpu/gemv.h")
        self.assertEqual(self.complaints(), [])
        self.write("src/ops/cuda/linear.cu", '#include "ops/cpu/gemv.h"\n')
        self.assert_one(self.complaints(), "a backend may not know another one")
        self.write("src/ops/cuda/linear.cu", "")
        self.write("src/model/target.cc", "#ifdef TANDEM_CUDA\n#endif\n")
        self.assert_one(self.complaints(), "src/model/target.cc:1: only ops/")

    def test_no_pragma_once_and_double_include(self):
        self.write("src/base/a.h", "#include <string>\n#include <string>\n")
        self.assertEqual(len(self.complaints()), 2)

    def test_unknown_folder(self):
        self.write("src/misc/a.cc", "")
        self.assert_one(self.complaints(), "src/misc/a.cc: expected a file in one of the folders")

    def test_the_table_is_that_of_the_architecture_page(self):
        page = (ROOT / "docs" / "architecture.md").read_text()
        for folder, allowed in include_lint.MAY_INCLUDE.items():
            row = next(line for line in page.split("\n") if line.startswith(f"| `{folder}/`"))
            cell = row.split("|")[-2].replace("`", "").strip()
            listed = {"–": [], "all": list(include_lint.MAY_INCLUDE)[1:-1]}.get(cell, cell.split())
            self.assertEqual(sorted(set(listed) - {"base"}), sorted(allowed), row)


class SizeLint(TreeTest):
    def complaints(self):
        return size_lint.run(self.root)[0]

    def test_budgets_per_kind(self):
        budgets = {"src/io/a.h": 200, "src/io/a.cc": 400, "src/ops/cuda/a.cu": 1000, "src/cli/main_x.cc": 150,
                   "tests/e2e/a_test.py": 400, "tests/unit/io/a_test.cc": 400, "src/server/web/a.js": 400,
                   "tools/soak/a.sh": 400}
        for name, budget in budgets.items():
            with self.subTest(name):
                self.write(name, "\n" * budget)
                self.assertEqual(self.complaints(), [])
                self.write(name, "\n" * (budget + 1))
                self.assert_one(self.complaints(), f"{name}: expected at most {budget} lines, got {budget + 1}")
                (self.root / name).unlink()

    def test_function_length(self):
        body = "  x();\n" * 58
        self.write("src/io/a.cc", f"namespace a {{\nvoid f() {{\n{body}}}\n}}\n")
        self.assertEqual(self.complaints(), [])
        self.write("src/io/a.cc", f"namespace a {{\nvoid f() {{\n{body}  y();\n}}\n}}\n")
        self.assert_one(self.complaints(), "src/io/a.cc:2: expected at most 60 lines, got 61 in f()")

    def found(self, text):
        return [(line, length, size_lint.name_of(head)) for line, length, head in size_lint.functions(text)]

    def test_members_constructors_and_operators(self):
        text = (
            "class A {\n public:\n  A(int x) : x_{x}, y_(x) {\n    go();\n  }\n"
            "  int get() const noexcept { return x_; }\n  bool operator==(const A&) const = default;\n"
            "  int x_{0};\n};\nauto f(int a) -> std::vector<int> {\n  return {a};\n}\n"
        )
        self.assertEqual(self.found(text), [(3, 3, "A"), (6, 1, "get"), (10, 3, "f")])

    def test_braces_in_strings_comments_and_tables_do_not_count(self):
        text = (
            'const char* kA = "{{{";  // }}}\n/* { */\nconstexpr int kT[] = {1, 2,\n3};\n'
            "const char* kRaw = R\"(\n} { void x() {\n)\";\nint g() {\n  return '{' + 1'000;\n}\n"
        )
        self.assertEqual(self.found(text), [(8, 3, "g")])

    def test_lambdas_belong_to_their_function(self):
        text = "void f() {\n  auto g = [](int a) {\n    if (a) {\n    }\n  };\n}\n"
        self.assertEqual(self.found(text), [(1, 6, "f")])

    def test_engine_and_speculation_together(self):
        for i in range(16):
            self.write(f"src/engine/f{i}.cc", "\n" * 376)
        self.assert_one(self.complaints(), "src/engine + src/speculation")


class HeaderCheck(TreeTest):
    def complaints(self, cuda=None):
        cache = sources.PassedCache(self.root / "build" / "passed")
        return header_check.run(self.root, "g++", 2, cache, cuda)

    def test_self_contained(self):
        self.write("src/io/good.h", "#pragma once\n#include <string>\ninline std::string f() { return {}; }\n")
        self.write("src/io/bad.h", "#pragma once\nstd::string g();\n")
        complaints, count, compiled = self.complaints()
        self.assert_one(complaints, "src/io/bad.h: does not compile alone")
        self.assertEqual((count, compiled), (2, 2))
        # What passed is not compiled again, what failed is.
        complaints, count, compiled = self.complaints()
        self.assert_one(complaints, "src/io/bad.h")
        self.assertEqual((count, compiled), (2, 1))

    def test_a_changed_dependency_is_noticed(self):
        self.write("src/io/a.h", '#pragma once\n#include "io/b.h"\ninline int f(B b) { return b.x; }\n')
        self.write("src/io/b.h", "#pragma once\nstruct B {\n  int x;\n};\n")
        self.assertEqual(self.complaints()[0], [])
        self.write("src/io/b.h", "#pragma once\nstruct B {\n  int y;\n};\n")
        self.assert_one(self.complaints()[0], "src/io/a.h: does not compile alone")

    def test_headers_for_cuda_are_left_out_without_the_toolkit(self):
        self.write("src/ops/device.h", "#pragma once\n#include <cuda_toolkit_of_the_test.h>\ninline int f() { return kCuda; }\n")
        self.write("src/ops/user.h", '#pragma once\n#include "ops/device.h"\ninline int g() { return f(); }\n')
        self.write("src/ops/bad.h", "#pragma once\nstd::string h();\n")
        complaints, count, _ = self.complaints()
        self.assert_one(complaints, "src/ops/bad.h")
        self.assertEqual(count, 1)
        self.write("toolkit/cuda_toolkit_of_the_test.h", "constexpr int kCuda = 1;\n")
        complaints, count, _ = self.complaints(self.root / "toolkit")
        self.assert_one(complaints, "src/ops/bad.h")
        self.assertEqual(count, 3)

    def test_a_header_that_a_source_includes_first_is_left_to_the_build(self):
        self.write("src/io/bad.h", "#pragma once\nstd::string g();\n")
        self.write("src/io/bad.cc", '// why\n#include "io/bad.h"\n\n#include <string>\n')
        self.assertEqual(self.complaints(), ([], 0, 0))
        self.write("src/io/bad.cc", '#include <string>\n\n#include "io/bad.h"\n')
        self.assert_one(self.complaints()[0], "src/io/bad.h")

    def test_included_twice(self):
        self.write("src/io/a.h", "struct A {};\n")
        self.assert_one(self.complaints()[0], "src/io/a.h")


if __name__ == "__main__":
    unittest.main()
