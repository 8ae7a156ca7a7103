#include "tools/factorize_text.h"

#include <cstdio>
#include <string>

namespace kvc::tools {
namespace {

constexpr double kGB = 1e9;

long long Long(int64_t value) { return value; }

double Gigabytes(int64_t bytes) { return static_cast<double>(bytes) / kGB; }

void PrintMemory(const factorize::MemoryTable& memory) {
  std::printf("\ncache in 16 bits, weights %.1f GB, device %.0f GB\n",
              Gigabytes(memory.weight_bytes), Gigabytes(factorize::kTableDeviceBytes));
  std::printf("%10s %12s %12s %12s %12s %12s %7s\n", "tokens", "full GB", "thin GB", "saved GB",
              "users full", "users thin", "ratio");
  for (const factorize::MemoryRow& row : memory.rows) {
    std::printf("%10lld %12.3f %12.3f %12.3f %12lld %12lld %6.2fx\n", Long(row.tokens),
                Gigabytes(row.full_bytes), Gigabytes(row.thin_bytes),
                Gigabytes(row.full_bytes - row.thin_bytes), Long(row.users_full),
                Long(row.users_thin), row.UsersRatio());
  }
}

void PrintLayouts(const std::vector<factorize::LayoutRow>& layouts) {
  std::printf("\nfor one cached token, all layers\n");
  std::printf("%-12s %6s %12s %16s %16s\n", "layout", "rank", "key bytes", "rebuild (MACs)",
              "q k^T (MACs)");
  for (const factorize::LayoutRow& row : layouts) {
    std::printf("%-12s %6lld %12lld %16lld %16lld\n", row.layout.c_str(), Long(row.rank),
                Long(row.cost.key_bytes), Long(row.cost.rebuild_macs), Long(row.cost.score_macs));
  }
}

void PrintRankCost(const factorize::RankCost& cost) {
  std::printf("\neach of %d %s with %d %s\n", cost.ranks, cost.ranks == 1 ? "rank" : "ranks",
              cost.threads, cost.threads == 1 ? "thread" : "threads");
  std::printf("%-14s %10s %10s %10s %10s\n", "stage", "memory GB", "sent GB", "read GB", "TFLOP");
  for (const factorize::StageCost& stage : cost.stages) {
    std::printf("%-14s %10.2f %10.2f %10.2f %10.1f\n", stage.name.c_str(), Gigabytes(stage.memory),
                Gigabytes(stage.sent), Gigabytes(stage.read), stage.flops / 1e12);
  }
}

void PrintKeys(const factorize::LayoutChoice& layout, const std::string& objective, double share) {
  std::printf("layout      %s, objective %s\n", factorize::LayoutText(layout).c_str(),
              objective.c_str());
  std::printf("key bytes   %.1f %% of the original\n", 100.0 * share);
}

void PrintDistance(const char* name, double kld, double perplexity, double source) {
  std::printf("%-11s KLD %.4f, perplexity %.3f (source %.3f, %+.1f %%)\n", name, kld, perplexity,
              source, 100.0 * (perplexity / source - 1.0));
}

}  // namespace

void PrintFactorization(const factorize::FactorizationPlan& plan) {
  PrintKeys(plan.layout, std::string(factorize::ObjectiveName(plan.objective)),
            plan.key_bytes_share);
  std::printf("rank        %lld of %lld for each group\n", Long(plan.group_rank),
              Long(plan.group_width));
  std::printf("rebuild     %lld multiply-adds for each cached token\n", Long(plan.rebuild_macs));
  PrintMemory(plan.memory);
  PrintLayouts(plan.layouts);
  PrintRankCost(plan.rank_cost);
}

void PrintFactorization(const factorize::FactorizationResult& result) {
  PrintKeys(result.layout, result.objective, result.key_bytes_share);
  if (!result.written) return;
  const double source = result.written->reference_perplexity;
  if (result.untuned) {
    PrintDistance("untuned", result.untuned->kld, result.untuned->perplexity, source);
  }
  PrintDistance(result.options.tunes() ? "tuned" : "held back", result.written->kld,
                result.written->perplexity, source);
  if (!result.control) return;
  PrintDistance("control", result.control->kld, result.control->perplexity, source);
  std::printf("            tuned keys are %+.1f %% over the control\n",
              100.0 * (result.written->perplexity / result.control->perplexity - 1.0));
}

}  // namespace kvc::tools
