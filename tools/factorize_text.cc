#include "tools/factorize_text.h"

#include <cstdio>
#include <string>

#include "core/io/json.h"

namespace kvc::tools {
namespace {

constexpr double kGB = 1e9;

void PrintMemory(const Json& memory) {
  std::printf("\ncache in 16 bits, weights %.1f GB, device %.0f GB\n",
              memory["weight_bytes"].get<double>() / kGB,
              memory["device_bytes"].get<double>() / kGB);
  std::printf("%10s %12s %12s %12s %12s %12s %7s\n", "tokens", "full GB", "thin GB", "saved GB",
              "users full", "users thin", "ratio");
  for (const Json& row : memory["lengths"]) {
    std::printf("%10lld %12.3f %12.3f %12.3f %12lld %12lld %6.2fx\n",
                row["tokens"].get<long long>(), row["full_bytes"].get<double>() / kGB,
                row["thin_bytes"].get<double>() / kGB, row["saved_bytes"].get<double>() / kGB,
                row["users_full"].get<long long>(), row["users_thin"].get<long long>(),
                row["users_ratio"].get<double>());
  }
}

void PrintLayouts(const Json& layouts) {
  std::printf("\nfor one cached token, all layers\n");
  std::printf("%-12s %6s %12s %16s %16s\n", "layout", "rank", "key bytes", "rebuild (MACs)",
              "q k^T (MACs)");
  for (const Json& row : layouts) {
    std::printf("%-12s %6lld %12lld %16lld %16lld\n", row["layout"].get<std::string>().c_str(),
                row["rank"].get<long long>(), row["key_bytes"].get<long long>(),
                row["rebuild_macs"].get<long long>(), row["score_macs"].get<long long>());
  }
}

void PrintDistance(const char* name, double kld, double perplexity, double source) {
  std::printf("%-11s KLD %.4f, perplexity %.3f (source %.3f, %+.1f %%)\n", name, kld, perplexity,
              source, 100.0 * (perplexity / source - 1.0));
}

}  // namespace

void PrintFactorization(const Json& result) {
  std::printf("layout      %s, objective %s\n", result["layout"].get<std::string>().c_str(),
              result["objective"].get<std::string>().c_str());
  std::printf("key bytes   %.1f %% of the original\n",
              100.0 * result["key_bytes_share"].get<double>());
  if (result.contains("group_rank")) {
    std::printf("rank        %lld of %lld for each group\n", result["group_rank"].get<long long>(),
                result["group_width"].get<long long>());
    std::printf("rebuild     %lld multiply-adds for each cached token\n",
                result["rebuild_macs_per_token"].get<long long>());
    PrintMemory(result["memory"]);
    PrintLayouts(result["layouts"]);
  }
  if (!result.contains("perplexity")) return;
  const bool tuned = result.contains("kld_after_tuning");
  if (tuned) {
    PrintDistance("untuned", result["kld_before_tuning"], result["perplexity_before_tuning"],
                  result["perplexity_source"]);
  }
  PrintDistance(tuned ? "tuned" : "held back",
                result[tuned ? "kld_after_tuning" : "kld_before_tuning"], result["perplexity"],
                result["perplexity_source"]);
  if (result.contains("control")) {
    const Json& control = result["control"];
    PrintDistance("control", control["kld"], control["perplexity"], result["perplexity_source"]);
    std::printf(
        "            tuned keys are %+.1f %% over the control\n",
        100.0 * (result["perplexity"].get<double>() / control["perplexity"].get<double>() - 1.0));
  }
}

}  // namespace kvc::tools
