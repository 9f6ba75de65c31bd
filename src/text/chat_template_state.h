// What a ChatTemplate holds. Only chat_template*.cc look inside.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/chat_template.h"
#include "text/jinja/template.h"
#include "text/message.h"

namespace tandem::text {

struct NamedTemplate {
  jinja::Template compiled;
  MessageForm form;
};

struct ChatTemplateState {
  NamedTemplate main;
  std::optional<NamedTemplate> tool_use;  // taken instead of main when the request has tools
  std::vector<std::pair<std::string, std::string>> special_tokens;  // bos_token: <bos>
};

base::Result<NamedTemplate> compile_template(std::string_view source, std::string name);

}  // namespace tandem::text
