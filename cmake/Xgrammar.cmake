# xgrammar: which tokens a grammar allows next. Pinned sources that tools/deps/xgrammar.sh fetches, compiled here as
# they are, linked statically. Only src/text/grammar includes its headers.
execute_process(COMMAND ${PROJECT_SOURCE_DIR}/tools/deps/xgrammar.sh
  OUTPUT_VARIABLE xgrammar_folder OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE xgrammar_failed)
if(xgrammar_failed)
  message(FATAL_ERROR "tools/deps/xgrammar.sh could not fetch xgrammar's sources: what pip said is above. "
    "They are needed once; a copy of .deps/ from another machine serves as well.")
endif()
file(GLOB_RECURSE xgrammar_sources ${xgrammar_folder}/cpp/*.cc)
# Forms of input that are not used here, or once per grammar: quick to compile is better than quick to run.
file(GLOB xgrammar_cold ${xgrammar_folder}/cpp/*_converter.cc ${xgrammar_folder}/cpp/converter_ext/*.cc
  ${xgrammar_folder}/cpp/structural_tag.cc ${xgrammar_folder}/cpp/grammar_p*.cc ${xgrammar_folder}/cpp/testing.cc)
set_source_files_properties(${xgrammar_cold} PROPERTIES COMPILE_OPTIONS -O1)
add_library(tandem_xgrammar STATIC ${xgrammar_sources})
set_target_properties(tandem_xgrammar PROPERTIES CXX_STANDARD 17)
target_include_directories(tandem_xgrammar SYSTEM PUBLIC ${xgrammar_folder}/include
  ${xgrammar_folder}/3rdparty/picojson ${xgrammar_folder}/3rdparty/dlpack/include)
target_compile_definitions(tandem_xgrammar PUBLIC
  XGRAMMAR_ENABLE_CPPTRACE=0 XGRAMMAR_ENABLE_INTERNAL_CHECK=0)
target_compile_options(tandem_xgrammar PRIVATE -w)
target_link_libraries(tandem_xgrammar PRIVATE Threads::Threads)
