#include "bench/http_reader.h"

#include <algorithm>
#include <charconv>

#include "base/ascii.h"

namespace tandem::bench {
namespace {

constexpr size_t kMaxHeadBytes = size_t{64} << 10;

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

base::Status broken(const char* what) {
  return base::make_error(base::ErrorCode::kInternal,
                          fmt::format("HTTP: expected {}, got something else", what));
}

}  // namespace

base::Status HttpReader::feed(std::string_view bytes) {
  text_ += bytes;
  std::string line;
  while (!text_.empty() && state_ != State::kDone) {
    switch (state_) {
      case State::kHead:
        if (text_.find("\r\n\r\n") == std::string::npos)
          return text_.size() > kMaxHeadBytes ? broken("a shorter head") : base::Status();
        TANDEM_RETURN_IF_ERROR(read_head());
        break;
      case State::kLength:
      case State::kChunk:
      case State::kUntilClose:
        take_body();
        break;
      case State::kChunkSize:
        if (!take_line(line)) return {};
        TANDEM_RETURN_IF_ERROR(read_chunk_size(line));
        break;
      case State::kChunkEnd:
        if (!take_line(line)) return {};
        if (!line.empty()) return broken("the end of a chunk");
        state_ = State::kChunkSize;
        break;
      case State::kTrailer:
        if (!take_line(line)) return {};
        if (line.empty()) state_ = State::kDone;
        break;
      case State::kDone:
        break;
    }
  }
  return {};
}

base::Status HttpReader::finish() {
  if (state_ == State::kUntilClose) state_ = State::kDone;
  if (state_ == State::kDone) return {};
  return base::make_error(base::ErrorCode::kInternal, "the connection was closed early");
}

base::Status HttpReader::read_head() {
  const size_t end = text_.find("\r\n\r\n");
  head_ = text_.substr(0, end + 2);
  text_.erase(0, end + 4);
  const std::string_view head = head_;
  const bool known = head.size() > 12 && head.starts_with("HTTP/1.") && head[8] == ' ';
  if (!known || std::from_chars(head.data() + 9, head.data() + 12, status_).ec != std::errc())
    return broken("HTTP/1.1 and a status");
  if (status_ == 100) {
    status_ = 0;
    head_.clear();
    return {};
  }
  const std::string length = header("content-length");
  if (base::lower_case(header("transfer-encoding")) == "chunked") {
    state_ = State::kChunkSize;
  } else if (!length.empty()) {
    const char* const last = length.data() + length.size();
    const auto [stop, error] = std::from_chars(length.data(), last, left_);
    if (error != std::errc() || stop != last) return broken("a number as Content-Length");
    state_ = left_ == 0 ? State::kDone : State::kLength;
  } else {
    state_ = status_ == 204 || status_ == 304 ? State::kDone : State::kUntilClose;
  }
  return {};
}

base::Status HttpReader::read_chunk_size(std::string_view line) {
  line = trim(line.substr(0, line.find(';')));
  const char* const last = line.data() + line.size();
  const auto [stop, error] = std::from_chars(line.data(), last, left_, 16);
  if (line.empty() || error != std::errc() || stop != last) return broken("the size of a chunk");
  state_ = left_ == 0 ? State::kTrailer : State::kChunk;
  return {};
}

bool HttpReader::take_line(std::string& line) {
  const size_t end = text_.find("\r\n");
  if (end == std::string::npos) return false;
  line = text_.substr(0, end);
  text_.erase(0, end + 2);
  return true;
}

void HttpReader::take_body() {
  if (state_ == State::kUntilClose) {
    on_body_(text_);
    text_.clear();
    return;
  }
  const size_t count = std::min<uint64_t>(left_, text_.size());
  on_body_(std::string_view(text_).substr(0, count));
  text_.erase(0, count);
  left_ -= count;
  if (left_ == 0) state_ = state_ == State::kChunk ? State::kChunkEnd : State::kDone;
}

std::string HttpReader::header(std::string_view name) const {
  std::string_view rest = head_;
  while (!rest.empty()) {
    const size_t end = rest.find("\r\n");
    const std::string_view line = rest.substr(0, end);
    const size_t colon = line.find(':');
    if (colon != std::string_view::npos && base::lower_case(line.substr(0, colon)) == name)
      return std::string(trim(line.substr(colon + 1)));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 2);
  }
  return {};
}

void EventReader::feed(std::string_view bytes) {
  text_ += bytes;
  size_t begin = 0;
  while (true) {
    const size_t end = text_.find('\n', begin);
    if (end == std::string::npos) break;
    std::string_view line = std::string_view(text_).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("data:")) on_data_(trim(line.substr(5)));
    begin = end + 1;
  }
  text_.erase(0, begin);
}

}  // namespace tandem::bench
