#pragma once
// Interface of a processor to a plan and a cache, at the level of "a part of a section" and "a
// layer's cache". Order, checks, budgets and decisions are host logic above it, shared by all
// backends (session.h); numbers live below it. docs/design/runtime.md says how to add a backend.
//
// A backend and the objects that it makes belong together: a call must get models, activations and
// caches of the backend that it is made on, otherwise it throws kInternal. One thread at a time may
// call a backend's methods with the same activations or cache; Prepare and prepared models are safe
// for several.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/base/view.h"
#include "kernels/sampling.h"
#include "runtime/cache/keep_rule.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cache/row_moves.h"
#include "runtime/device.h"
#include "runtime/load/graph.h"
#include "runtime/plan/plan.h"
#include "scorers/scorer.h"

namespace kvc::runtime {

// A graph and its plan, prepared by a backend: packed weights, tables on its device. It is
// immutable, so that sessions share it. The graph and the plan must outlive it.
class PreparedModel {
 public:
  virtual ~PreparedModel() = default;
};

// The workspace of a pass through the model: the activation between sections [rows, E], and the
// slots of the plan for one chunk of rows. Keeps its prepared model.
class Activations {
 public:
  virtual ~Activations() = default;
};

struct ActivationSize {
  int64_t rows = 0;             // of the activation between sections
  int64_t chunk = 0;            // at most so many of them go through a section at once
  bool prompt_queries = false;  // keep a layer's queries of all rows, for scorers that ask
  // For decode steps: the same calls come again and again, and until ReadLogits nobody asks for
  // their results, so a backend may record them.
  bool steps = false;
};

// Stands for the token of a row of logits that holds a NaN.
inline constexpr int32_t kNoToken = -1;

// The steps of a section before or after its attention; a section without attention is run whole.
enum class SectionPart { kWhole, kBeforeAttention, kBehindAttention };

// The rows of one run: rows first .. first + positions.size() - 1 of the activation between
// sections, row i being token ids[i] at row positions[i] of the plan's tables (RotationRow), which
// is the position in its sequence but for rotations that depend on the length.
struct RowBatch {
  std::span<const int32_t> ids;  // read by the first section alone
  std::span<const int32_t> positions;
  int64_t first = 0;
};

// Consecutive rows of the batch that was last run.
struct RowRange {
  int64_t first = 0;
  int64_t count = 0;
};

struct ScoreRequest {
  int64_t layer = 0;
  const scorers::Scorer* scorer = nullptr;
  LayerRotation rotation;  // of the layer's queries, in a sequence of this length
  // Activations that hold the queries of the whole prompt; null: the ring's queries are used.
  const Activations* prompt = nullptr;
  // Set if the scorer or narrow tiers need what the output projection does to norms.
  bool wants_output = false;
};

// Scores of a layer's prompt that have stayed where they were found (Backend::ScoreInPlace).
class PlacedScores {
 public:
  virtual ~PlacedScores() = default;
};

class Backend {
 public:
  virtual ~Backend() = default;
  // Names the backend and its device: "cpu".
  [[nodiscard]] virtual std::string_view name() const = 0;
  // Returns the device of its caches. It outlives every cache that is made on it.
  [[nodiscard]] virtual Device& device() = 0;
  // Called before a sequence is made. Throws kUnsupported for rows that the backend cannot hold.
  virtual void CheckFormats(const CacheSpec& /*spec*/) const {}

  // Prepares a graph and its plan. With `pack_weights`, weights may be stored in fewer bytes if
  // that loses nothing.
  [[nodiscard]] virtual std::shared_ptr<const PreparedModel> Prepare(const Graph& graph,
                                                                     const Plan& plan,
                                                                     bool pack_weights) = 0;
  [[nodiscard]] virtual std::unique_ptr<Activations> NewActivations(
      std::shared_ptr<const PreparedModel> model, const ActivationSize& size) = 0;

  // Runs a part of any section but the last.
  virtual void Run(int64_t section, SectionPart part, const RowBatch& batch, Activations& x) = 0;
  // Runs the last section and copies its result to the host: logits [rows of the batch, V].
  virtual void ReadLogits(const RowBatch& batch, Activations& x, MatrixF logits) = 0;
  // The same, but draws a token for each row from its logits, which stay where they are: ids [rows
  // of the batch], as kernels::SampleToken does with rngs [rows], kNoToken for a row with a NaN.
  // Returns false, and has done nothing, where only ReadLogits serves.
  [[nodiscard]] virtual bool DrawTokens(const RowBatch& /*batch*/,
                                        Activations& /*x*/,
                                        const kernels::SamplingOptions& /*options*/,
                                        std::span<Rng* const> /*rngs*/,
                                        std::span<int32_t> /*ids*/) {
    return false;
  }

