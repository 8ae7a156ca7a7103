#include "model/placement.h"

#include <string>
#include <utility>

#include <ATen/autocast_mode.h>
#include <c10/util/Exception.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include "core/base/enum_names.h"
#include "core/base/error.h"

namespace kvc::model {
namespace {

constexpr std::pair<Precision, std::string_view> kPrecisions[] = {{Precision::kF32, "f32"},
                                                                  {Precision::kBF16, "bf16"}};

using torch::Tensor;

bool IsMixed() {
#if TORCH_VERSION_MAJOR >= 2
  return at::autocast::is_autocast_enabled(at::kCUDA);
#else
  return at::autocast::is_enabled();
#endif
}

void SetMixed(bool mixed) {
#if TORCH_VERSION_MAJOR >= 2
  at::autocast::set_autocast_enabled(at::kCUDA, mixed);
  if (mixed) at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
#else
  at::autocast::set_enabled(mixed);
  if (mixed) at::autocast::set_autocast_gpu_dtype(at::kBFloat16);
#endif
}

Tensor Place(const Tensor& tensor, torch::Device device) {
  return tensor.defined() ? tensor.to(device) : tensor;
}

}  // namespace

std::string_view PrecisionName(Precision precision) { return EnumName(kPrecisions, precision); }

Compute ChooseCompute(std::string_view device, std::string_view precision) {
  const bool present = torch::cuda::is_available();
  KVC_CHECK(device != "cuda" || present, kDevice,
            "--device: expected a CUDA device that LibTorch {} can use, got none; build with "
            "-DTorch_DIR= of a LibTorch with CUDA, or use --device cpu",
            TORCH_VERSION);
  Compute compute;
  compute.cuda = device != "cpu" && present;
  KVC_CHECK(precision != "bf16" || compute.cuda, kUsage,
            "--precision: expected f32, which is what the CPU tunes in, got bf16");
  const bool mixed = compute.cuda && precision != "f32";
  compute.precision = mixed ? Precision::kBF16 : Precision::kF32;
  return compute;
}

void RunOn(const Compute& compute, const std::function<void()>& work) {
  if (!compute.cuda) return work();
  try {
    work();
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    KVC_THROW(kDevice,
              "CUDA device: expected enough memory and no failure, got \"{}\"; use a smaller "
              "--window or --tune-step-tokens, or --device cpu",
              text.substr(0, text.find('\n')));
  }
}

torch::Device DeviceOf(const Compute& compute) {
  return compute.cuda ? torch::Device(torch::kCUDA, 0) : torch::Device(torch::kCPU);
}

LayerWeights PlaceOn(const LayerWeights& weights, torch::Device device) {
  const auto place = [&](const Tensor& tensor) { return Place(tensor, device); };
  LayerWeights placed;
  placed.attn_norm = place(weights.attn_norm);
  placed.attn_norm_bias = place(weights.attn_norm_bias);
  placed.q = place(weights.q);
  placed.q_bias = place(weights.q_bias);
  placed.k = place(weights.k);
  placed.k_bias = place(weights.k_bias);
  placed.v = place(weights.v);
  placed.v_bias = place(weights.v_bias);
  placed.o = place(weights.o);
  placed.o_bias = place(weights.o_bias);
  placed.q_norm = place(weights.q_norm);
  placed.k_norm = place(weights.k_norm);
  placed.k_rebuild = place(weights.k_rebuild);
  placed.k_reduce = place(weights.k_reduce);
  placed.k_reduce_bias = place(weights.k_reduce_bias);
  placed.q_reduce = place(weights.q_reduce);
  placed.mlp_norm = place(weights.mlp_norm);
  placed.mlp_norm_bias = place(weights.mlp_norm_bias);
  placed.gate = place(weights.gate);
  placed.gate_bias = place(weights.gate_bias);
  placed.up = place(weights.up);
  placed.up_bias = place(weights.up_bias);
  placed.down = place(weights.down);
  placed.down_bias = place(weights.down_bias);
  return placed;
}

OuterWeights PlaceOn(const OuterWeights& weights, torch::Device device) {
  OuterWeights placed;
  placed.lm_head = Place(weights.lm_head, device);
  const bool tied = weights.embedding.defined() && weights.embedding.is_alias_of(weights.lm_head);
  placed.embedding = tied ? placed.lm_head : Place(weights.embedding, device);
  placed.position_embedding = Place(weights.position_embedding, device);
  placed.final_norm = Place(weights.final_norm, device);
  placed.final_norm_bias = Place(weights.final_norm_bias, device);
  return placed;
}

PrecisionScope::PrecisionScope(Precision precision) : outer_mixed_(IsMixed()) {
  SetMixed(precision == Precision::kBF16);
}

PrecisionScope::~PrecisionScope() {
  if (!outer_mixed_) at::autocast::clear_cache();
  SetMixed(outer_mixed_);
}

}  // namespace kvc::model
