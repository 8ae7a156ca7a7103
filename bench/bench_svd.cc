// PCA of 256 heads [128, 4096] in float, as a 32-layer model with 8 kv heads has them: Gram
// matrices and their eigenvectors, one head per thread, through linalg/svd.h.
//   bench_svd [lapack|eigen|cusolver]
// KVC_BENCH_THREADS sets the number of threads (default: one per core). Prints the best of several
// runs (processor time is that of all threads), what LAPACK's SVD of the same blocks in double
// takes, and how far the two are apart.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "bench/support/timing.h"
#include "core/base/error.h"
#include "core/base/processor_time.h"
#include "core/base/rng.h"
#include "linalg/svd.h"

namespace {

using kvc::ConstMatrixF;
using kvc::linalg::GramResult;
using kvc::linalg::Matrix;
using kvc::linalg::Svd;
using kvc::linalg::SvdBackend;
using kvc::linalg::SvdResult;

constexpr int64_t kHeads = 256;
constexpr int64_t kWidth = 128;
constexpr int64_t kColumns = 4096;
constexpr int64_t kRank = 32;    // a quarter: the subspace that factoring keeps
constexpr int64_t kChecked = 4;  // heads
constexpr int64_t kRepeats = 25;
constexpr double kDecay = 0.96;  // of one singular value to the next: condition about 180

// diag(decay^i) times random numbers, its rows mixed by a reflection: [width, columns].
std::vector<float> MakeHead(uint64_t seed) {
  kvc::Rng rng(seed);
  std::vector<float> head(kWidth * kColumns);
  std::vector<double> mean(kColumns, 0.0);
  for (int64_t i = 0; i < kWidth; ++i) {
    const double scale = std::pow(kDecay, static_cast<double>(i));
    for (int64_t c = 0; c < kColumns; ++c) {
      const double value = scale * (rng.NextDouble() - 0.5);
      head[i * kColumns + c] = static_cast<float>(value);
      mean[c] += value / static_cast<double>(kWidth);
    }
  }
  for (int64_t i = 0; i < kWidth; ++i) {
    for (int64_t c = 0; c < kColumns; ++c) {
      head[i * kColumns + c] -= static_cast<float>(2.0 * mean[c]);
    }
  }
  return head;
}

struct Distance {
  double value = 0.0;     // largest relative error of a singular value
  double leading = 0.0;   // the same of the first kRank
  double subspace = 0.0;  // sine of the largest angle between the first kRank directions, about
};

void Compare(const kvc::linalg::GramResult& gram,
             const kvc::linalg::SvdResult& exact,
             Distance& worst) {
  for (int64_t i = 0; i < kWidth; ++i) {
    const double s = std::sqrt(std::max(gram.eigen.values[i], 0.0));
    const double error = std::abs(s / exact.s[i] - 1.0);
    worst.value = std::max(worst.value, error);
    if (i < kRank) worst.leading = std::max(worst.leading, error);
  }
  // Frobenius norm of the projection's remainder: at least the sine of the largest angle.
  const auto leading = gram.eigen.vectors.view().ColRange(0, kRank);  // [n, kRank]
  const kvc::linalg::Matrix inside =
      kvc::linalg::Multiply(kvc::linalg::Transpose(exact.u.view().ColRange(0, kRank)).view(),
                            leading);  // [kRank, kRank]
  const kvc::linalg::Matrix rest =
      kvc::linalg::Multiply(exact.u.view().ColRange(0, kRank), inside.view());
  double norm = 0.0;
  for (int64_t r = 0; r < kWidth; ++r) {
    for (int64_t i = 0; i < kRank; ++i) {
      norm += std::pow(leading(r, i) - rest(r, i), 2);
    }
  }
  worst.subspace = std::max(worst.subspace, std::sqrt(norm));
}

void Run(kvc::linalg::SvdBackend backend, int num_threads) {
  std::vector<std::vector<float>> heads;
  std::vector<ConstMatrixF> blocks;
  for (int64_t h = 0; h < kHeads; ++h) {
    heads.push_back(MakeHead(h + 1));
    blocks.emplace_back(heads.back().data(), kWidth, kColumns);
  }
  const auto svd = kvc::linalg::Svd::Create(backend, num_threads);
  std::vector<kvc::linalg::GramResult> results;
  kvc::bench::BestTime best;
  double processor = std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < kRepeats; ++i) {
    const double start = kvc::ProcessorSeconds();
    best.Run([&] { results = svd->DecomposeGrams(blocks); });
    processor = std::min(processor, kvc::ProcessorSeconds() - start);
  }

  const auto exact = kvc::linalg::Svd::Create(kvc::linalg::SvdBackend::kLapack);
  Distance worst;
  kvc::bench::BestTime full;
  for (int64_t h = 0; h < kChecked; ++h) {
    kvc::linalg::Matrix copy(kWidth, kColumns);
    std::copy(heads[h].begin(), heads[h].end(), copy.data.begin());
    kvc::linalg::SvdResult reference;
    full.Run([&] { reference = exact->Decompose(copy.view()); });
    Compare(results[h], reference, worst);
  }
  std::printf("%s, %d threads: %lld heads [%lld, %lld] in %.3f s, processor time %.3f s\n",
              kvc::linalg::SvdBackendName(backend).c_str(), num_threads,
              static_cast<long long>(kHeads), static_cast<long long>(kWidth),
              static_cast<long long>(kColumns), best.seconds(), processor);
  std::printf("LAPACK dgesdd of one head: %.1f ms\n", 1e3 * full.seconds());
  std::printf(
      "against it, over %lld heads: singular values %.1e, of the first %lld %.1e; "
      "their subspace %.1e\n",
      static_cast<long long>(kChecked), worst.value, static_cast<long long>(kRank), worst.leading,
      worst.subspace);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "lapack";
  const char* threads = std::getenv("KVC_BENCH_THREADS");
  try {
    const kvc::linalg::SvdBackend backend = name == "eigen" ? kvc::linalg::SvdBackend::kEigen
                                            : name == "cusolver"
                                                ? kvc::linalg::SvdBackend::kCuSolver
                                                : kvc::linalg::SvdBackend::kLapack;
    Run(backend, threads == nullptr ? kvc::ThreadPool(0).num_threads() : std::atoi(threads));
  } catch (const kvc::Error& error) {
    std::fprintf(stderr, "bench_svd: error: %s\n", error.what());
    return error.kind() == kvc::ErrorKind::kDevice ? 7 : 3;
  }
  return 0;
}
