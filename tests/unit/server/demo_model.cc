#include "tests/unit/server/demo_model.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/check.h"

namespace tandem::server::test {

const ServedModel& demo_model() {
  static const ServedModel kModel = [] {
    const std::filesystem::path dir = std::filesystem::path(TANDEM_SOURCE_DIR) / "demo" / "target";
    auto tokenizer = text::Tokenizer::load_for_model(dir);
    auto chat_template = text::ChatTemplate::load_for_model(dir);
    TANDEM_CHECK(tokenizer.has_value());
    TANDEM_CHECK(chat_template.has_value());
    return ServedModel{.names = {"demo", "alias"},
                       .root = "demo",
                       .version = "1",
                       .tokenizer = *tokenizer,
                       .chat_template = *chat_template,
                       .grammars = std::make_shared<text::GrammarCompiler>(
                           *tokenizer, std::vector<int32_t>{1, 106, 50}, 4096),
                       .template_kwargs = std::make_shared<const nlohmann::ordered_json>(
                           nlohmann::ordered_json::object()),
                       .sampling = {},
                       .modality_ids = {4089, 4090, 4091, 4092, 4093, 4094},
                       .vocab_size = 4096,
                       .max_model_len = 1024,
                       .max_request_tokens = 1024,
                       .block_size = 32,
                       .num_pages = 100,
                       .num_draft_tokens = 4,
                       .spec_metrics = false,
                       .started = 0};
  }();
  return kModel;
}

}  // namespace tandem::server::test
