#include "tests/cuda/score_case.h"

#include <algorithm>
#include <cmath>

#include "scorers/expected_queries.h"
#include "scorers/rotation.h"

namespace kvc::cuda {
namespace {

constexpr int64_t kRingExtra = 3;  // rows of the ring that the window does not take
constexpr int64_t kRingFirst = 5;  // of the window, modulo the ring
constexpr int64_t kStoredPad = 1;  // unused floats behind a head's query of the prompt
constexpr double kUnit = 0x1p-24;

double Dot(const float* a, const float* b, int64_t count) {
  double sum = 0.0;
  for (int64_t d = 0; d < count; ++d) sum += static_cast<double>(a[d]) * b[d];
  return sum;
}

}  // namespace

ScoreCase::ScoreCase(const ScoreShape& shape, const RowFormat& format, Rng& rng)
    : shape_(shape),
      scale_(static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.key_width)))) {
  MakeQueries(rng);
  const int64_t width = shape.key_width;
  for (size_t g = 0; g < shape.tokens.size(); ++g) {
    std::vector<float> key = RandomFloats(rng, shape.tokens[g] * width);
    const std::vector<float>& queries = window_[g * static_cast<size_t>(shape.group)];
    for (int64_t d = 0; shape.dominance > 0.0 && d < width; ++d) {
      double mean = 0.0;
      for (int64_t i = 0; i < shape.window; ++i) mean += queries[i * width + d];
      key[d] = static_cast<float>(shape.dominance * mean / static_cast<double>(shape.window));
      if (shape.tokens[g] > 5) {
        key[5 * width + d] =
            static_cast<float>(shape.dominance) * queries[(shape.window - 1) * width + d];
      }
    }
    const int64_t pad = format == kRowsF32 || format == kRowsInt8 ? 4 : 2;
    keys.emplace_back(format, shape.tokens[g], width, pad, key);
    values.emplace_back(format, shape.tokens[g], shape.value_width, 0,
                        RandomFloats(rng, shape.tokens[g] * shape.value_width));
  }
  MakeTurns();
  MakeGrams(rng);
}

const float* ScoreCase::Upload(const std::vector<float>& x) {
  arrays_.emplace_back(x.empty() ? std::vector<float>(1) : x);
  return arrays_.back().data();
}

int64_t ScoreCase::PromptRows(size_t head) const {
  return std::min(shape_.prompt_rows, shape_.tokens[head]);
}

// Queries with a mean, as real ones have.
void ScoreCase::MakeQueries(Rng& rng) {
  const int64_t width = shape_.key_width;
  const auto heads = static_cast<int64_t>(shape_.tokens.size()) * shape_.group;
  const int64_t ring = shape_.window + kRingExtra;
  std::vector<float> rows(static_cast<size_t>(ring * heads * width), NAN);
  std::vector<float> stored(static_cast<size_t>(shape_.prompt_rows * heads * (width + kStoredPad)),
                            NAN);
  for (int64_t h = 0; h < heads; ++h) {
    window_.push_back(RandomFloats(rng, shape_.window * width));
    prompt_.push_back(RandomFloats(rng, shape_.prompt_rows * width));
    for (float& q : window_.back()) q += 0.5F;
    for (float& q : prompt_.back()) q = 0.5F * q + 0.3F;
    for (int64_t i = 0; i < shape_.window; ++i) {
      std::copy_n(&window_.back()[i * width], width,
                  &rows[((kRingFirst + i) % ring * heads + h) * width]);
    }
    for (int64_t t = 0; t < shape_.prompt_rows; ++t) {
      std::copy_n(&prompt_.back()[t * width], width,
                  &stored[(t * heads + h) * (width + kStoredPad)]);
    }
  }
  ring_ = Upload(rows);
  stored_ = Upload(stored);
}

