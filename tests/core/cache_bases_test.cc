#include "core/cache/cache_bases.h"

#include <cmath>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "tests/support/expect_error.h"

namespace kvc {
namespace {

constexpr int64_t kHeads = 2;

// Upper triangular with ones on the diagonal and `value` above the first element, and its inverse
// transposed: a pair whose product is exactly the identity.
void AddPair(int64_t width, float value, std::vector<float>& basis, std::vector<float>& dual) {
  for (int64_t i = 0; i < width * width; ++i) {
    const float unit = i / width == i % width ? 1.0F : 0.0F;
    basis.push_back(width > 1 && i == 1 ? value : unit);
    dual.push_back(width > 1 && i == width ? -value : unit);
  }
}

LayerBases MakeLayer(int64_t key_width, int64_t value_width) {
  LayerBases layer;
  layer.num_kv_heads = kHeads;
  layer.key_width = key_width;
  layer.value_width = value_width;
  for (int64_t g = 0; g < kHeads; ++g) {
    AddPair(key_width, 0.5F + static_cast<float>(g), layer.key, layer.query);
    AddPair(value_width, -0.25F, layer.value, layer.output);
    for (int64_t i = 0; i < key_width; ++i) layer.key_mean.push_back(static_cast<float>(g - i));
    for (int64_t i = 0; i < value_width; ++i) layer.value_mean.push_back(static_cast<float>(i));
  }
  return layer;
}

class CacheBases : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::path(::testing::TempDir()) / "kvc_cache_bases_test.safetensors";
    bases_ = {MakeLayer(3, 5), MakeLayer(0, 5), MakeLayer(1, 5)};  // the second: latents
  }
  void TearDown() override { std::filesystem::remove(path_); }

