#include "solver/narrow_choices.h"

#include <algorithm>
#include <limits>

namespace kvc::solver {
namespace {

constexpr double kUnreachable = std::numeric_limits<double>::infinity();
// With more states than this the last bytes are not worth the time.
constexpr int64_t kMaxStates = 1 << 14;

// A tier that a token may take, as a difference from its choice.
struct Option {
  int64_t units = 0;     // additional bytes, in units
  double penalty = 0.0;  // additional loss, plus lambda times the additional bytes
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

// The least penalties after the choices of some tokens, and how they are reached. State s stands
// for s - reach units more than the tokens hold now.
struct Table {
  int64_t reach = 0;
  int64_t states = 0;
  std::vector<double> penalties;  // [states]
  std::vector<uint8_t> taken;     // [tokens, states], the option on the way to each state
};

void FillTable(const std::vector<std::vector<Option>>& options, Table& table) {
  const auto states = static_cast<size_t>(table.states);
  table.penalties.assign(states, kUnreachable);
  table.penalties[table.reach] = 0.0;
  table.taken.resize(options.size() * states);
  std::vector<double> next;
  for (size_t i = 0; i < options.size(); ++i) {
    next.assign(states, kUnreachable);
    uint8_t* taken_i = table.taken.data() + i * states;
    for (size_t o = 0; o < options[i].size(); ++o) {
      const Option& option = options[i][o];
      const int64_t begin = std::max<int64_t>(0, option.units);
      const int64_t end = std::min(table.states, table.states + option.units);
      for (int64_t s = begin; s < end; ++s) {
        const double penalty = table.penalties[s - option.units] + option.penalty;
        if (penalty < next[s]) {
          next[s] = penalty;
          taken_i[s] = static_cast<uint8_t>(o);
        }
      }
    }
    table.penalties.swap(next);
  }
}

// The best state with at most `limit` units more, where an unspent unit costs `price`; -1 when none
// is better than the choices as they are.
int64_t BestState(const Table& table, int64_t limit, double price) {
  const double unchanged = price * static_cast<double>(limit);
  int64_t best = -1;
  double best_total = unchanged;
  for (int64_t s = 0; s <= table.reach + limit; ++s) {
    const double total =
        table.penalties[s] + price * static_cast<double>(limit - (s - table.reach));
    if (total < best_total) {
      best_total = total;
      best = s;
    }
  }
  return best;
}

}  // namespace

void RefineChoices(double lambda, int64_t unit, int64_t& room, std::vector<NarrowToken>& tokens) {
  const int64_t limit = room / unit;  // units that may be spent in addition
  std::vector<std::vector<Option>> options;
  int64_t reach = limit;
  for (const NarrowToken& token : tokens) {
    options.push_back(OptionsOf(token, lambda, unit));
    for (const Option& option : options.back()) reach = std::max(reach, std::abs(option.units));
  }
  Table table;
  table.reach = 2 * reach;
  table.states = 2 * table.reach + 1;
  if (table.states > kMaxStates) return;
  FillTable(options, table);
  int64_t state = BestState(table, limit, lambda * static_cast<double>(unit));
  if (state < 0) return;
  room -= (state - table.reach) * unit;
  for (size_t i = tokens.size(); i-- > 0;) {
    const Option& option = options[i][table.taken[i * static_cast<size_t>(table.states) + state]];
    tokens[i].choice = option.column;
    state -= option.units;
  }
}

}  // namespace kvc::solver
