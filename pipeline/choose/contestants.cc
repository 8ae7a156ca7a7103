#include "pipeline/choose/contestants.h"

#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/cache/manifest.h"
#include "core/cache/profile_file.h"
#include "core/io/json.h"
#include "export/budget/budget_plan.h"

namespace kvc::choose {
namespace {

namespace fs = std::filesystem;

std::string BaseName(const fs::path& directory) {
  return (directory.has_filename() ? directory : directory.parent_path()).filename().string();
}

std::map<std::string, std::string> WeightHashes(const Manifest& manifest) {
  std::map<std::string, std::string> hashes;
  for (const auto& [name, record] : manifest.files) {
    if (name.ends_with(".data")) hashes[name] = record.sha256;
  }
  return hashes;
}

// True when one session can run both: the same model and weights, and the same formats of rows,
// which one prefill fills for all.
bool SameWeights(const Manifest& a, const Manifest& b) {
  return a.cache.key_format == b.cache.key_format && a.cache.value_format == b.cache.value_format &&
         WeightHashes(a) == WeightHashes(b) && ToJson(a)["model"] == ToJson(b)["model"];
}

runtime::Session* SessionOf(const std::shared_ptr<const runtime::Bundle>& bundle,
                            const runtime::RuntimeOptions& options,
                            Contestants& contestants) {
  for (const auto& session : contestants.sessions) {
    if (SameWeights(session->bundle().manifest(), bundle->manifest())) return session.get();
  }
  contestants.sessions.push_back(runtime::Session::Create(bundle, options));
  return contestants.sessions.back().get();
}

// Loads a bundle unless it is already loaded.
std::shared_ptr<const runtime::Bundle> Load(const fs::path& directory, Contestants& contestants) {
  for (const auto& bundle : contestants.bundles) {
    if (bundle->directory() == directory) return bundle;
  }
  contestants.bundles.push_back(runtime::Bundle::Load(directory, {}));
  return contestants.bundles.back();
}

void Add(const std::string& name,
         const std::string& policy,
         const std::string& budget,
         const runtime::Bundle& bundle,
         runtime::Session* session,
         const CacheSpec& cache,
         Contestants& contestants) {
  Manifest manifest = bundle.manifest();
  manifest.cache = cache;
  contestants.all.push_back({name, session, cache});
  contestants.records.push_back({name, policy, budget, BaseName(bundle.directory()),
                                 WeightHashes(manifest), CacheDigest(manifest), cache.method,
                                 cache.scorer});
}

void AddBundle(const fs::path& directory,
               const runtime::RuntimeOptions& options,
               Contestants& contestants) {
  const auto bundle = Load(directory, contestants);
  const Manifest& manifest = bundle->manifest();
  Add(BaseName(directory), "", ToString(manifest.budget), *bundle,
      SessionOf(bundle, options, contestants), manifest.cache, contestants);
}

std::string DigestOf(const Manifest& manifest) {
  std::map<std::string, std::string> hashes;
  for (const auto& [name, record] : manifest.source_files) hashes[name] = record.sha256;
  return ModelDigest(hashes);
}

// Loads profiles by the digest of the profiled model, which must be one of `bases`.
std::map<std::string, ProfileData> LoadProfiles(const std::vector<fs::path>& directories,
                                                const std::set<std::string>& bases) {
  std::map<std::string, ProfileData> profiles;
  for (const fs::path& directory : directories) {
    ProfileData profile = ReadProfile(directory);
    const std::string digest = profile.model_sha256;
    KVC_CHECK(bases.contains(digest), kBadInput,
              "{}: expected a profile of a bundle whose weights the policies run on, got one of "
              "another checkpoint; run kvc-profile on it",
              directory.string());
    KVC_CHECK(profiles.emplace(digest, std::move(profile)).second, kUsage,
              "{}: expected one profile for each bundle, got a second one of the same weights",
              directory.string());
  }
  return profiles;
}

void AddPolicies(const CompareRequest& request,
                 const runtime::Bundle& base,
                 runtime::Session* session,
                 const ProfileData* profile,
                 const std::vector<budget::NamedPolicy>& policies,
                 Contestants& contestants) {
  const CacheSpec& own = base.manifest().cache;
  const std::string prefix = request.bases.size() > 1 ? BaseName(base.directory()) + "/" : "";
  budget::PlanRequest plan;
  plan.sinks = request.sinks;
  plan.window = request.window;
  plan.append = request.append;
  plan.reference_length = request.reference_length;
  plan.profile = profile;
  plan.bases =
      profile != nullptr && !profile->bases.empty() ? budget::SharedBases(profile) : own.bases;
  for (const NamedBudget& budget : request.budgets) {
    plan.budget = budget.budget;
    for (const budget::NamedPolicy& named : policies) {
      plan.policy = named.policy;
      const std::string name = prefix + named.name;
      try {
        const budget::BudgetPlan made = budget::MakeBudgetPlan(own, plan);
        for (const std::string& warning : made.warnings) {
          contestants.warnings.push_back(name + ": " + warning);
        }
        Add(name, named.name, budget.name, base, session, made.spec, contestants);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kInfeasible) throw;
        contestants.impossible.push_back({name, budget.name, error.what()});
      }
    }
  }
}

void AddBases(const CompareRequest& request,
              const runtime::RuntimeOptions& options,
              Contestants& contestants) {
  std::vector<std::shared_ptr<const runtime::Bundle>> bases;
  std::set<std::string> digests;
  for (const PolicyBase& base : request.bases) {
    bases.push_back(Load(base.bundle, contestants));
    digests.insert(DigestOf(bases.back()->manifest()));
  }
  const std::map<std::string, ProfileData> profiles = LoadProfiles(request.profiles, digests);
  for (size_t b = 0; b < bases.size(); ++b) {
    const auto profile = profiles.find(DigestOf(bases[b]->manifest()));
    AddPolicies(request, *bases[b], SessionOf(bases[b], options, contestants),
                profile == profiles.end() ? nullptr : &profile->second, request.bases[b].policies,
                contestants);
  }
}

}  // namespace

Contestants LoadContestants(const CompareRequest& request, ThreadPool& pool) {
  const runtime::RuntimeOptions options = {.device = request.device, .pool = &pool};
  Contestants contestants;
  contestants.device = request.device;
  AddBundle(request.reference, options, contestants);
  for (const fs::path& bundle : request.bundles) AddBundle(bundle, options, contestants);
  AddBases(request, options, contestants);
  if (contestants.all.size() == 1 && !contestants.impossible.empty()) {
    KVC_THROW(kInfeasible, "{}", contestants.impossible[0].reason);
  }
  KVC_CHECK(contestants.all.size() > 1, kUsage,
            "kvc-eval compare: expected a --bundle or a --policy to compare with the reference, "
            "got none");
  return contestants;
}

}  // namespace kvc::choose
