#pragma once
// How the common options open a session.

#include "core/base/thread_pool.h"
#include "runtime/session.h"
#include "tools/common_options.h"

namespace kvc::tools {

// Returns the options of a session on the device of --device, whose loops run on the command's
// threads; the pool must outlive the session.
[[nodiscard]] inline runtime::RuntimeOptions SessionOptions(const CommonOptions& common,
                                                            ThreadPool& pool) {
  runtime::RuntimeOptions options;
  options.device = BackendDevice(common);
  options.pool = &pool;
  options.exact = common.exact;
  return options;
}

}  // namespace kvc::tools
