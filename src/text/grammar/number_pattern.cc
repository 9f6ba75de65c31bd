#include "text/grammar/number_pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/check.h"

namespace tandem::text {
namespace {

constexpr size_t kMaxWhole = 18;
constexpr size_t kMaxFraction = 17;

// Alternatives; none: nothing matches.
using Patterns = std::vector<std::string>;

std::string digits(size_t min, size_t max) {
  if (max == 0) return "";
  return min == max ? fmt::format("[0-9]{{{}}}", min) : fmt::format("[0-9]{{{},{}}}", min, max);
}

std::string digit_range(int first, int last) {
  return first == last ? fmt::format("{}", first) : fmt::format("[{}-{}]", first, last);
}

int digit(const std::string& text) {
  return text.front() - '0';
}

bool all_zero(const std::string& text) {
  return text.find_first_not_of('0') == std::string::npos;
}

void add(Patterns& result, const std::string& front, const Patterns& rest) {
  for (const std::string& text : rest) result.push_back(front + text);
}

// Texts of the same length as `low` that are at least `low`.
Patterns same_length_from(const std::string& low) {
  if (all_zero(low)) return {digits(low.size(), low.size())};
  Patterns result;
  const int d = digit(low);
  if (d < 9) result.push_back(digit_range(d + 1, 9) + digits(low.size() - 1, low.size() - 1));
  add(result, low.substr(0, 1), same_length_from(low.substr(1)));
  return result;
}

Patterns same_length_to(const std::string& high) {
  if (high.find_first_not_of('9') == std::string::npos) return {digits(high.size(), high.size())};
  Patterns result;
  const int d = digit(high);
  if (d > 0) result.push_back(digit_range(0, d - 1) + digits(high.size() - 1, high.size() - 1));
  add(result, high.substr(0, 1), same_length_to(high.substr(1)));
  return result;
}

Patterns same_length(const std::string& low, const std::string& high) {
  if (low == high) return {low};
  const int a = digit(low), b = digit(high);
  if (a == b) {
    Patterns result;
    add(result, low.substr(0, 1), same_length(low.substr(1), high.substr(1)));
    return result;
  }
  Patterns result;
  add(result, low.substr(0, 1), same_length_from(low.substr(1)));
  if (b > a + 1)
    result.push_back(digit_range(a + 1, b - 1) + digits(low.size() - 1, low.size() - 1));
  add(result, high.substr(0, 1), same_length_to(high.substr(1)));
  return result;
}

bool less(const std::string& a, const std::string& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

// Whole numbers from `low` to `high`, both without leading zeros.
Patterns whole(const std::string& low, const std::string& high) {
  Patterns result;
  if (less(high, low)) return result;
  for (size_t size = low.size(); size <= high.size(); ++size) {
    std::string first = low;
    if (size > low.size()) {
      first.assign(size, '0');
      first.front() = '1';
    }
    const std::string last = size == high.size() ? high : std::string(size, '9');
    for (std::string& text : same_length(first, last)) result.push_back(std::move(text));
  }
  return result;
}

std::string plus_one(std::string number) {
  for (size_t i = number.size(); i-- > 0;) {
    if (number[i] != '9') {
      ++number[i];
      return number;
    }
    number[i] = '0';
  }
  number.insert(number.begin(), '1');
  return number;
}

// Of a number > 0.
std::string minus_one(std::string number) {
  for (size_t i = number.size(); i-- > 0;) {
    if (number[i] != '0') {
      --number[i];
      break;
    }
    number[i] = '9';
  }
  return number.size() > 1 && number.front() == '0' ? number.substr(1) : number;
}

struct Edge {
  std::string whole;     // without leading zeros
  std::string fraction;  // without zeros at the end
  bool exclusive = false;
};

// What may follow the digits read so far: `needed` when a digit must.
std::string more(bool needed) {
  return digits(needed ? 1 : 0, kMaxFraction);
}

// Fractions at least (or above) `low`, whose first digits are read already.
Patterns fraction_from(const std::string& low, bool exclusive, bool needed) {
  if (all_zero(low)) {
    if (!exclusive) return {more(needed)};
    return {fmt::format("0{{0,{0}}}[1-9][0-9]{{0,{0}}}", kMaxFraction / 2)};
  }
  Patterns result;
  const int d = digit(low);
  if (d < 9) result.push_back(digit_range(d + 1, 9) + more(false));
  add(result, low.substr(0, 1), fraction_from(low.substr(1), exclusive, false));
  return result;
}

Patterns fraction_to(const std::string& high, bool exclusive, bool needed) {
  if (all_zero(high)) {
    if (exclusive) return {};
    return {needed ? "0{1,4}" : "0{0,4}"};
  }
  Patterns result;
  if (!needed) result.emplace_back();
  const int d = digit(high);
  if (d > 0) result.push_back(digit_range(0, d - 1) + more(false));
  add(result, high.substr(0, 1), fraction_to(high.substr(1), exclusive, false));
  return result;
}

// `low` and `high` have the same number of digits.
Patterns fraction_between(const std::string& low, bool low_exclusive, const std::string& high,
                          bool high_exclusive, bool needed) {
  if (low > high) return {};
  if (all_zero(high)) return low_exclusive ? Patterns() : fraction_to(high, high_exclusive, needed);
  Patterns result;
  const int a = digit(low), b = digit(high);
  if (!needed && all_zero(low) && !low_exclusive) result.emplace_back();
  const std::string low_rest = low.substr(1), high_rest = high.substr(1);
  if (a == b) {
    add(result, low.substr(0, 1),
        fraction_between(low_rest, low_exclusive, high_rest, high_exclusive, false));
    return result;
  }
  add(result, low.substr(0, 1), fraction_from(low_rest, low_exclusive, false));
  if (b > a + 1) result.push_back(digit_range(a + 1, b - 1) + more(false));
  add(result, high.substr(0, 1), fraction_to(high_rest, high_exclusive, false));
  return result;
}

// Numbers >= 0 between the edges, with fractions.
Patterns decimal(const Edge& low, const Edge& high) {
  Patterns result;
  if (less(high.whole, low.whole)) return result;
  const bool low_itself = low.fraction.empty() && !low.exclusive;
  if (low.whole == high.whole) {
    std::string f = low.fraction, g = high.fraction;
    f.resize(std::max(f.size(), g.size()), '0');
    g.resize(f.size(), '0');
    if (low_itself && (!high.fraction.empty() || !high.exclusive)) result.push_back(low.whole);
    add(result, low.whole + "[.]", fraction_between(f, low.exclusive, g, high.exclusive, true));
    return result;
  }
  if (low_itself) result.push_back(low.whole);
  add(result, low.whole + "[.]", fraction_from(low.fraction, low.exclusive, true));
  const Patterns middle = whole(plus_one(low.whole), minus_one(high.whole));
  for (const std::string& text : middle)
    result.push_back(text + fmt::format("(?:|[.][0-9]{{1,{}}})", kMaxFraction));
  if (!high.fraction.empty() || !high.exclusive) result.push_back(high.whole);
  add(result, high.whole + "[.]", fraction_to(high.fraction, high.exclusive, true));
  return result;
}

// Whole numbers >= 0 between the edges.
Patterns integers(const Edge& low, const Edge& high) {
  const bool low_itself = low.fraction.empty() && !low.exclusive;
  const bool below_high = high.fraction.empty() && high.exclusive;
  if (below_high && high.whole == "0") return {};
  return whole(low_itself ? low.whole : plus_one(low.whole),
               below_high ? minus_one(high.whole) : high.whole);
}

struct SignedEdge {
  bool negative = false;
  Edge edge;
};

SignedEdge parse(const NumberBound& bound) {
  SignedEdge result;
  std::string text = bound.digits;
  result.negative = text.starts_with("-");
  if (result.negative) text.erase(0, 1);
  const size_t point = text.find('.');
  result.edge.whole = text.substr(0, point);
  if (point != std::string::npos) result.edge.fraction = text.substr(point + 1);
  result.edge.fraction.erase(result.edge.fraction.find_last_not_of('0') + 1);
  result.edge.exclusive = bound.exclusive;
  if (result.edge.whole == "0" && result.edge.fraction.empty()) result.negative = false;
  return result;
}

bool is_zero(const Edge& edge) {
  return edge.whole == "0" && edge.fraction.empty();
}

}  // namespace

std::optional<std::string> number_pattern(const NumberShape& shape) {
  if (!shape.min && !shape.max) {
    const std::string integer = fmt::format("-?(?:0|[1-9][0-9]{{0,{}}})", kMaxWhole - 1);
    if (shape.integer) return integer;
    return integer + fmt::format("(?:|[.][0-9]{{1,{}}})(?:|[eE][+-]?[0-9]{{1,2}})", kMaxFraction);
  }
  const Edge zero{"0", "", false};
  const Edge largest{std::string(kMaxWhole, '9'), "", false};
  const SignedEdge low = shape.min ? parse(*shape.min) : SignedEdge{true, largest};
  const SignedEdge high = shape.max ? parse(*shape.max) : SignedEdge{false, largest};
  const auto range = [&](const Edge& from, const Edge& to) {
    return shape.integer ? integers(from, to) : decimal(from, to);
  };
  Patterns result;
  if (!high.negative) result = range(low.negative ? zero : low.edge, high.edge);
  if (low.negative) {
    // Below zero the order is turned around. Minus zero is left out.
    Edge from = high.negative ? high.edge : Edge{"0", "", true};
    if (is_zero(from)) from.exclusive = true;
    add(result, "-", range(from, low.edge));
  }
  if (result.empty()) return std::nullopt;
  return fmt::format("(?:{})", fmt::join(result, "|"));
}

}  // namespace tandem::text
