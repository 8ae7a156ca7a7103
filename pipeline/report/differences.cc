#include "pipeline/report/differences.h"

#include <algorithm>
#include <cmath>

#include "pipeline/report/format_text.h"
#include "pipeline/report/measures.h"

namespace kvc::report {
namespace {

constexpr double kSameSize = 1.02;       // sizes this near count as one
constexpr double kSameText = 1e-3;       // relative, of the full cache's perplexity
constexpr double kStandardErrors = 2.0;  // a smaller difference is none

double ErrorOf(double a, double b) {
  return std::hypot(std::isfinite(a) ? a : 0.0, std::isfinite(b) ? b : 0.0);
}

// Returns the cache that diverges least within `share`; null if none is that small.
const JudgedCache* BestWithin(const std::vector<JudgedCache>& caches, double share) {
  const JudgedCache* best = nullptr;
  for (const JudgedCache& cache : caches) {
    if (!std::isfinite(cache.kld) || !(cache.share <= share * kSameSize)) continue;
    if (!best || cache.kld < best->kld) best = &cache;
  }
  return best;
}

void AddSizes(const std::string& where,
              const std::vector<JudgedCache>& a,
              const std::vector<JudgedCache>& b,
              std::vector<AtSize>& sizes) {
  std::vector<double> shares;
  for (const auto* caches : {&a, &b}) {
    for (const JudgedCache& cache : *caches) {
      if (std::isfinite(cache.share)) shares.push_back(cache.share);
    }
  }
  std::ranges::sort(shares);
  double last = 0.0;
  const JudgedCache* last_a = nullptr;
  const JudgedCache* last_b = nullptr;
  for (const double share : shares) {
    const JudgedCache* in_a = BestWithin(a, share);
    const JudgedCache* in_b = BestWithin(b, share);
    if (share <= last * kSameSize || !in_a || !in_b) continue;
    if (in_a == last_a && in_b == last_b) continue;  // more bytes bring nothing new
    last = share;
    last_a = in_a;
    last_b = in_b;
    AtSize& at = sizes.emplace_back(AtSize{where, share, *in_a, *in_b});
    const double difference = in_b->kld - in_a->kld;
    if (std::abs(difference) > kStandardErrors * ErrorOf(in_a->kld_error, in_b->kld_error)) {
      at.better = difference > 0.0 ? AtSize::Better::kA : AtSize::Better::kB;
    }
    at.same_text = !(std::abs(in_a->full_perplexity / in_b->full_perplexity - 1.0) > kSameText);
  }
}

const char* NameOf(AtSize::Better better) {
  return better == AtSize::Better::kA ? "A" : better == AtSize::Better::kB ? "B" : "neither";
}

std::string ValueText(const Measure& measure) {
  return measure.share ? Percent(measure.value) : FormatText("%.4g", measure.value);
}

std::string DifferenceText(const Measure& a, const Measure& b) {
  const double difference = b.value - a.value;
  if (a.share) return FormatText("%+.1f points", 100.0 * difference);
  if (a.value == 0.0) return FormatText("%+.4g", difference);
  return FormatText("%+.1f %%", 100.0 * difference / a.value);
}

std::string BetterOf(const Measure& a, const Measure& b) {
  const double difference = b.value - a.value;
  if (std::abs(difference) <= kStandardErrors * ErrorOf(a.error, b.error)) return "-";
  return (difference < 0.0) == (a.better == Measure::Better::kLower) ? "B" : "A";
}

const Measure* Find(const std::vector<Measure>& measures, const Measure& like) {
  for (const Measure& one : measures) {
    if (one.of == like.of && one.name == like.name) return &one;
  }
  return nullptr;
}

}  // namespace

std::vector<AtSize> CompareSizes(const Run& a, const Run& b) {
  std::vector<AtSize> sizes;
  AddSizes("bundles", JudgedBundles(a), JudgedBundles(b), sizes);
  for (const Result& one : a.results) {
    if (!one.comparison) continue;
    for (const Result& other : b.results) {
      if (!other.comparison || other.name != one.name) continue;
      AddSizes(one.name, JudgedLines(*one.comparison), JudgedLines(*other.comparison), sizes);
    }
  }
  return sizes;
}

std::string SentenceOf(const std::vector<AtSize>& sizes) {
  if (sizes.empty()) {
    return "No size at which both were compared with a full cache, so neither is called better.";
  }
  std::string a, b, neither;
  bool same_text = true;
  for (const AtSize& at : sizes) {
    std::string& list = at.better == AtSize::Better::kA   ? a
                        : at.better == AtSize::Better::kB ? b
                                                          : neither;
    list += (list.empty() ? "" : ", ") + Percent(at.share) + " (" + at.where + ")";
    same_text = same_text && at.same_text;
  }
  std::string text;
  if (!a.empty()) text += "A diverges less at " + a + " of the full cache's bytes. ";
  if (!b.empty()) text += "B diverges less at " + b + " of the full cache's bytes. ";
  if (!neither.empty()) text += "No difference beyond the error at " + neither + ". ";
  text += same_text ? "Both measured the same full cache."
                    : "Their full caches have other perplexities: another text or model, so that "
                      "the divergences are not comparable.";
  return text;
}

Table SizeTable(const std::vector<AtSize>& sizes) {
  Table table{{"measured by", "bytes at most", "A", "KLD of A", "B", "KLD of B", "better"}, {}};
  for (const AtSize& at : sizes) {
    table.rows.push_back({at.where, Percent(at.share), at.a.name, Number(at.a.kld, 4), at.b.name,
                          Number(at.b.kld, 4), at.same_text ? NameOf(at.better) : "another text"});
  }
  return table;
}

Table DifferenceTable(const Run& a, const Run& b) {
  Table table{{"of", "measure", "A", "B", "B - A", "better"}, {}};
  const std::vector<Measure> in_a = MeasuresOf(a);
  const std::vector<Measure> in_b = MeasuresOf(b);
  for (const Measure& one : in_a) {
    const Measure* other = Find(in_b, one);
    if (!other) {
      table.rows.push_back({one.of, one.name, ValueText(one), "-", "-", "-"});
      continue;
    }
    table.rows.push_back({one.of, one.name, ValueText(one), ValueText(*other),
                          DifferenceText(one, *other), BetterOf(one, *other)});
  }
  for (const Measure& one : in_b) {
    if (!Find(in_a, one)) {
      table.rows.push_back({one.of, one.name, "-", ValueText(one), "-", "-"});
    }
  }
  return table;
}

}  // namespace kvc::report
