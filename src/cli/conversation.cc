#include "cli/conversation.h"

#include <nlohmann/json.hpp>

namespace tandem::cli {

using nlohmann::ordered_json;

Conversation::Conversation(std::string system)
    : system_(std::move(system)), messages_(std::make_unique<ordered_json>(ordered_json::array())) {
  reset();
}

Conversation::~Conversation() = default;

bool Conversation::empty() const {
  return messages_->size() == (system_.empty() ? 0 : 1);
}

void Conversation::set_system(std::string text) {
  if (!system_.empty()) messages_->erase(0);
  system_ = std::move(text);
  if (!system_.empty())
    messages_->insert(messages_->begin(), ordered_json{{"role", "system"}, {"content", system_}});
}

void Conversation::add_user(const std::string& text) {
  messages_->push_back({{"role", "user"}, {"content", text}});
}

void Conversation::add_assistant(const std::string& text) {
  messages_->push_back({{"role", "assistant"}, {"content", text}});
}

std::string Conversation::undo() {
  while (!empty()) {
    const ordered_json last = messages_->back();
    messages_->erase(messages_->size() - 1);
    if (last["role"] == "user") return last["content"].get<std::string>();
  }
  return {};
}

void Conversation::reset() {
  *messages_ = ordered_json::array();
  if (!system_.empty()) messages_->push_back({{"role", "system"}, {"content", system_}});
}

}  // namespace tandem::cli
