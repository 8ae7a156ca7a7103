// Numbers that have no code: rows in few bits of a model that gives a token nothing finite are
// refused on the device as they are on the processor, when the device is next waited for.

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/safetensors.h"
#include "tests/runtime/both_backends.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

constexpr int32_t kBroken = 7;  // a token whose embedding is NaN

// A bundle of a golden model whose file has a NaN in the place of a row of embeddings.
void WriteBroken(const std::filesystem::path& directory) {
  const std::filesystem::path model = testing::GoldenModel("llama");
  testing::WriteBundle(model, directory, DType::kBF16);
  const SafetensorsReader reader = SafetensorsReader::OpenFile(model / "model.safetensors");
  const TensorRef& embeddings = reader.Get("model.embed_tokens.weight");
  const int64_t row = std::ssize(embeddings.bytes) / kVocabulary;
  const auto own =
      embeddings.bytes.subspan(static_cast<size_t>(kBroken * row), static_cast<size_t>(row));
  std::string data = ReadFile(directory / "model.onnx.data");
  const std::string_view wanted(reinterpret_cast<const char*>(own.data()), own.size());
  const size_t place = data.find(wanted);
  ASSERT_NE(place, std::string::npos);
  std::memset(data.data() + place, 0xff, own.size());
  WriteFile(directory / "model.onnx.data", data);
}

TEST(CudaFaults, WhatHasNoCodeIsRefusedAsOnTheProcessor) {
  const testing::TempDir directory;
  WriteBroken(directory.path());
  ThreadPool pool(2);
  const auto bundle = Bundle::Load(directory.path(), {});
  const CacheSpec spec = StepTiersWithoutTies(bundle->manifest().cache);
  for (const char* backend : {"cpu", "emulator"}) {
    if (backend != std::string("cpu") && backend != cuda::DeviceKind()) continue;
    SCOPED_TRACE(backend);
    const auto session = SessionOn(backend, bundle, pool);
    const auto made = [&] {
      SequenceOptions options;
      options.cache = spec;
      auto sequence = session->NewSequence(options);
      auto ids = RandomIds(30, 5);
      std::ranges::replace(ids, kBroken, kBroken + 1);
      testing::PrefillLast(*session, *sequence, ids);
      return sequence;
    };
    const auto broken = made();
    const auto whole = made();
    EXPECT_KVC_ERROR((void)testing::DecodeOne(*session, *broken, kBroken), kNumeric,
                     "rows in codes: expected finite numbers");
    // The other sequence, and new ones, are not concerned.
    for (const int32_t id : {1, 2, 3}) {
      EXPECT_EQ(testing::DecodeOne(*session, *whole, id).size(), size_t{kVocabulary});
    }
    EXPECT_NO_THROW((void)made());
  }
}

}  // namespace
}  // namespace kvc::runtime
