// What the system knows of this process, under the names every Prometheus client library uses.
#pragma once

#include <string>

namespace tandem::server {

// Memory, processor time, open files, start time; nothing where /proc cannot be read.
void write_process_metrics(std::string& out);

}  // namespace tandem::server
