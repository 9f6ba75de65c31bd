// A Jinja template as Hugging Face's chat templates use it: parse once, render from any thread.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/jinja/limits.h"
#include "text/jinja/rope.h"
#include "text/jinja/value.h"

namespace tandem::text::jinja {

struct Ast;

struct RenderOptions {
  int64_t fuel = kDefaultFuel;
  std::time_t now = 0;  // what strftime_now shows
};

class Template {
 public:
  // What is not supported is refused here, by name and line. `name` is how messages call it.
  static base::Result<Template> parse(std::string_view source, std::string name);

  using Variables = std::vector<std::pair<std::string, Value>>;
  base::Result<Rope> render(const Variables& variables, const RenderOptions& options) const;
  // The same, and reports the fuel that was used.
  base::Result<Rope> render(const Variables& variables, const RenderOptions& options,
                            int64_t& fuel_used) const;

  // Whether some for loop goes over an attribute of this name, as in `for x in message['content']`.
  bool iterates_over(std::string_view attribute) const;

 private:
  std::shared_ptr<const Ast> ast_;
  std::string name_;
};

}  // namespace tandem::text::jinja
