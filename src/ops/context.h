// Where and how ops run. Every op takes a Context first and checks shapes and dtypes (bugs of ours:
// TANDEM_CHECK); nothing here can fail for a reason a user should read.
//
// Activations are F32 or BF16, chosen by the dtype of the views an op is given: arithmetic is FP32,
// results are rounded once when they are stored. Promise of every backend but none: a row's result
// has the same bits however many rows ride along and whatever the number of threads.
#pragma once

#include "core/thread_pool.h"

namespace tandem::ops {

enum class Backend {
  kReference,  // plain loops: the specification every other backend is tested against
  kCpu,        // vector or tile kernels, chosen at run time: ops/cpu/isa.h says whose bits agree
};

struct Context {
  Backend backend = Backend::kCpu;
  core::ThreadPool* pool = nullptr;  // not owned; null runs on the caller's thread
};

}  // namespace tandem::ops
