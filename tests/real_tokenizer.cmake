# Unpacks the family's tokenizer.json (32 MB) into the build folder for the text tests.
find_program(XZ xz REQUIRED)
set(real_tokenizer_packed ${CMAKE_CURRENT_LIST_DIR}/data/tokenizer/gemma-4.tokenizer.json.xz)
set(real_tokenizer ${PROJECT_BINARY_DIR}/test_data/tokenizer.json)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${real_tokenizer_packed})
if(${real_tokenizer_packed} IS_NEWER_THAN ${real_tokenizer})
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/test_data)
  execute_process(COMMAND ${XZ} --decompress --keep --stdout ${real_tokenizer_packed}
    OUTPUT_FILE ${real_tokenizer} COMMAND_ERROR_IS_FATAL ANY)
endif()
if(TARGET unit_text)
  target_compile_definitions(unit_text PRIVATE TANDEM_REAL_TOKENIZER="${real_tokenizer}")
endif()
