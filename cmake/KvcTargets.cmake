# kvc_library(NAME core SOURCES a.cc b.cc APART d.cc TORCH_SOURCES c.cc DEPS kvc::x
#             PRIVATE_DEPS Eigen3::Eigen)
#   -> target kvc_<NAME>, alias kvc::<NAME>. Headers are found from the repository root. TORCH_SOURCES
#   are the ones that parse LibTorch's headers, which no other source can find. APART: what is never
#   compiled together with another source (cmake/Unity.cmake).
function(kvc_library)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME" "SOURCES;APART;TORCH_SOURCES;DEPS;PRIVATE_DEPS")
  kvc_unity(units kvc_${A_NAME} ${A_SOURCES})
  add_library(kvc_${A_NAME} STATIC ${units} ${A_APART})
  add_library(kvc::${A_NAME} ALIAS kvc_${A_NAME})
  target_include_directories(kvc_${A_NAME} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_features(kvc_${A_NAME} PUBLIC cxx_std_20)
  target_link_libraries(kvc_${A_NAME} PUBLIC ${A_DEPS} PRIVATE ${A_PRIVATE_DEPS} kvc_warnings)
  kvc_precompile(kvc_${A_NAME} "" ${A_DEPS})
  if(A_TORCH_SOURCES)
    kvc_unity(units kvc_${A_NAME}_torch ${A_TORCH_SOURCES})
    kvc_torch_sources(kvc_${A_NAME} "${units}" ${A_DEPS} ${A_PRIVATE_DEPS})
    target_link_libraries(kvc_${A_NAME} INTERFACE $<LINK_ONLY:torch>)
  endif()
endfunction()

# The sources of a target that parse LibTorch's headers: compiled apart from its others, which thus
# neither see these headers nor pay for their precompiled set.
function(kvc_torch_sources target sources)
  add_library(${target}_torch OBJECT ${sources})
  target_include_directories(${target}_torch PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_features(${target}_torch PRIVATE cxx_std_20)
  target_link_libraries(${target}_torch PRIVATE ${ARGN} torch kvc_warnings)
  if(KVC_PCH)
    target_precompile_headers(${target}_torch REUSE_FROM kvc_pch_torch)
  endif()
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_torch>)
endfunction()

# kvc_tool(NAME kvc-run SOURCES kvc_run.cc DEPS kvc::runtime) -> build/bin/kvc-run
function(kvc_tool)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME" "SOURCES;DEPS")
  kvc_unity(units ${A_NAME} ${A_SOURCES})
  add_executable(${A_NAME} ${units})
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_features(${A_NAME} PRIVATE cxx_std_20)
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} kvc_warnings)
  kvc_precompile(${A_NAME} "" ${A_DEPS})
  set_property(GLOBAL APPEND PROPERTY KVC_COMMANDS ${A_NAME})
endfunction()

# kvc_tests(NAME solver DEPS kvc::solver SUPPORT cases.cc UNIT a_test.cc GOLDEN b_test.cc SLOW ... GPU ...
#           TORCH b_test.cc)
#   -> one executable tests/<NAME>_tests, and for each test source <NAME>_a_test a ctest entry that
#   runs the suites which that source defines. Labels by keyword: unit (milliseconds), golden
#   (committed data), slow (seconds and more), gpu (needs a device). In a source with GTEST_SKIP the
#   tests that may skip have Shared, SmolLm2, Vnni or Cuda in their names; they get an entry of their own,
#   <NAME>_a_test_needs, so that a skip is visible and hides no passed test. Its label is gpu where
#   Cuda is all that the source asks for. TORCH: which of the sources parse LibTorch's headers.
#   COMPILED: which of them an object library in SUPPORT has compiled.
function(kvc_tests)
  set(kinds UNIT GOLDEN SLOW GPU)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME" "DEPS;SUPPORT;COMPILED;TORCH;${kinds}")
  set(target ${A_NAME}_tests)
  set(sources ${A_UNIT} ${A_GOLDEN} ${A_SLOW} ${A_GPU} ${A_SUPPORT})
  list(REMOVE_ITEM sources "" ${A_TORCH} ${A_COMPILED})
  add_executable(${target} ${sources} $<TARGET_OBJECTS:kvc_test_main>)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_link_libraries(${target} PRIVATE ${A_DEPS} GTest::gtest kvc_warnings)
  kvc_precompile(${target} _test ${A_DEPS})
  kvc_compile_quickly(${target})
  if(A_TORCH)
    kvc_torch_sources(${target} "${A_TORCH}" ${A_DEPS} GTest::gtest)
    kvc_compile_quickly(${target}_torch)
  endif()
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  foreach(kind IN LISTS kinds)
    string(TOLOWER ${kind} label)
    foreach(source IN LISTS A_${kind})
      kvc_test_entries(${target} ${A_NAME} ${source} ${label})
    endforeach()
  endforeach()
