#include "tests/runtime/fenced_backend.h"

#include <algorithm>
#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

#include "core/base/error.h"
#include "runtime/cpu/cpu_activations.h"
#include "runtime/cpu/host_fallback.h"
#include "runtime/cpu/host_memory.h"

namespace kvc::runtime {
namespace {

constexpr int kOpen = PROT_READ | PROT_WRITE;

size_t PagesOf(int64_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (static_cast<size_t>(bytes) + page - 1) / page * page;
}

}  // namespace

FencedDevice::~FencedDevice() {
  for (const auto& [memory, bytes] : pages_) munmap(memory, bytes);
}

void* FencedDevice::Allocate(int64_t bytes) {
  const std::lock_guard<std::mutex> guard(mutex_);
  const size_t size = PagesOf(bytes);
  void* memory =
      mmap(nullptr, size, depth_ > 0 ? kOpen : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  KVC_CHECK(memory != MAP_FAILED, kIo, "fenced: expected {} bytes of memory, got none", bytes);
  pages_.emplace(memory, size);
  return memory;
}

void FencedDevice::Free(void* memory, int64_t bytes) noexcept {
  const std::lock_guard<std::mutex> guard(mutex_);
  pages_.erase(memory);
  munmap(memory, PagesOf(bytes));
}

void FencedDevice::Open() {
  const std::lock_guard<std::mutex> guard(mutex_);
  ++openings_;
  if (depth_++ > 0) return;
  for (const auto& [memory, bytes] : pages_) mprotect(memory, bytes, kOpen);
}

void FencedDevice::Close() {
  const std::lock_guard<std::mutex> guard(mutex_);
  if (--depth_ > 0) return;
  for (const auto& [memory, bytes] : pages_) mprotect(memory, bytes, PROT_NONE);
}

void FencedDevice::ToDevice(const void* host, const Buffer& to, int64_t offset, int64_t bytes) {
  const Opening opening(*this);
  std::memcpy(HostMemory::Of(to) + offset, host, static_cast<size_t>(bytes));
}

void FencedDevice::ToHost(const Buffer& from, int64_t offset, void* host, int64_t bytes) {
  const Opening opening(*this);
  std::memcpy(host, HostMemory::Of(from) + offset, static_cast<size_t>(bytes));
}

void FencedDevice::Copy(
    const Buffer& from, int64_t from_offset, const Buffer& to, int64_t to_offset, int64_t bytes) {
  const Opening opening(*this);
  std::memcpy(HostMemory::Of(to) + to_offset, HostMemory::Of(from) + from_offset,
              static_cast<size_t>(bytes));
}

std::shared_ptr<const PreparedModel> FencedBackend::Prepare(const Graph& graph,
                                                            const Plan& plan,
                                                            bool pack_weights) {
  return inner_.Prepare(graph, plan, pack_weights);
}

std::unique_ptr<Activations> FencedBackend::NewActivations(
    std::shared_ptr<const PreparedModel> model, const ActivationSize& size) {
  return inner_.NewActivations(std::move(model), size);
}

void FencedBackend::Run(int64_t section, SectionPart part, const RowBatch& batch, Activations& x) {
  const Opening opening(device_);
  inner_.Run(section, part, batch, x);
}

void FencedBackend::ReadLogits(const RowBatch& batch, Activations& x, MatrixF logits) {
  const Opening opening(device_);
  inner_.ReadLogits(batch, x, logits);
}

void FencedBackend::Store(int64_t layer,
                          RowRange rows,
                          int64_t first_position,
                          const Activations& x,
                          SequenceCache& cache) {
  const Opening opening(device_);
  inner_.Store(layer, rows, first_position, x, cache);
}

void FencedBackend::AttendPrompt(int64_t layer, const SequenceCache& cache, Activations& x) {
  const Opening opening(device_);
  inner_.AttendPrompt(layer, cache, x);
}

void FencedBackend::AttendTokens(int64_t layer,
                                 std::span<SequenceCache* const> caches,
                                 Activations& x) {
  const Opening opening(device_);
  inner_.AttendTokens(layer, caches, x);
}

void FencedBackend::AttendRow(int64_t layer, int64_t row, SequenceCache& cache, Activations& x) {
  const Opening opening(device_);
  inner_.AttendRow(layer, row, cache, x);
}

void FencedBackend::Apply(const LayerMoves& moves, int64_t layer, SequenceCache& cache) {
  const Opening opening(device_);
  inner_.Apply(moves, layer, cache);
}

void FencedBackend::FindResidualEnergy(int64_t layer,
                                       int64_t window,
                                       const Activations& x,
                                       SequenceCache& cache) {
  const Opening opening(device_);
  inner_.FindResidualEnergy(layer, window, x, cache);
}

std::vector<GroupScores> FencedBackend::Score(const ScoreRequest& request,
                                              const PreparedModel& model,
                                              SequenceCache& cache) {
  std::vector<float> storage;
  ConstMatrixF queries;
  if (request.prompt != nullptr) {
    const Opening opening(device_);
    const ConstMatrixF held = dynamic_cast<const CpuActivations&>(*request.prompt).prompt_queries();
    storage.assign(held.data, held.data + held.rows * held.cols);
    queries = {storage.data(), held.rows, held.cols};
  }
  return ScoreOnHost(request, dynamic_cast<const CpuModel&>(model), queries, cache, pool_);
}

void FencedBackend::FindCoordinates(int64_t layer, SequenceCache& cache) {
  FindCoordinatesOnHost(layer, cache, pool_);
}

}  // namespace kvc::runtime
