#pragma once
// The stage kvc-profile from files to files: reads a checkpoint and calibration text, writes
// profile.json and its tensors (docs/formats/profile.md).

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/cache/profile_file.h"
#include "profile/profile_model.h"

namespace kvc::pipeline {

struct ProfileRequest {
  std::filesystem::path model;       // a Hugging Face directory, thin or not
  std::filesystem::path output;      // the directory that is written
  bool force = false;                // replaces one that is not empty, and starts from scratch
  std::filesystem::path lukv_table;  // LU-KV's table as well (profile/lukv_table.h); empty: none
  std::vector<std::filesystem::path> calibration;  // UTF-8 or .jsonl
  // Options of a sampled continuation: its temperature, and the questions that follow every
  // context. Without questions the model continues the text.
  double temperature = 0.7;
  std::vector<std::string> questions;
  uint64_t seed = 42;
  profile::ProfileOptions options;
};

struct ProfileResult {
  profile::ProfilePlan plan;
  ProfileData data;
};

// Returns the sizes of a run: reads the text, but computes nothing. Throws like RunProfileStage.
[[nodiscard]] profile::ProfilePlan PlanProfileStage(const ProfileRequest& request,
                                                    Progress& progress,
                                                    const Ranks& ranks = OneRank());

// Collective: runs the stage; rank 0 writes the output. The output appears whole or not at all; an
// interrupted run leaves progress in OUT.partial, and the same request resumes from it. Throws
// kUsage naming the option for an impossible request, kBadInput for a text that gives no window,
// and what ProfileModel throws.
[[nodiscard]] ProfileResult RunProfileStage(const ProfileRequest& request,
                                            Progress& progress,
                                            Ranks& ranks = OneRank());

}  // namespace kvc::pipeline
