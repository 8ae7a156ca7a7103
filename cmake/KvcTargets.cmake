# kvc_library(NAME core SOURCES a.cc b.cc DEPS kvc::x PRIVATE_DEPS Eigen3::Eigen)
#   -> target kvc_<NAME>, alias kvc::<NAME>. Headers are found from the repository root.
function(kvc_library)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME" "SOURCES;DEPS;PRIVATE_DEPS")
  add_library(kvc_${A_NAME} STATIC ${A_SOURCES})
  add_library(kvc::${A_NAME} ALIAS kvc_${A_NAME})
  target_include_directories(kvc_${A_NAME} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_features(kvc_${A_NAME} PUBLIC cxx_std_20)
  target_link_libraries(kvc_${A_NAME} PUBLIC ${A_DEPS} PRIVATE ${A_PRIVATE_DEPS} kvc_warnings)
  kvc_precompile(kvc_${A_NAME} "" ${A_DEPS})
endfunction()

# kvc_tool(NAME kvc-run SOURCES kvc_run.cc DEPS kvc::runtime) -> build/bin/kvc-run
function(kvc_tool)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME" "SOURCES;DEPS")
  add_executable(${A_NAME} ${A_SOURCES})
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_features(${A_NAME} PRIVATE cxx_std_20)
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} kvc_warnings)
  kvc_precompile(${A_NAME} "" ${A_DEPS})
endfunction()

# kvc_test(NAME core_error_test SOURCES core/error_test.cc DEPS kvc::core LABELS unit)
#   Labels: unit (milliseconds), golden (committed data), slow (seconds and more), gpu (needs a device).
#   KVC_SOURCE_DIR is defined, so that a test finds tests/golden and ../shared.
function(kvc_test)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME" "SOURCES;DEPS;LABELS")
  add_executable(${A_NAME} ${A_SOURCES} $<TARGET_OBJECTS:kvc_test_main>)
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_features(${A_NAME} PRIVATE cxx_std_20)
  target_compile_definitions(${A_NAME} PRIVATE KVC_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                               KVC_BINARY_DIR="${PROJECT_BINARY_DIR}")
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} GTest::gtest kvc_warnings)
  kvc_precompile(${A_NAME} _test ${A_DEPS})
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_test(NAME ${A_NAME} COMMAND ${A_NAME})
  set_tests_properties(${A_NAME} PROPERTIES LABELS "${A_LABELS}" SKIP_RETURN_CODE 77)
endfunction()