void ScoreCase::MakeTurns() {
  const int64_t width = shape_.key_width;
  const int64_t half = shape_.rope ? width / 2 : 0;
  const int64_t positions = *std::ranges::max_element(shape_.tokens);
  for (int64_t d = 0; d < half; ++d) {
    frequencies_.push_back(
        std::pow(10000.0, -2.0 * static_cast<double>(d) / static_cast<double>(width)));
  }
  for (int64_t p = 0; p < positions; ++p) {
    const scorers::MeanRotation rotation = scorers::AverageRotation(frequencies_, p, 1);
    cos_.insert(cos_.end(), rotation.cos.begin(), rotation.cos.end());
    sin_.insert(sin_.end(), rotation.sin.begin(), rotation.sin.end());
  }
  cos_device_ = Upload(cos_);
  sin_device_ = Upload(sin_);
  for (size_t g = 0; g < shape_.tokens.size(); ++g) {
    const int64_t rows = PromptRows(g);
    std::vector<float> cos;
    std::vector<float> sin;
    const int64_t count = scorers::ExpectedCount(rows, kSinks, shape_.prompt);
    for (int64_t i = 0; i < count; ++i) {
      const scorers::MeanRotation rotation = scorers::AverageRotation(
          frequencies_, scorers::ExpectedPosition(i, shape_.tokens[g], kFuture), 1);
      cos.insert(cos.end(), rotation.cos.begin(), rotation.cos.end());
      sin.insert(sin.end(), rotation.sin.begin(), rotation.sin.end());
    }
    to_cos_.push_back(Upload(cos));
    to_sin_.push_back(Upload(sin));
    for (int64_t h = 0; h < shape_.group; ++h) {
      const std::vector<float>& all = prompt_[g * static_cast<size_t>(shape_.group) + h];
      std::vector<float> x(all.end() - rows * width, all.end());
      for (int64_t t = 0; t < rows; ++t) {
        const int64_t angle = (shape_.tokens[g] - rows + t) * half;
        for (int64_t d = 0; d < half; ++d) {
          const float a = x[t * width + d];
          const float b = x[t * width + d + half];
          x[t * width + d] = a * cos_[angle + d] + b * sin_[angle + d];
          x[t * width + d + half] = b * cos_[angle + d] - a * sin_[angle + d];
        }
      }
      unrotated_.push_back(std::move(x));
    }
  }
}

void ScoreCase::MakeGrams(Rng& rng) {
  const int64_t width = shape_.value_width;
  const int64_t model = width + 7;
  for (size_t g = 0; g < shape_.tokens.size(); ++g) {
    std::vector<float> all;
    for (int64_t h = 0; h < shape_.group; ++h) {
      std::vector<float> projection = RandomFloats(rng, model * width);
      for (int64_t i = 0; i < std::ssize(projection); ++i) {
        projection[i] *= 0.02F * static_cast<float>(1 + i % width);
      }
      std::vector<float> gram(static_cast<size_t>(width * width));
      for (int64_t a = 0; a < width; ++a) {
        for (int64_t b = 0; b < width; ++b) {
          double sum = 0.0;
          for (int64_t e = 0; e < model; ++e) {
            sum += static_cast<double>(projection[e * width + a]) * projection[e * width + b];
          }
          gram[a * width + b] = static_cast<float>(sum);
        }
      }
      all.insert(all.end(), gram.begin(), gram.end());
      grams_.push_back(std::move(gram));
    }
    grams_device_.push_back(Upload(all));
  }
}

