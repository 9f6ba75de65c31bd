#include "cli/dotted_flags.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

namespace tandem::cli {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 5> kJsonFlags = {
    "--speculative-config", "--default-chat-template-kwargs", "--limit-mm-per-prompt",
    "--hf-overrides", "--override-generation-config"};
constexpr size_t kMaxKeys = 8;  // inside each other

// The name of a flag as it is listed: with - for _.
std::string listed_name(std::string_view text) {
  std::string name(text.substr(0, text.find_first_of(".=")));
  std::ranges::replace(name, '_', '-');
  return name;
}

// Takes the value of the flag at `place` out of the arguments, and the flag with it. Nothing when
// there is none.
std::optional<std::string> take(std::vector<std::string>& arguments, size_t place) {
  const std::string flag = arguments[place];
  const auto at = arguments.begin() + static_cast<std::ptrdiff_t>(place);
  const size_t equals = flag.find('=');
  if (equals != std::string::npos) {
    arguments.erase(at);
    return flag.substr(equals + 1);
  }
  if (place + 1 == arguments.size()) return std::nullopt;
  std::string value = arguments[place + 1];
  arguments.erase(at, at + 2);
  return value;
}

// `keys`: "a.b" names b inside a. False where a is something else than an object.
bool put(json& object, std::string_view keys, const std::string& value) {
  json* place = &object;
  for (size_t depth = 0; depth < kMaxKeys; ++depth) {
    if (!place->is_object()) return false;
    const size_t dot = keys.find('.');
    place = &(*place)[std::string(keys.substr(0, dot))];
    if (dot == std::string_view::npos) {
      json parsed = json::parse(value, nullptr, false);
      *place = parsed.is_discarded() ? json(value) : std::move(parsed);
      return true;
    }
    keys.remove_prefix(dot + 1);
    if (place->is_null()) *place = json::object();
  }
  return false;
}

// What cannot be put together is left to those who read the flags: they say what is wrong.
void join(std::string_view name, std::vector<std::string>& arguments) {
  std::vector<std::string> result = arguments;
  json object = json::object();
  bool has_dotted = false;
  for (size_t i = 1; i < result.size();) {
    const std::string flag = result[i];
    if (listed_name(flag) != name) {
      ++i;
      continue;
    }
    const auto value = take(result, i);
    if (!value) return;
    const std::string_view rest = std::string_view(flag).substr(name.size());
    if (rest.starts_with('.')) {
      has_dotted = true;
      if (!put(object, rest.substr(1, rest.find('=') - 1), *value)) return;
      continue;
    }
    const json whole = json::parse(*value, nullptr, false);
    if (!whole.is_object()) return;
    object.merge_patch(whole);
  }
  if (!has_dotted) return;
  result.push_back(std::string(name));
  result.push_back(object.dump());
  arguments = std::move(result);
}

}  // namespace

void join_dotted_flags(std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front() != "serve") return;
  for (const std::string_view name : kJsonFlags) join(name, arguments);
}

}  // namespace tandem::cli
