// The sections about what stages made: budgets of the heads, profiles, thin keys.

#include <algorithm>
#include <cmath>

#include "pipeline/report/format_text.h"
#include "pipeline/report/sections.h"

namespace kvc::report {
namespace {

constexpr size_t kSpectraShown = 5;

// Layers from left to right, the groups of heads that share their tokens from top to bottom.
HeatMap BudgetMap(const Run& run, const BundleSummary& bundle) {
  const bool share = bundle.unit == "share";
  HeatMap map{
      "Budgets: " + NameIn(run, bundle.name) + " (" + bundle.method + ", " + bundle.budget + ")",
      "heads",
      "layer",
      {},
      {},
      {},
      0.0,
      share,
      ""};
  map.note = share ? "Share of a prompt's tokens that the group of heads keeps."
                   : "The group's budget, in " + bundle.unit + ".";
  size_t groups = 0;
  for (const auto& layer : bundle.values) groups = std::max(groups, layer.size());
  map.values.assign(groups, std::vector<double>(bundle.values.size(), std::nan("")));
  for (size_t g = 0; g < groups; ++g) map.rows.push_back(std::to_string(g));
  for (size_t l = 0; l < bundle.values.size(); ++l) {
    map.columns.push_back(std::to_string(l));
    for (size_t g = 0; g < bundle.values[l].size(); ++g) {
      map.values[g][l] = bundle.values[l][g];
      if (std::isfinite(bundle.values[l][g])) map.most = std::max(map.most, bundle.values[l][g]);
    }
  }
  return map;
}

void AddLine(const std::string& name, const std::vector<double>& values, Chart& chart) {
  Series& series = chart.series.emplace_back();
  series.name = name;
  for (size_t i = 0; i < values.size(); ++i) {
    series.points.emplace_back(static_cast<double>(i) / static_cast<double>(values.size() - 1),
                               values[i]);
  }
}

void AddProfile(const std::string& name, const ProfileSummary& profile, Page& page) {
  const Axis kept = {"tokens kept, of those that may be dropped", Unit::kShare};
  const Axis lost = {"importance lost, of the head's", Unit::kShare};
  Chart medians{"Utility curves: " + name, kept, lost};
  medians.markers = false;
  medians.note = "The median head. The oracle knows what the following tokens will attend to.";
  for (const ProfileSummary::Curve& curve : profile.curves) {
    AddLine(curve.scorer, curve.middle, medians);
  }
  page.AddChart(medians);
  const auto first = std::ranges::find_if(
      profile.curves, [](const ProfileSummary::Curve& curve) { return curve.scorer != "oracle"; });
  if (first == profile.curves.end()) return;
  Chart spread{"How unlike the heads are: " + name + ", " + first->scorer, kept, lost};
  spread.markers = false;
  spread.filled = true;
  spread.note =
      "The tokens that an easy head needs less are what a head budget gives to a hard one.";
  AddLine("10th percentile of the heads", first->low, spread);
  AddLine("median head", first->middle, spread);
  AddLine("90th percentile", first->high, spread);
  page.AddChart(spread);
}

Chart Ranks(std::span<const Run> runs, const std::string& name) {
  Chart chart{"Key ranks: " + name, {"layer", Unit::kCount}, {"dimensions"}};
  chart.bars = true;
  for (const Run& run : runs) {
    for (const Result& result : run.results) {
      if (result.name != name || result.layers.empty()) continue;
      Series& series = chart.series.emplace_back();
      series.name = NameIn(run, name);
      for (size_t l = 0; l < result.layers.size(); ++l) {
        series.points.emplace_back(static_cast<double>(l), result.layers[l].rank);
      }
    }
  }
  return chart;
}

Chart Spectra(const std::string& name, const std::vector<ThinLayer>& layers) {
  Chart chart{"Spectrum of the first group: " + name,
              {"coordinate", Unit::kCount},
              {"energy, of the largest", Unit::kNumber, Scale::kLog}};
  chart.markers = false;
  const size_t step = (layers.size() + kSpectraShown - 1) / kSpectraShown;
  for (size_t l = 0; l < layers.size(); l += step) {
    const std::vector<double>& energies = layers[l].spectrum;
    if (energies.empty() || !(energies[0] > 0.0)) continue;
    Series& series = chart.series.emplace_back();
    series.name = "layer " + std::to_string(l);
    for (size_t i = 0; i < energies.size(); ++i) {
      series.points.emplace_back(static_cast<double>(i), energies[i] / energies[0]);
    }
  }
  return chart;
}

}  // namespace

void AddBudgets(std::span<const Run> runs, Page& page) {
  page.AddHeading("Budgets of the heads");
  for (const Run& run : runs) {
    for (const BundleSummary& bundle : run.bundles) page.AddHeatMap(BudgetMap(run, bundle));
  }
}

void AddProfiles(std::span<const Run> runs, Page& page) {
  page.AddHeading("What the heads need");
  for (const Run& run : runs) {
    for (const ProfileSummary& profile : run.profiles) {
      AddProfile(NameIn(run, profile.name), profile, page);
    }
  }
}

void AddThinKeys(std::span<const Run> runs, Page& page) {
  page.AddHeading("Thin keys");
  std::vector<std::string> names;
  for (const Run& run : runs) {
    for (const Result& result : run.results) {
      const bool known = std::ranges::find(names, result.name) != names.end();
      if (!result.layers.empty() && !known) names.push_back(result.name);
    }
  }
  for (const std::string& name : names) page.AddChart(Ranks(runs, name));
  for (const Run& run : runs) {
    for (const Result& result : run.results) {
      if (!result.layers.empty()) page.AddChart(Spectra(NameIn(run, result.name), result.layers));
    }
  }
}

}  // namespace kvc::report
