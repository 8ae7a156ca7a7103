#include "tools/bench_command.h"

#include <algorithm>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "bench/support/attention_problem.h"
#include "bench/support/read_bandwidth.h"
#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/io/json.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/requests.h"
#include "eval/compare/walk.h"
#include "runtime/session.h"
#include "tools/eval_arguments.h"

namespace kvc::tools {
namespace {

using Clock = std::chrono::steady_clock;

// More than a usual last-level cache holds.
constexpr int64_t kColdBytes = int64_t{160} << 20;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Seconds of the shortest and of the middle run.
struct Times {
  double best = 0.0;
  double median = 0.0;
};
template <class Body>
Times Repeat(int64_t repetitions, const Body& body) {
  std::vector<double> seconds;
  for (int64_t r = 0; r < repetitions; ++r) seconds.push_back(body());
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

Json RatesOf(const Times& times, int64_t tokens) {
  const auto count = static_cast<double>(tokens);
  return {{"best", count / times.best}, {"median", count / times.median}};
}

// What is asked for, resolved against the bundle.
struct Plan {
  int64_t prompt = 0;
  int64_t decode = 0;
  std::vector<int64_t> depths;  // ascending

  [[nodiscard]] int64_t PrefillAt(int64_t depth) const {
    return std::max<int64_t>(1, depth - decode);
  }
};

Plan Resolve(const BenchOptions& options, const Manifest& manifest) {
  Plan plan;
  plan.prompt = ParseLength(options.prompt, "--prompt");
  plan.decode = ParseLength(options.decode, "--decode");
  KVC_CHECK(plan.prompt > 0 && plan.decode > 0, kUsage,
            "--prompt and --decode: expected at least one token");
  for (const std::string& depth : options.depths) {
    plan.depths.push_back(depth == "0" ? 0 : ParseLength(depth, "--depths"));
  }
  std::sort(plan.depths.begin(), plan.depths.end());
  const int64_t context = manifest.model.context_length;
  for (const int64_t length :
       {plan.prompt, plan.PrefillAt(plan.depths.empty() ? 0 : plan.depths.back()) + plan.decode}) {
    KVC_CHECK(
        length <= context, kUsage,
        "--prompt, --depths, --decode: expected at most the model's context of {} tokens, got {}",
        context, length);
  }
  return plan;
}

// Token ids to feed, as many as are asked for.
class Ids {
 public:
  Ids(const BenchOptions& options, const Manifest& manifest, uint64_t seed) {
    if (options.text.empty()) {
      Rng rng(seed);
      for (int64_t i = 0; i < manifest.model.context_length; ++i) {
        ids_.push_back(static_cast<int32_t>(rng.NextBelow(manifest.model.vocab_size)));
      }
      return;
    }
    const auto tokenizer = Tokenizer::Load(options.bundle);
    for (const std::string& document : eval::ReadAll(options.text)) {
      const auto more = tokenizer->Encode(document, SpecialTokens::kNone);
      ids_.insert(ids_.end(), more.begin(), more.end());
    }
    const size_t length = ids_.size();
    KVC_CHECK(length > 0, kBadInput, "--text: expected text, got no token");
    for (size_t i = 0; std::ssize(ids_) < manifest.model.context_length; ++i) {
      ids_.push_back(ids_[i % length]);
    }
  }
  [[nodiscard]] std::span<const int32_t> First(int64_t count) const {
    return std::span(ids_).first(static_cast<size_t>(count));
  }
  [[nodiscard]] int32_t at(int64_t position) const { return ids_[position]; }

 private:
  std::vector<int32_t> ids_;
};

class Bench {
 public:
  Bench(runtime::Session& session, const Plan& plan, const Ids& ids)
      : session_(session),
        plan_(plan),
        ids_(ids),
        logits_(static_cast<size_t>(session.bundle().manifest().model.vocab_size)) {}

  Json Prompt(int64_t repetitions) {
    const Times times = Repeat(repetitions, [&] { return Prefill(plan_.prompt, 0).second; });
    return {{"tokens", plan_.prompt}, {"tokens_per_second", RatesOf(times, plan_.prompt)}};
  }

  Json Depth(int64_t depth, int64_t repetitions) {
    const int64_t prompt = plan_.PrefillAt(depth);
    const auto [sequence, seconds] = Prefill(prompt, plan_.decode);
    eval::CacheMean cache;
    const Times times = Repeat(repetitions, [&, &start_sequence = *sequence] {
      const auto copy = start_sequence.Clone();
      const auto start = Clock::now();
      for (int64_t t = 0; t < plan_.decode; ++t) Decode(*copy, ids_.at(prompt + t));
      const double took = SecondsSince(start);
      cache.Add(copy->counters());
      return took;
    });
    step_seconds_.push_back(times.best / static_cast<double>(plan_.decode));
    Json result = {{"depth", depth},
                   {"prefill_tokens", prompt},
                   {"prefill_tokens_per_second", static_cast<double>(prompt) / seconds},
                   {"decode_tokens", plan_.decode},
                   {"decode_tokens_per_second", RatesOf(times, plan_.decode)},
                   {"cache", cache.ToJson()}};
    cache_bytes_.push_back(result["cache"]["logical_bytes"].get<double>());
    result["attention_gb_per_second"] = ReadRate();
    return result;
  }

 private:
  std::pair<std::unique_ptr<runtime::Sequence>, double> Prefill(int64_t tokens, int64_t more) {
    runtime::SequenceOptions options;
    options.reserve = tokens + more;
    auto sequence = session_.NewSequence(options);
    const auto start = Clock::now();
    session_.Prefill(*sequence, ids_.First(tokens),
                     MatrixF(logits_.data(), 1, std::ssize(logits_)));
    const double seconds = SecondsSince(start);
    return {std::move(sequence), seconds};
  }
  void Decode(runtime::Sequence& sequence, int32_t id) {
    runtime::Sequence* const one[] = {&sequence};
    session_.Decode(one, std::span(&id, 1), MatrixF(logits_.data(), 1, std::ssize(logits_)));
  }
  // Of the last depth against the first.
  [[nodiscard]] Json ReadRate() const {
    // A tenth of a step is more than steps of the same depth differ by.
    constexpr double kLeastShare = 0.1;
    const double more_seconds = step_seconds_.back() - step_seconds_.front();
    const double more_bytes = cache_bytes_.back() - cache_bytes_.front();
    if (more_bytes <= 0.0 || more_seconds < kLeastShare * step_seconds_.front()) return nullptr;
    return more_bytes / more_seconds * 1e-9;
  }

  runtime::Session& session_;
  const Plan& plan_;
  const Ids& ids_;
  std::vector<float> logits_;         // [1, V]
  std::vector<double> step_seconds_;  // by depth so far, of the shortest run
  std::vector<double> cache_bytes_;
};

Json DryRun(const Plan& plan, const Manifest& manifest) {
  Json result = {{"prompt", plan.prompt}, {"decode", plan.decode}, {"depths", Json::array()}};
  for (const int64_t depth : plan.depths) {
    const int64_t prompt = plan.PrefillAt(depth);
    const CacheBytes bytes = PredictBytes(manifest.cache, prompt);
    result["depths"].push_back({{"depth", depth},
                                {"prefill_tokens", prompt},
                                {"full_bytes", bytes.full},
                                {"logical_bytes", bytes.logical},
                                {"allocated_bytes", bytes.allocated}});
  }
  return result;
}

std::string RateText(const Json& rate) {
  if (rate.is_null()) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", rate.get<double>());
  return text;
}

}  // namespace

void AddBenchOptions(CLI::App& app, BenchOptions& options) {
  app.add_option("bundle", options.bundle, "Bundle to measure");
  app.add_option("--prompt", options.prompt, "Tokens of the prefill that is measured by itself")
      ->capture_default_str();
  app.add_option("--decode", options.decode, "Tokens decoded at each depth")->capture_default_str();
  app.add_option("--depths", options.depths,
                 "Tokens in the cache when the last one is decoded, from a real prefill")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--text", options.text, "Text of the prompts, repeated; default: random tokens");
  app.add_option("--repetitions", options.repetitions, "Runs of each measurement")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

Json RunBench(const BenchOptions& options, const CommonOptions& common) {
  KVC_CHECK(!options.bundle.empty(), kUsage,
            "BUNDLE: expected a bundle's directory or attention, got neither");
  ThreadPool pool(CheckCommonOptions(common));
  const Manifest manifest = ReadManifest(options.bundle);
  const Plan plan = Resolve(options, manifest);
  if (common.dry_run) return DryRun(plan, manifest);
  const Ids ids(options, manifest, common.seed);
  const auto session =
      runtime::Session::Create(runtime::Bundle::Load(options.bundle, {}, pool), pool);
  const auto progress = MakeProgress(common);
  const auto stages = std::ssize(plan.depths) + 1;
  Bench bench(*session, plan, ids);
  Json result = {{"method", MethodName(manifest.cache.method)},
                 {"budget", ToString(manifest.budget)},
                 {"dtype", ShortName(manifest.cache.dtype)},
                 {"threads", pool.num_threads()},
                 {"ids", options.text.empty() ? "random" : "text"},
                 {"read_gb_per_second", bench::MeasureReadBandwidth(pool) * 1e-9},
                 {"repetitions", options.repetitions},
                 {"prompt", bench.Prompt(options.repetitions)},
                 {"depths", Json::array()}};
  progress->Report("bench", 1, stages);
  for (const int64_t depth : plan.depths) {
    result["depths"].push_back(bench.Depth(depth, options.repetitions));
    progress->Report("bench", std::ssize(result["depths"]) + 1, stages);
  }
  if (!plan.depths.empty()) result["cache"] = result["depths"].back()["cache"];
  return result;
}

void PrintBench(const Json& result) {
  std::printf("%s cache (%s, %s), %lld threads, %s tokens; memory reads %.2f GB/s\n",
              result["method"].get<std::string>().c_str(),
              result["budget"].get<std::string>().c_str(),
              result["dtype"].get<std::string>().c_str(), result["threads"].get<long long>(),
              result["ids"].get<std::string>().c_str(), result["read_gb_per_second"].get<double>());
  std::printf("pp%-6lld %9.1f tokens/s (median %.1f)\n",
              result["prompt"]["tokens"].get<long long>(),
              result["prompt"]["tokens_per_second"]["best"].get<double>(),
              result["prompt"]["tokens_per_second"]["median"].get<double>());
  std::printf("%8s %12s %12s %12s %12s %12s %15s\n", "depth", "pp tokens/s", "tg tokens/s",
              "tg median", "cache", "peak", "attention GB/s");
  for (const Json& depth : result["depths"]) {
    std::printf("%8lld %12.1f %12.1f %12.1f %12s %12s %15s\n", depth["depth"].get<long long>(),
                depth["prefill_tokens_per_second"].get<double>(),
                depth["decode_tokens_per_second"]["best"].get<double>(),
                depth["decode_tokens_per_second"]["median"].get<double>(),
                FormatBytes(depth["cache"]["allocated_bytes"]).c_str(),
                FormatBytes(depth["cache"]["peak_bytes"]).c_str(),
                RateText(depth["attention_gb_per_second"]).c_str());
  }
  std::printf("peak memory of the process %s\n", FormatBytes(result["peak_rss_bytes"]).c_str());
}

void AddAttentionBenchOptions(CLI::App& app, AttentionBenchOptions& options) {
  app.add_option("--shape", options.shapes,
                 "heads=32,kv=8,width=128,tokens=4k,dtype=f16 and key=WIDTH (thin keys) or "
                 "latent=WIDTH (rebuilt in every step); repeatable")
      ->required()
      ->take_all();
  app.add_option("--repetitions", options.repetitions, "Steps that are timed")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

Json RunAttentionBench(const AttentionBenchOptions& options, const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common));
  std::vector<bench::AttentionShape> shapes;
  for (const std::string& text : options.shapes) shapes.push_back(bench::ParseAttentionShape(text));
  Json result = {{"threads", pool.num_threads()}, {"shapes", Json::array()}};
  if (!common.dry_run) result["read_gb_per_second"] = bench::MeasureReadBandwidth(pool) * 1e-9;
  const auto progress = MakeProgress(common);
  for (size_t s = 0; s < shapes.size(); ++s) {
    const int64_t bytes = shapes[s].LayerBytes();
    Json line = {{"shape", options.shapes[s]}, {"layer_bytes", bytes}};
    if (!common.dry_run) {
      bench::AttentionProblem problem(shapes[s], kColdBytes);
      const Times times = Repeat(options.repetitions, [&] {
        const auto start = Clock::now();
        problem.Step(pool);
        return SecondsSince(start);
      });
      const double rate = static_cast<double>(bytes) / times.best * 1e-9;
      line["microseconds"] = {{"best", times.best * 1e6}, {"median", times.median * 1e6}};
      line["gb_per_second"] = rate;
      line["of_read_bandwidth"] = rate / result["read_gb_per_second"].get<double>();
    }
    result["shapes"].push_back(std::move(line));
    progress->Report("shapes", static_cast<int64_t>(s) + 1, std::ssize(shapes));
  }
  return result;
}

void PrintAttentionBench(const Json& result) {
  std::printf("%lld threads, memory reads %.2f GB/s\n", result["threads"].get<long long>(),
              result["read_gb_per_second"].get<double>());
  std::printf("%-52s %12s %10s %8s %12s\n", "shape", "cache", "best us", "GB/s", "of reading");
  for (const Json& line : result["shapes"]) {
    std::printf("%-52s %12s %10.1f %8.2f %10.1f %%\n", line["shape"].get<std::string>().c_str(),
                FormatBytes(line["layer_bytes"]).c_str(),
                line["microseconds"]["best"].get<double>(), line["gb_per_second"].get<double>(),
                100.0 * line["of_read_bandwidth"].get<double>());
  }
}

}  // namespace kvc::tools
