#include "core/io/shared_output.h"

#include <chrono>
#include <span>
#include <string>
#include <system_error>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/files.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMark = ".ranks";

// Throws on the ranks that see another folder under this name: rank 0 puts a mark there that no
// other run has, and takes it away when all have looked.
void CheckSeenByAll(Ranks& ranks, const fs::path& directory) {
  std::string mark;
  if (ranks.is_first()) {
    mark = TemporaryNameBeside(ranks.host()).string() + " " +
           std::to_string(std::chrono::system_clock::now().time_since_epoch().count());
    AtomicFile file(directory / kMark);
    file.Write(std::as_bytes(std::span(mark)));
    file.Commit(/*sync=*/false);
  }
  mark = ranks.Broadcast(mark);
  std::error_code error;
  const bool seen = fs::exists(directory / kMark, error) && ReadFile(directory / kMark) == mark;
  KVC_CHECK(seen, kIo,
            "{}: expected the folder that rank 0 has made, got another one or none; choose an "
            "output on a disk that all machines share",
            directory.string());
  ranks.Barrier();
}

}  // namespace

SharedOutput::SharedOutput(Ranks& ranks,
                           const fs::path& target,
                           const std::vector<fs::path>& inputs,
                           bool force,
                           bool resumable)
    : ranks_(ranks) {
  if (ranks.is_first()) {
    owned_.emplace(target, inputs, force, resumable);
    path_ = owned_->path();
  }
  path_ = ranks.Broadcast(path_.string());
  if (!ranks.is_only()) CheckSeenByAll(ranks, path_);
  std::error_code error;
  if (owned_) fs::remove(path_ / kMark, error);  // a killed run's, too
}

void SharedOutput::Commit() {
  ranks_.Barrier();
  if (owned_) owned_->Commit();
}

}  // namespace kvc
