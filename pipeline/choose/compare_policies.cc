#include "pipeline/choose/compare_policies.h"

#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/cache/manifest.h"
#include "core/cache/profile_file.h"
#include "core/io/json.h"
#include "export/budget/budget_plan.h"
#include "export/budget/policy_text.h"

namespace kvc::choose {
namespace {

std::string BaseName(const std::string& directory) {
  const std::filesystem::path path(directory);
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

// What two bundles must have in common to be run by one session: the model and its weights.
Json WeightsOf(const Manifest& manifest) {
  Json files = Json::object();
  for (const auto& [name, record] : manifest.files) {
    if (name.ends_with(".data")) files[name] = record.sha256;
  }
  const Json json = ToJson(manifest);
  return {{"model", json["model"]}, {"dtype", json["cache"]["dtype"]}, {"files", files}};
}

Json CacheToJson(Manifest manifest, const CacheSpec& spec) {
  manifest.cache = spec;
  return ToJson(manifest)["cache"];
}

runtime::Session* SessionOf(const std::shared_ptr<const runtime::Bundle>& bundle,
                            ThreadPool& pool,
                            Field& field) {
  const Json weights = WeightsOf(bundle->manifest());
  for (const auto& session : field.sessions) {
    if (WeightsOf(session->bundle().manifest()) == weights) return session.get();
  }
  field.sessions.push_back(runtime::Session::Create(bundle, pool));
  return field.sessions.back().get();
}

// Loads a bundle unless it is there already.
std::shared_ptr<const runtime::Bundle> Load(const std::string& directory,
                                            ThreadPool& pool,
                                            Field& field) {
  for (const auto& bundle : field.bundles) {
    if (bundle->directory() == directory) return bundle;
  }
  field.bundles.push_back(runtime::Bundle::Load(directory, {}, pool));
  return field.bundles.back();
}

void Add(const std::string& name,
         const std::string& policy,
         const std::string& budget,
         const runtime::Bundle& bundle,
         runtime::Session* session,
         const CacheSpec& cache,
         Field& field) {
  field.contestants.push_back({name, session, cache});
  field.records.push_back({{"name", name},
                           {"policy", policy},
                           {"budget", budget},
                           {"bundle", BaseName(bundle.directory().string())},
                           {"weights", WeightsOf(bundle.manifest())["files"]},
                           {"cache", CacheToJson(bundle.manifest(), cache)}});
}

void AddBundle(const std::string& directory, ThreadPool& pool, Field& field) {
  const auto bundle = Load(directory, pool, field);
  const Manifest& manifest = bundle->manifest();
  Add(BaseName(directory), "", ToString(manifest.budget), *bundle, SessionOf(bundle, pool, field),
      manifest.cache, field);
}

std::string DigestOf(const Manifest& manifest) {
  std::map<std::string, std::string> hashes;
  for (const auto& [name, record] : manifest.source_files) hashes[name] = record.sha256;
  return ModelDigest(hashes);
}

// Profiles by the digest of what they are profiles of, which must be one of `bases`.
std::map<std::string, ProfileData> LoadProfiles(const std::vector<std::string>& directories,
                                                const std::set<std::string>& bases) {
  std::map<std::string, ProfileData> profiles;
  for (const std::string& directory : directories) {
    ProfileData profile = ReadProfile(directory);
    const std::string digest = profile.model_sha256;
    KVC_CHECK(bases.contains(digest), kBadInput,
              "{}: expected a profile of a bundle whose weights the policies run on, got one of "
              "another checkpoint; run kvc-profile on it",
              directory);
    KVC_CHECK(profiles.emplace(digest, std::move(profile)).second, kUsage,
              "{}: expected one profile for each bundle, got a second one of the same weights",
              directory);
  }
  return profiles;
}

void AddPolicies(const CompareRequest& request,
                 const runtime::Bundle& base,
                 runtime::Session* session,
                 const ProfileData* profile,
                 const std::vector<std::string>& policies,
                 Field& field) {
  const CacheSpec geometry = FullCache(base.manifest().cache);
  const auto bases = budget::SharedBases(profile);
  const std::string prefix =
      request.bases.size() > 1 ? BaseName(base.directory().string()) + "/" : "";
  for (const std::string& budget : request.budgets) {
    for (const std::string& policy : policies) {
      budget::PlanRequest plan;
      budget::ParsePolicy(policy, plan);
      plan.budget = ParseBudget(budget, "--budget");
      plan.sinks = request.sinks;
      plan.window = request.window;
      plan.append = request.append;
      plan.reference_length = request.reference_length;
      plan.profile = profile;
      plan.bases = bases;
      try {
        const CacheSpec spec = budget::MakeBudgetPlan(geometry, plan).spec;
        Add(prefix + policy, policy, budget, base, session, spec, field);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kInfeasible) throw;
        field.impossible.push_back(
            {{"name", prefix + policy}, {"budget", budget}, {"reason", error.what()}});
      }
    }
  }
}

void AddBases(const CompareRequest& request, ThreadPool& pool, Field& field) {
  std::vector<std::shared_ptr<const runtime::Bundle>> bases;
  std::set<std::string> digests;
  for (const std::string& directory : request.bases) bases.push_back(Load(directory, pool, field));
  if (bases.empty()) bases.push_back(Load(request.reference, pool, field));
  for (const auto& base : bases) digests.insert(DigestOf(base->manifest()));
  const std::map<std::string, ProfileData> profiles = LoadProfiles(request.profiles, digests);
  for (size_t b = 0; b < bases.size(); ++b) {
    const auto profile = profiles.find(DigestOf(bases[b]->manifest()));
    AddPolicies(request, *bases[b], SessionOf(bases[b], pool, field),
                profile == profiles.end() ? nullptr : &profile->second,
                request.base_policies.empty() ? request.policies : request.base_policies[b], field);
  }
}

}  // namespace

Field MakeField(const CompareRequest& request, ThreadPool& pool) {
  const bool any_policy = !request.policies.empty() || !request.base_policies.empty();
  KVC_CHECK(any_policy != request.budgets.empty(), kUsage,
            "--policy and --budget: expected both or neither, got {} and {}",
            request.policies.size(), request.budgets.size());
  Field field;
  field.records = Json::array();
  AddBundle(request.reference, pool, field);
  for (const std::string& bundle : request.bundles) AddBundle(bundle, pool, field);
  if (any_policy) AddBases(request, pool, field);
  if (field.contestants.size() == 1 && !field.impossible.empty()) {
    KVC_THROW(kInfeasible, "{}", field.impossible[0]["reason"].get<std::string>());
  }
  KVC_CHECK(field.contestants.size() > 1, kUsage,
            "kvc-eval compare: expected a --bundle or a --policy to compare with the reference, "
            "got none");
  return field;
}

}  // namespace kvc::choose
