// A model folder that appears whole or not at all. Files are written to NAME.partial; config.json,
// without which nothing loads, gets its name as the very last step.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tandem::quantize {

class OutputFolder {
 public:
  // Makes NAME.partial beside `path` and locks it. What an interrupted run left behind is
  // overwritten; any other folder that is not empty is refused unless `force`.
  static base::Result<OutputFolder> create(const std::filesystem::path& path, bool force);

  // What a run to `path` makes, renames or removes: its own name, NAME.partial, NAME.replaced.
  static std::vector<std::filesystem::path> names(const std::filesystem::path& path);

  OutputFolder(OutputFolder&& other) noexcept;
  OutputFolder& operator=(OutputFolder&& other) noexcept;
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;
  // Removes the folder unless it was published.
  ~OutputFolder();

  const std::filesystem::path& path() const { return path_; }  // the final one
  const std::filesystem::path& dir() const { return dir_; }    // where to write now

  // config.json under another name until publish().
  base::Status hold_config(std::string_view json);
  // Everything is written: gives the folder its name, then the config. With `force`, the folder
  // that was there is removed after that.
  base::Status publish();

 private:
  OutputFolder() = default;
  base::Status replace_old();

  std::filesystem::path path_;
  std::filesystem::path dir_;  // empty once published
  bool force_ = false;
  int lock_ = -1;
};

}  // namespace tandem::quantize
