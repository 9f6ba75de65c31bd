// A small writer of SVG: marks with CSS classes, so that the page's colours (light, dark) apply.
#pragma once

#include <string>
#include <string_view>

namespace tandem::quantize {

// & < > " ' become entities; control characters but newline and tab become U+FFFD.
std::string html_escape(std::string_view text);

// Where a text's x lies in it.
enum class Anchor { kStart, kMiddle, kEnd };

// Coordinates are in a box of width x height; the page scales it. Classes are fixed words of ours,
// everything else is escaped.
class Svg {
 public:
  // `title` and `description` are what a screen reader says.
  Svg(double width, double height, std::string_view title, std::string_view description);

  // `hover` may be empty.
  void rect(double x, double y, double width, double height, std::string_view css_class,
            std::string_view hover = {}, double opacity = 1);
  void line(double x1, double y1, double x2, double y2, std::string_view css_class);
  void text(double x, double y, Anchor anchor, std::string_view css_class, std::string_view text);

  int num_marks() const { return num_marks_; }  // rectangles so far
  std::string finish() &&;

 private:
  std::string body_;
  int num_marks_ = 0;
};

}  // namespace tandem::quantize
