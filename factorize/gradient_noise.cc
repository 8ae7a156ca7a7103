#include "factorize/gradient_noise.h"

#include "core/io/json.h"

namespace kvc::factorize {

void GradientNoise::Add(int64_t count, double sum_of_squares, double square_of_sum) {
  square_ += sum_of_squares;
  product_ += square_of_sum - sum_of_squares;
  squares_ += count;
  products_ += count * (count - 1);
}

std::optional<double> GradientNoise::Windows() const {
  if (products_ == 0 || product_ <= 0.0) return std::nullopt;
  const double square = square_ / static_cast<double>(squares_);
  return square / (product_ / static_cast<double>(products_));
}

Json GradientNoise::ToJson() const {
  return {
      {"square", square_}, {"product", product_}, {"squares", squares_}, {"products", products_}};
}

GradientNoise GradientNoise::FromJson(const Json& json, const std::string& origin) {
  GradientNoise noise;
  noise.square_ = GetDouble(json, "square", origin);
  noise.product_ = GetDouble(json, "product", origin);
  noise.squares_ = GetInt(json, "squares", origin);
  noise.products_ = GetInt(json, "products", origin);
  return noise;
}

}  // namespace kvc::factorize