std::vector<ScoreHead> ScoreCase::Heads() const {
  const int64_t width = shape_.key_width;
  const auto kv_heads = static_cast<int64_t>(shape_.tokens.size());
  const int64_t heads = kv_heads * shape_.group;
  std::vector<ScoreHead> table;
  for (int64_t g = 0; g < kv_heads; ++g) {
    const auto rows = static_cast<int32_t>(PromptRows(g));
    ScoreHead& head = table.emplace_back();
    head.keys = keys[g].view();
    head.values = values[g].view();
    head.rows = static_cast<int32_t>(shape_.tokens[g]);
    head.group = static_cast<int32_t>(shape_.group);
    head.window.data = ring_ + g * shape_.group * width;
    head.window.stride = heads * width;
    head.window.head_stride = static_cast<int32_t>(width);
    head.window.ring = static_cast<int32_t>(shape_.window + kRingExtra);
    head.window.first = static_cast<int32_t>(kRingFirst % head.window.ring);
    head.window.rows = static_cast<int32_t>(shape_.window);
    head.grams = grams_device_[g];
    if (shape_.prompt == 0 || rows == 0) continue;
    head.prompt.data = stored_ + g * shape_.group * (width + kStoredPad);
    head.prompt.stride = heads * (width + kStoredPad);
    head.prompt.head_stride = static_cast<int32_t>(width + kStoredPad);
    head.prompt.first = static_cast<int32_t>(shape_.prompt_rows) - rows;
    head.prompt.rows = rows;
    head.turn.first = head.rows - rows;
    head.turn.skip = static_cast<int32_t>(scorers::SkippedSinks(rows, kSinks));
    head.turn.count = static_cast<int32_t>(scorers::ExpectedCount(rows, kSinks, shape_.prompt));
    if (shape_.rope) {
      head.turn.cos = cos_device_;
      head.turn.sin = sin_device_;
      head.turn.to_cos = to_cos_[g];
      head.turn.to_sin = to_sin_[g];
    }
  }
  return table;
}

std::vector<ScoreCase::Sums> ScoreCase::Run(bool attention, bool errors) {
  std::vector<ScoreHead> heads = Heads();
  std::deque<DeviceArray<float>> outputs;
  const auto output = [&](int32_t rows) {
    outputs.emplace_back(std::vector<float>(static_cast<size_t>(std::max(rows, 1)), -77.0F));
    return outputs.back().data();
  };
  for (ScoreHead& head : heads) {
    if (attention) head.attention = output(head.rows);
    if (!errors) continue;
    head.error_sums = output(head.rows);
    head.error_maxima = output(head.rows);
    head.prompt_errors = output(head.rows);
  }
  const ScorePlan plan = PlanScores(std::move(heads));
  const DeviceArray<ScoreHead> table(plan.heads);
  const DeviceArray<float> scratch(static_cast<size_t>(plan.scratch_floats));
  SumScores(plan, table.data(), scratch.data(), scale_, nullptr);
  std::vector<Sums> sums;
  auto next = outputs.begin();
  for (const ScoreHead& head : plan.heads) {
    const auto take = [&](std::vector<float>& to) {
      to = (next++)->Host();
      to.resize(static_cast<size_t>(head.rows));
    };
    Sums& of_head = sums.emplace_back();
    if (attention) take(of_head.attention);
    if (!errors) continue;
    take(of_head.error_sums);
    take(of_head.error_maxima);
    take(of_head.prompt_errors);
  }
  return sums;
}

scorers::HeadInput ScoreCase::Input(size_t head) const {
  scorers::HeadInput input;
  input.keys = keys[head].host();
  input.values = values[head].host();
  for (int64_t h = 0; h < shape_.group; ++h) {
    const size_t at = head * static_cast<size_t>(shape_.group) + h;
    input.queries.emplace_back(window_[at].data(), shape_.window, shape_.key_width);
    input.prompt_queries.emplace_back(unrotated_[at].data(), PromptRows(head), shape_.key_width);
    input.output_grams.emplace_back(grams_[at].data(), shape_.value_width, shape_.value_width);
  }
  input.rope_frequencies = frequencies_;
  input.residual_energy = kEnergy;
  input.scale = static_cast<double>(scale_);
  input.sinks = kSinks;
  return input;
}

