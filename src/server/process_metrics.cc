#include "server/process_metrics.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "server/prometheus.h"

namespace tandem::server {
namespace {

// Fields of /proc/self/stat after the name, which may hold anything; the first is field 3.
std::vector<std::string> stat_fields() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const size_t end_of_name = line.rfind(')');
  if (end_of_name == std::string::npos) return {};
  std::istringstream rest(line.substr(end_of_name + 1));
  std::vector<std::string> fields;
  for (std::string field; rest >> field;) fields.push_back(field);
  return fields;
}

// Seconds since 1970 at which the machine was started.
double boot_seconds() {
  std::ifstream file("/proc/stat");
  for (std::string word; file >> word;) {
    double seconds = 0;
    if (word == "btime" && file >> seconds) return seconds;
  }
  return 0;
}

double num_open_files() {
  std::error_code error;
  const std::filesystem::directory_iterator files("/proc/self/fd", error);
  // One of them is the folder that is being read.
  return error ? 0 : static_cast<double>(std::distance(begin(files), end(files)) - 1);
}

}  // namespace

void write_process_metrics(std::string& out) {
  const std::vector<std::string> fields = stat_fields();
  if (fields.size() < 22) return;
  const auto field = [&](size_t number) { return std::stod(fields[number - 3]); };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  write_counter(out, "process_cpu_seconds_total", "User and system time.", "",
                (field(14) + field(15)) / ticks);
  write_gauge(out, "process_resident_memory_bytes", "Resident memory.", "", field(24) * page);
  write_gauge(out, "process_virtual_memory_bytes", "Virtual memory.", "", field(23));
  write_gauge(out, "process_open_fds", "Open files and sockets.", "", num_open_files());
  write_gauge(out, "process_start_time_seconds", "Start, in seconds since 1970.", "",
              boot_seconds() + field(22) / ticks);
}

}  // namespace tandem::server
