# Our warnings, linked PRIVATE so that no dependency inherits them. nvcc does not get them.
add_library(kvc_warnings INTERFACE)
target_compile_options(kvc_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual>)
if(KVC_WERROR)
  target_compile_options(kvc_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
