# Our warnings, linked PRIVATE so that no dependency inherits them. nvcc does not get them.
add_library(kvc_warnings INTERFACE)
target_compile_options(kvc_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual>
  # GCC 12 sees overlapping copies in std::string's operator+ where there are none (GCC bug 105651).
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
if(KVC_PCH)
  # The same false alarm in other coats: behind a precompiled header it is no system header's.
  target_compile_options(kvc_warnings INTERFACE
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-stringop-overflow -Wno-array-bounds>)
endif()
if(KVC_WERROR)
  target_compile_options(kvc_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
