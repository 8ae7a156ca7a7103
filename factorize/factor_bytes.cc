#include "factorize/factor_bytes.h"

#include <cstring>
#include <type_traits>

#include "core/base/error.h"

namespace kvc::factorize {
namespace {

// Calls visit(field) for every field of `factors`.
template <class Factors, class Visit>
void ForEachField(Factors& factors, const Visit& visit) {
  visit(factors.ranks);
  visit(factors.k);
  visit(factors.k_rebuild);
  visit(factors.q);
  visit(factors.q_bias);
  visit(factors.k_bias);
  visit(factors.k_reduce);
  visit(factors.q_reduce);
  visit(factors.k_reduce_bias);
  visit(factors.pairs);
  visit(factors.logit_errors);
  visit(factors.spectra);
}

template <class T>
void Put(const std::vector<T>& values, std::string& bytes) {
  const uint64_t count = values.size();
  bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
  if constexpr (std::is_arithmetic_v<T>) {
    bytes.append(reinterpret_cast<const char*>(values.data()), count * sizeof(T));
  } else {
    for (const T& inner : values) Put(inner, bytes);
  }
}

// Reads from `at` on, which it moves.
void Copy(const std::string& bytes, size_t count, void* target, size_t& at) {
  KVC_CHECK(count <= bytes.size() - at, kInternal, "factors: expected {} bytes more, got {}", count,
            bytes.size() - at);
  if (count > 0) std::memcpy(target, bytes.data() + at, count);
  at += count;
}

template <class T>
void Get(const std::string& bytes, size_t& at, std::vector<T>& values) {
  uint64_t count = 0;
  Copy(bytes, sizeof count, &count, at);
  KVC_CHECK(count <= bytes.size(), kInternal, "factors: expected fewer than {} values", count);
  values.resize(count);
  if constexpr (std::is_arithmetic_v<T>) {
    Copy(bytes, count * sizeof(T), values.data(), at);
  } else {
    for (T& inner : values) Get(bytes, at, inner);
  }
}

}  // namespace

std::string PackFactors(const LayerFactors& factors) {
  std::string bytes;
  ForEachField(factors, [&](const auto& field) { Put(field, bytes); });
  return bytes;
}

LayerFactors UnpackFactors(const std::string& bytes) {
  LayerFactors factors;
  size_t at = 0;
  ForEachField(factors, [&](auto& field) { Get(bytes, at, field); });
  KVC_CHECK(at == bytes.size(), kInternal, "factors: expected {} bytes, got {}", at, bytes.size());
  return factors;
}

void ShareFactors(Ranks& ranks, std::vector<LayerFactors>& factors) {
  if (ranks.is_only()) return;
  for (int64_t l = 0; l < std::ssize(factors); ++l) {
    const int owner = ranks.OwnerOf(l);
    const bool mine = owner == ranks.rank();
    const std::string bytes = ranks.Broadcast(mine ? PackFactors(factors[l]) : "", owner);
    if (!mine) factors[l] = UnpackFactors(bytes);
  }
}

}  // namespace kvc::factorize
