#include "cli/usage_error.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <tuple>

#include "base/ascii.h"
#include "base/log.h"

namespace tandem::cli {
namespace {

constexpr int kExitUsage = 2;
constexpr size_t kMaxShown = 60;

// Insertions, deletions, changes and swaps of neighbours that lead from a to b.
size_t num_typos(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    next[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      next[j] =
          std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        next[j] = std::min(next[j], before[j - 2] + 1);
    }
    before.swap(row);
    row.swap(next);
  }
  return row[b.size()];
}

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string near = nearest(word, candidates);
  return near.empty() ? std::string() : fmt::format("; did you mean {}?", near);
}

std::vector<std::string> command_names(const CLI::App& program) {
  std::vector<std::string> names;
  for (const CLI::App* command : program.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> flag_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

// The parser's own sentences in the form of all other messages: `--flag: expected X, got Y`.
std::string plain_message(const std::string& text) {
  const auto between = [&](std::string_view before, std::string_view after) {
    const size_t begin = text.find(before) + before.size();
    return text.substr(begin, text.find(after, begin) - begin);
  };
  const auto has = [&](std::string_view part) { return text.find(part) != std::string::npos; };
  if (has("Could not convert: ") && has(" = "))
    return fmt::format("{}: expected a number, got {}", between(": ", " = "),
                       text.substr(text.rfind(" = ") + 3));
  if (has(": Value ") && has(" not in range "))
    return fmt::format("{}: expected {}, got {}", text.substr(0, text.find(": Value ")),
                       text.substr(text.find(" not in range ") + 14),
                       between(": Value ", " not in range "));
  if (has(" not in {"))
    return fmt::format("{}: expected one of {}, got {}", text.substr(0, text.find(": ")),
                       between(" not in {", "}"), between(": ", " not in {"));
  if (has(": At Most 1 required but received "))
    return fmt::format("{}: expected it once, got it {} times", text.substr(0, text.find(": ")),
                       text.substr(text.rfind(' ') + 1));
  if (has(": At least ") && has(" required but received "))
    return fmt::format("{}: expected {} values, got {}", text.substr(0, text.find(": ")),
                       between(": At least ", " required"), text.substr(text.rfind(' ') + 1));
  const size_t blank = text.find(' ');
  if (has(" requires "))
    return fmt::format("{}: expected {} with it, got none", text.substr(0, blank),
                       text.substr(text.rfind(' ') + 1));
  if (has(" excludes "))
    return fmt::format("{}: expected no {} beside it, got both", text.substr(0, blank),
                       text.substr(text.rfind(' ') + 1));
  if (text.ends_with(" is required"))
    return fmt::format("expected {}, got none", text.substr(0, text.find(" is required")));
  if (has(" required ") && text.ends_with(" missing"))
    return fmt::format("{}: expected a value, got none", text.substr(0, text.find(": ")));
  return text;
}

// The command that was asked for; null: none, or none that there is.
const CLI::App* chosen_command(const CLI::App& program) {
  const CLI::App* command = nullptr;
  // `bench latency` has a command inside a command.
  for (auto chosen = program.get_subcommands(); !chosen.empty();
       chosen = chosen.front()->get_subcommands())
    command = chosen.front();
  return command;
}

std::string full_name(const CLI::App& command) {
  const CLI::App* outer = command.get_parent();
  const bool nested = outer != nullptr && outer->get_parent() != nullptr;
  return (nested ? outer->get_name() + " " : "") + command.get_name();
}

void report_command_error(const CLI::App& command, const CLI::ParseError& error,
                          const std::vector<std::string>& unknown) {
  const std::string name = full_name(command);
  for (const std::string& word : unknown) {
    if (word.size() < 2 || word[0] != '-') continue;
    const std::string flag = word.substr(0, word.find('='));
    base::log_error("{}: expected a known flag, got {}{} (tandem {} --help lists them)", name,
                    flag.substr(0, kMaxShown), suggestion(flag, flag_names(command)), name);
    return;
  }
  if (!unknown.empty()) {
    base::log_error("{}: expected no further argument, got \"{}\" (tandem {} --help)", name,
                    unknown[0].substr(0, kMaxShown), name);
    return;
  }
  base::log_error("{}: {} (tandem {} --help)", name, plain_message(error.what()), name);
}

// What is wrong with a value; empty: nothing.
std::string empty_fault(const std::string& text) {
  return text.empty() ? "Value nothing not in range a number" : "";
}
std::string nan_fault(const std::string& text) {
  double value = 0;
  const bool is_nan = CLI::detail::lexical_cast(text, value) && std::isnan(value);
  return is_nan ? fmt::format("Value {} not in range a number", text) : std::string();
}
std::string clamp_fault(const std::string& text) {
  errno = 0;
  std::ignore = std::strtoll(text.c_str(), nullptr, 0);
  return errno == ERANGE ? fmt::format("Value {} not in range {} to {}", text, INT64_MIN, INT64_MAX)
                         : std::string();
}
std::string wrap_fault(const std::string& text) {
  errno = 0;
  std::ignore = std::strtoull(text.c_str(), nullptr, 0);
  const bool wraps = text.find('-') != std::string::npos || errno == ERANGE;
  return wraps ? fmt::format("Value {} not in range 0 to {}", text, UINT64_MAX) : std::string();
}
std::string switch_fault(const std::string& text) {
  constexpr std::array<std::string_view, 10> kWords = {"true",  "on",  "yes", "enable",  "1",
                                                       "false", "off", "no",  "disable", "0"};
  return std::ranges::find(kWords, base::lower_case(text)) == kWords.end()
             ? fmt::format("Value {} not in range true or false", text)
             : std::string();
}

bool is_switch(const CLI::Option& option) {
  return option.get_items_expected_max() == 0;
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t fewest = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    // `--assist` for `--assistant-folder`: a beginning counts as one typo.
    const bool begins = word.size() >= 4 && candidate.starts_with(word);
    const size_t typos = begins ? 1 : num_typos(word, candidate);
    if (typos >= fewest) continue;
    fewest = typos;
    best = candidate;
  }
  return best;
}

bool report_switch(const CLI::App& program, const std::vector<std::string>& arguments) {
  const CLI::App* command = chosen_command(program);
  if (command == nullptr) return false;
  for (const std::string& argument : arguments) {
    const size_t equals = argument.find('=');
    if (!argument.starts_with("--") || equals == std::string::npos) continue;
    const std::string flag = argument.substr(0, equals);
    const std::string value = argument.substr(equals + 1);
    const CLI::Option* option = command->get_option_no_throw(flag);
    if (option == nullptr || !is_switch(*option) || switch_fault(value).empty()) continue;
    const std::string name = full_name(*command);
    base::log_error("{}: {}: expected true or false, got {} (tandem {} --help)", name, flag,
                    value.substr(0, kMaxShown), name);
    return true;
  }
  return false;
}

void refuse_odd_values(CLI::App& command) {
  for (CLI::Option* option : command.get_options()) {
    const std::string type = option->get_type_name();
    if (is_switch(*option)) option->check(switch_fault);
    const bool is_unsigned = type.starts_with("UINT");
    if (type.starts_with("FLOAT")) option->check(nan_fault);
    if (type.starts_with("INT")) option->check(clamp_fault);
    // In front of what reads units: that multiplies it.
    if (is_unsigned) option->transform(CLI::Validator(wrap_fault, ""));
    if (is_unsigned || type.starts_with("FLOAT") || type.starts_with("INT"))
      option->transform(CLI::Validator(empty_fault, ""));
  }
  for (CLI::App* inner : command.get_subcommands([](const CLI::App*) { return true; }))
    refuse_odd_values(*inner);
}

std::vector<std::string> split_arguments(int argc, const char* const* argv) {
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    const bool empty_value = argument.size() > 3 && argument.starts_with("--") &&
                             argument.find('=') == argument.size() - 1;
    if (empty_value) argument.pop_back();
    arguments.push_back(std::move(argument));
    if (empty_value) arguments.emplace_back();
  }
  return arguments;
}

int report_usage(const CLI::App& program, const CLI::ParseError& error,
                 const std::vector<std::string>& arguments) {
  if (error.get_exit_code() == 0) return program.exit(error);
  if (report_switch(program, arguments)) return kExitUsage;
  if (const CLI::App* command = chosen_command(program)) {
    report_command_error(*command, error, program.remaining(true));
    return kExitUsage;
  }
  const std::vector<std::string> names = command_names(program);
  if (arguments.empty())
    base::log_error("expected a command: {} (tandem --help)", fmt::join(names, ", "));
  else
    base::log_error("expected a command ({}), got \"{}\"{} (tandem --help)", fmt::join(names, ", "),
                    arguments.front().substr(0, kMaxShown), suggestion(arguments.front(), names));
  return kExitUsage;
}

}  // namespace tandem::cli
