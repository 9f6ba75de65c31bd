#include "cli/command.h"

#include "base/log.h"

namespace tandem::cli {

int exit_status(const base::Error& error) {
  switch (error.code) {
    case base::ErrorCode::kInvalidArgument:
    case base::ErrorCode::kNotFound:
    case base::ErrorCode::kUnsupported:
      return 2;
    case base::ErrorCode::kCancelled:
      return 130;
    case base::ErrorCode::kResourceExhausted:
    case base::ErrorCode::kInternal:
      return 1;
  }
  return 1;
}

int report(const base::Error& error) {
  base::log_error("{}", error.message);
  return exit_status(error);
}

}  // namespace tandem::cli
