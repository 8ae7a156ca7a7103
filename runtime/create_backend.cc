#include "runtime/create_backend.h"

#include "core/base/error.h"
#include "kernels/cuda/runtime.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cuda/cuda_backend.h"

namespace kvc::runtime {
namespace {

template <class Own>
std::shared_ptr<Own> Create(const RuntimeOptions& options) {
  if (options.pool != nullptr) return std::make_shared<Own>(*options.pool);
  return std::make_shared<Own>(std::make_unique<ThreadPool>(options.threads));
}

}  // namespace

void CheckDevice(const std::string& device) {
  const std::string_view own = cuda::DeviceKind();
  KVC_CHECK(device == "cpu" || device == own, kDevice,
            "device: expected cpu or {} in this build, got {}; {}", own, device,
            own == "cuda" ? "use --device cpu, or a build without KVC_CUDA for the emulator"
                          : "use --device cpu, or a build with -DKVC_CUDA=ON for a CUDA device");
}

std::shared_ptr<Backend> CreateBackend(const RuntimeOptions& options) {
  CheckDevice(options.device);
  KVC_CHECK(
      !options.exact || options.device == "cpu", kUsage,
      "exact activations: expected device cpu, got {}; devices round them to the weights' type",
      options.device);
  if (options.device != "cpu") return Create<CudaBackend>(options);
  auto backend = Create<CpuBackend>(options);
  if (options.exact) backend->KeepActivationsExact();
  return backend;
}

}  // namespace kvc::runtime
