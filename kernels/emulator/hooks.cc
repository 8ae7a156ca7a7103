// The hooks that code compiled with -fsanitize=thread calls for each of its loads and stores. They
// stand in for ThreadSanitizer's runtime, which is not linked. Built into kvc_cuda_checked alone.

#include <cstddef>

#include "kernels/emulator/checker.h"

namespace kvc::emulator {
namespace {
const bool kLinked = (SetHooksLinked(), true);
}  // namespace

void Touch(const void* address, size_t bytes, bool write, Site site) {
  CheckAccess(address, bytes, write, site);
}
}  // namespace kvc::emulator

extern "C" {
using kvc::emulator::CheckAccess;

// The names are the compiler's (GCC, sanitizer.def). NOLINTBEGIN(bugprone-*, readability-*)
#define KVC_HOOKS(bytes)                                                                          \
  void __tsan_read##bytes(void* p) { CheckAccess(p, bytes, false, __builtin_return_address(0)); } \
  void __tsan_write##bytes(void* p) { CheckAccess(p, bytes, true, __builtin_return_address(0)); } \
  void __tsan_unaligned_read##bytes(void* p) {                                                    \
    CheckAccess(p, bytes, false, __builtin_return_address(0), false);                             \
  }                                                                                               \
  void __tsan_unaligned_write##bytes(void* p) {                                                   \
    CheckAccess(p, bytes, true, __builtin_return_address(0), false);                              \
  }                                                                                               \
  void __tsan_volatile_read##bytes(void* p) {                                                     \
    CheckAccess(p, bytes, false, __builtin_return_address(0));                                    \
  }                                                                                               \
  void __tsan_volatile_write##bytes(void* p) {                                                    \
    CheckAccess(p, bytes, true, __builtin_return_address(0));                                     \
  }
KVC_HOOKS(1)
KVC_HOOKS(2)
KVC_HOOKS(4)
KVC_HOOKS(8)
KVC_HOOKS(16)

void __tsan_read_range(void* p, size_t bytes) {
  CheckAccess(p, bytes, false, __builtin_return_address(0), false);
}
void __tsan_write_range(void* p, size_t bytes) {
  CheckAccess(p, bytes, true, __builtin_return_address(0), false);
}
void __tsan_func_entry(void* /*caller*/) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void** /*object*/, void* /*value*/) {}
void __tsan_vptr_read(void** /*object*/) {}
}  // NOLINTEND(bugprone-*, readability-*)