  // Called after Run(1 + layer, kBeforeAttention). Appends keys and values of the rows to the
  // layer's recent blocks, which must have room, and with a budget their queries to its ring; the
  // first has position `first_position`. Rows are converted to coordinates if the layer's rows are
  // in coordinates.
  virtual void Store(int64_t layer,
                     RowRange rows,
                     int64_t first_position,
                     const Activations& x,
                     SequenceCache& cache) = 0;
  // Called next for a prompt: attention of the batch's rows over the working blocks of a layer,
  // causally.
  virtual void AttendPrompt(int64_t layer, const SequenceCache& cache, Activations& x) = 0;
  // Called next for single tokens: attention of row b of the batch over all that sequence b holds
  // of the layer.
  virtual void AttendTokens(int64_t layer,
                            std::span<SequenceCache* const> caches,
                            Activations& x) = 0;

  // Returns true if AttendRow serves, so that a chunk of tokens continues a sequence layer by
  // layer; without it they are decoded one by one.
  [[nodiscard]] virtual bool AttendsByRow() const { return false; }
  // Called next for a row of a chunk that continues a sequence: attention of row `row` of the batch
  // over all that the sequence holds of the layer, where that row has been stored and those behind
  // it have not.
  virtual void AttendRow(int64_t /*layer*/,
                         int64_t /*row*/,
                         SequenceCache& /*cache*/,
                         Activations& /*x*/) {
    KVC_THROW(kInternal, "{}: expected a backend that attends by rows", name());
  }

  // Executes a decision for all groups of a layer.
  virtual void Apply(const LayerMoves& moves, int64_t layer, SequenceCache& cache) = 0;

  // Finds LayerCache::residual_energy: the mean squared norm of the last `window` rows of the
  // activation between sections, or of all rows if there are fewer. The host may read it once the
  // layer has been scored or settled.
  virtual void FindResidualEnergy(int64_t layer,
                                  int64_t window,
                                  const Activations& x,
                                  SequenceCache& cache) = 0;

  // A backend that has no code of its own yet may do the rest on a host's copy
  // (runtime/cpu/host_fallback.h).

  // Returns for each group the scores of its rows, tiers first, then the recent block, and with
  // narrow tiers the loss of each of them. `model` is the one that filled the cache.
  [[nodiscard]] virtual std::vector<GroupScores> Score(const ScoreRequest& request,
                                                       const PreparedModel& model,
                                                       SequenceCache& cache) = 0;
  // Computes a prompt's coordinates of a layer whose working blocks hold the prompt.
  virtual void FindCoordinates(int64_t layer, SequenceCache& cache) = 0;

  // A backend whose memory is far from the host may decide there, without a wait.

  // Scores a layer whose working blocks hold the prompt like Score, but leaves the scores where
  // they are. Returns null where only Score can do it.
  [[nodiscard]] virtual std::shared_ptr<const PlacedScores> ScoreInPlace(
      const ScoreRequest& /*request*/, const PreparedModel& /*model*/, SequenceCache& /*cache*/) {
    return nullptr;
  }
  // Executes a rule by scores of its own ScoreInPlace, and leaves the layer unsettled.
  virtual void ApplyRule(const LayerRule& /*rule*/,
                         const PlacedScores& /*scores*/,
                         int64_t /*layer*/,
                         SequenceCache& /*cache*/) {
    KVC_THROW(kInternal, "{}: expected scores of its own, got another's", name());
  }
  // Tells the host what the layers of a sequence hold since ApplyRule, or FindResidualEnergy.
  // Throws kNumeric where a score was no finite number.
  virtual void Settle(SequenceCache& /*cache*/) {}
};

// Throws kBadShape for a batch that activations of a size have no room for.
inline void CheckFits(const RowBatch& batch, const ActivationSize& size) {
  const int64_t rows = std::ssize(batch.positions);
  KVC_CHECK(batch.first >= 0 && rows <= size.chunk && batch.first + rows <= size.rows, kBadShape,
            "activations: expected at most {} rows below {}, got {} from {}", size.chunk, size.rows,
            rows, batch.first);
}

// Returns an object of an interface as what the backend `backend` made. Throws kInternal for
// another's.
template <class Own, class Base>
Own& AsOwn(Base& object, std::string_view backend) {
  auto* own = dynamic_cast<Own*>(&object);
  KVC_CHECK(own != nullptr, kInternal, "{}: expected what this backend made, got another's",
            backend);
  return *own;
}

}  // namespace kvc::runtime
