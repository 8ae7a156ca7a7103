#include "pipeline/recipe/child_process.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/error.h"

namespace kvc::recipe {

bool IsProgram(const std::string& program) {
  const auto runs = [](const std::filesystem::path& path) {
    return std::filesystem::is_regular_file(path) && access(path.c_str(), X_OK) == 0;
  };
  if (program.find('/') != std::string::npos) return runs(program);
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (runs(std::filesystem::path(folder) / program)) return true;
  }
  return false;
}

int RunChild(const std::vector<std::string>& argv, const std::filesystem::path& output) {
  std::vector<char*> words;
  words.reserve(argv.size() + 1);
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0644);
  pid_t child = 0;
  const int problem = posix_spawnp(&child, words[0], &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  KVC_CHECK(problem == 0, kIo, "{}: expected to start it, got {}", argv[0], std::strerror(problem));
  int status = 0;
  // A signal may interrupt the wait. The child gets it too, ends, and says so.
  while (waitpid(child, &status, 0) < 0) {
    KVC_CHECK(errno == EINTR, kIo, "{}: expected to wait for it, got {}", argv[0],
              std::strerror(errno));
  }
  constexpr int kSignalled = 128;
  return WIFEXITED(status) ? WEXITSTATUS(status) : kSignalled + WTERMSIG(status);
}

std::filesystem::path ProgramFolder() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  KVC_CHECK(!error, kIo, "/proc/self/exe: expected to read it, got {}", error.message());
  return program.parent_path();
}

}  // namespace kvc::recipe
