#pragma once
// Coordinates in which a cache with tiers stores keys and values (DESIGN section 6): a tier keeps a
// prefix of them. One layer's bases, and the file bases.safetensors that holds every layer's.
//
// Rows: key k and query q as they enter the dot product, value v, attention output o of one head.
//   k' = (k - key_mean) key        q' = q query              q' k'^T = q k^T - q key_mean^T
//   v' = (v - value_mean) value    o  = o' output^T + value_mean
// The means cost nothing: softmax ignores what is the same for all keys of a head, and weights that
// sum to 1 give back what is the same for all values. So with all columns attention is exact, as
// long as EVERY key and value of the head is stored this way. With the first r columns of key and
// query, or of value and output, it is the best approximation of that size (kvc-profile says under
// which measure): columns stand in order of falling importance.

#include <array>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/base/row_format.h"
#include "core/cache/cache_spec.h"
#include "core/cache/loss_map.h"

namespace kvc {

// Where keys are latents, k is the latent c that the heads of a group share, and no query meets it:
// keys are rebuilt from coordinates, with k = B c + b of the layer,
//   c' = (c - key_mean) key        k = (B query) c' + (b + B key_mean)

// Bases of one layer's G kv heads and its K cached key streams (K = G, or the groups of latents),
// row-major; D_k the width of the layer's widest cached key, D_v that of values. A head whose keys
// are only R wide uses the upper left [R, R] of its block (and the first R of its mean); the rest
// is the identity (and zero).
struct LayerBases {
  int64_t num_kv_heads = 0;    // G
  int64_t num_key_groups = 0;  // K, a divisor of G; 0: one for each kv head
  int64_t key_width = 0;       // D_k; 0: latents that are nested as they are
  int64_t value_width = 0;     // D_v
  // Empty without a key width:
  std::vector<float> key;         // [K, D_k, D_k]
  std::vector<float> query;       // [K, D_k, D_k]; key query^T = I
  std::vector<float> key_mean;    // [K, D_k]
  std::vector<float> value;       // [G, D_v, D_v]
  std::vector<float> output;      // [G, D_v, D_v]; value output^T = I
  std::vector<float> value_mean;  // [G, D_v]
  // For kStepFormats one after the other; empty in files of versions before steps, and those of
  // keys without a key width:
  std::vector<float> key_steps;    // [K, 3, D_k], > 0
  std::vector<float> value_steps;  // [G, 3, D_v], > 0
  // Mean squared errors that 8, 4, 2 and no bits leave of a coordinate (core/cache/bit_spread.h),
  // missing as steps are. Keys and values are in one unit: an error of one in any coordinate costs
  // the attention's output the same.
  std::vector<float> key_errors;    // [K, 4, D_k], >= 0
  std::vector<float> value_errors;  // [G, 4, D_v], >= 0
  // Not in the file: the runs of mixtures of 1, 2, ... quarters of a bit (SpreadOverLayer).
  std::vector<RunEnds> key_runs;    // [K, kMixedRates]; empty without errors
  std::vector<RunEnds> value_runs;  // [G, kMixedRates]
  // Of the layer's cache groups, by the scorers that have some; none in older files.
  LossMapsByScorer loss_maps;

  [[nodiscard]] int64_t key_groups() const {
    return num_key_groups > 0 ? num_key_groups : num_kv_heads;
  }
  // The key stream that a kv head's keys come from.
  [[nodiscard]] int64_t KeyGroupOf(int64_t head) const {
    return head * key_groups() / num_kv_heads;
  }
};

// Makes the runs of every mixture from the errors: keys and values of all heads of the layer share
// one price of a bit.
void SpreadOverLayer(LayerBases& bases);

// The formats that steps are kept for, in their order.
inline constexpr std::array<RowFormat, kCodeBits.size()> kStepFormats = {kRowsX8, kRowsX4, kRowsX2};

// The steps of a head's keys, or values, in a format. Null where the format needs none; throws
// kUnsupported where it needs some and the bases have none.
[[nodiscard]] CodeSteps KeySteps(const LayerBases& bases, const RowFormat& format, int64_t head);
[[nodiscard]] CodeSteps ValueSteps(const LayerBases& bases, const RowFormat& format, int64_t head);

// The map of group n of a layer from the scores of the cache's scorer to losses; the identity where
// the spec has no bases, or these no map for it.
[[nodiscard]] LossMapView LossMapOf(const CacheSpec& spec, int64_t layer, int64_t n);

// Name of the file in a profile or bundle directory.
inline constexpr const char* kBasesFile = "bases.safetensors";

// Throws, naming layer and basis: kBadShape for vectors that are not of the sizes above, kNumeric
// for a NaN or infinity, kBadInput for a step of zero or less, a negative error, steps of keys or
// values alone, and where a pair is not inverse to each other within 1e-3; and as CheckLossMaps
// does.
void CheckBases(const std::vector<LayerBases>& bases);

// Throws kBadShape, naming the layer and the field, when the bases are not of the cache's layers,
// heads and widths (of latents: groups; they may have no bases); kUnsupported when tiers need steps
// and the bases have none, and kBadShape when loss maps are not of the cache's groups.
void CheckBasesFit(const std::vector<LayerBases>& bases, const CacheSpec& spec);

// Tensors "layers.N.key", ..., all F32; the key's are missing without a key width, steps and errors
// where there are none; and for each scorer that has maps "layers.N.losses.SCORER" [groups,
// 2, points], scores, then losses. Both call CheckBases; Read makes the runs of mixtures, and
// throws kBadInput for a file with other tensors.
void WriteBases(const std::filesystem::path& path, const std::vector<LayerBases>& bases);
[[nodiscard]] std::vector<LayerBases> ReadBases(const std::filesystem::path& path);

}  // namespace kvc
