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

// Refuses values of flags, here and in all commands inside, that the parser takes: NaN, which a
// range lets pass, as every comparison with it is false, and which then means nothing, or that a
// wait never ends; numbers that do not fit, which it wraps or cuts down; none for a number, which
// it takes for 0 or for no flag; for switches what is not plainly true or false.
void refuse_odd_values(CLI::App& command);

// Names the first `--SWITCH=VALUE` that is neither true nor false, as it was written, and is true
// if there is one: for --no-NAME=VALUE the parser names the other form with a number turned round,
// or throws what is no ParseError.
bool report_switch(const CLI::App& program, const std::vector<std::string>& arguments);

// argv without the program, `--flag=` split in two so that an empty value is a value.
std::vector<std::string> split_arguments(int argc, const char* const* argv);

// The candidate with the fewest typos in `word`; empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace tandem::cli
