#pragma once
// An output folder that the ranks of a command write into together (core/base/ranks.h): rank 0 owns
// it, as core/io/output_directory.h says, and the others may add files of their own until it is
// finished. With one rank it is an OutputDirectory.

#include <filesystem>
#include <optional>
#include <vector>

#include "core/base/ranks.h"
#include "core/io/output_directory.h"

namespace kvc {

class SharedOutput {
 public:
  // Collective. The arguments and errors of OutputDirectory, which rank 0 throws; the others throw
  // kIo, naming the folder, where they do not see the one that rank 0 has made. `ranks` must
  // outlive it.
  SharedOutput(Ranks& ranks,
               const std::filesystem::path& target,
               const std::vector<std::filesystem::path>& inputs,
               bool force,
               bool resumable = false);

  // Returns the directory to write into until Commit.
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // Collective: when all ranks have come, rank 0 moves the directory into its place.
  void Commit();

 private:
  Ranks& ranks_;
  std::optional<OutputDirectory> owned_;  // of rank 0
  std::filesystem::path path_;
};

}  // namespace kvc
