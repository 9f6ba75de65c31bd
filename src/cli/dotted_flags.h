// --speculative-config.model DIR: the keys of a JSON flag one by one, as in vLLM.
#pragma once

#include <string>
#include <vector>

namespace tandem::cli {

// For `serve`: puts `--NAME.KEY VALUE` and `--NAME.KEY.INNER=VALUE` into the JSON of --NAME, which
// may be there as well. A value that is no JSON is a text.
void join_dotted_flags(std::vector<std::string>& arguments);

}  // namespace tandem::cli
