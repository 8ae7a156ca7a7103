#pragma once
// Scores from the formulas of docs/notation.md, element by element in double. Nothing here is
// shared with what it checks.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace kvc::reference {

using Rows = std::vector<std::vector<double>>;  // [rows][width]

inline double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

inline std::vector<double> Softmax(const std::vector<double>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(logits.size());
  double sum = 0.0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(logits[i] - largest);
  for (double& x : p) x /= sum;
  return p;
}

// Mean attention that each token receives from the queries of the last positions, before pooling.
// queries: [head][W][D]; row i has position T - W + i and sees keys up to itself.
inline std::vector<double> MeanWindowAttention(const Rows& keys,
                                               const std::vector<Rows>& queries,
                                               double scale) {
  const int64_t num_tokens = static_cast<int64_t>(keys.size());
  std::vector<double> mean(keys.size(), 0.0);
  int64_t count = 0;
  for (const Rows& head : queries) {
    for (size_t i = 0; i < head.size(); ++i) {
      const int64_t position =
          num_tokens - static_cast<int64_t>(head.size()) + static_cast<int64_t>(i);
      if (position < 0) continue;
      std::vector<double> logits;
      for (int64_t j = 0; j <= position; ++j) logits.push_back(scale * Dot(head[i], keys[j]));
      const std::vector<double> p = Softmax(logits);
      for (size_t j = 0; j < p.size(); ++j) mean[j] += p[j];
      ++count;
    }
  }
  for (double& x : mean) x /= static_cast<double>(count);
  return mean;
}

inline std::vector<double> SnapKv(const Rows& keys,
                                  const std::vector<Rows>& queries,
                                  double scale,
                                  int64_t pool) {
  const std::vector<double> mean = MeanWindowAttention(keys, queries, scale);
  const int64_t num_tokens = static_cast<int64_t>(keys.size());
  const int64_t split =
      std::max<int64_t>(0, num_tokens - static_cast<int64_t>(queries.front().size()));
  std::vector<double> scores;
  for (int64_t j = 0; j < num_tokens; ++j) {
    double best = -1.0;
    for (int64_t i = j - pool / 2; i <= j + pool / 2; ++i) {
      const bool same_side = (i < split) == (j < split);
      if (i >= 0 && i < num_tokens && same_side) best = std::max(best, mean[i]);
    }
    scores.push_back(best);
  }
  return scores;
}

struct OutputErrorSettings {
  double scale = 1.0;
  double residual_energy = 1.0;
  int64_t pool = 11;
  bool mean = false;
};

// Attention's output over values [T, D] for the logits of the tokens that are seen; token `without`
// is left out. Zero when nothing is left.
inline std::vector<double> OutputWithout(const std::vector<double>& logits,
                                         const Rows& values,
                                         size_t without) {
  std::vector<double> sum(values.front().size(), 0.0);
  double largest = -1e300;
  for (size_t j = 0; j < logits.size(); ++j) {
    if (j != without) largest = std::max(largest, logits[j]);
  }
  double total = 0.0;
  for (size_t j = 0; j < logits.size(); ++j) {
    if (j == without) continue;
    const double p = std::exp(logits[j] - largest);
    total += p;
    for (size_t d = 0; d < sum.size(); ++d) sum[d] += p * values[j][d];
  }
  for (double& x : sum) x = total > 0.0 ? x / total : 0.0;
  return sum;
}

// |output without token j - output|^2 behind the projection [E][D] for every token j that a query
// sees, by leaving the token out of the softmax.
inline std::vector<double> OutputChanges(const std::vector<double>& logits,
                                         const Rows& values,
                                         const Rows& projection) {
  const std::vector<double> all = OutputWithout(logits, values, logits.size());
  std::vector<double> errors;
  for (size_t j = 0; j < logits.size(); ++j) {
    std::vector<double> change = OutputWithout(logits, values, j);
    for (size_t d = 0; d < change.size(); ++d) change[d] -= all[d];
    double error = 0.0;
    for (const auto& row : projection) error += Dot(row, change) * Dot(row, change);
    errors.push_back(error);
  }
  return errors;
}

