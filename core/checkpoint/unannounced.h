#pragma once
// Names the tensors of a checkpoint that its configuration does not announce, which nobody will
// read: biases, q/k norms, factors of LoRA, layers beyond the last.

#include <cstdint>
#include <set>
#include <string>

#include "core/io/safetensors.h"

namespace kvc {

// One line, without the directory, that names what `tensors` holds beyond `used`, and what their
// index promises beyond both; empty when there is nothing. Names that differ in a layer's number
// alone are named once, with * for the number, and layers from `num_layers` on as a whole. Buffers
// that every loader computes itself (inv_freq, GPT-2's causal masks) are not named.
[[nodiscard]] std::string DescribeUnannounced(const SafetensorsReader& tensors,
                                              const std::set<std::string>& used,
                                              int64_t num_layers);

}  // namespace kvc
