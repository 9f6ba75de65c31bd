// What a request asks of the form of its answer, as one grammar: response_format,
// structured_outputs, forced and strict tools.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/params.h"
#include "server/api_error.h"
#include "server/fields.h"
#include "server/served_model.h"
#include "text/grammar/answer_grammar.h"
#include "text/grammar/compiled_grammar.h"

namespace tandem::server {

// tool_choice and what belongs to it. `tools` keeps the order of keys.
struct ToolChoice {
  enum class Kind { kNone, kAuto, kRequired, kNamed };
  Kind kind = Kind::kAuto;
  std::string name;  // kNamed
  bool many = true;  // parallel_tool_calls
  std::shared_ptr<const nlohmann::ordered_json> tools;

  bool forced() const { return kind == Kind::kRequired || kind == Kind::kNamed; }
};
ToolChoice read_tool_choice(Fields& fields);

// The form of the content; nothing when it is free. `body` is the request as it came, for the order
// of properties.
ApiResult<std::optional<text::GrammarText>> read_content_form(Fields& fields,
                                                              std::string_view body);

// Whether an answer to this prompt may begin with a thought, or is inside one.
text::Thought thought_after(const std::vector<int32_t>& prompt, bool thinking,
                            const text::Tokenizer& tokenizer);

using FormGrammar = std::shared_ptr<const text::CompiledGrammar>;
// All of it compiled; null when everything is free. `fields` tell where the form of the content
// stands; `tools` may be null.
ApiResult<FormGrammar> compile_form(Fields& fields, std::optional<text::GrammarText> content,
                                    const ToolChoice* tools, text::Thought thought,
                                    const sampling::SamplingParams& sampling,
                                    const ServedModel& model);

}  // namespace tandem::server
