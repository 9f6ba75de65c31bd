// What bench serve reads: prompt files, and the counters of /metrics.
#include <charconv>
#include <nlohmann/json.hpp>

#include "bench/serve_bench.h"
#include "io/json.h"
#include "io/mapped_file.h"

namespace tandem::bench {
namespace {

using nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr int64_t kMaxOutput = int64_t{1} << 30;

base::Result<ServePrompt> prompt_of(const json& line, const std::string& where, bool chat,
                                    int64_t output_len) {
  TANDEM_ASSIGN_OR_RETURN(const io::JsonObject object, io::JsonObject::of(line, where));
  ServePrompt prompt;
  TANDEM_ASSIGN_OR_RETURN(prompt.output_len,
                          object.integer_or("output_tokens", output_len, 1, kMaxOutput));
  const auto dump = [](const json& value) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
  };
  const json* messages = object.find("messages");
  const json* text = object.find("prompt");
  if (chat && messages != nullptr && messages->is_array()) {
    prompt.field = "messages";
    prompt.json = dump(*messages);
    return prompt;
  }
  if (text == nullptr || !text->is_string())
    return base::invalid("{}: expected \"prompt\"{}, got neither", where,
                         chat ? " or \"messages\"" : "");
  prompt.field = chat ? "messages" : "prompt";
  prompt.json = chat ? dump(json::array({{{"role", "user"}, {"content", *text}}})) : dump(*text);
  return prompt;
}

// `name{labels} value`; false for comments and what is no sample.
bool parse_sample(std::string_view line, std::string_view& name, std::string_view& labels,
                  double& value) {
  const size_t space = line.rfind(' ');
  if (line.empty() || line.front() == '#' || space == std::string_view::npos) return false;
  const std::string_view series = line.substr(0, space);
  const size_t brace = series.find('{');
  name = series.substr(0, brace);
  labels = brace == std::string_view::npos ? std::string_view() : series.substr(brace);
  const std::string_view number = line.substr(space + 1);
  return std::from_chars(number.data(), number.data() + number.size(), value).ec == std::errc();
}

void add_position(std::string_view labels, double value, std::vector<double>& positions) {
  constexpr std::string_view kLabel = "position=\"";
  const size_t found = labels.find(kLabel);
  size_t position = 0;
  if (found == std::string_view::npos) return;
  const char* const begin = labels.data() + found + kLabel.size();
  const auto [end, error] = std::from_chars(begin, labels.data() + labels.size(), position);
  if (error != std::errc() || position >= 64) return;
  if (positions.size() <= position) positions.resize(position + 1);
  positions[position] += value;
}

}  // namespace

base::Result<std::vector<ServePrompt>> read_serve_prompts(const std::string& path, bool chat,
                                                          int64_t count, int64_t output_len) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, io::read_whole_file(path, kMaxFileBytes));
  std::vector<ServePrompt> prompts;
  std::string_view rest = text;
  for (int64_t number = 1; !rest.empty() && static_cast<int64_t>(prompts.size()) < count;
       ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}: line {}", path, number);
    TANDEM_ASSIGN_OR_RETURN(const json parsed, io::parse_json(line, where));
    TANDEM_ASSIGN_OR_RETURN(ServePrompt prompt, prompt_of(parsed, where, chat, output_len));
    prompts.push_back(std::move(prompt));
  }
  if (prompts.empty())
    return base::invalid("{}: expected JSON lines with \"prompt\" or \"messages\", got none", path);
  return prompts;
}

ServerCounters parse_counters(std::string_view metrics) {
  ServerCounters counters;
  while (!metrics.empty()) {
    const size_t end = std::min(metrics.find('\n'), metrics.size());
    std::string_view name, labels;
    double value = 0;
    const bool is_sample = parse_sample(metrics.substr(0, end), name, labels, value);
    metrics.remove_prefix(std::min(end + 1, metrics.size()));
    if (!is_sample) continue;
    counters.present = true;
    if (name == "vllm:spec_decode_num_drafts_total") counters.num_drafts += value;
    if (name == "vllm:spec_decode_num_draft_tokens_total") counters.num_draft_tokens += value;
    if (name == "vllm:spec_decode_num_accepted_tokens_total") counters.num_accepted_tokens += value;
    if (name == "vllm:spec_decode_num_accepted_tokens_per_pos_total")
      add_position(labels, value, counters.accepted_per_position);
    if (name == "tandem:run_info") {
      counters.synthetic = labels.find("acceptance=\"synthetic\"") != std::string_view::npos;
      counters.dummy = labels.find("weights=\"dummy\"") != std::string_view::npos;
    }
  }
  return counters;
}

}  // namespace tandem::bench
