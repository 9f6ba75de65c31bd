#include "server/server.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "base/clock.h"
#include "base/log.h"
#include "server/page_handler.h"
#include "server/stats_log.h"

namespace tandem::server {
namespace {

constexpr auto kTick = std::chrono::milliseconds(50);
constexpr double kLogSeconds = 10;
constexpr double kTellSeconds = 2;  // for clients to hear how their requests ended

// Tells now and then what the engine does, and at once when it seems stuck.
class Watch {
 public:
  Watch(const EngineThread& engine, bool log_stats)
      : engine_(engine), log_stats_(log_stats), before_(engine.stats()) {}

  void tick() {
    const bool healthy = engine_.healthy();
    if (!healthy && was_healthy_ && !engine_.failed())
      base::log_error("a step takes longer than {:.0f} s; /health says 503 until it ends",
                      engine_.options().stuck_seconds);
    was_healthy_ = healthy;
    if (!log_stats_ || clock_.seconds() < kLogSeconds) return;
    const engine::EngineStats after = engine_.stats();
    const int64_t waiting = std::max<int64_t>(engine_.num_admitted() - after.num_running, 0);
    for (const std::string& line : describe_interval(before_, after, waiting, clock_.seconds()))
      base::log_info("{}", line);
    before_ = after;
    clock_.restart();
  }

 private:
  const EngineThread& engine_;
  bool log_stats_;
  engine::EngineStats before_;
  base::Stopwatch clock_;
  bool was_healthy_ = true;
};

void drain(EngineThread& engine, const HttpServer& http, int seconds) {
  const base::Stopwatch clock;
  const auto busy = [&] { return !engine.idle() || http.num_busy() > 0; };
  if (busy())
    base::log_info("stopping: {} requests have up to {} s to end; a second signal ends at once",
                   engine.num_admitted(), seconds);
  while (busy() && clock.seconds() < seconds) std::this_thread::sleep_for(kTick);
  if (!busy()) return;
  base::log_warning("stopping: {} requests are cancelled", engine.num_admitted());
  engine.cancel_all();
  // Their clients still hear of it.
  const base::Stopwatch last;
  while (busy() && last.seconds() < kTellSeconds) std::this_thread::sleep_for(kTick);
}

}  // namespace

base::Status serve(engine::Engine& engine, const ServedModel& model, const ServeOptions& options,
                   const std::function<bool()>& stopped) {
  // Outlives the engine thread, whose last events are counted.
  Metrics metrics(model.names.front());
  EngineThreadOptions thread_options = options.engine;
  thread_options.on_step = [&metrics](int64_t num_tokens) { metrics.add_step(num_tokens); };
  EngineThread engine_thread(engine, thread_options);
  Service service({model, engine_thread, metrics}, options.service);
  PageHandler page(service, metrics);
  TANDEM_ASSIGN_OR_RETURN(const auto http, HttpServer::open(page, options.http));
  const bool is_v6 = options.http.host.find(':') != std::string::npos;
  base::log_info("ready: http://{}{}{}:{}", is_v6 ? "[" : "", options.http.host, is_v6 ? "]" : "",
                 http->port());
  Watch watch(engine_thread, options.log_stats);
  while (!stopped() && !engine_thread.failed()) {
    std::this_thread::sleep_for(kTick);
    watch.tick();
  }
  service.begin_drain();
  if (engine_thread.failed()) {
    // Its clients have been told; whoever started the server starts it again.
    const base::Stopwatch last;
    while (http->num_busy() > 0 && last.seconds() < kTellSeconds)
      std::this_thread::sleep_for(kTick);
    return base::make_error(base::ErrorCode::kInternal, "serve: the device failed; start again");
  }
  drain(engine_thread, *http, options.shutdown_seconds);
  if (!engine_thread.stop(kTellSeconds)) {
    // Nothing of it is worth waiting for, and a device that hangs would never let it end.
    base::log_warning("stopped in the middle of a step that takes long");
    std::_Exit(engine_thread.healthy() ? 0 : 1);
  }
  base::log_info("stopped");
  return {};
}

}  // namespace tandem::server
