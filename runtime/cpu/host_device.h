#pragma once
// The host's memory as a device. Stateless: any number of threads and sequences share one.

#include "runtime/device.h"

namespace kvc::runtime {

class HostDevice : public Device {
 public:
  [[nodiscard]] std::string_view name() const override { return "cpu"; }
  void ToDevice(const void* host, const Buffer& to, int64_t offset, int64_t bytes) override;
  void ToHost(const Buffer& from, int64_t offset, void* host, int64_t bytes) override;
  void Copy(const Buffer& from,
            int64_t from_offset,
            const Buffer& to,
            int64_t to_offset,
            int64_t bytes) override;
  void Synchronize() override {}

 private:
  void* Allocate(int64_t bytes) override;
  void Free(void* memory, int64_t bytes) noexcept override;
};

// One for the whole process: it has no state.
[[nodiscard]] HostDevice& SharedHostDevice();

}  // namespace kvc::runtime
