// Without a device the program ends at once with the exit code by which ctest lists it as skipped
// (tests/support/main.cc).

#include <cstdio>
#include <cstdlib>

#include <gtest/gtest.h>

#include <cuda_runtime.h>

namespace kvc {
namespace {

constexpr int kSkippedExit = 77;

class DeviceEnvironment : public testing::Environment {
 public:
  void SetUp() override {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
      std::fprintf(stderr, "skipped: no CUDA device: %s\n", cudaGetErrorString(status));
      std::exit(kSkippedExit);
    }
  }
};

const testing::Environment* const kEnvironment =
    testing::AddGlobalTestEnvironment(new DeviceEnvironment);

}  // namespace
}  // namespace kvc
