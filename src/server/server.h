// Serves an engine over HTTP until it is told to stop.
#pragma once

#include <functional>

#include "base/status.h"
#include "engine/engine.h"
#include "server/engine_thread.h"
#include "server/http_server.h"
#include "server/served_model.h"
#include "server/service.h"

namespace tandem::server {

struct ServeOptions {
  HttpServerOptions http;
  ServiceOptions service;
  EngineThreadOptions engine;
  int shutdown_seconds = 30;  // for requests under way; then they are cancelled
  bool log_stats = true;
};

// Returns when `stopped` has become true and every reply has been sent, or shutdown_seconds later.
base::Status serve(engine::Engine& engine, const ServedModel& model, const ServeOptions& options,
                   const std::function<bool()>& stopped);

}  // namespace tandem::server
