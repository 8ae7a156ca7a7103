#include "pipeline/report/verdict.h"

#include <cmath>

#include "core/base/sizes.h"
#include "pipeline/report/format_text.h"

namespace kvc::report {
namespace {

std::string Change(double value, double before) {
  return FormatText("%+.1f %%", 100.0 * (value / before - 1.0));
}

Tile BytesTile(const JudgedCache& cache) {
  std::string note = "of the full cache";
  if (cache.cache.full > 0) {
    note = FormatBytes(cache.cache.allocated) + " of " + FormatBytes(cache.cache.full);
  }
  return {"cache bytes", Percent(cache.share), note, Tile::Tone::kPlain};
}

Tile DivergenceTile(const JudgedCache& cache) {
  std::string note = "nats from the full cache";
  if (std::isfinite(cache.perplexity) && cache.full_perplexity > 0.0) {
    note += "; perplexity " + Change(cache.perplexity, cache.full_perplexity);
  }
  return {"KL divergence", Number(cache.kld, 4), note,
          cache.kld <= kCloseKld ? Tile::Tone::kGood : Tile::Tone::kBad};
}

Tile NeedleTile(const JudgedCache& cache) {
  if (!std::isfinite(cache.needles)) {
    return {"needles found", "-", "not measured: kvc-eval needle", Tile::Tone::kPlain};
  }
  const bool known = std::isfinite(cache.full_needles);
  const bool fewer = cache.needles < (known ? cache.full_needles : 1.0);
  return {"needles found", Percent(cache.needles),
          known ? "full cache: " + Percent(cache.full_needles) : "full cache: not measured",
          fewer ? Tile::Tone::kBad : Tile::Tone::kGood};
}

Tile SpeedTile(const JudgedCache& cache) {
  if (!std::isfinite(cache.rate)) {
    return {"decoding", "-", "not measured: kvc-bench", Tile::Tone::kPlain};
  }
  std::string note = "tokens/s at " + Tokens(static_cast<double>(cache.depth)) + " tokens";
  if (!std::isfinite(cache.full_rate)) {
    return {"decoding", Number(cache.rate, 1), note, Tile::Tone::kPlain};
  }
  note += "; full cache: " + Number(cache.full_rate, 1);
  return {"decoding", Number(cache.rate, 1), note,
          cache.rate < cache.full_rate ? Tile::Tone::kBad : Tile::Tone::kGood};
}

std::string SentenceOf(const JudgedCache& cache, size_t tried) {
  std::string text = cache.name + " keeps " + Percent(cache.share) +
                     " of the full cache's bytes and diverges from it by " + Number(cache.kld, 4) +
                     " nats";
  if (std::isfinite(cache.perplexity) && cache.full_perplexity > 0.0) {
    text += " (perplexity " + Change(cache.perplexity, cache.full_perplexity) + ")";
  }
  if (std::isfinite(cache.needles)) text += ", finds " + Percent(cache.needles) + " of the needles";
  if (std::isfinite(cache.rate)) text += ", decodes " + Number(cache.rate, 1) + " tokens/s";
  text += ".";
  if (tried < 2) return text;
  const std::string all = FormatText(" %zu caches", tried);
  return text +
         (cache.kld <= kCloseKld
              ? " It is the smallest of" + all + FormatText(" within %g nats.", kCloseKld)
              : " None of" + all + FormatText(" is within %g nats; it is the closest.", kCloseKld));
}

std::string GateSentence(const Run& run) {
  size_t gates = 0, failed = 0;
  std::string names;
  for (const Result& result : run.results) {
    for (const Gate& gate : result.gates) {
      ++gates;
      if (gate.passed) continue;
      ++failed;
      names += (names.empty() ? "" : ", ") + result.name + " " + gate.name;
    }
  }
  if (gates == 0) return {};
  const std::string count = FormatText("%zu", gates);
  if (failed > 0)
    return FormatText(" %zu of ", failed) + count + " quality gates FAILED: " + names + ".";
  return gates == 1 ? " The quality gate passed." : " All " + count + " quality gates passed.";
}

}  // namespace

int ChooseCache(const std::vector<JudgedCache>& judged) {
  int chosen = -1;
  for (size_t i = 0; i < judged.size(); ++i) {
    const JudgedCache& one = judged[i];
    if (!std::isfinite(one.share) || !std::isfinite(one.kld)) continue;
    if (chosen < 0) {
      chosen = static_cast<int>(i);
      continue;
    }
    const JudgedCache& best = judged[chosen];
    const bool close = one.kld <= kCloseKld;
    const bool best_close = best.kld <= kCloseKld;
    const bool better = close && best_close   ? one.share < best.share
                        : close != best_close ? close
                                              : one.kld < best.kld;
    if (better) chosen = static_cast<int>(i);
  }
  return chosen;
}

Verdict VerdictOf(const Run& run) {
  std::vector<JudgedCache> judged = JudgedBundles(run);
  for (const Result& result : run.results) {
    if (judged.empty() && result.comparison) judged = JudgedLines(*result.comparison);
  }
  const int chosen = ChooseCache(judged);
  if (chosen < 0) {
    return {
        "Nothing was compared with the full cache: kvc-eval kld BUNDLE --against FULL does it." +
            GateSentence(run),
        {}};
  }
  const JudgedCache& cache = judged[chosen];
  return {SentenceOf(cache, judged.size()) + GateSentence(run),
          {BytesTile(cache), DivergenceTile(cache), NeedleTile(cache), SpeedTile(cache)}};
}

}  // namespace kvc::report
