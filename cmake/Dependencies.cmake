# Every third-party package that kvc links, and the version it is known to work with (Debian 12).
# One folder owns each: see docs/layout.md.
find_package(Threads REQUIRED)
find_package(fmt 9.1 REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(OpenSSL 3.0 REQUIRED COMPONENTS Crypto)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.42)
# Debian 12 has 2.8.0, which calls itself 2.6.0 in its .pc file.
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc>=2.6)
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy>=1.0.3)
pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas>=0.3.21)
# oneDNN multiplies many rows where it is there; without it kvc's own tile does. (The config file of
# Debian's package asks for OpenCL, which its library does not need here.)
find_library(DNNL_LIBRARY dnnl)
find_path(DNNL_INCLUDE_DIR dnnl.hpp)
find_package(OpenMP QUIET COMPONENTS CXX)
if(DNNL_LIBRARY AND DNNL_INCLUDE_DIR AND OpenMP_CXX_FOUND)
  add_library(DNNL::dnnl UNKNOWN IMPORTED)
  set_target_properties(DNNL::dnnl PROPERTIES IMPORTED_LOCATION "${DNNL_LIBRARY}"
                        INTERFACE_INCLUDE_DIRECTORIES "${DNNL_INCLUDE_DIR}")
  set(KVC_ONEDNN ON)
else()
  set(KVC_ONEDNN OFF)
  message(STATUS "oneDNN (libdnnl-dev) not found: prompts go through the models more slowly")
endif()
find_package(CLI11 2.1 REQUIRED)
find_package(Eigen3 3.4 REQUIRED)
find_library(LAPACKE_LIBRARY lapacke REQUIRED)
find_package(Boost 1.74 REQUIRED COMPONENTS context)
# Optional: without it, the lines of kvc-run --chat are read without editing.
pkg_check_modules(LIBEDIT IMPORTED_TARGET libedit>=3.1)

if(KVC_ONNX)
  # Before LibTorch: where there is no protobuf::libprotobuf yet, LibTorch 2 makes an empty one.
  find_package(Protobuf 3.21 REQUIRED)
  find_package(ONNX REQUIRED)
endif()
if(KVC_TORCH)
  # Debian's LibTorch 1.13 by default. Another one:
  # -DTorch_DIR=<site-packages>/torch/share/cmake/Torch. What it looks for beside itself must not be
  # Debian's. (After protobuf: LibTorch's wheel has headers of an old one.)
  if(Torch_DIR)
    get_filename_component(torch_prefix "${Torch_DIR}/../../.." ABSOLUTE)
    list(PREPEND CMAKE_PREFIX_PATH "${torch_prefix}")
  endif()
  # It adds its own architectures, old ones among them, to every CUDA source.
  set(kvc_cuda_flags "${CMAKE_CUDA_FLAGS}")
  set(kvc_cuda_architectures "${CMAKE_CUDA_ARCHITECTURES}")
  find_package(Torch REQUIRED)
  if(Torch_VERSION VERSION_GREATER_EQUAL 2)
    # Wheels (2.11) export parts of an older std::filesystem, which crash when they come first.
    string(PREPEND CMAKE_EXE_LINKER_FLAGS "-Wl,--no-as-needed -lstdc++ -Wl,--as-needed ")
  endif()
  set(CMAKE_CUDA_FLAGS "${kvc_cuda_flags}")
  set(CMAKE_CUDA_ARCHITECTURES "${kvc_cuda_architectures}")
endif()
if(KVC_TESTS)
  find_package(GTest 1.12 REQUIRED)
endif()
if(KVC_BENCH)
  find_package(benchmark 1.7 REQUIRED)
endif()
if(KVC_CUDA)
  # XsyevBatched of cuSOLVER is in the toolkit since 12.6.
  find_package(CUDAToolkit 12.6 REQUIRED)
endif()