// Max or mean of OutputChanges over the window's queries and the heads, then max-pooled.
// projections: [head][E][D].
inline std::vector<double> OutputError(const Rows& keys,
                                       const Rows& values,
                                       const std::vector<Rows>& queries,
                                       const std::vector<Rows>& projections,
                                       const OutputErrorSettings& s) {
  const size_t num_tokens = keys.size();
  const size_t window = std::min(queries.front().size(), num_tokens);
  std::vector<double> errors(num_tokens, 0.0);
  for (size_t h = 0; h < queries.size(); ++h) {
    for (size_t i = 0; i < window; ++i) {
      const auto& query = queries[h][queries[h].size() - window + i];
      std::vector<double> logits;
      for (size_t j = 0; j <= num_tokens - window + i; ++j) {
        logits.push_back(s.scale * Dot(query, keys[j]));
      }
      const std::vector<double> changes = OutputChanges(logits, values, projections[h]);
      for (size_t j = 0; j < changes.size(); ++j) {
        errors[j] = s.mean ? errors[j] + changes[j] : std::max(errors[j], changes[j]);
      }
    }
  }
  const double weight = s.mean ? static_cast<double>(window * queries.size()) : 1.0;
  std::vector<double> scores;
  for (size_t j = 0; j < num_tokens; ++j) {
    const size_t begin = j < num_tokens - window ? 0 : num_tokens - window;
    const size_t end = j < num_tokens - window ? num_tokens - window : num_tokens;
    double best = 0.0;
    for (size_t i = begin; i < end; ++i) {
      const auto distance = static_cast<int64_t>(i) - static_cast<int64_t>(j);
      if (std::abs(distance) <= s.pool / 2) best = std::max(best, errors[i]);
    }
    scores.push_back(best / (weight * s.residual_energy));
  }
  return scores;
}

struct ExpectedErrorSettings {
  std::vector<double> frequencies;  // [D/2] or empty
  double scale = 1.0;
  double residual_energy = 1.0;
  int64_t sinks = 4;
  int64_t prompt = 0;
  int64_t future = 512;
};

// Mean of OutputChanges over up to `prompt` queries, evenly spaced behind the sinks, that see every
// token from the positions T + floor(future frac(i golden ratio)). prompts: [head][T', D] before
// rotation.
inline std::vector<double> ExpectedError(const Rows& keys,
                                         const Rows& values,
                                         const std::vector<Rows>& prompts,
                                         const std::vector<Rows>& projections,
                                         const ExpectedErrorSettings& s) {
  const auto rows = static_cast<int64_t>(prompts.front().size());
  const int64_t skipped = rows > s.sinks ? s.sinks : 0;
  const int64_t count = std::min(s.prompt, rows - skipped);
  const double golden = (std::sqrt(5.0) - 1.0) / 2.0;
  std::vector<double> scores(keys.size(), 0.0);
  for (size_t h = 0; h < prompts.size(); ++h) {
    for (int64_t i = 0; i < count; ++i) {
      std::vector<double> query =
          prompts[h][static_cast<size_t>(skipped + (rows - skipped) * i / count)];
      const double steps = static_cast<double>(i) * golden;
      const double position =
          static_cast<double>(keys.size()) +
          std::floor((steps - std::floor(steps)) * static_cast<double>(s.future));
      const size_t half = s.frequencies.size();
      for (size_t d = 0; d < half; ++d) {
        const double x = query[d];
        const double y = query[d + half];
        const double angle = position * s.frequencies[d];
        query[d] = x * std::cos(angle) - y * std::sin(angle);
        query[d + half] = y * std::cos(angle) + x * std::sin(angle);
      }
      std::vector<double> logits;
      for (const auto& key : keys) logits.push_back(s.scale * Dot(query, key));
      const std::vector<double> changes = OutputChanges(logits, values, projections[h]);
      for (size_t j = 0; j < changes.size(); ++j) scores[j] += changes[j];
    }
  }
  for (double& score : scores) {
    score /= static_cast<double>(count) * static_cast<double>(prompts.size()) * s.residual_energy;
  }
  return scores;
}

