#include "solver/narrow_choices.h"

#include <algorithm>
#include <limits>

namespace kvc::solver {
namespace {

constexpr double kUnreachable = std::numeric_limits<double>::infinity();
// Beyond this many states the last bytes are not worth the time.
constexpr int64_t kMaxStates = 1 << 14;

// A tier that a token may take, as a departure from its choice.
struct Option {
  int64_t units = 0;     // bytes more, in units
  double penalty = 0.0;  // loss more, plus lambda times the bytes more
  uint8_t column = 0;
};

std::vector<Option> OptionsOf(const NarrowToken& token, double lambda, int64_t unit) {
  std::vector<Option> options;
  const TierColumns& tiers = *token.tiers;
  for (int64_t t = 0; t < tiers.count; ++t) {
    if (std::isinf(token.losses[t])) continue;
    const int64_t cost = tiers.costs[t] - tiers.costs[token.choice];
    const double loss = static_cast<double>(token.losses[t]) - token.losses[token.choice];
    options.push_back(
        {cost / unit, loss + lambda * static_cast<double>(cost), static_cast<uint8_t>(t)});
  }
  return options;
}

}  // namespace

void ChooseAnew(double lambda, int64_t unit, int64_t& room, std::vector<NarrowToken>& tokens) {
  const int64_t limit = room / unit;  // departures of at most this fit
  std::vector<std::vector<Option>> options;
  int64_t reach = limit;
  for (const NarrowToken& token : tokens) {
    options.push_back(OptionsOf(token, lambda, unit));
    for (const Option& option : options.back()) reach = std::max(reach, std::abs(option.units));
  }
  reach *= 2;
  const int64_t states = 2 * reach + 1;  // state s: s - reach units more than before
  if (states > kMaxStates) return;
  std::vector<double> penalties(static_cast<size_t>(states), kUnreachable);
  penalties[reach] = 0.0;
  std::vector<double> next;
  std::vector<uint8_t> taken(tokens.size() * static_cast<size_t>(states));  // option on the way
  for (size_t i = 0; i < tokens.size(); ++i) {
    next.assign(static_cast<size_t>(states), kUnreachable);
    uint8_t* taken_i = taken.data() + i * static_cast<size_t>(states);
    for (size_t o = 0; o < options[i].size(); ++o) {
      const Option& option = options[i][o];
      const int64_t begin = std::max<int64_t>(0, option.units);
      const int64_t end = std::min(states, states + option.units);
      for (int64_t s = begin; s < end; ++s) {
        const double penalty = penalties[s - option.units] + option.penalty;
        if (penalty < next[s]) {
          next[s] = penalty;
          taken_i[s] = static_cast<uint8_t>(o);
        }
      }
    }
    penalties.swap(next);
  }
  // What stays unspent costs lambda.
  const double price = lambda * static_cast<double>(unit);
  int64_t best = reach;
  double best_total = price * static_cast<double>(limit);  // everything as it is
  for (int64_t s = 0; s <= reach + limit; ++s) {
    const double total = penalties[s] + price * static_cast<double>(limit - (s - reach));
    if (total < best_total) {
      best_total = total;
      best = s;
    }
  }
  if (best_total >= price * static_cast<double>(limit)) return;
  room -= (best - reach) * unit;
  for (size_t i = tokens.size(); i-- > 0;) {
    const Option& option = options[i][taken[i * static_cast<size_t>(states) + best]];
    tokens[i].choice = option.column;
    best -= option.units;
  }
}

}  // namespace kvc::solver
