#include "factorize/output_loss.h"

#include <algorithm>
#include <utility>

#include <torch/autograd.h>

#include "core/base/enum_names.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

constexpr std::pair<OutputLoss, std::string_view> kOutputLosses[] = {{OutputLoss::kKl, "kl"},
                                                                     {OutputLoss::kCe, "ce"}};

// Returns the tokens whose logits are in memory at once, for each thread: 128 x 49,152 floats are
// 25 MB. It takes more to fill a device.
int64_t BlockRows(const Tensor& hidden) { return hidden.is_cuda() ? 1024 : 128; }

// Loss of a block of tokens, summed, and its gradient by the logits.
struct BlockError {
  double sum = 0.0;
  Tensor logits;  // [rows, V]
};

// KL(p || q) of rows, from logits of both [rows, V].
BlockError KlError(const Tensor& logits, const Tensor& reference) {
  const Tensor log_q = torch::log_softmax(logits, -1);     // [rows, V]
  const Tensor log_p = torch::log_softmax(reference, -1);  // [rows, V]
  const Tensor p = log_p.exp();
  const double sum = ((log_p - log_q).mul_(p)).sum(-1).sum(torch::kDouble).item<double>();
  return {sum, log_q.exp().sub_(p)};
}

// -log q(next) of rows; next [rows, 1].
BlockError CrossEntropyError(const Tensor& logits, const Tensor& next) {
  const Tensor log_q = torch::log_softmax(logits, -1);  // [rows, V]
  const double sum = -log_q.gather(1, next).sum(torch::kDouble).item<double>();
  return {sum,
          log_q.exp().scatter_add_(1, next, torch::full(next.sizes(), -1.0F, logits.options()))};
}

Tensor LogitsOf(const ModelConfig& config, const model::OuterWeights& outer, const Tensor& rows) {
  return model::Logits(config, outer, rows.unsqueeze(0)).squeeze(0);  // [rows, V]
}

}  // namespace

std::string_view OutputLossName(OutputLoss loss) { return EnumName(kOutputLosses, loss); }

OutputLoss OutputLossFromName(std::string_view name) {
  return EnumValue(kOutputLosses, name, "--loss");
}

OutputError MeasureOutput(const ModelConfig& config,
                          const model::OuterWeights& outer,
                          const Tensor& hidden,
                          const OutputTarget& target,
                          OutputLoss loss,
                          bool with_gradient) {
  const int64_t tokens = hidden.size(0) - 1;
  const Tensor next = torch::tensor(std::vector<int64_t>(target.ids.begin() + 1, target.ids.end()))
                          .unsqueeze(1)
                          .to(hidden.device());
  OutputError error;
  if (with_gradient) error.hidden = torch::zeros_like(hidden);  // the last token has no successor
  double sum = 0.0;
  const int64_t step = BlockRows(hidden);
  for (int64_t first = 0; first < tokens; first += step) {
    const int64_t rows = std::min(step, tokens - first);
    const Tensor x =
        hidden.narrow(0, first, rows).detach().clone().requires_grad_(with_gradient);  // [rows, E]
    Tensor logits;
    {
      const torch::AutoGradMode grad(with_gradient);
      logits = LogitsOf(config, outer, x);  // [rows, V]
    }
    const torch::NoGradGuard no_grad;
    const BlockError block =
        loss == OutputLoss::kKl
            ? KlError(logits.detach(),
                      LogitsOf(config, outer, target.hidden.narrow(0, first, rows).to(x.device())))
            : CrossEntropyError(logits.detach(), next.narrow(0, first, rows));
    sum += block.sum;
    if (!with_gradient) continue;
    const auto gradient = torch::autograd::grad({logits}, {x}, {block.logits});  // [rows, E]
    error.hidden.narrow(0, first, rows).copy_(gradient[0]).div_(static_cast<double>(tokens));
  }
  error.loss = sum / static_cast<double>(tokens);
  return error;
}

}  // namespace kvc::factorize
