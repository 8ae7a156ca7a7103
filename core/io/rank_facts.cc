#include "core/io/rank_facts.h"

#include "core/io/json.h"

namespace kvc {

RankFacts FactsOf(const Json& object) {
  RankFacts facts;
  facts.reserve(object.size());
  for (const auto& [key, value] : object.items()) facts.emplace_back(key, value.dump());
  return facts;
}

}  // namespace kvc
