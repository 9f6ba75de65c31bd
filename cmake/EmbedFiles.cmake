# cmake -DFOLDER=... -DOUTPUT=... -DFUNCTION=web_files -P EmbedFiles.cmake: writes a source file that defines
# tandem::server::web_files() with the files of the folder, every byte as an escape.
file(GLOB paths ${FOLDER}/*)
list(SORT paths)
set(arrays "")
set(table "")
set(count 0)
foreach(path ${paths})
  get_filename_component(name ${path} NAME)
  file(READ ${path} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "\\\\x\\1" text "${hex}")
  string(REPEAT "." 128 line)
  string(REGEX REPLACE "(${line})" "\\1\"\n    \"" text "${text}")
  string(APPEND arrays "constexpr char kFile${count}[] =\n    \"${text}\";\n")
  string(APPEND table "    {\"${name}\", {kFile${count}, sizeof(kFile${count}) - 1}},\n")
  math(EXPR count "${count} + 1")
endforeach()
file(WRITE ${OUTPUT} "// Written by cmake/EmbedFiles.cmake.
#include \"server/web_files.h\"

namespace tandem::server {
namespace {

${arrays}
constexpr WebFile kFiles[] = {
${table}};

}  // namespace

std::span<const WebFile> ${FUNCTION}() {
  return kFiles;
}

}  // namespace tandem::server
")
