# Precompiled headers: what most units spend most of their time on. LibTorch's types take 7 s of a
# unit, the JSON library 1.5, GoogleTest 1. Each set is compiled once and shared by all targets
# that include it. A unit still includes what it uses: -DKVC_PCH=OFF (as the dev preset has it)
# builds without them.
#
# Off by default behind a compiler launcher: ccache keeps no unit that reads a precompiled header.
set(kvc_pch_default ON)
if(CMAKE_CXX_COMPILER_LAUNCHER)
  set(kvc_pch_default OFF)
endif()
option(KVC_PCH "Precompile the headers of LibTorch, JSON and GoogleTest" ${kvc_pch_default})

# kvc_add_precompiled(NAME torch HEADERS <a> <b> DEPS x) -> target kvc_pch_<NAME>
function(kvc_add_precompiled)
  cmake_parse_arguments(PARSE_ARGV 0 A "" "NAME" "HEADERS;DEPS")
  set(unit ${PROJECT_BINARY_DIR}/kvc_pch_${A_NAME}.cc)
  file(CONFIGURE OUTPUT ${unit} CONTENT "")
  add_library(kvc_pch_${A_NAME} OBJECT ${unit})
  target_compile_features(kvc_pch_${A_NAME} PUBLIC cxx_std_20)
  target_link_libraries(kvc_pch_${A_NAME} PRIVATE ${A_DEPS} kvc_warnings)
  target_precompile_headers(kvc_pch_${A_NAME} PRIVATE ${A_HEADERS})
endfunction()

# Tests and commands of a release build: what they call is optimised, they themselves compile in two
# thirds of the time.
function(kvc_compile_quickly target)
  target_compile_options(${target} PRIVATE $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>)
endfunction()

if(KVC_PCH)
  set(base <algorithm> <filesystem> <functional> <memory> <string> <vector> <nlohmann/json.hpp>)
  kvc_add_precompiled(NAME base HEADERS ${base} DEPS nlohmann_json::nlohmann_json)
  kvc_add_precompiled(NAME cli HEADERS ${base} <CLI/CLI.hpp>
                      DEPS nlohmann_json::nlohmann_json CLI11::CLI11)
  kvc_compile_quickly(kvc_pch_cli)
  if(KVC_TORCH)
    kvc_add_precompiled(NAME torch HEADERS ${base} <torch/types.h>
                        DEPS nlohmann_json::nlohmann_json torch)
  endif()
  if(KVC_TESTS)
    kvc_add_precompiled(NAME base_test HEADERS ${base} <gtest/gtest.h>
                        DEPS nlohmann_json::nlohmann_json GTest::gtest)
    kvc_compile_quickly(kvc_pch_base_test)
  endif()
endif()

# kvc_precompile(TARGET SUFFIX DEPS...): the set that fits what the target links. What links CLI11 is
# marked so for those that link it in turn; it parses and prints, and compiles quickly. (LibTorch's
# set: kvc_torch_sources.)
function(kvc_precompile target suffix)
  set(kind base)
  foreach(dep IN LISTS ARGN)
    set(dep_kind "")
    if(TARGET ${dep})
      get_target_property(dep_kind ${dep} KVC_PRECOMPILED)
    endif()
    if(dep STREQUAL CLI11::CLI11 OR dep_kind STREQUAL cli)
      set(kind cli)
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES KVC_PRECOMPILED ${kind})
  if(kind STREQUAL cli AND NOT suffix STREQUAL _test)
    kvc_compile_quickly(${target})
  endif()
  if(suffix STREQUAL _test)
    set(kind base)
  endif()
  if(KVC_PCH)
    target_precompile_headers(${target} REUSE_FROM kvc_pch_${kind}${suffix})
  endif()
endfunction()
