#pragma once
// `kvc-export --method auto`: finds the composition of thin keys, head budgets, scores and tiers
// that costs the least quality at a budget, by trying them on text that nothing was fitted to.
//
// Every candidate checkpoint is written once as a full-cache bundle, into a folder beside the
// output that is removed at the end. Its policies then walk the same windows against the first
// checkpoint's full cache (pipeline/choose/comparison.h). If there are more than kFinalists of
// them, a first round gives all of them every third window and one needle at each depth, and only
// the best get everything. This halves the time, and the table of both rounds is kept.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/base/row_format.h"
#include "core/base/thread_pool.h"
#include "core/cache/profile_file.h"
#include "export/budget/policy_text.h"
#include "pipeline/choose/comparison.h"

namespace kvc::choose {

// Number of policies that get all windows and needles.
inline constexpr size_t kFinalists = 8;

// A checkpoint to try: the model as it is, or with thin keys.
struct Candidate {
  std::filesystem::path model;
  std::filesystem::path profile;  // empty: none
};

struct ChooseRequest {
  std::vector<Candidate> candidates;          // the first is the reference
  std::vector<budget::NamedPolicy> policies;  // to try on each; none: DefaultPolicies
  std::vector<std::filesystem::path> text;    // held back from calibration
  std::filesystem::path haystack;             // hides needles; empty: none are asked
  int64_t context = 1024;                     // tokens of a prompt and of a needle prompt
  int64_t decode = 128;                       // tokens predicted after a prompt
  int64_t samples = 6;                        // windows of text
  int64_t needles = 2;                        // for each of five depths
  double least_needles = 1.0;  // share of the reference's found needles that a choice must find
  NamedBudget budget;
  std::optional<DType> weights_dtype;     // none: each checkpoint's own
  std::optional<RowFormat> cache_format;  // none: the weights'
  int64_t sinks = 4;
  std::optional<int64_t> window;  // none: each policy's own (budget::WindowOf)
  uint64_t seed = 42;
  int threads = 1;
  std::filesystem::path scratch;  // a folder for the candidates' bundles, removed at the end
};

struct Choice {
  Candidate candidate;
  budget::NamedPolicy policy;
  std::string line;                      // name of the comparison's line that was chosen
  Comparison comparison;                 // the last round
  std::vector<ComparisonLine> screened;  // lines of the first round that did not get there,
                                         // without the reference
};

// Returns the policies worth trying with a profile: every scorer in it under lukv with both losses,
// lukv-mixed, headkv, and one budget for all heads, the last two with tiers if the profile has
// bases and the scorer's scores are losses. Without a profile, returns the methods that need none.
// `behind_rotation` says that the keys are thin after their rotation, and queries cannot be turned
// to coming positions.
[[nodiscard]] std::vector<budget::NamedPolicy> DefaultPolicies(const ProfileData* profile,
                                                               bool behind_rotation = false);

// Returns the indices of the lines after lines[0], the reference, best first: those that find at
// least `least_needles` of its needles (if none does, those that find most) by mean divergence plus
// its standard error, then the others by it. So of two policies with the same mean the one that is
// alike on every window goes first: it carries over to other text. Ties go to the earlier line.
// Every line must have walked the text.
[[nodiscard]] std::vector<size_t> RankLines(std::span<const ComparisonLine> lines,
                                            double least_needles);

// Chooses a composition. Throws kUsage without held-back text, and like the comparison. Collective:
// candidates are written, and prompts walked, by the ranks side by side; all choose the same.
[[nodiscard]] Choice ChooseComposition(const ChooseRequest& request,
                                       ThreadPool& pool,
                                       Progress& progress,
                                       Ranks& ranks = OneRank());

}  // namespace kvc::choose