  void ExpectRefused(ErrorKind kind, const std::string& part) {
    try {
      CheckBases(bases_);
      FAIL() << "not refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }

  std::filesystem::path path_;
  std::vector<LayerBases> bases_;
};

TEST_F(CacheBases, RoundTripKeepsEveryLayer) {
  WriteBases(path_, bases_);
  const std::vector<LayerBases> read = ReadBases(path_);
  ASSERT_EQ(read.size(), bases_.size());
  for (size_t l = 0; l < read.size(); ++l) {
    EXPECT_EQ(read[l].num_kv_heads, kHeads);
    EXPECT_EQ(read[l].key_width, bases_[l].key_width);
    EXPECT_EQ(read[l].value_width, 5);
    EXPECT_EQ(read[l].key, bases_[l].key);
    EXPECT_EQ(read[l].query, bases_[l].query);
    EXPECT_EQ(read[l].key_mean, bases_[l].key_mean);
    EXPECT_EQ(read[l].value, bases_[l].value);
    EXPECT_EQ(read[l].output, bases_[l].output);
    EXPECT_EQ(read[l].value_mean, bases_[l].value_mean);
  }
}

// Steps that count up, for every layer; none for the keys of latents.
void AddSteps(std::vector<LayerBases>& bases) {
  float next = 0.0F;
  for (LayerBases& layer : bases) {
    for (int64_t i = 0; i < kHeads * 3 * layer.key_width; ++i) layer.key_steps.push_back(++next);
    for (int64_t i = 0; i < kHeads * 3 * layer.value_width; ++i) {
      layer.value_steps.push_back(++next);
    }
  }
}

TEST_F(CacheBases, StepsComeBackAndAreFound) {
  AddSteps(bases_);
  WriteBases(path_, bases_);
  const std::vector<LayerBases> read = ReadBases(path_);
  ASSERT_EQ(read.size(), bases_.size());
  for (size_t l = 0; l < read.size(); ++l) {
    EXPECT_EQ(read[l].key_steps, bases_[l].key_steps);
    EXPECT_EQ(read[l].value_steps, bases_[l].value_steps);
  }
  // Of head 1: its formats follow those of head 0.
  EXPECT_EQ(*KeySteps(read[0], kRowsX8, 1).data, 1.0F + 3 * 3);
  EXPECT_EQ(*KeySteps(read[0], kRowsX2, 1).data, 1.0F + 3 * 3 + 2 * 3);
  EXPECT_EQ(*ValueSteps(read[0], kRowsX4, 1).data, 1.0F + 2 * 3 * 3 + 3 * 5 + 5);
  EXPECT_EQ(ValueSteps(read[0], kRowsBF16, 1), nullptr);
  EXPECT_KVC_ERROR((void)KeySteps(read[1], kRowsX8, 0), kUnsupported, "latents have no steps");
  EXPECT_KVC_ERROR((void)KeySteps(MakeLayer(3, 5), kRowsX8, 0), kUnsupported, "steps of keys");
}

// Errors of which each bit less leaves four times as much, larger for keys and for head 1.
void AddErrors(std::vector<LayerBases>& bases) {
  const auto add = [](std::vector<float>& errors, int64_t width, float unit) {
    for (int64_t g = 0; g < kHeads; ++g) {
      for (const int bits : {8, 4, 2, 0}) {
        for (int64_t i = 0; i < width; ++i) {
          errors.push_back(unit *
                           static_cast<float>(static_cast<double>(g + 1) * std::pow(0.25, bits)));
        }
      }
    }
  };
  for (LayerBases& layer : bases) {
    if (layer.key_width > 0) add(layer.key_errors, layer.key_width, 100.0F);
    add(layer.value_errors, layer.value_width, 1.0F);
  }
}

TEST_F(CacheBases, ErrorsComeBackAsRunsOfMixtures) {
  AddSteps(bases_);
  AddErrors(bases_);
  WriteBases(path_, bases_);
  const std::vector<LayerBases> read = ReadBases(path_);
  for (size_t l = 0; l < read.size(); ++l) {
    EXPECT_EQ(read[l].key_errors, bases_[l].key_errors);
    EXPECT_EQ(read[l].value_errors, bases_[l].value_errors);
    std::vector<LayerBases> again = {bases_[l]};
    SpreadOverLayer(again[0]);
    EXPECT_EQ(read[l].key_runs, again[0].key_runs);
    EXPECT_EQ(read[l].value_runs, again[0].value_runs);
    EXPECT_EQ(std::ssize(read[l].value_runs), kHeads * kMixedRates);
  }
  // Three bits on average: keys, whose errors are larger, have no fewer bits than values.
  const RowFormat format = MixedRows(12);
  const CodeSteps key = KeySteps(read[0], format, 1);
  const CodeSteps value = ValueSteps(read[0], format, 1);
  EXPECT_EQ(key.data, KeySteps(read[0], kRowsX8, 1).data);
  EXPECT_EQ(key.stride, 3);
  EXPECT_EQ(value.stride, 5);
  for (size_t i = 0; i < key.ends.size(); ++i) EXPECT_GE(key.ends[i], value.ends[i]);
  // Without errors there are no mixtures.
  bases_ = {MakeLayer(3, 5)};
  AddSteps(bases_);
  EXPECT_KVC_ERROR((void)ValueSteps(bases_[0], format, 0), kUnsupported, "steps of values in avg3");
}

// One latent for both heads: one basis, one set of steps and of runs.
TEST_F(CacheBases, HeadsOfALatentShareItsBasis) {
  LayerBases layer = MakeLayer(0, 5);
  layer.num_key_groups = 1;
  layer.key_width = 16;
  AddPair(16, 0.5F, layer.key, layer.query);
  layer.key_mean.assign(16, 2.0F);
  for (int i = 0; i < 3 * 16; ++i) layer.key_steps.push_back(1.0F + static_cast<float>(i));
  layer.value_steps.assign(kHeads * 3 * 5, 1.0F);
  for (int i = 0; i < 4 * 16; ++i)
    layer.key_errors.push_back(std::pow(0.5F, static_cast<float>(i)));
  layer.value_errors.assign(kHeads * 4 * 5, 1.0F);
  WriteBases(path_, {layer});
  const std::vector<LayerBases> read = ReadBases(path_);
  EXPECT_EQ(read[0].num_kv_heads, kHeads);
  EXPECT_EQ(read[0].key_groups(), 1);
  EXPECT_EQ(read[0].key, layer.key);
  EXPECT_EQ(std::ssize(read[0].key_runs), kMixedRates);
  EXPECT_EQ(std::ssize(read[0].value_runs), kHeads * kMixedRates);
  EXPECT_EQ(KeySteps(read[0], kRowsX4, 0).data, KeySteps(read[0], kRowsX4, 1).data);
  EXPECT_EQ(*KeySteps(read[0], kRowsX4, 1).data, 17.0F);
  EXPECT_EQ(KeySteps(read[0], MixedRows(12), 1).ends, read[0].key_runs[11]);

  CacheSpec spec;
  spec.num_kv_heads = kHeads;
  spec.head_width = 5;
  spec.layers = {{{16, 5, {0, 1}, true}}};
  EXPECT_NO_THROW(CheckBasesFit(read, spec));
  EXPECT_NO_THROW(CheckBasesFit({MakeLayer(0, 5)}, spec));  // latents as they are
  spec.layers = {{{16, 5, {0}, true}, {16, 5, {1}, true}}};
  EXPECT_KVC_ERROR(CheckBasesFit(read, spec), kBadShape, "key streams: expected 2");
  layer.num_key_groups = 3;
  EXPECT_KVC_ERROR(CheckBases({layer}), kBadShape, "key streams that divide 2 kv heads, got 3");
}

TEST_F(CacheBases, HostileErrorsAreRefusedByName) {
  AddSteps(bases_);
  AddErrors(bases_);
  const std::vector<LayerBases> sound = bases_;
  bases_[1].value_errors[4] = -1.0F;
  ExpectRefused(ErrorKind::kBadInput, "layers.1.value_errors: expected squared errors");
  for (const float error :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    bases_ = sound;
    bases_[0].key_errors[7] = error;
    ExpectRefused(ErrorKind::kNumeric, "layers.0.key_errors");
  }
  bases_ = sound;
  bases_[2].key_errors.pop_back();
  ExpectRefused(ErrorKind::kBadShape, "layers.2.key_errors: expected 8 elements, got 7");
}

TEST_F(CacheBases, HostileStepsAreRefusedByName) {
  AddSteps(bases_);
  const std::vector<LayerBases> sound = bases_;
  for (const float step : {0.0F, -1.0F}) {
    bases_[1].value_steps[4] = step;
    ExpectRefused(ErrorKind::kBadInput, "layers.1.value_steps: expected steps above zero");
  }
  for (const float step :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    bases_ = sound;
    bases_[0].key_steps[7] = step;
    ExpectRefused(ErrorKind::kNumeric, "layers.0.key_steps");
  }
  bases_ = sound;
  bases_[2].key_steps.pop_back();
  ExpectRefused(ErrorKind::kBadShape, "layers.2.key_steps: expected 6 elements, got 5");
}

// Maps of two scorers, the second with an option whose text has a comma's neighbours in it.
void AddMaps(std::vector<LayerBases>& bases) {
  float next = 1.0F;
  for (LayerBases& layer : bases) {
    for (const char* scorer : {"snapkv", "output-error:prompt=1024,recent=0.5"}) {
      LossMaps& maps = layer.loss_maps[ParseScorer(scorer, "scorer")];
      for (int64_t i = 0; i < kHeads * kLossMapPoints; ++i) {
        maps.scores.push_back(next + static_cast<float>(i % kLossMapPoints));
        maps.losses.push_back(2.0F * next + static_cast<float>(i % kLossMapPoints));
      }
      next += 100.0F;
    }
  }
}

TEST_F(CacheBases, LossMapsComeBackAndAreFound) {
  AddMaps(bases_);
  WriteBases(path_, bases_);
  const std::vector<LayerBases> read = ReadBases(path_);
  ASSERT_EQ(read.size(), bases_.size());
  for (size_t l = 0; l < read.size(); ++l) EXPECT_EQ(read[l].loss_maps, bases_[l].loss_maps);
  CacheSpec spec;
  spec.scorer = ScorerKind::kSnapKv;
  EXPECT_TRUE(LossMapOf(spec, 1, 0).empty());  // no bases
  spec.bases = std::make_shared<const std::vector<LayerBases>>(read);
  // Layer 1, after two maps of layer 0: the first score, and its loss.
  EXPECT_EQ(LossMapOf(spec, 1, 1)(201.0), 402.0);
  spec.scorer = ScorerKind::kKnorm;
  EXPECT_TRUE(LossMapOf(spec, 1, 0).empty());
}

TEST_F(CacheBases, HostileLossMapsAreRefusedByName) {
  AddMaps(bases_);
  bases_[1].loss_maps.begin()->second.losses[7] = std::numeric_limits<float>::quiet_NaN();
  ExpectRefused(ErrorKind::kNumeric, "layers.1.losses.snapkv");
  bases_[1].loss_maps.begin()->second.losses[7] = 0.0F;
  ExpectRefused(ErrorKind::kBadInput, "layers.1.losses.snapkv: expected scores and losses");
}

TEST_F(CacheBases, PairsThatAreNotInverseAreRefusedByName) {
  bases_[2].query[1] = 1.01F;  // the second head's only element
  ExpectRefused(ErrorKind::kBadInput, "layers.2.query");
  bases_[2].query[1] = 1.0F;
  bases_[0].output[7] += 0.01F;
  ExpectRefused(ErrorKind::kBadInput, "layers.0.output");
  bases_[0].output[7] -= 0.0095F;  // as rounding might leave it
  EXPECT_NO_THROW(CheckBases(bases_));
}

TEST_F(CacheBases, NanAndWrongSizesAreRefused) {
  bases_[1].value_mean[3] = std::numeric_limits<float>::quiet_NaN();
  ExpectRefused(ErrorKind::kNumeric, "layers.1.value_mean");
  bases_[1].value_mean[3] = 0.0F;
  bases_[0].key.pop_back();
  ExpectRefused(ErrorKind::kBadShape, "layers.0.key");
  bases_[0] = LayerBases();
  ExpectRefused(ErrorKind::kBadShape, "layer 0");
}

TEST_F(CacheBases, BrokenFilesAreRefused) {
  const auto write = [&](const std::vector<TensorSpec>& specs) {
    SafetensorsWriter writer(path_, specs);
    for (const TensorSpec& spec : specs) {
      int64_t count = 1;
      for (const int64_t size : spec.shape) count *= size;
      writer.WriteFloats(spec.name, std::vector<float>(count, 1.0F));
    }
    writer.Close();
  };
  const std::vector<TensorSpec> good = {{"layers.0.value", DType::kF32, {2, 1, 1}},
                                        {"layers.0.output", DType::kF32, {2, 1, 1}},
                                        {"layers.0.value_mean", DType::kF32, {2, 1}}};
  write(good);
  EXPECT_EQ(ReadBases(path_).front().value_width, 1);
  const std::vector<std::function<void(std::vector<TensorSpec>&)>> breaks = {
      [](auto& specs) { specs.pop_back(); },  // a tensor is missing
      [](auto& specs) {
        specs[1].shape = {2, 1};
      },  // too few dimensions
      [](auto& specs) {
        specs[1].shape = {1, 1, 1};
      },  // another head count
      [](auto& specs) {
        specs[2].shape = {2, 2};
      },                                                  // another width
      [](auto& specs) { specs[0].dtype = DType::kF16; },  // another type
      [](auto& specs) {
        specs[0].shape = {0, 1, 1};
      },                                                     // empty
      [](auto& specs) { specs[2].name = "layers.0.mean"; },  // another name
      [](auto& specs) {
        specs.push_back({"more", DType::kF32, {1}});
      },  // one too many
      [](auto& specs) {
        specs = {{"layers.1.value", DType::kF32, {1}}};
      }  // no first layer
  };
  for (size_t i = 0; i < breaks.size(); ++i) {
    std::vector<TensorSpec> specs = good;
    breaks[i](specs);
    write(specs);
    EXPECT_THROW((void)ReadBases(path_), Error) << i;
  }
}

TEST_F(CacheBases, MustFitTheCache) {
  CacheSpec spec;
  spec.num_kv_heads = kHeads;
  spec.head_width = 5;
  const auto group = [](int64_t key_width, bool latent) {
    CacheGroup made;
    made.key_width = key_width;
    made.keeps_positions = latent;
    return made;
  };
  spec.layers = {
      {group(2, false), group(3, false)}, {group(7, true)}, {group(1, false), group(1, false)}};
  EXPECT_NO_THROW(CheckBasesFit(bases_, spec));
  spec.layers[0][1].key_width = 4;
  EXPECT_THROW(CheckBasesFit(bases_, spec), Error);
  spec.layers[0][1].key_width = 3;
  spec.num_kv_heads = 3;
  EXPECT_THROW(CheckBasesFit(bases_, spec), Error);
  spec.num_kv_heads = kHeads;
  spec.head_width = 6;
  EXPECT_THROW(CheckBasesFit(bases_, spec), Error);
  spec.head_width = 5;
  spec.layers.pop_back();
  EXPECT_THROW(CheckBasesFit(bases_, spec), Error);
}

}  // namespace
}  // namespace kvc
