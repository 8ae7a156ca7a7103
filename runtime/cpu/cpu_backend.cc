#include "runtime/cpu/cpu_backend.h"

#include <utility>

#include "core/base/error.h"
#include "runtime/cpu/apply_moves.h"
#include "runtime/cpu/cpu_activations.h"
#include "runtime/cpu/cpu_model.h"
#include "runtime/cpu/executor.h"
#include "runtime/cpu/prompt_attention.h"
#include "runtime/cpu/scoring.h"
#include "runtime/cpu/store_rows.h"

namespace kvc::runtime {
namespace {

template <class Own, class Base>
Own& As(Base& object) {
  return AsOwn<Own>(object, "cpu");
}

// The rebuilds of a layer's latents as the cache holds them.
std::span<const kernels::KeyRebuild> RebuildOf(int64_t layer,
                                               const SequenceCache& cache,
                                               const CpuModel& model) {
  const bool calibrated = cache.spec().basis == TierBasis::kOffline;
  if (!calibrated || !cache.layer(layer).in_coordinates()) return model.rebuild(layer);
  return model.rebuild(layer, cache.spec().bases);
}

// Attention of consecutive rows of the batch, the first being row `first`, each over its own cache.
void AttendFrom(int64_t layer,
                int64_t first,
                std::span<SequenceCache* const> caches,
                CpuActivations& x,
                ThreadPool& pool) {
  const ConstMatrixF q = x.AttentionIn(layer, 0);
  const MatrixF out = x.AttentionOut(layer);
  DecodeBatch& decode = x.decode();
  decode.Start(x.plan().attentions[layer]);
  for (int64_t b = 0; b < std::ssize(caches); ++b) {
    decode.Add(*caches[b], RebuildOf(layer, *caches[b], x.model()), q.RowRange(first + b, 1),
               out.RowRange(first + b, 1));
  }
  decode.Attend(pool);
}

}  // namespace

std::shared_ptr<const PreparedModel> CpuBackend::Prepare(const Graph& graph,
                                                         const Plan& plan,
                                                         bool pack_weights) {
  return std::make_shared<CpuModel>(graph, plan, pack_weights, pool_);
}

std::unique_ptr<Activations> CpuBackend::NewActivations(std::shared_ptr<const PreparedModel> model,
                                                        const ActivationSize& size) {
  auto own = std::dynamic_pointer_cast<const CpuModel>(std::move(model));
  KVC_CHECK(own != nullptr, kInternal, "cpu: expected what this backend made, got another's");
  return std::make_unique<CpuActivations>(std::move(own), size, device_, rounding_);
}

void CpuBackend::Run(int64_t section, SectionPart part, const RowBatch& batch, Activations& x) {
  auto& own = As<CpuActivations>(x);
  own.SetBatch(batch);
  RunSteps(section, part, own, {}, pool_);
}

void CpuBackend::ReadLogits(const RowBatch& batch, Activations& x, MatrixF logits) {
  auto& own = As<CpuActivations>(x);
  own.SetBatch(batch);
  RunSteps(std::ssize(own.plan().sections) - 1, SectionPart::kWhole, own, logits, pool_);
}

void CpuBackend::Store(int64_t layer,
                       RowRange rows,
                       int64_t first_position,
                       const Activations& x,
                       SequenceCache& cache) {
  const auto& own = As<const CpuActivations>(x);
  const auto in = [&](size_t index) {
    return own.AttentionIn(layer, index).RowRange(rows.first, rows.count);
  };
  StoreRows(own.plan().attentions[layer], in(0), in(1), in(2), first_position, cache);
}

void CpuBackend::AttendPrompt(int64_t layer, const SequenceCache& cache, Activations& x) {
  auto& own = As<CpuActivations>(x);
  const ConstMatrixF q = own.AttentionIn(layer, 0);
  own.KeepQueries(q);
  AttendWorkingBlocks(own.plan().attentions[layer], own.model().rebuild(layer), cache.layer(layer),
                      own.batch().first, q, own.AttentionOut(layer), pool_, rounding_);
}

void CpuBackend::AttendTokens(int64_t layer,
                              std::span<SequenceCache* const> caches,
                              Activations& x) {
  AttendFrom(layer, 0, caches, As<CpuActivations>(x), pool_);
}

void CpuBackend::AttendRow(int64_t layer, int64_t row, SequenceCache& cache, Activations& x) {
  SequenceCache* const one[] = {&cache};
  AttendFrom(layer, row, one, As<CpuActivations>(x), pool_);
}

void CpuBackend::Apply(const LayerMoves& moves, int64_t layer, SequenceCache& cache) {
  ApplyMoves(moves, layer, cache);
}

void CpuBackend::FindResidualEnergy(int64_t layer,
                                    int64_t window,
                                    const Activations& x,
                                    SequenceCache& cache) {
  cache.layer(layer).residual_energy =
      MeanSquaredNorm(As<const CpuActivations>(x).hidden(), window);
}

std::vector<GroupScores> CpuBackend::Score(const ScoreRequest& request,
                                           const PreparedModel& model,
                                           SequenceCache& cache) {
  const auto& own = As<const CpuModel>(model);
  ConstMatrixF queries;
  if (request.prompt != nullptr)
    queries = As<const CpuActivations>(*request.prompt).prompt_queries();
  const LayerScoring scoring = MakeScoring(request, own, cache.spec(), queries, pool_, rounding_);
  return ScoreLayer(scoring, cache.spec(), cache.layer(request.layer));
}

void CpuBackend::FindCoordinates(int64_t layer, SequenceCache& cache) {
  runtime::FindCoordinates(cache.spec().layers[layer], cache.layer(layer), pool_);
}

}  // namespace kvc::runtime
