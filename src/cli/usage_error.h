// What a user reads when the command line itself is wrong.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace tandem::cli {

// Help and version are printed and give 0; a mistake is named, with the nearest known flag or
// command, and gives 2.
int report_usage(const CLI::App& program, const CLI::ParseError& error,
                 const std::vector<std::string>& arguments);

// NaN is no value of a number's flag, here and in all commands inside: a range lets it pass, as
// every comparison with it is false, and then it means nothing, or that a wait never ends.
void refuse_nan(CLI::App& command);

// Numbers below 0 and from 2^64 on are refused for unsigned flags: the parser wraps the ones and
// cuts the others down.
void refuse_wrapped(CLI::App& command);

// argv without the program, `--flag=` split in two so that an empty value is a value.
std::vector<std::string> split_arguments(int argc, const char* const* argv);

// The candidate with the fewest typos in `word`; empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace tandem::cli
