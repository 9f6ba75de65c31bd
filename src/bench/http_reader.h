// An HTTP response as its bytes arrive, and the events of a stream within it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tandem::bench {

// Reads one response, in pieces of any size.
class HttpReader {
 public:
  // `on_body` gets the body's bytes as they come, without the framing.
  explicit HttpReader(std::function<void(std::string_view)> on_body)
      : on_body_(std::move(on_body)) {}

  base::Status feed(std::string_view bytes);
  // The connection has ended: right for a body that has no length, wrong in the middle of one.
  base::Status finish();

  bool done() const { return state_ == State::kDone; }
  int status() const { return status_; }  // 0 until the head has come
  // Of the head, by its name in small letters; empty when absent.
  std::string header(std::string_view name) const;

 private:
  enum class State { kHead, kLength, kChunkSize, kChunk, kChunkEnd, kTrailer, kUntilClose, kDone };

  base::Status read_head();
  base::Status read_chunk_size(std::string_view line);
  // A line of text_ without its end; false when it has not come yet.
  bool take_line(std::string& line);
  void take_body();

  std::function<void(std::string_view)> on_body_;
  State state_ = State::kHead;
  std::string text_;  // what has come and is not used yet
  std::string head_;
  int status_ = 0;
  uint64_t left_ = 0;  // bytes of the body or of the chunk
};

// Splits `data: ...` events of a text/event-stream; comments and other fields are passed over.
class EventReader {
 public:
  explicit EventReader(std::function<void(std::string_view)> on_data)
      : on_data_(std::move(on_data)) {}
  void feed(std::string_view bytes);

 private:
  std::function<void(std::string_view)> on_data_;
  std::string text_;
};

}  // namespace tandem::bench
