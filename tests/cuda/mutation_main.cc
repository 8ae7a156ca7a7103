// usage: mutation_main
//   decode|prefill|rebuild|norm|product|elementwise|move|project|sample|select|finish|reserve
// Runs kernels of the checked library, possibly mutated (mutations.py), and prints what is wrong:
//   report: TEXT       the checker's
//   wrong: X           an error of X times its bound
//   conflicts: X       X times the least passes over shared memory
//   silent             nothing

#include <algorithm>
#include <cstdio>
#include <functional>
#include <numeric>

#include <fmt/core.h>

#include "core/base/error.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/few_row_product.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/project_rows.h"
#include "kernels/emulator/traffic.h"
#include "tests/cuda/cached_plane.h"
#include "tests/cuda/decode_case.h"
#include "tests/cuda/mutation_choices.h"
#include "tests/cuda/prefill_case.h"
#include "tests/cuda/rebuild_case.h"
#include "tests/cuda/score_case.h"

namespace kvc::cuda {
namespace {

// The largest error in units of `bound`.
double Worst(const TestRows& y, double bound, const std::function<double(int64_t, int64_t)>& want) {
  const std::vector<float> now = y.Now();
  double worst = 0.0;
  for (int64_t r = 0; r < y.rows; ++r) {
    for (int64_t c = 0; c < y.width; ++c) {
      const double error =
          std::abs(now[static_cast<size_t>(r * y.stride + c)] - want(r, c)) / bound;
      worst = error <= worst ? worst : std::isnan(error) ? INFINITY : error;
    }
  }
  return worst;
}

double RunDecode(Rng& rng) {
  const std::vector<std::vector<SegmentSize>> heads = {
      {{90, 64, 64}, {140, 32, 48}, {33, 16, 16}, {41, 8, 8}},
      {{17, 64, 64}, {0, 32, 32}, {1, 56, 24}},
      {{700, 64, 64}}};
  double worst = 0.0;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    DecodeCase decode({"", 4, 5, heads}, dtype, rng);
    worst = std::max(worst, decode.WorstError(decode.Run()));
    worst = std::max(worst, decode.WorstError(decode.Run(2)));
  }
  const SegmentSize grows = {17, 8, 5, kRowsBF16, kRowsBF16, 0, 0, 100};
  const std::vector<std::vector<SegmentSize>> mixed = {
      {{90, 64, 64}, {77, 13, 61, kRowsBF16, kRowsBF16, 2}, {20, 40, 24}},
      {{50, 61, 33, kRowsMany, kRowsFew}, grows}};
  const std::vector<std::vector<SegmentSize>> any = {
      {{90, 64, 64}, {77, 13, 61, kRowsF16, kRowsBF16, 2}, {20, 61, 62, kRowsF32, kRowsInt8}},
      {grows}};
  for (const auto& segments : {mixed, any}) {
    DecodeCase decode({"", 4, 5, segments}, kRowsInt8, rng);
    worst = std::max(worst, decode.WorstError(decode.Run(2)));
  }
  const std::vector<std::vector<SegmentSize>> latents = {
      {{90, 20, 64}, {33, 13, 48, kRowsBF16, kRowsF16}}, {grows}};
  DecodeCase decode({"", 4, 5, latents, 0, {46, 20, 11, true, true}}, kRowsF32, rng);
  worst = std::max(worst, decode.WorstError(decode.Run(2)));
  return worst;
}

double RunPrefill(Rng& rng) {
  double worst = 0.0;
  for (const RowFormat& format : {kRowsBF16, kRowsF32}) {
    PrefillShape windowed = {"", 90, 103, 1, 37, {{24, 64}}};
    windowed.dropped = 67;
    PrefillShape latents = {"", 20, 50, 2, 0, {{20, 64}}};
    latents.latents = {46, 20, 11, true, true};
    PrefillShape split = {"", 10, 150, 2, 0, {{64, 64}}};
    split.splits = 3;
    for (const PrefillShape& shape :
         {PrefillShape{"", 45, 50, 3, 0, {{64, 64}, {64, 40}}},
          PrefillShape{"", 20, 50, 2, 0, {{13, 64}}}, windowed, latents, split}) {
      const PrefillCase prefill(shape, format, format, rng);
      worst = std::max(worst, prefill.WorstError(prefill.Run()));
    }
  }
  return worst;
}

double RunRebuild(Rng& rng) {
  double worst = 0.0;
  for (const RowFormat& latents : {kRowsBF16, kRowsF32, kRowsInt8}) {
    RebuildShape all = {"", 70, 100, 64};
    all.bias = all.norm = all.positions = true;
    RebuildShape some = {"", 90, 13, 48, 11};
    some.live = 66;
    const RebuildCase rebuild({all, some}, latents, kRowsBF16, rng);
    worst = std::max(worst, rebuild.WorstError(rebuild.Run()));
  }
  return worst;
}

double RunNorm(Rng& rng) {
  double worst = 0.0;
  for (const int64_t width : {1536, 40}) {
    const TestRows x = RandomRows(rng, DType::kF32, 3, width);
    const TestRows y = RandomRows(rng, DType::kF32, 3, width);
    const DeviceArray<float> one(std::vector<float>(static_cast<size_t>(width), 1.0F));
    LayerNorm(x.view(), 1, one.data(), nullptr, 0.0F, y.view(), nullptr);
    worst = std::max(worst, Worst(y, 1e-3, [&](int64_t r, int64_t c) {
                       double mean = 0.0;
                       double square = 0.0;
                       for (int64_t d = 0; d < width; ++d) {
                         mean += x.at(r, d) / static_cast<double>(width);
                         square += x.at(r, d) * x.at(r, d) / static_cast<double>(width);
                       }
                       return (x.at(r, c) - mean) / std::sqrt(square - mean * mean);
                     }));
    const DeviceArray<double> mean(size_t{1});
    MeanSquaredNorm(x.view(), mean.data(), nullptr);
    double square = 0.0;
    for (int64_t i = 0; i < 3 * width; ++i) {
      square += x.at(0, i) * x.at(0, i) / 3.0;
    }
    worst = std::max(worst, std::abs(mean.Host()[0] - square) / (1e-9 * square));
  }
  return worst;
}

double RunProduct(Rng& rng) {
  constexpr int64_t kIn = 261;  // whole chunks, and 5 elements
  const TestRows x = RandomRows(rng, DType::kF32, 3, kIn, 3);
  const TestRows w = RandomRows(rng, DType::kBF16, 15, kIn, 3);
  const TestRows y = RandomRows(rng, DType::kF32, 3, 15);
  FewRowProduct(x.view(), w.view(), nullptr, false, y.view(), nullptr);
  return Worst(y, 1e-3, [&](int64_t r, int64_t o) {
    double sum = 0.0;
    for (int64_t i = 0; i < kIn; ++i) {
      sum += x.at(r, i) * w.at(o, i);
    }
    return sum;
  });
}

double RunElementwise(Rng& rng) {
  const TestRows x = RandomRows(rng, DType::kF32, 3, 33);
  const TestRows y = RandomRows(rng, DType::kF32, 3, 33);
  Add(x.view(), y.view(), nullptr);
  return Worst(y, 1e-5, [&](int64_t r, int64_t c) { return x.at(r, c) + y.at(r, c); });
}

// 0 where a plane's bytes are as expected.
double MoveOnce(
    Rng& rng, const RowFormat& from, int64_t from_width, const RowFormat& to, int64_t to_width) {
  const CachedPlane source(from, 70, from_width, 0, 0, RandomFloats(rng, 70 * from_width));
  CachedPlane target(to, 70, to_width, 0, 0, RandomFloats(rng, 70 * to_width));
  target.Soil();
  RowMove move;
  move.from = source.view();
  move.to = target.view();
  move.rows = 70;
  const DeviceArray<RowMove> table(std::vector<RowMove>{move});
  MoveRows(table.data(), 1, 70, nullptr);
  std::vector<std::byte> expected = target.bytes;
  CopyRows(source.bytes.data(), source.stored(), 70, expected.data(), target.stored());
  return target.Now() == expected ? 0.0 : INFINITY;
}

// 0 where a number that has no code is counted.
double MoveInfinity() {
  const CachedPlane source(kRowsF32, 1, 8, 0, 0,
                           {0.0F, INFINITY, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F});
  const CachedPlane target(kRowsX4, 1, 8, 0, 0, std::vector<float>(8, 0.0F));
  const DeviceArray<int32_t> faults(std::vector<int32_t>{0});
  RowMove move;
  move.from = source.view();
  move.to = target.view();
  move.rows = 1;
  move.faults = faults.data();
  const DeviceArray<RowMove> table(std::vector<RowMove>{move});
  MoveRows(table.data(), 1, 1, nullptr);
  return faults.Host()[0] == 1 ? 0.0 : INFINITY;
}

double RunMove(Rng& rng) {
  double worst = std::max({MoveOnce(rng, kRowsF32, 48, kRowsF32, 41),
                           MoveOnce(rng, kRowsF32, 48, kRowsInt8, 41),
                           MoveOnce(rng, kRowsF32, 48, kRowsFew, 30),
                           MoveOnce(rng, kRowsMany, 41, kRowsFew, 41), MoveInfinity()});
  const CachedPlane plane(kRowsF32, 600, 12, 0, 0, RandomFloats(rng, 600 * 12));
  KeptRows kept;
  kept.plane = plane.view();
  kept.first = 1;
  kept.rows = 599;
  const DeviceArray<KeptRows> table(std::vector<KeptRows>{kept});
  KeepRows(table.data(), 1, plane.stride, nullptr);
  const std::vector<std::byte> now = plane.Now();
  return std::equal(now.begin(), now.end() - plane.stride, plane.bytes.begin() + plane.stride)
             ? worst
             : INFINITY;
}

// Rows of ones times a matrix of ones, or back, and rows reflected twice, which are as they were.
double RunProject(Rng& rng) {
  constexpr int64_t kWide = 64;
  const std::vector<float> values = RandomFloats(rng, 20 * kWide);
  std::vector<float> units(kWide * kWide, 0.0F);
  for (int64_t i = 0; i < kWide; ++i) {
    units[static_cast<size_t>(i * kWide + i / 2)] = std::sqrt(2.0F);
  }
  const DeviceArray<float> ones(std::vector<float>(kWide * kWide, 1.0F));
  const DeviceArray<float> reflectors(units);
  double worst = 0.0;
  for (const bool reflect : {false, true}) {
    for (const BasisWay way : {BasisWay::kToCoordinates, BasisWay::kFromCoordinates}) {
      const CachedPlane source(kRowsF32, 20, kWide, 0, 0, values);
      const CachedPlane target(kRowsF32, 20, kWide, 0, 0, values);
      RowProjection in;
      in.move.from = source.view();
      in.move.to = target.view();
      in.move.rows = 20;
      in.way = way;
      in.basis.width = in.basis.stride = kWide;
      in.basis.forward = in.basis.back = ones.data();
      in.basis.reflectors = reflect ? reflectors.data() : nullptr;
      in.basis.count = kWide;
      const DeviceArray<RowProjection> table(std::vector<RowProjection>{in});
      ProjectRows(table.data(), 1, {20, kWide}, nullptr);
      const std::vector<float> now = target.Decoded(target.Now());
      for (int64_t i = 0; i < 20 * kWide; ++i) {
        double want = values[static_cast<size_t>(i)];
        if (!reflect) {
          want = std::accumulate(values.begin() + i / kWide * kWide,
                                 values.begin() + (i / kWide + 1) * kWide, 0.0);
        }
        const double error = std::abs(now[static_cast<size_t>(i)] - want) / 1e-3;
        worst = error <= worst ? worst : error;
      }
    }
  }
  return worst;
}

// Dominant tokens, tiles that are not full, more rows of M than a tile has, and two parts of the
// tokens.
double RunScores(Rng& rng) {
  double worst = 0.0;
  for (const ScoreShape& shape :
       {ScoreShape{"", {70}, 64, 64, 3, 8, 40, 40, true, 1.5}, ScoreShape{"", {40}, 16, 100, 1, 4},
        ScoreShape{"", {2060}, 8, 8, 1, 3, 8, 3, true, 3.0}}) {
    ScoreCase scores(shape, kRowsF32, rng);
    const ScoreCase::Sums sums = scores.Run(true, true)[0];
    const ScoreCase::Bounds want = scores.BoundsOf(0);
    const auto compare = [&](const std::vector<float>& found, const std::vector<double>& expected,
                             const std::vector<double>& bound) {
      for (size_t j = 0; j < found.size(); ++j) {
        const double error = std::abs(found[j] - expected[j]) / (bound[j] + 1e-37);
        worst = error <= worst ? worst : std::isnan(error) ? INFINITY : error;
      }
    };
    compare(sums.attention, want.attention, want.attention_bound);
    compare(sums.error_sums, want.error_sums, want.error_sums_bound);
    compare(sums.error_maxima, want.error_maxima, want.error_maxima_bound);
    compare(sums.prompt_errors, want.prompt_errors, want.prompt_errors_bound);
  }
  return worst;
}

double Run(const std::string& what) {
  Rng rng(17);
  return what == "decode"    ? RunDecode(rng)
         : what == "prefill" ? RunPrefill(rng)
         : what == "rebuild" ? RunRebuild(rng)
         : what == "norm"    ? RunNorm(rng)
         : what == "product" ? RunProduct(rng)
         : what == "move"    ? RunMove(rng)
         : what == "sample"  ? RunSample(rng)
         : what == "project" ? RunProject(rng)
         : what == "select"  ? RunSelect(rng)
         : what == "finish"  ? RunFinish(rng)
         : what == "reserve" ? RunReserve(rng)
         : what == "scores"  ? RunScores(rng)
                             : RunElementwise(rng);
}

std::string Verdict(const std::string& what) {
  for (const uint64_t seed : {0, 1}) {
    emulator::Options options;
    options.seed = seed;
    options.count = seed == 0;
    emulator::SetOptions(options);
    const double worst = Run(what);
    if (!(worst <= 1.0)) {
      return fmt::format("wrong: {:.3g}", worst);
    }
  }
  const emulator::Traffic traffic = emulator::GetTraffic();
  const double passes = static_cast<double>(traffic.passes);
  const double least = static_cast<double>(traffic.least_passes);
  return passes > 1.2 * least ? fmt::format("conflicts: {:.2f}", passes / least) : "silent";
}

}  // namespace
}  // namespace kvc::cuda

int main(int argc, char** argv) {
  std::string verdict;
  try {
    verdict = kvc::cuda::Verdict(argc > 1 ? argv[1] : "decode");
  } catch (const kvc::Error& error) {
    verdict = fmt::format("report: {}", error.what());
  }
  std::puts(verdict.c_str());
  return 0;
}
