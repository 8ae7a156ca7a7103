#pragma once
// Who takes part in `kvc-eval compare`: bundles as they are, and policies at budgets that are
// planned on the spot for the weights of a bundle.

#include <memory>
#include <string>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/io/json.h"
#include "eval/compare/compare.h"
#include "runtime/session.h"

namespace kvc::choose {

struct CompareRequest {
  std::string reference;
  std::vector<std::string> bundles;
  std::vector<std::string> policies;  // export/budget/policy_text.h
  std::vector<std::string> budgets;   // for every policy
  // Bundles whose weights every policy runs on, thin or not; empty: the reference. With several,
  // names start with the bundle's: thin/lukv/snapkv. Budgets are shares of the ORIGINAL model's
  // bytes, so that policies on thin keys compete at equal bytes.
  std::vector<std::string> bases;
  // What runs on each base in the place of `policies`, where it is not the same; empty: it is.
  std::vector<std::vector<std::string>> base_policies;
  std::vector<std::string> profiles;  // of the bases, in any order; at most one for each
  int64_t sinks = 4;
  int64_t window = 32;
  bool append = false;              // sequences append while decoding
  int64_t reference_length = 1024;  // tokens at which a policy meets its budget
};

// The reference first. Bundles with the same weights share a session.
struct Field {
  std::vector<std::shared_ptr<const runtime::Bundle>> bundles;
  std::vector<std::unique_ptr<runtime::Session>> sessions;
  std::vector<eval::Contestant> contestants;
  Json impossible = Json::array();  // policies that are left out: {"name", "budget", "reason"}
  Json records;  // for each contestant what its result depends on: name, policy, bundle, ...
};

// Throws as loading bundles and MakeBudgetPlan do (kInfeasible when no policy's budget is
// possible), and kUsage for policies without budgets and the other way round, kBadInput for a
// profile of another model than the bases.
[[nodiscard]] Field MakeField(const CompareRequest& request, ThreadPool& pool);

}  // namespace kvc::choose