endfunction()

# kvc_device_tests(NAME bench_device DEPS ... SUPPORT ... SOURCES a_test.cc): tests that run on
# kvc::device. Their label is unit on the emulator; in a build for a device it is gpu, and they skip
# without one.
function(kvc_device_tests)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME" "DEPS;SUPPORT;SOURCES")
  if(KVC_CUDA)
    kvc_tests(NAME ${A_NAME} DEPS ${A_DEPS} kvc::device CUDA::cudart_static
              SUPPORT ${A_SUPPORT} ${PROJECT_SOURCE_DIR}/tests/cuda/nvcc/device_environment.cc
              GPU ${A_SOURCES})
  else()
    kvc_tests(NAME ${A_NAME} DEPS ${A_DEPS} kvc::device SUPPORT ${A_SUPPORT} UNIT ${A_SOURCES})
  endif()
endfunction()

# The ctest entries of one source.
function(kvc_test_entries target prefix source label)
  get_filename_component(path ${source} ABSOLUTE)  # one name for a source of two folders
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
  file(STRINGS ${path} lines REGEX "^(TEST|TEST_F|TEST_P|TYPED_TEST)\\(")
  set(suites "")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^[A-Z_]+\\(([A-Za-z0-9_]+),.*" "\\1" suite "${line}")
    list(APPEND suites "${suite}.*" "${suite}/*.*" "*/${suite}.*")
  endforeach()
  list(REMOVE_DUPLICATES suites)
  if(suites STREQUAL "")
    message(FATAL_ERROR "${path}: expected a test, got none")
  endif()
  list(JOIN suites ":" filter)
  get_filename_component(name ${source} NAME_WE)
  set(entry ${prefix}_${name})
  file(STRINGS ${path} skips REGEX "GTEST_SKIP")
  if(skips STREQUAL "" OR label STREQUAL gpu)
    kvc_test_entry(${entry} ${target} "${filter}" "" ${label})
  else()
    set(others ${suites})
    list(FILTER others EXCLUDE REGEX "Shared|SmolLm2|Vnni|Cuda")
    if(others)
      kvc_test_entry(${entry} ${target} "${filter}" "*Shared*:*SmolLm2*:*Vnni*:*Cuda*" ${label})
    endif()
    set(needs "")
    foreach(suite IN LISTS suites)
      foreach(word Shared SmolLm2 Vnni Cuda)
        string(REPLACE ".*" ".*${word}*" by_test "${suite}")
        list(APPEND needs "${by_test}")
        if(suite MATCHES "${word}")
          list(APPEND needs "${suite}")
        endif()
      endforeach()
    endforeach()
    file(STRINGS ${path} data REGEX "Shared|SmolLm2|Vnni")
    if(data STREQUAL "")
      set(label gpu)
    endif()
    list(JOIN needs ":" filter)
    kvc_test_entry(${entry}_needs ${target} "${filter}" "" ${label})
  endif()
endfunction()

# One entry; tests/support/main.cc fails where a filter selects nothing.
function(kvc_test_entry entry target filter without label)
  if(NOT without STREQUAL "")
    string(APPEND filter ":-${without}")
  endif()
  add_test(NAME ${entry} COMMAND ${target} "--gtest_filter=${filter}")
  set_tests_properties(${entry} PROPERTIES LABELS "${label}" SKIP_RETURN_CODE 77)
endfunction()