scorers::TokenSums ScoreCase::Counts(size_t head) const {
  scorers::TokenSums counts;
  counts.heads = shape_.group;
  counts.window = std::min(shape_.window, shape_.tokens[head]);
  counts.prompt_queries = scorers::ExpectedCount(PromptRows(head), kSinks, shape_.prompt);
  counts.sinks = kSinks;
  counts.residual_energy = kEnergy;
  return counts;
}

std::vector<ScoreCase::View> ScoreCase::Views(size_t head) const {
  const int64_t width = shape_.key_width;
  const int64_t half = width / 2;
  const int64_t tokens = shape_.tokens[head];
  const scorers::TokenSums counts = Counts(head);
  std::vector<View> views;
  for (int64_t h = 0; h < shape_.group; ++h) {
    const size_t at = head * static_cast<size_t>(shape_.group) + h;
    for (int64_t i = 0; i < counts.window; ++i) {
      const float* row = &window_[at][(shape_.window - counts.window + i) * width];
      View& view = views.emplace_back();
      view.x.assign(row, row + width);
      for (const float x : view.x) view.size.push_back(std::abs(x));
      view.gram = &grams_[at];
      Look(head, tokens - counts.window + i + 1, view);
    }
    for (int64_t i = 0; i < counts.prompt_queries; ++i) {
      const int64_t from = scorers::ExpectedRow(i, counts.prompt_queries, PromptRows(head), kSinks);
      View& view = views.emplace_back();
      view.x.assign(&unrotated_[at][from * width], &unrotated_[at][from * width] + width);
      scorers::Rotate(
          scorers::AverageRotation(frequencies_, scorers::ExpectedPosition(i, tokens, kFuture), 1),
          view.x.data(), 1);
      for (int64_t d = 0; d < width; ++d) {
        const float other = shape_.rope ? view.x[(d + half) % width] : 0.0F;
        view.size.push_back(std::abs(view.x[d]) + std::abs(other));
      }
      view.window = false;
      view.gram = &grams_[at];
      Look(head, tokens, view);
    }
  }
  return views;
}

// Fills attention and outputs of a query that sees `visible` tokens.
void ScoreCase::Look(size_t head, int64_t visible, View& view) const {
  const int64_t tokens = shape_.tokens[head];
  const int64_t width = shape_.value_width;
  view.a.assign(static_cast<size_t>(tokens), 0.0);
  double most = 0.0;
  double peak = -INFINITY;
  for (int64_t j = 0; j < visible; ++j) {
    const float* key = keys[head].host().row(j);
    double size = 0.0;
    for (int64_t d = 0; d < shape_.key_width; ++d) size += view.size[d] * std::abs(key[d]);
    most = std::max(most, size * scale_);
    view.a[j] = Dot(view.x.data(), key, shape_.key_width) * scale_;
    peak = std::max(peak, view.a[j]);
  }
  double sum = 0.0;
  for (int64_t j = 0; j < visible; ++j) sum += view.a[j] = std::exp(view.a[j] - peak);
  for (double& share : view.a) share /= sum;
  view.rounding = kUnit * (2.0 * static_cast<double>(shape_.key_width + 10) * most +
                           static_cast<double>(tokens) / 16.0 + 20.0);
  view.dominant = std::ranges::max_element(view.a) - view.a.begin();
  for (auto* row : {&view.o, &view.others, &view.o_size}) row->assign(width, 0.0);
  for (int64_t j = 0; j < visible; ++j) {
    view.rest += j == view.dominant ? 0.0 : view.a[j];
    for (int64_t d = 0; d < width; ++d) {
      const double term = view.a[j] * values[head].host()(j, d);
      view.o[d] += term;
      view.o_size[d] += std::abs(term);
      view.others[d] += j == view.dominant ? 0.0 : term;
    }
  }
  for (double& x : view.others) x = view.rest > 1e-30 ? x / view.rest : 0.0;
}

}  // namespace kvc::cuda
