// A generating request from its submission to its reply: one or many choices, whole or streamed.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/answer.h"
#include "server/engine_thread.h"
#include "server/format.h"
#include "server/http_types.h"
#include "server/metrics.h"
#include "server/request.h"
#include "server/served_model.h"

namespace tandem::server {

// What a generation needs of the server; all of it outlives every reply.
struct ServerParts {
  const ServedModel& model;
  EngineThread& engine;
  Metrics& metrics;
};

struct GenerationJob {
  std::unique_ptr<ReplyFormat> format;
  bool chat = false;  // split into reasoning, content and tool calls
  GenerationParams params;
  std::vector<std::vector<int32_t>> prompts = {};       // each gives params.n choices
  std::shared_ptr<const text::ToolSchemas> tools = {};  // chat
  bool include_reasoning = true;
  std::string request_id = {};
  std::string call_id_prefix = "call_";
  bool show_request_id = false;  // X-Request-Id in the reply
};

class Generation : public ReplySource {
 public:
  // `admission` has a place for each choice. The job has been checked.
  Generation(const ServerParts& parts, GenerationJob job, std::vector<Admission> admissions);
  ~Generation() override;

  void start(std::function<void()> wake) override;
  ReplyPart poll() override;
  void cancel() override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Arrival {
    size_t choice;
    base::Result<engine::TokenEvent> event;
    Clock::time_point time;
  };
  // Shared with the engine thread, which may outlive this object's interest.
  struct Inbox {
    std::mutex mutex;
    std::vector<Arrival> arrivals;
    std::vector<uint8_t> stopped;  // per choice: a stop string ended it
    std::function<void()> wake;
  };
  struct Choice {
    Answer answer;
    int64_t max_tokens = 0;
    int64_t num_cached_tokens = 0;  // of the prompt
    uint64_t engine_id = 0;
    std::weak_ptr<Admission> place = {};  // the engine's
    bool ended = false;                   // nothing more of it is shown
    bool released = false;                // the engine has ended it
    Clock::time_point last_event = {};
    ChoicePart unsent = {};   // not streamed: all of it
    bool has_chunks = false;  // streamed: some of it has been sent
  };

  void submit(size_t index, Admission admission);
  void take(Arrival& arrival, ReplyPart& part);
  void show(Choice& choice, ChoicePart& delta, ReplyPart& part);
  void end_choice(Choice& choice, ChoicePart& delta, const std::optional<engine::Finish>& finish);
  void fail(const ApiError& error, ReplyPart& part);
  void finish_reply(ReplyPart& part);
  void add_head(ReplyPart& part, int status);
  Usage usage() const;
  // One line when it ends, if requests are logged.
  void log_end(std::string_view how);
  const speculation::AcceptanceStats* shown_acceptance() const;

  ServerParts parts_;
  GenerationJob job_;
  std::vector<Admission> admissions_;
  std::vector<Choice> choices_;
  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  speculation::AcceptanceStats acceptance_;
  size_t num_ended_ = 0;
  int64_t num_preemptions_ = 0;  // of those that the engine has ended
  Clock::time_point started_ = Clock::now();
  bool logged_ = false;
  bool head_sent_ = false;
  bool over_ = false;
};

}  // namespace tandem::server
