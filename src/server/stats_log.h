// The periodic line of the log, as users of vLLM know it.
#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"

namespace tandem::server {

// What happened between two looks at the engine; no line when nothing did.
std::vector<std::string> describe_interval(const engine::EngineStats& before,
                                           const engine::EngineStats& after, int64_t num_waiting,
                                           double seconds);

}  // namespace tandem::server
