#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/operators.h"
#include "text/jinja/rope_ops.h"

namespace tandem::text::jinja {
namespace {

template <Rope (*kMap)(const Rope&, Meter&)>
Value map_text(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  bind_arguments("the filter", arguments, {});
  return Value::text(kMap(*interpreter.text_of(input), interpreter.meter()));
}

Value filter_string(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  bind_arguments("the filter", arguments, {});
  return interpreter.text_of(input);
}

Value filter_trim(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("trim", arguments, {"chars"});
  const RopePtr text = interpreter.text_of(input);
  const bool spaces = bound[0] == nullptr || bound[0]->is_none();
  if (!spaces && !bound[0]->is_string()) {
    throw TemplateError(fmt::format("trim: expected str, got {}", type_name(*bound[0])));
  }
  const Rope* characters = spaces ? nullptr : &bound[0]->rope();
  return Value::text(strip(*text, characters, Side::kBoth, interpreter.meter()));
}

Value filter_replace(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("replace", arguments, {"old", "new", "count"});
  if (bound[0] == nullptr || bound[1] == nullptr) {
    throw TemplateError("replace needs the old and the new text");
  }
  const RopePtr text = interpreter.text_of(input);
  const RopePtr old_text = interpreter.text_of(*bound[0]);
  const RopePtr new_text = interpreter.text_of(*bound[1]);
  return Value::text(replace(*text, *old_text, *new_text, integer_argument("replace", bound[2], -1),
                             interpreter.meter()));
}

Value filter_join(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("join", arguments, {"d", "attribute"});
  const RopePtr separator =
      bound[0] == nullptr ? std::make_shared<const Rope>() : interpreter.text_of(*bound[0]);
  const SequencePtr items = interpreter.iterate(input);
  std::vector<RopePtr> texts;
  std::vector<const Rope*> pieces;
  for (size_t i = 0; i < items->size(); ++i) {
    interpreter.meter().spend(1);
    texts.push_back(interpreter.text_of(resolve_path(interpreter, items->at(i), bound[1])));
    pieces.push_back(texts.back().get());
  }
  return Value::text(join(pieces, *separator, interpreter.meter()));
}

Value filter_indent(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("indent", arguments, {"width", "first", "blank"});
  Meter& meter = interpreter.meter();
  Rope margin;
  if (bound[0] != nullptr && bound[0]->is_string()) {
    margin = bound[0]->rope();
  } else {
    const int64_t width = integer_argument("indent", bound[0], 4);
    if (width > 1024) throw TemplateError("indent: the width is larger than 1024");
    margin = Rope(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '), true);
  }
  const bool blank = flag(bound[2], false);
  if (!input.is_string()) {
    require_defined(input);
    throw TemplateError(fmt::format("indent: expected str, got {}", type_name(input)));
  }
  Rope text = input.rope();
  text.append("\n", true);
  const std::vector<Rope> lines = split_lines(text, false, meter);
  Rope result;
  if (flag(bound[1], false)) append_text(result, margin, meter);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) append_text(result, "\n", true, meter);
    if (i > 0 && (blank || !lines[i].empty())) append_text(result, margin, meter);
    append_text(result, lines[i], meter);
  }
  return Value::text(std::move(result));
}

// The two texts of tojson(separators=(',', ':')).
void read_separators(const Value& separators, JsonStyle& style) {
  const bool is_pair = separators.is(Kind::kSequence) && separators.sequence().items.size() == 2 &&
                       separators.sequence().items[0].is_string() &&
                       separators.sequence().items[1].is_string();
  if (!is_pair) throw TemplateError("tojson: expected two strings as separators");
  style.item_separator = separators.sequence().items[0].rope();
  style.key_separator = separators.sequence().items[1].rope();
}

Value filter_tojson(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound =
      bind_arguments("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = flag(bound[0], false);
  style.sort_keys = flag(bound[3], false);
  if (bound[1] != nullptr && !bound[1]->is_none()) {
    style.multiline = true;
    if (bound[1]->is_string()) {
      style.indent = bound[1]->str();
    } else {
      const int64_t width = std::clamp<int64_t>(integer_argument("tojson", bound[1], 0), 0, 1024);
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  style.item_separator = Rope(style.multiline ? "," : ", ", true);
  style.key_separator = Rope(": ", true);
  if (bound[2] != nullptr && !bound[2]->is_none()) read_separators(*bound[2], style);
  return Value::text(to_json_text(input, style, interpreter.meter()));
}

constexpr FilterEntry kFilters[] = {{"upper", map_text<to_upper>},
                                    {"lower", map_text<to_lower>},
                                    {"capitalize", map_text<capitalize>},
                                    {"title", map_text<title_words>},
                                    {"escape", map_text<escape_html>},
                                    {"e", map_text<escape_html>},
                                    {"string", filter_string},
                                    {"safe", filter_string},
                                    {"trim", filter_trim},
                                    {"replace", filter_replace},
                                    {"join", filter_join},
                                    {"indent", filter_indent},
                                    {"tojson", filter_tojson}};

}  // namespace

std::span<const FilterEntry> text_filters() {
  return kFilters;
}

}  // namespace tandem::text::jinja
