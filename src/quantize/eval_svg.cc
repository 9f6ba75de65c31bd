#include "quantize/eval_svg.h"

#include <fmt/format.h>

namespace tandem::quantize {

std::string html_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(c);
        const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
        if (control)
          out += "\xef\xbf\xbd";
        else
          out += c;
      }
    }
  }
  return out;
}

Svg::Svg(double width, double height, std::string_view title, std::string_view description) {
  body_ = fmt::format("<svg viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-label=\"{}. {}\">\n", width,
                      height, html_escape(title), html_escape(description));
}

void Svg::rect(double x, double y, double width, double height, std::string_view css_class,
               std::string_view hover, double opacity) {
  ++num_marks_;
  body_ +=
      fmt::format("<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" class=\"{}\"",
                  x, y, width, height, css_class);
  if (opacity < 1) body_ += fmt::format(" fill-opacity=\"{:.3f}\"", opacity);
  body_ += hover.empty() ? "/>\n" : fmt::format("><title>{}</title></rect>\n", html_escape(hover));
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view css_class) {
  body_ +=
      fmt::format("<line x1=\"{:.2f}\" y1=\"{:.2f}\" x2=\"{:.2f}\" y2=\"{:.2f}\" class=\"{}\"/>\n",
                  x1, y1, x2, y2, css_class);
}

void Svg::text(double x, double y, Anchor anchor, std::string_view css_class,
               std::string_view text) {
  constexpr const char* kAnchors[] = {"start", "middle", "end"};
  body_ +=
      fmt::format("<text x=\"{:.2f}\" y=\"{:.2f}\" text-anchor=\"{}\" class=\"{}\">{}</text>\n", x,
                  y, kAnchors[static_cast<size_t>(anchor)], css_class, html_escape(text));
}

std::string Svg::finish() && {
  return std::move(body_) + "</svg>\n";
}

}  // namespace tandem::quantize
