#include "runtime/cuda/cuda_backend.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/sampling.h"
#include "runtime/cpu/host_fallback.h"
#include "runtime/cuda/apply_moves.h"
#include "runtime/cuda/cuda_activations.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/cuda/decode_step.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/device_table.h"
#include "runtime/cuda/layer_sums.h"
#include "runtime/cuda/placed_scores.h"
#include "runtime/cuda/prompt_rows.h"
#include "runtime/cuda/run_steps.h"
#include "runtime/cuda/scoring.h"
#include "runtime/cuda/unsettled_layer.h"

namespace kvc::runtime {
namespace {

template <class Own, class Base>
Own& As(Base& object) {
  return AsOwn<Own>(object, "cuda");
}

// Puts the last section into the stream, with the whole step that it ends. Returns where logits
// [rows of the batch, V] will be.
const float* RunLastSection(const RowBatch& batch, CudaActivations& x) {
  x.SetBatch(batch);
  const Buffer& result = x.MakeLogits();
  const int64_t last = std::ssize(x.plan().sections) - 1;
  if (x.step() != nullptr) {
    x.step()->Run(last, SectionPart::kWhole);
    x.step()->Finish(x);
  } else {
    RunSteps(last, SectionPart::kWhole, x);
  }
  return DeviceMemory::Floats(result);
}

}  // namespace

CudaBackend::CudaBackend(std::unique_ptr<ThreadPool> pool)
    : own_pool_(std::move(pool)), pool_(*own_pool_), device_(pool_.num_threads()) {}

CudaBackend::CudaBackend(ThreadPool& pool) : pool_(pool), device_(pool_.num_threads()) {}

void CudaBackend::CheckFormats(const CacheSpec& spec) const {
  for (int64_t tier = kRecentBlock; tier < std::ssize(spec.tiers); ++tier) {
    for (const RowFormat& format : {KeyFormat(spec, tier), ValueFormat(spec, tier)}) {
      (void)cuda::RowCodeOf(format);  // throws for one that no kernel knows
    }
  }
  if (!spec.has_narrow_tiers() || spec.basis != TierBasis::kOffline || spec.bases == nullptr)
    return;
  for (size_t l = 0; l < spec.bases->size() && l < spec.layers.size(); ++l) {
    const bool latent = spec.layers[l].front().keeps_positions;
    KVC_CHECK(!latent || (*spec.bases)[l].key_width == 0, kUnsupported,
              "cache: tiers: expected latents as the checkpoint has them on {}, got coordinates of "
              "a profile in layer {}; take --device cpu, or a profile of --tiers 0,1/8,1/4,1",
              name(), l);
  }
}

std::shared_ptr<const PreparedModel> CudaBackend::Prepare(const Graph& graph,
                                                          const Plan& plan,
                                                          bool /*pack_weights*/) {
  return std::make_shared<CudaModel>(graph, plan, device_);
}

std::unique_ptr<Activations> CudaBackend::NewActivations(std::shared_ptr<const PreparedModel> model,
                                                         const ActivationSize& size) {
  const DeviceTurn turn(device_);
  auto own = std::dynamic_pointer_cast<const CudaModel>(std::move(model));
  KVC_CHECK(own != nullptr, kInternal, "cuda: expected what this backend made, got another's");
  return std::make_unique<CudaActivations>(std::move(own), size, device_, steps_);
}

void CudaBackend::Run(int64_t section, SectionPart part, const RowBatch& batch, Activations& x) {
  const DeviceTurn turn(device_);
  auto& own = As<CudaActivations>(x);
  own.SetBatch(batch);
  if (own.step() != nullptr) return own.step()->Run(section, part);
  RunSteps(section, part, own);
}

void CudaBackend::ReadLogits(const RowBatch& batch, Activations& x, MatrixF logits) {
  const DeviceTurn turn(device_);
  const float* row = RunLastSection(batch, As<CudaActivations>(x));
  for (int64_t t = 0; t < logits.rows; ++t, row += logits.cols) {
    cuda::CopyToHost(logits.row(t), row, static_cast<size_t>(logits.cols) * sizeof(float),
                     device_.stream());
  }
  device_.Synchronize();
}

bool CudaBackend::DrawTokens(const RowBatch& batch,
                             Activations& x,
                             const kernels::SamplingOptions& options,
                             std::span<Rng* const> rngs,
                             std::span<int32_t> ids) {
  const DeviceTurn turn(device_);
  auto& own = As<CudaActivations>(x);
  const float* logits = RunLastSection(batch, own);
  const int64_t vocabulary = own.plan().vocab_size;
  DeviceTable<double> uniform;
  if (options.temperature > 0.0) {
    std::vector<double> drawn;
    for (Rng* rng : rngs) drawn.push_back(rng->NextDouble());
    uniform.Set(drawn, device_);
  }
  DeviceTable<int32_t> tokens;
  tokens.Reserve(std::ssize(ids), device_);
  cuda::Sample({logits, DType::kF32, std::ssize(ids), vocabulary, vocabulary},
               {options.temperature, options.top_k, options.top_p}, uniform.data(), tokens.data(),
               device_.stream());
  cuda::CopyToHost(ids.data(), tokens.data(), ids.size_bytes(), device_.stream());
  device_.Synchronize();
  static_assert(cuda::kNanToken == kNoToken);
  return true;
}

void CudaBackend::Store(int64_t layer,
                        RowRange rows,
                        int64_t first_position,
                        const Activations& x,
                        SequenceCache& cache) {
  const DeviceTurn turn(device_);
  const auto& own = As<const CudaActivations>(x);
  if (own.step() != nullptr) {
    KVC_CHECK(rows.count == 1, kInternal, "cuda: expected one row in a decode step, got {}",
              rows.count);
    return own.step()->Store(layer, rows.first, first_position, cache);
  }
  StorePromptRows(layer, rows, first_position, own, cache, device_);
}

void CudaBackend::AttendPrompt(int64_t layer, const SequenceCache& cache, Activations& x) {
  const DeviceTurn turn(device_);
  auto& own = As<CudaActivations>(x);
  own.KeepQueries(own.AttentionIn(layer, 0));
  AttendWorkingBlocks(layer, cache, own, device_);
}

void CudaBackend::AttendTokens(int64_t layer,
                               std::span<SequenceCache* const> caches,
                               Activations& x) {
  const DeviceTurn turn(device_);
  auto& own = As<CudaActivations>(x);
  KVC_CHECK(own.step() != nullptr, kInternal, "cuda: expected activations of a decode step");
  own.step()->Attend(layer, caches, own, bases_);
}

void CudaBackend::Apply(const LayerMoves& moves, int64_t layer, SequenceCache& cache) {
  const DeviceTurn turn(device_);
  ApplyMovesOnDevice(moves, layer, cache, bases_, device_);
}

void CudaBackend::FindResidualEnergy(int64_t layer,
                                     int64_t window,
                                     const Activations& x,
                                     SequenceCache& cache) {
  const DeviceTurn turn(device_);
  cuda::Rows newest = As<const CudaActivations>(x).hidden();
  const int64_t skipped = std::max<int64_t>(newest.rows - window, 0);
  newest.data = static_cast<float*>(newest.data) + skipped * newest.stride;
  newest.rows -= skipped;
  Buffer& energy = UnsettledOf(cache.layer(layer)).energy;
  energy = Buffer(static_cast<int64_t>(sizeof(double)), device_, nullptr);
  cuda::MeanSquaredNorm(newest, reinterpret_cast<double*>(DeviceMemory::Of(energy)),
                        device_.stream());
}

std::vector<GroupScores> CudaBackend::Score(const ScoreRequest& request,
                                            const PreparedModel& model,
                                            SequenceCache& cache) {
  const DeviceTurn turn(device_);
  const auto& own = As<const CudaModel>(model);
  if (CanScore(request, own, cache)) {
    return ScoreOnDevice(request, own, cache, bases_, pool_, device_);
  }
  std::vector<float> storage;
  ConstMatrixF queries;
  if (request.prompt != nullptr) {
    const auto& prompt = As<const CudaActivations>(*request.prompt);
    storage = prompt.DownloadQueries();
    queries = {storage.data(), prompt.hidden().rows, std::ssize(storage) / prompt.hidden().rows};
  }
  DownloadEnergy(cache.layer(request.layer), device_);
  device_.Synchronize();
  return ScoreOnHost(request, own.on_host(pool_), queries, cache, pool_);
}

std::shared_ptr<const PlacedScores> CudaBackend::ScoreInPlace(const ScoreRequest& request,
                                                              const PreparedModel& model,
                                                              SequenceCache& cache) {
  const DeviceTurn turn(device_);
  const auto& own = As<const CudaModel>(model);
  if (!CanScore(request, own, cache) || !CanFinish(request, cache)) return nullptr;
  return ScoreInPlaceOnDevice(request, own, cache, bases_, pool_, device_);
}

void CudaBackend::ApplyRule(const LayerRule& rule,
                            const PlacedScores& scores,
                            int64_t layer,
                            SequenceCache& cache) {
  const DeviceTurn turn(device_);
  ApplyRuleOnDevice(rule, As<const ScoresOnDevice>(scores), layer, cache, device_);
}

void CudaBackend::Settle(SequenceCache& cache) {
  const DeviceTurn turn(device_);
  SettleOnDevice(cache, device_);
}

void CudaBackend::FindCoordinates(int64_t layer, SequenceCache& cache) {
  const DeviceTurn turn(device_);
  FindCoordinatesOnHost(layer, cache, pool_);
}

}  // namespace kvc::runtime
