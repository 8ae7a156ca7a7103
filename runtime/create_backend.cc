#include "runtime/create_backend.h"

#include "core/base/error.h"
#include "runtime/cpu/cpu_backend.h"

namespace kvc::runtime {

std::shared_ptr<Backend> CreateBackend(const RuntimeOptions& options) {
  KVC_CHECK(options.device == "cpu", kDevice, "device: expected cpu, got {}", options.device);
  if (options.pool != nullptr) return std::make_shared<CpuBackend>(*options.pool);
  return std::make_shared<CpuBackend>(std::make_unique<ThreadPool>(options.threads));
}

}  // namespace kvc::runtime
