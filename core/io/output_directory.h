#pragma once
// An output folder that appears whole or not at all, and never costs the user data that was not
// offered: it never is, holds or lies in an input, and it replaces only what was in its place when
// the command began.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/io/directory_lock.h"

namespace kvc {

// Throws kUsage, naming both, for an output file or folder that is one of `inputs`, holds one, or
// lies in one. Links and ".." are resolved on both sides; the output need not exist. Folders count
// with the files that they link to (a Hugging Face cache). Empty paths and inputs that do not exist
// are skipped.
void CheckOutputApart(const std::filesystem::path& output,
                      const std::vector<std::filesystem::path>& inputs);

// A directory that is written under a temporary name beside its final place and renamed by Commit.
// Without Commit the destructor removes it, and what a killed run left of its own the next run with
// the same target removes. With `resumable`, the temporary name is fixed
// (OUT.partial) and is kept when the object dies, so that a long stage can resume.
class OutputDirectory {
 public:
  // `target` must not exist or must be empty, unless `force` is set; then Commit replaces what is
  // there now. `inputs` are all files and folders that the command reads (CheckOutputApart).
  // Missing parents are created. Throws kUsage (exists; is not a directory; is not apart from an
  // input; holds the working directory; its OUT.partial is in use by another run), kIo.
  OutputDirectory(const std::filesystem::path& target,
                  const std::vector<std::filesystem::path>& inputs,
                  bool force,
                  bool resumable = false);
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  // Returns the directory to write into until Commit.
  [[nodiscard]] const std::filesystem::path& path() const { return temporary_; }
  // Moves the directory into its place. Throws kUsage when something else has appeared there since
  // the constructor ran, or what was to be replaced has changed: nothing there is touched, and the
  // finished work stays beside it as OUT.finished, which the message names. Throws kIo.
  void Commit();

 private:
  // A file or folder as lstat reports it.
  struct Entry {
    uint64_t inode = 0;
    uint32_t mode = 0;
    int64_t size = 0;         // 0 for folders
    int64_t modified_ns = 0;  // 0 for folders
    bool operator==(const Entry&) const = default;
  };
  using Tree = std::map<std::string, Entry>;  // by path below the root, which is ""
  static Tree ListTree(const std::filesystem::path& root);

  // Moves the content to be replaced away and returns its new path; nothing when it is gone.
  std::optional<std::filesystem::path> MoveReplacedAway();
  // Throws. `displaced` is the current path of the content to be replaced, empty if it is in its
  // place.
  [[noreturn]] void RefuseWhatCame(const std::filesystem::path& displaced);

  std::filesystem::path target_;
  std::filesystem::path temporary_;
  std::vector<std::filesystem::path> created_parents_;  // outermost first
  Tree replaced_;                                       // what `force` may replace; empty: nothing
  bool resumable_ = false;
  bool kept_ = false;  // committed, or finished and kept beside its place
  // Keeps a second run out of the same OUT.partial, and says that a temporary directory is in use.
  std::optional<DirectoryLock> lock_;
};

}  // namespace kvc
