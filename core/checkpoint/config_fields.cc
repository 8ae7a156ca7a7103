#include "core/checkpoint/config_fields.h"

#include <cmath>

#include "core/base/error.h"
#include "core/io/json.h"

namespace kvc {
namespace {

constexpr int64_t kLargestSize = 1LL << 31;

int64_t CheckSize(int64_t size, const char* key, const std::string& origin) {
  KVC_CHECK(size >= 1 && size < kLargestSize, kBadInput,
            "{}: {}: expected a size in 1..2^31, got {}", origin, key, size);
  return size;
}

double CheckPositive(double value, const char* key, const std::string& origin) {
  KVC_CHECK(std::isfinite(value) && value > 0.0, kBadInput,
            "{}: {}: expected a positive number, got {}", origin, key, value);
  return value;
}

}  // namespace

const Json* FindSet(const Json& config, const char* key) {
  const auto it = config.find(key);
  return it == config.end() || it->is_null() ? nullptr : &*it;
}

int64_t GetSize(const Json& config, const char* key, const std::string& origin) {
  return CheckSize(GetInt(config, key, origin), key, origin);
}

int64_t GetSize(const Json& config, const char* key, const std::string& origin, int64_t fallback) {
  return CheckSize(GetInt(config, key, origin, fallback), key, origin);
}

double GetPositive(const Json& object, const char* key, const std::string& origin) {
  return CheckPositive(GetDouble(object, key, origin), key, origin);
}

double GetPositive(const Json& object,
                   const char* key,
                   const std::string& origin,
                   double fallback) {
  return CheckPositive(GetDouble(object, key, origin, fallback), key, origin);
}

}  // namespace kvc
