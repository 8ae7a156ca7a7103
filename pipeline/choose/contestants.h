#pragma once
// Participants of a comparison: bundles as they are, and policies at budgets that are planned on
// the spot for the weights of a bundle.

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/base/sizes.h"
#include "core/base/thread_pool.h"
#include "eval/compare/compare.h"
#include "export/budget/policy_text.h"
#include "runtime/session.h"

namespace kvc::choose {

// A budget with the text that it was requested with.
struct NamedBudget {
  std::string name;
  Budget budget;
};

// A bundle, thin or not, and the policies that run on its weights.
struct PolicyBase {
  std::filesystem::path bundle;
  std::vector<budget::NamedPolicy> policies;
};

struct CompareRequest {
  std::filesystem::path reference;
  std::vector<std::filesystem::path> bundles;
  // With several bases, names start with the bundle's: thin/lukv/snapkv. Budgets are shares of the
  // ORIGINAL model's bytes, so that policies on thin keys compete at equal bytes.
  std::vector<PolicyBase> bases;
  std::vector<NamedBudget> budgets;             // for every policy
  std::vector<std::filesystem::path> profiles;  // of the bases, in any order; one for each at most
  int64_t sinks = 4;
  std::optional<int64_t> window;    // none: each policy's own (budget::WindowOf)
  bool append = false;              // sequences append while decoding
  int64_t reference_length = 1024;  // tokens at which a policy meets its budget
  std::string device = "cpu";       // of every session (runtime::RuntimeOptions)
};

// Everything except the prompts that a contestant's result depends on.
struct ContestantRecord {
  std::string name;
  std::string policy;  // empty: the bundle's own
  std::string budget;
  std::string bundle;                          // last component of its directory
  std::map<std::string, std::string> weights;  // sha256 by file
  std::string cache_sha256;                    // CacheDigest of the policy
  Method method = Method::kFull;
  ScorerSpec scorer;
};

// A policy whose budget has no room for what it always keeps.
struct ImpossiblePolicy {
  std::string name;
  std::string budget;
  std::string reason;
};

// All contestants, the reference first. Bundles with the same weights share a session.
struct Contestants {
  std::string device;
  std::vector<std::shared_ptr<const runtime::Bundle>> bundles;
  std::vector<std::unique_ptr<runtime::Session>> sessions;
  std::vector<eval::Contestant> all;
  std::vector<ContestantRecord> records;  // one for each of `all`
  std::vector<ImpossiblePolicy> impossible;
  std::vector<std::string> warnings;  // of the policies' budgets (budget::BudgetPlan)
};

// Loads the contestants. Throws like loading bundles and MakeBudgetPlan (kInfeasible when no
// policy's budget is possible), kUsage when there is nothing to compare the reference with,
// kBadInput for a profile of another model than the bases.
[[nodiscard]] Contestants LoadContestants(const CompareRequest& request, ThreadPool& pool);

}  // namespace kvc::choose
