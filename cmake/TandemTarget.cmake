# Flags every target of ours is built with, and one helper per folder of src/.

add_library(tandem_flags INTERFACE)
target_compile_features(tandem_flags INTERFACE cxx_std_20)
target_include_directories(tandem_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(tandem_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Werror -ffp-contract=off -fno-strict-aliasing>)
target_compile_definitions(tandem_flags INTERFACE $<$<CONFIG:Debug>:TANDEM_DEBUG_CHECKS>)
if(TANDEM_SANITIZE)
  target_compile_options(tandem_flags INTERFACE -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(tandem_flags INTERFACE -fsanitize=address,undefined)
endif()

# tandem_library(<folder> [DEPENDS <folder>...]): one static library per folder of src/.
function(tandem_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(sources)
    add_library(tandem_${name} STATIC ${sources})
    set(scope PUBLIC)
  else()
    add_library(tandem_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_link_libraries(tandem_${name} ${scope} tandem_flags ${ARG_LIBS})
  foreach(dep ${ARG_DEPENDS})
    target_link_libraries(tandem_${name} ${scope} tandem_${dep})
  endforeach()
endfunction()
