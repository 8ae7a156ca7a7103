#include "factorize/rank_tensors.h"

#include <string>

#include "core/base/error.h"
#include "core/base/rank_bytes.h"

namespace kvc::factorize {

using torch::Tensor;

std::span<float> Floats(const Tensor& tensor) {
  KVC_CHECK(tensor.device().is_cpu() && tensor.is_contiguous(), kInternal,
            "ranks: expected a dense tensor on the CPU");
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

std::vector<Tensor> ShareWindows(Ranks& ranks,
                                 const std::vector<Tensor>& own,
                                 int64_t count,
                                 const Tensor& like) {
  if (ranks.is_only()) return own;
  std::vector<Tensor> all;
  auto next = own.begin();
  for (int64_t i = 0; i < count; ++i) {
    const Tensor window =
        ranks.Owns(i) ? (next++)->cpu().contiguous() : torch::empty(like.sizes(), torch::kFloat32);
    ranks.Broadcast(std::as_writable_bytes(Floats(window)), ranks.OwnerOf(i));
    all.push_back(window.to(like.device()));
  }
  return all;
}

std::vector<double> ShareNumbers(Ranks& ranks, std::span<const double> own, int64_t count) {
  std::vector<std::string> mine;
  for (const double number : own) mine.push_back(ToBytes(std::vector<double>{number}));
  std::vector<double> numbers;
  for (const std::string& bytes : ranks.AllGatherParts(mine, count)) {
    numbers.push_back(FromBytes<double>(bytes).front());
  }
  return numbers;
}

}  // namespace kvc::factorize
