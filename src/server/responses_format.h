// Replies of /v1/responses.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "server/format.h"
#include "server/response_store.h"

namespace tandem::server {

// `reply`: what it repeats of the request. `input`: the items it answers. With a store, the
// finished reply is kept under its id.
std::unique_ptr<ReplyFormat> make_responses_format(
    ReplyNames names, const std::shared_ptr<nlohmann::ordered_json>& reply,
    std::shared_ptr<const nlohmann::ordered_json> input, ResponseStore* store);

}  // namespace tandem::server
