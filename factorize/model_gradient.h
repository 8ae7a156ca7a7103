#pragma once
// A whole model in memory, the loss at its output on one window, and that loss's gradient by the
// matrices of every layer's query and key side, which lie in one flat buffer.
//
// Backward recomputes each layer's forward from the layer's input (activation checkpointing), so
// that memory is one layer's activations and L + 1 hidden states of a window for each thread.

#include <cstdint>
#include <vector>

#include <torch/types.h>

#include "core/thread_pool.h"
#include "factorize/output_loss.h"
#include "factorize/tune_steps.h"

namespace kvc::factorize {

// A full or thin model whose query and key side is trained.
class TrainedModel {
 public:
  // `hidden`: what enters the first layer in some windows [T, E] each; step sizes are taken from
  // them. `outer` must outlive the object.
  TrainedModel(ModelConfig config,
               std::vector<model::LayerWeights> layers,
               const model::OuterWeights& outer,
               std::vector<torch::Tensor> hidden,
               ThreadPool& pool);

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const std::vector<model::LayerWeights>& layers() const { return layers_; }
  [[nodiscard]] int64_t count() const { return steps_.numel(); }
  // The trained matrices, layer after layer, each divided by its step sizes: [count]. A rate of
  // 0.01 in these units moves a weight by 0.01 of its step size.
  [[nodiscard]] torch::Tensor Scaled() const { return values_ / steps_; }
  void SetScaled(const torch::Tensor& scaled);

  // Loss on a window whose first layer gets `embedded` [T, E]. With `gradient` ([count], by the
  // scaled matrices): its gradient is written there. May run on several threads at once.
  [[nodiscard]] double Loss(const torch::Tensor& embedded,
                            const OutputTarget& target,
                            OutputLoss loss,
                            torch::Tensor* gradient) const;

 private:
  struct Entry {
    int64_t layer;
    TunedMember member;
    int64_t offset;  // in the flat buffers
  };
  void Flatten(std::vector<torch::Tensor> hidden, ThreadPool& pool);
  // Backward through a layer: its gradient by the trained matrices into `gradient`, and by its
  // input [T, E], which is returned (undefined for the first layer).
  [[nodiscard]] torch::Tensor LayerGradient(int64_t layer,
                                            const torch::Tensor& input,
                                            const torch::Tensor& output_gradient,
                                            torch::Tensor& gradient) const;

  const ModelConfig config_;
  std::vector<model::LayerWeights> layers_;  // trained matrices are views of values_
  const model::OuterWeights& outer_;
  std::vector<std::vector<Entry>> entries_;  // of each layer
  torch::Tensor values_;                     // [count]
  torch::Tensor steps_;                      // [count]
};

}  // namespace kvc::factorize
