// The files of src/server/web and src/server/openapi, which the build puts into the program.
#pragma once

#include <span>
#include <string_view>

namespace tandem::server {

struct WebFile {
  std::string_view name;  // as in the folder, such as main.js
  std::string_view data;
};

// Sorted by name. Defined in a source file that cmake/EmbedFiles.cmake writes.
std::span<const WebFile> web_files();
std::span<const WebFile> openapi_files();

}  // namespace tandem::server
