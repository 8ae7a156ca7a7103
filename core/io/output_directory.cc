#include "core/io/output_directory.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

// Returns an absolute path, without trailing slash, with links resolved as far as the path exists.
fs::path Normalised(const fs::path& path) {
  std::error_code error;
  fs::path result = fs::weakly_canonical(fs::absolute(path), error);
  if (error) {
    result = fs::absolute(path).lexically_normal();
  }
  return result.has_filename() ? result : result.parent_path();
}

// Identity of an existing file or folder, whatever its names.
using FileId = std::pair<dev_t, ino_t>;

std::optional<FileId> IdOf(const fs::path& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileId{status.st_dev, status.st_ino};
}

// Returns true if `path` (normalised) is the file or folder `id`, or lies below it.
bool LiesIn(const fs::path& path, const FileId& id) {
  for (fs::path p = path;; p = p.parent_path()) {
    if (IdOf(p) == id) return true;
    if (p == p.parent_path()) return false;
  }
}

// Returns the places of an input's bytes: the path as named, what it links to, and for a folder
// what its entries link to.
std::vector<fs::path> PlacesOf(const fs::path& input) {
  const fs::path named = fs::absolute(input).lexically_normal();
  std::vector<fs::path> places = {Normalised(input)};
  if (named.has_filename()) places.push_back(Normalised(named.parent_path()) / named.filename());
  std::error_code error;
  for (fs::directory_iterator it(input, error), end; !error && it != end; it.increment(error)) {
    std::error_code broken;
    if (it->is_symlink(broken)) places.push_back(Normalised(it->path()));
  }
  return places;
}

void CheckTarget(const fs::path& target, bool force) {
  std::error_code error;
  const auto status = fs::status(target, error);
  if (!fs::exists(status)) {
    KVC_CHECK(!fs::is_symlink(target, error), kUsage,
              "{}: expected a directory or nothing there, got a link to nothing; choose another "
              "output",
              target.string());
    return;
  }
  KVC_CHECK(fs::is_directory(status), kUsage,
            "{}: expected a directory or nothing there, got a file; choose another output",
            target.string());
  const bool empty = fs::is_empty(target, error);
  if (error) {
    KVC_THROW(kIo, "{}: expected to list it, got \"{}\"", target.string(), error.message());
  }
  KVC_CHECK(
      empty || force, kUsage,
      "{}: expected an empty directory or none, got one with files; use --force to replace it",
      target.string());
  const auto id = IdOf(target);
  KVC_CHECK(
      target.has_filename() && !(id && LiesIn(Normalised(fs::current_path(error)), *id)), kUsage,
      "{}: expected an output that can be replaced, got the working directory or one above it",
      target.string());
}

std::vector<fs::path> CreateParents(const fs::path& target) {
  std::vector<fs::path> missing;
  std::error_code error;
  for (fs::path p = target.parent_path(); !p.empty() && !fs::exists(p, error);
       p = p.parent_path()) {
    missing.insert(missing.begin(), p);
  }
  for (const fs::path& parent : missing) {
    if (::mkdir(parent.c_str(), 0777) != 0 && errno != EEXIST) {
      ThrowSystemError(parent, "create the directory");
    }
  }
  return missing;
}

void SyncTree(const fs::path& directory) {
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file() || entry.is_directory()) {
      SyncToDisk(entry.path());
    }
  }
  SyncToDisk(directory);
}

// Renames to a name that is free; returns false with errno EEXIST if it is taken.
bool RenameToFree(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  if (errno != EINVAL && errno != ENOSYS) return false;
  // Handles a file system without the flag. A directory replaces nothing but an empty directory.
  std::error_code error;
  if (fs::exists(fs::symlink_status(to, error))) {
    errno = EEXIST;
    return false;
  }
  return ::rename(from.c_str(), to.c_str()) == 0;
}

// Removes what killed runs with the same target left half-written: their temporary directories,
// which a run that lives holds locked.
void RemoveAbandoned(const fs::path& target) {
  std::error_code error;
  for (const fs::path& candidate : TemporariesBeside(target)) {
    if (!fs::is_directory(fs::symlink_status(candidate, error))) continue;
    try {
      const DirectoryLock lock(candidate);
      fs::remove_all(candidate, error);
    } catch (const Error&) {  // somebody's, or not ours to remove
      continue;
    }
  }
}

}  // namespace

void CheckOutputApart(const fs::path& output, const std::vector<fs::path>& inputs) {
  if (output.empty()) return;
  const fs::path target = Normalised(output);
  const auto target_id = IdOf(target);
  for (const fs::path& input : inputs) {
    const auto input_id = input.empty() ? std::nullopt : IdOf(input);
    if (!input_id) continue;
    const char* relation = nullptr;
    if (target_id == input_id) {
      relation = "is";
    } else if (LiesIn(target, *input_id)) {
      relation = "lies in";
    } else if (target_id && std::ranges::any_of(PlacesOf(input), [&](const fs::path& place) {
                 return LiesIn(place, *target_id);
               })) {
      relation = "holds";
    }
    KVC_CHECK(relation == nullptr, kUsage,
              "{}: expected an output apart from the inputs, got one that {} the input {}; choose "
              "another output",
              output.string(), relation, input.string());
  }
}

