// The messages of a chat. Pure.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tandem::cli {

class Conversation {
 public:
  explicit Conversation(std::string system);
  ~Conversation();

  // An OpenAI list of messages, the system message first when there is one.
  const nlohmann::ordered_json& messages() const { return *messages_; }
  bool empty() const;  // no user message yet

  void set_system(std::string text);  // empty: none
  const std::string& system() const { return system_; }
  void add_user(const std::string& text);
  void add_assistant(const std::string& text);
  // Takes back the last user message and what followed; its text, or "" when there is none.
  std::string undo();
  void reset();  // keeps the system message

 private:
  std::string system_;
  std::unique_ptr<nlohmann::ordered_json> messages_;
};

}  // namespace tandem::cli
