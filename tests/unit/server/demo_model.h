// The demo pair's text side as a served model, for tests that need no weights.
#pragma once

#include "server/served_model.h"

namespace tandem::server::test {

const ServedModel& demo_model();

}  // namespace tandem::server::test
