// Rendering in one call, for the tests of the template engine.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "text/jinja/template.h"

namespace tandem::text::jinja {

inline std::string read_test_file(const std::string& path) {
  std::ifstream file(std::string(TANDEM_TEST_DATA) + "/" + path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

inline nlohmann::ordered_json read_test_json(const std::string& path) {
  return nlohmann::ordered_json::parse(read_test_file(path));
}

struct Rendered {
  bool ok = false;
  std::string text;  // or the error's message
  Rope rope;
  int64_t fuel_used = 0;
};

// Variables from the JSON object are untrusted.
inline Rendered render(const std::string& source, const nlohmann::ordered_json& variables,
                       const RenderOptions& options = {}) {
  Rendered result;
  const auto parsed = Template::parse(source, "t");
  if (!parsed) {
    result.text = parsed.error().message;
    return result;
  }
  Template::Variables values;
  for (const auto& [name, value] : variables.items()) {
    values.emplace_back(name, from_json(value, /*trusted=*/false));
  }
  auto rope = parsed->render(values, options, result.fuel_used);
  result.ok = rope.has_value();
  result.text = rope ? rope->text() : rope.error().message;
  if (rope) result.rope = std::move(*rope);
  return result;
}

inline Rendered render(const std::string& source) {
  return render(source, nlohmann::ordered_json::object());
}

// The rope with untrusted runs in [brackets].
inline std::string marked(const Rope& rope) {
  std::string out;
  rope.for_each_run(0, rope.size(), [&](std::string_view piece, bool trusted) {
    if (!trusted) out += '[';
    out.append(piece);
    if (!trusted) out += ']';
  });
  return out;
}

}  // namespace tandem::text::jinja