OutputDirectory::OutputDirectory(const fs::path& target,
                                 const std::vector<fs::path>& inputs,
                                 bool force,
                                 bool resumable)
    : target_(Normalised(target)), resumable_(resumable) {
  CheckOutputApart(target, inputs);
  CheckTarget(target_, force);
  std::error_code error;
  if (fs::exists(target_, error) && !fs::is_empty(target_, error)) replaced_ = ListTree(target_);
  created_parents_ = CreateParents(target_);
  if (resumable_) {
    temporary_ = target_;
    temporary_ += ".partial";
  } else {
    RemoveAbandoned(target_);
    temporary_ = TemporaryNameBeside(target_);
  }
  if (::mkdir(temporary_.c_str(), 0777) != 0 && !(resumable_ && errno == EEXIST)) {
    ThrowSystemError(temporary_, "create the directory");
  }
  lock_.emplace(temporary_);
}

OutputDirectory::~OutputDirectory() {
  if (kept_ || resumable_) {
    return;
  }
  std::error_code ignored;  // nothing can be done about a failure while unwinding
  fs::remove_all(temporary_, ignored);
  for (auto parent = created_parents_.rbegin(); parent != created_parents_.rend(); ++parent) {
    ::rmdir(parent->c_str());  // fails, rightly, when someone else put a file there
  }
}

OutputDirectory::Tree OutputDirectory::ListTree(const fs::path& root) {
  Tree tree;
  const auto add = [&](const fs::path& path) {
    struct stat status = {};
    if (::lstat(path.c_str(), &status) != 0) ThrowSystemError(path, "look at it");
    Entry entry{status.st_ino, status.st_mode};
    if (!S_ISDIR(status.st_mode)) {
      entry.size = status.st_size;
      entry.modified_ns = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec;
    }
    tree[path == root ? "" : path.lexically_relative(root).string()] = entry;
  };
  std::error_code error;
  add(root);
  for (fs::recursive_directory_iterator it(root, error), end; it != end; it.increment(error)) {
    if (error) break;
    add(it->path());
  }
  KVC_CHECK(!error, kIo, "{}: expected to list it, got \"{}\"", root.string(), error.message());
  return tree;
}

std::optional<fs::path> OutputDirectory::MoveReplacedAway() {
  // Not a temporary directory's name: what a killed run has moved away is the user's.
  fs::path old = TemporaryNameBeside(target_).replace_extension(".old");
  if (::rename(target_.c_str(), old.c_str()) != 0) {
    if (errno == ENOENT) return std::nullopt;
    ThrowSystemError(target_, "move the old directory away");
  }
  if (ListTree(old) != replaced_) {
    RefuseWhatCame(RenameToFree(old, target_) ? fs::path() : old);
  }
  return old;
}

void OutputDirectory::RefuseWhatCame(const fs::path& displaced) {
  fs::path finished = target_.string() + ".finished";
  for (int i = 1; !RenameToFree(temporary_, finished); ++i) {
    if (errno != EEXIST && errno != ENOTEMPTY) {
      finished = temporary_;
      break;
    }
    finished = target_.string() + ".finished-" + std::to_string(i);
  }
  temporary_ = finished;
  kept_ = true;
  const std::string before =
      displaced.empty() ? "" : ", what it would have replaced in " + displaced.string();
  KVC_THROW(kUsage,
            "{}: expected there what was there when the command began, got files that came or "
            "changed since; they are untouched, and the finished output is in {}{}; move it",
            target_.string(), finished.string(), before);
}

void OutputDirectory::Commit() {
  KVC_CHECK(!kept_, kInternal, "{}: expected one Commit, got a second", target_.string());
  SyncTree(temporary_);
  std::optional<fs::path> old;
  if (!replaced_.empty()) old = MoveReplacedAway();
  // rename(2) replaces an empty directory with a directory, and nothing else.
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int code = errno;
    const bool restored = !old || RenameToFree(*old, target_);
    if (code == ENOTEMPTY || code == EEXIST || code == ENOTDIR) {
      RefuseWhatCame(restored ? fs::path() : *old);
    }
    errno = code;
    ThrowSystemError(target_, "rename into place");
  }
  kept_ = true;
  SyncToDisk(target_.parent_path());
  if (old) {
    std::error_code error;
    fs::remove_all(*old, error);
    KVC_CHECK(!error, kIo, "{}: expected to remove the old output, got \"{}\"", old->string(),
              error.message());
  }
}

}  // namespace kvc