inline std::vector<double> KeyDiff(const Rows& keys) {
  std::vector<double> anchor(keys.front().size(), 0.0);
  for (const auto& key : keys) {
    const double norm = std::sqrt(Dot(key, key));
    for (size_t d = 0; d < key.size() && norm > 0; ++d) {
      anchor[d] += key[d] / norm / static_cast<double>(keys.size());
    }
  }
  std::vector<double> scores;
  for (const auto& key : keys) {
    const double norms = std::sqrt(Dot(key, key)) * std::sqrt(Dot(anchor, anchor));
    scores.push_back(norms > 0 ? -Dot(key, anchor) / norms : 0.0);
  }
  return scores;
}

struct ExpectedAttentionSettings {
  std::vector<double> frequencies;  // [D/2] or empty
  double scale = 1.0;
  int64_t sinks = 4;
  int64_t future = 512;
  double epsilon = 0.02;
  bool use_covariance = true;
};

// [D, D] mean over positions T .. T + future - 1 of the rotation (identity without frequencies).
inline Rows MeanRotation(int64_t num_tokens, size_t width, const ExpectedAttentionSettings& s) {
  Rows rotation(width, std::vector<double>(width, 0.0));
  for (size_t d = 0; d < width && s.frequencies.empty(); ++d) rotation[d][d] = 1.0;
  for (int64_t p = num_tokens; p < num_tokens + s.future; ++p) {
    for (size_t d = 0; d < s.frequencies.size(); ++d) {
      const double angle = static_cast<double>(p) * s.frequencies[d];
      const size_t e = d + width / 2;
      rotation[d][d] += std::cos(angle) / static_cast<double>(s.future);
      rotation[e][e] += std::cos(angle) / static_cast<double>(s.future);
      rotation[d][e] -= std::sin(angle) / static_cast<double>(s.future);
      rotation[e][d] += std::sin(angle) / static_cast<double>(s.future);
    }
  }
  return rotation;
}

inline std::vector<double> ExpectedAttention(const Rows& keys,
                                             const Rows& values,
                                             const std::vector<Rows>& prompt_queries,
                                             const ExpectedAttentionSettings& s) {
  const size_t num_tokens = keys.size();
  const size_t width = keys.front().size();
  const size_t sinks = num_tokens > static_cast<size_t>(s.sinks) ? s.sinks : 0;
  const Rows rotation = MeanRotation(static_cast<int64_t>(num_tokens), width, s);
  std::vector<double> attention(num_tokens - sinks, 0.0);
  for (const Rows& queries : prompt_queries) {
    const size_t first = queries.size() > sinks ? sinks : 0;
    const double count = static_cast<double>(queries.size() - first);
    std::vector<double> mean(width, 0.0);
    for (size_t t = first; t < queries.size(); ++t) {
      for (size_t d = 0; d < width; ++d) mean[d] += queries[t][d] / count;
    }
    std::vector<double> logits;
    for (size_t j = sinks; j < num_tokens; ++j) {
      // k Rbar (q - mean) for each prompt query: k Sigma' k is the mean of its square.
      std::vector<double> turned(width, 0.0);  // k Rbar
      for (size_t d = 0; d < width; ++d) {
        for (size_t e = 0; e < width; ++e) turned[e] += keys[j][d] * rotation[d][e];
      }
      double logit = s.scale * Dot(turned, mean);
      for (size_t t = first; t < queries.size() && s.use_covariance; ++t) {
        const double deviation = Dot(turned, queries[t]) - Dot(turned, mean);
        logit += 0.5 * s.scale * s.scale * deviation * deviation / count;
      }
      logits.push_back(logit);
    }
    const std::vector<double> p = Softmax(logits);
    for (size_t j = 0; j < p.size(); ++j) {
      attention[j] += p[j] / static_cast<double>(prompt_queries.size());
    }
  }
  std::vector<double> scores(num_tokens, 0.0);
  double highest = 0.0;
  for (size_t j = sinks; j < num_tokens; ++j) {
    scores[j] = (attention[j - sinks] + s.epsilon) * std::sqrt(Dot(values[j], values[j]));
    highest = std::max(highest, scores[j]);
  }
  for (size_t j = 0; j < sinks; ++j) scores[j] = highest;
  return scores;
}

}  // namespace kvc::reference
