#pragma once
// A whole model in memory, the loss at its output on some windows, and the gradient of that loss by
// the matrices of every layer's query and key side, which share one flat buffer.
//
// The backward pass recomputes each layer's forward pass from the layer's input (activation
// checkpointing), so memory is one layer's activations and L + 1 hidden states of the windows for
// each thread.

#include <cstdint>
#include <span>
#include <vector>

#include <torch/types.h>

#include "core/base/thread_pool.h"
#include "factorize/output_loss.h"
#include "factorize/tune_steps.h"
#include "model/compute.h"

namespace kvc::factorize {

// One window of a training text.
struct TrainedWindow {
  const torch::Tensor& embedded;  // [T, E] what the first layer gets
  OutputTarget target;
};

// A full or thin model whose query and key side is trained.
class TrainedModel {
 public:
  // Copies the weights to the device of `compute` unless they are already there. `hidden` is the
  // input of the first layer for some windows, [T, E] each; step sizes are taken from it.
  TrainedModel(ModelConfig config,
               const std::vector<model::LayerWeights>& layers,
               const model::OuterWeights& outer,
               std::vector<torch::Tensor> hidden,
               const model::Compute& compute,
               ThreadPool& pool);

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const std::vector<model::LayerWeights>& layers() const { return layers_; }
  [[nodiscard]] int64_t count() const { return steps_.numel(); }
  // Returns the trained matrices, layer after layer, each divided by its step sizes: [count], on
  // the model's device. A rate of 0.01 in these units moves a weight by 0.01 of its step size.
  [[nodiscard]] torch::Tensor Scaled() const { return values_ / steps_; }
  void SetScaled(const torch::Tensor& scaled);

  // Returns the sum of the windows' losses; the windows are computed side by side and have equal
  // lengths. If `gradient` is given ([count], by the scaled matrices), the gradient of the sum is
  // written there and the layers compute in the precision of `compute`; otherwise in float32. May
  // run on several threads at once.
  [[nodiscard]] double Loss(std::span<const TrainedWindow> windows,
                            OutputLoss loss,
                            torch::Tensor* gradient) const;

 private:
  struct Entry {
    int64_t layer;
    TunedMember member;
    int64_t offset;  // in the flat buffers
  };
  void Flatten(std::vector<torch::Tensor> hidden, ThreadPool& pool);
  // Goes backward through a layer: writes its gradient by the trained matrices into `gradient` and
  // returns the one by its input [N, T, E] (undefined for the first layer).
  [[nodiscard]] torch::Tensor LayerGradient(int64_t layer,
                                            const torch::Tensor& input,
                                            const torch::Tensor& output_gradient,
                                            torch::Tensor& gradient) const;

  const ModelConfig config_;
  std::vector<model::LayerWeights> layers_;  // trained matrices are views of values_
  const model::OuterWeights outer_;
  const model::Precision precision_;
  std::vector<std::vector<Entry>> entries_;  // of each layer
  torch::Tensor values_;                     // [count]
  torch::Tensor steps_;                      // [count]
};

}  // namespace kvc::factorize
