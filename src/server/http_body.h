// The body of a request while it is read: takes memory as bytes arrive, where Beast's own string
// takes all that the head announces.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/optional.hpp>
#include <cstdint>
#include <string>

namespace tandem::server {

struct GrowingBody {
  using value_type = std::string;

  class reader {  // NOLINT(readability-identifier-naming): Beast asks for this name
   public:
    using Error = boost::beast::error_code;

    template <bool kIsRequest, typename Fields>
    reader(boost::beast::http::header<kIsRequest, Fields>&, value_type& body) : body_(body) {}

    void init(const boost::optional<uint64_t>&, Error& error) { error = {}; }

    template <typename Buffers>
    size_t put(const Buffers& buffers, Error& error) {
      error = {};
      const size_t before = body_.size();
      for (const boost::asio::const_buffer buffer : boost::beast::buffers_range_ref(buffers))
        body_.append(static_cast<const char*>(buffer.data()), buffer.size());
      return body_.size() - before;
    }

    void finish(Error& error) { error = {}; }

   private:
    value_type& body_;
  };
};

}  // namespace tandem::server
