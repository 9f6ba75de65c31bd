// Splits independent outputs over the context's threads. Never used to split a sum.
#pragma once

#include <functional>

#include "ops/context.h"

namespace tandem::ops {

inline void parallel_for(const Context& context, int64_t count, int64_t grain,
                         const std::function<void(int64_t begin, int64_t end)>& body) {
  if (count <= 0) return;
  if (context.pool == nullptr)
    body(0, count);
  else
    context.pool->parallel_for(count, grain < 1 ? 1 : grain, body);
}

inline int num_threads(const Context& context) {
  return context.pool == nullptr ? 1 : context.pool->num_threads();
}

}  // namespace tandem::ops
