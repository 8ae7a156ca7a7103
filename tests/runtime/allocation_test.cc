// A decode step allocates nothing, in any layout. This file replaces the program's operator new.

#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "tests/runtime/loaded.h"
#include "tests/runtime/random_bases.h"

namespace {

std::atomic<int64_t> allocations{0};

void* Count(std::size_t bytes, std::size_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  bytes = (bytes + alignment - 1) / alignment * alignment;
  return alignment > alignof(std::max_align_t) ? std::aligned_alloc(alignment, bytes)
                                               : std::malloc(bytes == 0 ? 1 : bytes);
}

void* CountOrThrow(std::size_t bytes, std::size_t alignment) {
  void* memory = Count(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

// Not inlined: GCC would see free() called on what an operator new returned, and warn.
[[gnu::noinline]] void Release(void* memory) { std::free(memory); }

}  // namespace

// Where only one of a pair is inlined, the compiler sees free() meet an operator new.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
void* operator new(std::size_t bytes) { return CountOrThrow(bytes, 1); }
void* operator new[](std::size_t bytes) { return CountOrThrow(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return CountOrThrow(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return CountOrThrow(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return Count(bytes, 1); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return Count(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return Count(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { Release(memory); }
void operator delete[](void* memory) noexcept { Release(memory); }
void operator delete(void* memory, std::size_t) noexcept { Release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { Release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { Release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { Release(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { Release(memory); }

namespace kvc::runtime {
namespace {

class EveryLayoutAllocation : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models,
                         EveryLayoutAllocation,
                         ::testing::ValuesIn(Layouts()),
                         testing::ParameterName());

// Allocations of five steps of two sequences behind three of the same kind.
int64_t CountSteps(Loaded& loaded, const SequenceOptions& options) {
  const auto one = loaded.session->NewSequence(options);
  const auto two = loaded.session->NewSequence(options);
  testing::PrefillLast(*loaded.session, *one, RandomIds(30, 1));
  testing::PrefillLast(*loaded.session, *two, RandomIds(24, 2));
  Sequence* const both[] = {one.get(), two.get()};
  const int32_t ids[] = {3, 7};
  std::vector<float> logits(2 * kVocabulary);
  const auto step = [&] {
    loaded.session->Decode(both, ids, MatrixF(logits.data(), 2, kVocabulary));
  };
  for (int i = 0; i < 3; ++i) step();
  const int64_t before = allocations.load();
  for (int i = 0; i < 5; ++i) step();
  return allocations.load() - before;
}

TEST_P(EveryLayoutAllocation, ASteadyStepAllocatesNothing) {
  Loaded loaded(GetParam(), DType::kF32, 1);
  SequenceOptions options;
  options.reserve = 64;
  EXPECT_EQ(CountSteps(loaded, options), 0) << "full";
  CacheSpec spec =
      testing::Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 40, false);
  spec.margin = 20;
  options.cache = spec;
  EXPECT_EQ(CountSteps(loaded, options), 0) << "budget";
  spec.tiers = {{1.0, 1.0}, {1.0, 0.5}};
  spec.bases = testing::RandomBases(loaded.geometry(), 7);
  for (const TierBasis basis : {TierBasis::kOffline, TierBasis::kPrompt}) {
    spec.basis = basis;
    options.cache = spec;
    EXPECT_EQ(CountSteps(loaded, options), 0) << "tiers, " << TierBasisName(basis);
  }
}

TEST(Allocations, AreCounted) {
  const int64_t before = allocations.load();
  const auto one = std::make_unique<std::vector<int>>(100);
  EXPECT_EQ(one->size(), 100U);
  EXPECT_GE(allocations.load() - before, 2);
}

}  // namespace
}  // namespace kvc::runtime
