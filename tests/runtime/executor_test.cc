// Steps of a plan written down by hand, against the same in double.

#include "runtime/cpu/executor.h"

#include <cmath>
#include <memory>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "runtime/cpu/cpu_activations.h"
#include "runtime/cpu/cpu_backend.h"
#include "runtime/cpu/cpu_model.h"
#include "runtime/cpu/scoring.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

constexpr int64_t kWidth = 8;
constexpr int64_t kVocabSize = 11;

// Embedding; then x + silu(x W^T + b) * x, normed in two heads; then logits.
struct Decoder {
  Decoder() {
    Rng rng(3);
    Add("table", {kVocabSize, kWidth}, rng);
    Add("weight", {kWidth, kWidth}, rng);
    Add("bias", {kWidth}, rng);
    Add("norm", {kWidth / 2}, rng);
    plan.vocab_size = kVocabSize;
    plan.model_width = kWidth;
    plan.slot_widths = {kWidth, 0, kWidth, kWidth};
    plan.linears = {{{Id("weight")}, kWidth, kWidth}, {{Id("table")}, kVocabSize, kWidth}};
    const Operand hidden = {kHiddenSlot, 0, kWidth};
    const Operand a = {2, 0, kWidth};
    const Operand b = {3, 0, kWidth};
    Step embed = Make(StepKind::kEmbedTokens, {}, hidden);
    embed.table = Id("table");
    Step product = Make(StepKind::kLinear, {hidden}, a);
    product.linear = 0;
    product.bias = Id("bias");
    Step norm = Make(StepKind::kRmsNorm, {b}, hidden);
    norm.weight = Id("norm");
    norm.heads = 2;
    norm.epsilon = 1e-5F;
    Step logits = Make(StepKind::kLinear, {hidden}, {kLogitsSlot, 0, kVocabSize});
    logits.linear = 1;
    plan.sections = {{embed},
                     {product, Make(StepKind::kSiluMul, {a, hidden}, a),
                      Make(StepKind::kAdd, {hidden, a}, b), norm},
                     {logits}};
  }

  static Step Make(StepKind kind, std::vector<Operand> in, const Operand& out) {
    Step step;
    step.kind = kind;
    step.node = "test";
    step.in = std::move(in);
    step.out = out;
    return step;
  }
  DataId Id(const std::string& name) {
    plan.tensors.push_back(name);
    return {DataId::Home::kTensor, std::ssize(plan.tensors) - 1};
  }
  void Add(const std::string& name, std::vector<int64_t> dims, Rng& rng) {
    Tensor tensor;
    tensor.name = name;
    tensor.elements = std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
    tensor.dims = std::move(dims);
    std::vector<float>& values = data[name];
    for (int64_t i = 0; i < tensor.elements; ++i) {
      values.push_back(static_cast<float>(rng.NextNormal()));
    }
    tensor.data = reinterpret_cast<const std::byte*>(values.data());
    graph.initializers[name] = tensor;
  }
  // Logits of one token.
  [[nodiscard]] std::vector<double> Reference(int32_t id) const {
    const auto& table = data.at("table");
    std::vector<double> x(table.begin() + id * kWidth, table.begin() + (id + 1) * kWidth);
    std::vector<double> y(kWidth);
    for (int64_t r = 0; r < kWidth; ++r) {
      double z = data.at("bias")[r];
      for (int64_t c = 0; c < kWidth; ++c) z += x[c] * data.at("weight")[r * kWidth + c];
      y[r] = x[r] + z / (1.0 + std::exp(-z)) * x[r];
    }
    constexpr int64_t kHalf = kWidth / 2;
    for (int64_t h = 0; h < 2; ++h) {
      double square = 0.0;
      for (int64_t c = 0; c < kHalf; ++c) square += std::pow(y[h * kHalf + c], 2);
      const double scale = 1.0 / std::sqrt(square / kHalf + 1e-5);
      for (int64_t c = 0; c < kHalf; ++c) y[h * kHalf + c] *= scale * data.at("norm")[c];
    }
    std::vector<double> logits(kVocabSize, 0.0);
    for (int64_t v = 0; v < kVocabSize; ++v) {
      for (int64_t c = 0; c < kWidth; ++c) logits[v] += y[c] * table[v * kWidth + c];
    }
    return logits;
  }

  std::map<std::string, std::vector<float>> data;
  Graph graph;
  Plan plan;
};

TEST(Executor, RunsSectionsInChunks) {
  Decoder decoder;
  ThreadPool pool(2);
  CpuBackend backend(pool);
  const auto model = backend.Prepare(decoder.graph, decoder.plan, true);
  const std::vector<int32_t> ids = {3, 0, 10, 7, 7};
  const std::vector<int32_t> positions = {0, 1, 2, 3, 4};
  for (const int64_t chunk : {1, 2, 5}) {
    const auto x = backend.NewActivations(model, {5, chunk, false});
    std::vector<float> logits(5 * kVocabSize);
    const auto batch = [&](int64_t t) {
      const auto rows = static_cast<size_t>(std::min<int64_t>(chunk, 5 - t));
      return RowBatch{std::span(ids).subspan(t, rows), std::span(positions).subspan(t, rows), t};
    };
    for (int64_t section = 0; section < 2; ++section) {
      for (int64_t t = 0; t < 5; t += chunk) {
        backend.Run(section, SectionPart::kWhole, batch(t), *x);
      }
    }
    for (int64_t t = 0; t < 5; t += chunk) {
      const RowBatch rows = batch(t);
      backend.ReadLogits(rows, *x,
                         MatrixF(logits.data() + t * kVocabSize, std::ssize(rows.ids), kVocabSize));
    }
    for (int64_t t = 0; t < 5; ++t) {
      const std::vector<double> expected = decoder.Reference(ids[t]);
      for (int64_t v = 0; v < kVocabSize; ++v) {
        EXPECT_NEAR(logits[t * kVocabSize + v], expected[v], 1e-4) << "chunk " << chunk;
      }
    }
    // The mean squared norm of the last rows of what the last section reads, which is normed.
    double sum = 0.0;
    for (const float w : decoder.data.at("norm")) sum += 2.0 * w * w;
    const ConstMatrixF hidden = dynamic_cast<const CpuActivations&>(*x).hidden();
    EXPECT_GT(MeanSquaredNorm(hidden, 2), 0.1 * sum);
  }
}

TEST(Executor, RefusesMoreRowsThanThereIsRoomFor) {
  Decoder decoder;
  ThreadPool pool(1);
  CpuBackend backend(pool);
  const auto x =
      backend.NewActivations(backend.Prepare(decoder.graph, decoder.plan, true), {4, 2, false});
  const std::vector<int32_t> ids = {1, 2, 3};
  EXPECT_KVC_ERROR(backend.Run(0, SectionPart::kWhole, {ids, ids, 0}, *x), kBadShape, "at most 2");
  EXPECT_KVC_ERROR(backend.Run(0, SectionPart::kWhole,
                               {std::span(ids).first(2), std::span(ids).first(2), 3}, *x),
                   kBadShape, "rows below 4");
}

// A backend's objects are its own.
TEST(CpuBackend, RefusesWhatItDidNotMake) {
  struct Other : Activations {};
  ThreadPool pool(1);
  CpuBackend backend(pool);
  Other x;
  EXPECT_KVC_ERROR(backend.Run(0, SectionPart::kWhole, {}, x), kInternal, "another's");
  EXPECT_KVC_ERROR((void)backend.NewActivations(nullptr, {}), kInternal, "another's");
}

}  // namespace
}  // namespace kvc::runtime
