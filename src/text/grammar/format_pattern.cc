#include "text/grammar/format_pattern.h"

#include <fmt/format.h>

#include "text/grammar/regex.h"

namespace tandem::text {
namespace {

constexpr std::string_view kDate =
    "[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-"
    "9]"
    "|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
constexpr std::string_view kTime =
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:|[.][0-9]{1,9})(?:Z|[+-](?:[01][0-9]|2[0-3]):"
    "[0-"
    "5]"
    "[0-9])";
// One hyphen at a time: two would begin an encoded name such as xn--.
constexpr std::string_view kLabel = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*";
constexpr std::string_view kPart = "(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})*";
// A label may have 63 characters: the whole is kept shorter than that.
constexpr int64_t kMaxHost = 60;

std::string ipv4() {
  constexpr std::string_view kOctet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  return fmt::format("{0}[.]{0}[.]{0}[.]{0}", kOctet);
}

// Groups with colons between them, `min` to `max` of them.
std::string ipv6_groups(int min, int max) {
  constexpr std::string_view kGroup = "[0-9A-Fa-f]{1,4}";
  return fmt::format("{}{}", kGroup, repeat_pattern(fmt::format(":{}", kGroup), min - 1, max - 1));
}

std::string ipv6() {
  std::string result = ipv6_groups(8, 8);
  for (int left = 0; left <= 6; ++left) {
    result += '|';
    if (left > 0) result += ipv6_groups(left, left);
    result += "::";
    if (left < 6) result += fmt::format("(?:|{})", ipv6_groups(1, 6 - left));
  }
  return result;
}

std::string duration() {
  constexpr std::string_view kCount = "[0-9]{1,6}";
  const std::string seconds = fmt::format("{}S", kCount);
  const std::string minutes = fmt::format("{}M(?:|{})", kCount, seconds);
  const std::string hours = fmt::format("{}H(?:|{})", kCount, minutes);
  const std::string time = fmt::format("T(?:{}|{}|{})", hours, minutes, seconds);
  const std::string days = fmt::format("{}D", kCount);
  const std::string months = fmt::format("{}M(?:|{})", kCount, days);
  const std::string years = fmt::format("{}Y(?:|{})", kCount, months);
  return fmt::format("P(?:(?:{}|{}|{})(?:|{})|{}|{}W)", years, months, days, time, time, kCount);
}

std::string uri() {
  const std::string port = "(?:|:[0-9]{1,4})";
  const std::string query = "(?:|[?](?:[A-Za-z0-9._~=&-]|%[0-9A-F]{2})*)";
  return fmt::format("[a-z][a-z0-9+]*://{0}(?:[.]{0})*{2}(?:/{1})*{3}(?:|#{1})", kLabel, kPart,
                     port, query);
}

}  // namespace

std::vector<FormatPart> format_parts(StringFormat format) {
  const std::string labels = fmt::format("{0}(?:[.]{0})*", kLabel);
  switch (format) {
    case StringFormat::kDate:
      return {{std::string(kDate)}};
    case StringFormat::kTime:
      return {{std::string(kTime)}};
    case StringFormat::kDateTime:
      return {{fmt::format("{}T{}", kDate, kTime)}};
    case StringFormat::kDuration:
      return {{duration()}};
    case StringFormat::kEmail:
      return {{"[A-Za-z0-9_+-]+(?:[.][A-Za-z0-9_+-]+)*", kMaxHost},
              {"@"},
              {std::string(kLabel), kMaxHost},
              {"[.]"},
              {labels, kMaxHost}};
    case StringFormat::kHostname:
      return {{labels, kMaxHost}};
    case StringFormat::kIpv4:
      return {{ipv4()}};
    case StringFormat::kIpv6:
      return {{ipv6()}};
    case StringFormat::kUri:
      return {{uri()}};
    case StringFormat::kUuid:
      break;
  }
  constexpr std::string_view kHex = "[0-9A-Fa-f]";
  return {{fmt::format("{0}{{8}}-{0}{{4}}-{0}{{4}}-{0}{{4}}-{0}{{12}}", kHex)}};
}

}  // namespace tandem::text
