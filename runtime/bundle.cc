#include "runtime/bundle.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/cache/manifest.h"
#include "core/checkpoint/windows.h"
#include "runtime/backend.h"
#include "runtime/load/onnx_loader.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {
namespace {

void CheckEqual(const std::string& field, int64_t graph, int64_t manifest) {
  KVC_CHECK(graph == manifest, kVerification,
            "model.onnx: {}: expected {} as in manifest.json, got {}; export the bundle again",
            field, manifest, graph);
}

void CheckLayer(const AttentionStep& step, const CacheSpec& spec) {
  const std::string layer = "layer " + std::to_string(step.layer) + ": ";
  const auto& groups = spec.layers[step.layer];
  CheckEqual(layer + "heads", step.num_heads, spec.num_heads);
  CheckEqual(layer + "kv heads", step.num_kv_heads, spec.num_kv_heads);
  CheckEqual(layer + "window", step.window, spec.AttentionWindow(step.layer));
  CheckEqual(layer + "key groups", std::ssize(step.key_ranks), std::ssize(groups));
  for (size_t n = 0; n < groups.size(); ++n) {
    const CacheGroup& group = groups[n];
    const std::string name = layer + "group " + std::to_string(n) + ": ";
    CheckEqual(name + "key width", step.key_ranks[n], group.key_width);
    CheckEqual(name + "value width", spec.head_width, group.value_width);
    CheckEqual(name + "latent", step.latent ? 1 : 0, group.keeps_positions ? 1 : 0);
    const int64_t heads = spec.num_kv_heads / std::ssize(groups);
    CheckEqual(name + "number of heads", heads, std::ssize(group.heads));
    for (int64_t i = 0; i < heads; ++i) {
      CheckEqual(name + "head", static_cast<int64_t>(n) * heads + i, group.heads[i]);
    }
  }
}

}  // namespace

void CheckSameGeometry(const CacheGeometry& cache, const CacheGeometry& manifest) {
  bool same =
      cache.num_heads == manifest.num_heads && cache.num_kv_heads == manifest.num_kv_heads &&
      cache.head_width == manifest.head_width && cache.layers.size() == manifest.layers.size();
  for (size_t l = 0; same && l < cache.layers.size(); ++l) {
    same = cache.layers[l].size() == manifest.layers[l].size() &&
           cache.AttentionWindow(static_cast<int64_t>(l)) ==
               manifest.AttentionWindow(static_cast<int64_t>(l));
    for (size_t n = 0; same && n < cache.layers[l].size(); ++n) {
      const CacheGroup& a = cache.layers[l][n];
      const CacheGroup& b = manifest.layers[l][n];
      same = a.key_width == b.key_width && a.value_width == b.value_width && a.heads == b.heads &&
             a.keeps_positions == b.keeps_positions;
    }
  }
  KVC_CHECK(same, kBadShape, "cache: expected the bundle's layers, groups and widths, got others");
}

void CheckPlanAgainstManifest(const Plan& plan, const Manifest& manifest) {
  const CacheSpec& spec = manifest.cache;
  CheckEqual("layers", std::ssize(plan.attentions), spec.num_layers());
  CheckEqual("vocabulary", plan.vocab_size, manifest.model.vocab_size);
  CheckEqual("model width", plan.model_width, manifest.model.model_width);
  CheckEqual("head width", manifest.model.head_width, spec.head_width);
  for (const AttentionStep& step : plan.attentions) CheckLayer(step, spec);
  for (const auto& section : plan.sections) {
    for (const Step& step : section) {
      if (step.kind != StepKind::kAttention) continue;
      const AttentionStep& attention = plan.attentions[step.attention];
      CheckEqual("layer " + std::to_string(attention.layer) + ": value columns", step.in[2].width,
                 spec.num_kv_heads * spec.head_width);
    }
  }
}

namespace {

void NarrowWindows(int64_t tokens, Plan& plan, Manifest& manifest) {
  kvc::NarrowWindows(tokens, manifest.model);
  for (int64_t& window : manifest.cache.attention_windows) window = std::min(window, tokens);
  for (AttentionStep& step : plan.attentions) step.window = std::min(step.window, tokens);
}

}  // namespace

struct Bundle::Contents {
  std::filesystem::path directory;
  Manifest manifest;
  Model model;
  Plan plan;
  bool pack_weights = true;
  std::vector<double> frequencies;       // [r/2] of sequences up to the original context
  std::vector<double> long_frequencies;  // of longer ones; empty where they are the same
  std::mutex mutex;                      // guards prepared
  std::map<std::string, std::weak_ptr<const PreparedModel>, std::less<>> prepared;
};

Bundle::Bundle(std::unique_ptr<Contents> contents) : contents_(std::move(contents)) {}
Bundle::~Bundle() = default;
const Manifest& Bundle::manifest() const { return contents_->manifest; }
const std::filesystem::path& Bundle::directory() const { return contents_->directory; }
const Plan& Bundle::plan() const { return contents_->plan; }

LayerRotation Bundle::rotation(int64_t layer, int64_t length) const {
  const ModelConfig& config = contents_->manifest.model;
  if (!config.rotated(layer)) return {};
  const Plan& plan = contents_->plan;
  const bool is_long = RotationRow(plan, 0, length) > 0;
  return {is_long ? contents_->long_frequencies : contents_->frequencies,
          config.rope.attention_factor, RotationRow(plan, 0, length)};
}

std::shared_ptr<const PreparedModel> Bundle::PreparedFor(Backend& backend) const {
  const std::lock_guard<std::mutex> guard(contents_->mutex);
  std::weak_ptr<const PreparedModel>& known = contents_->prepared[std::string(backend.name())];
  std::shared_ptr<const PreparedModel> model = known.lock();
  if (model == nullptr) {
    model = backend.Prepare(contents_->model.graph, contents_->plan, contents_->pack_weights);
    known = model;
  }
  return model;
}

std::shared_ptr<const Bundle> Bundle::Load(const std::filesystem::path& directory,
                                           const LoadOptions& options) {
  Manifest manifest = ReadManifestAndBases(directory);
  CheckBundleFiles(manifest, directory, options.check_hashes);
  Model model = LoadOnnx(directory / "model.onnx");
  const auto digest = model.graph.metadata.find("kvc.cache_sha256");
  if (digest != model.graph.metadata.end()) {
    const std::string expected = CacheDigest(manifest);
    KVC_CHECK(digest->second == expected, kVerification,
              "model.onnx: kvc.cache_sha256: expected {}, the hash of manifest.json's cache, got "
              "{}; export the bundle again",
              expected, digest->second);
  }
  auto contents = std::make_unique<Contents>();
  contents->directory = directory;
  contents->manifest = std::move(manifest);
  contents->model = std::move(model);
  contents->plan = PlanGraph(contents->model.graph);
  contents->pack_weights = options.pack_weights;
  CheckPlanAgainstManifest(contents->plan, contents->manifest);
  if (options.narrow_windows > 0) {
    NarrowWindows(options.narrow_windows, contents->plan, contents->manifest);
  }
  const ModelConfig& config = contents->manifest.model;
  if (config.has_rope) {
    const int64_t original = contents->plan.short_context;
    contents->frequencies = RopeInverseFrequencies(config.rope, config.head_width);
    if (original > 0) {
      contents->long_frequencies =
          RopeInverseFrequencies(config.rope, config.head_width, original + 1);
    }
  }
  return std::shared_ptr<const Bundle>(new Bundle(std::move(contents)));
}

}  // namespace kvc::runtime
