# Python tests: tests/e2e/*_test.py and tests/golden/*_test.py, each a program of its own that exits 0 when all is well.
# They run the built program, whose path is in the environment variable TANDEM, with the packages of
# tools/deps/requirements-test.txt from the .venv that ./check makes.
set(venv_python ${PROJECT_SOURCE_DIR}/.venv/bin/python)
if(NOT TARGET tandem)
  message(STATUS "Python tests: not registered, the program is not built here")
  return()
endif()
if(TANDEM_SANITIZE)
  message(STATUS "Python tests: not registered in a sanitizer build, too slow")
  return()
endif()
if(NOT EXISTS ${venv_python})
  message(STATUS "Python tests: not registered, no .venv (./check makes it)")
  return()
endif()

file(GLOB scripts CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}
  ${CMAKE_CURRENT_SOURCE_DIR}/e2e/*_test.py ${CMAKE_CURRENT_SOURCE_DIR}/golden/*_test.py)
foreach(script ${scripts})
  # e2e/generate_test.py is registered as e2e_generate.
  string(REGEX REPLACE "_test\\.py$" "" name ${script})
  string(REPLACE "/" "_" name ${name})
  add_test(NAME ${name} COMMAND ${venv_python} ${CMAKE_CURRENT_SOURCE_DIR}/${script}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  # PROCESSORS: they measure and compare runs of the program, which uses two threads. On the CPU everywhere: each
  # program of several would take a card's memory (tools/device/e2e.sh runs them on a GPU).
  set_tests_properties(${name} PROPERTIES TIMEOUT 1200 PROCESSORS 2 LABELS python
    ENVIRONMENT "TANDEM=$<TARGET_FILE:tandem>;PYTHONDONTWRITEBYTECODE=1;CUDA_VISIBLE_DEVICES=")
endforeach()
