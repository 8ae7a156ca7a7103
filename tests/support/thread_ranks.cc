#include "tests/support/thread_ranks.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "core/base/error.h"

namespace kvc::testing {
namespace {

// What the threads share: at most one message on its way for each pair of ranks.
struct Post {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::pair<int, int>, std::span<const std::byte>> sent;  // by (from, to)
  std::exception_ptr failure;

  void Fail(std::exception_ptr error) {
    const std::scoped_lock lock(mutex);
    if (!failure) failure = std::move(error);
    changed.notify_all();
  }
  // Waits until `ready`. Throws when another rank has failed.
  void WaitUntil(std::unique_lock<std::mutex>& lock, const std::function<bool()>& ready) {
    const bool in_time =
        changed.wait_for(lock, std::chrono::minutes(1), [&] { return failure || ready(); });
    KVC_CHECK(in_time, kInternal, "thread ranks: expected a message, waited for a minute");
    KVC_CHECK(!failure, kInternal, "thread ranks: another rank has failed");
  }
};

class ThreadRank : public Ranks {
 public:
  ThreadRank(Post& post, int rank, int size)
      : post_(post), rank_(rank), size_(size), host_("host" + std::to_string(rank)) {}

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }
  [[nodiscard]] const std::string& host() const override { return host_; }

  void Send(int to, std::span<const std::byte> bytes) override {
    std::unique_lock lock(post_.mutex);
    Put(lock, to, bytes);
    WaitUntilTaken(lock, to);
  }
  void Receive(int from, std::span<std::byte> bytes) override {
    std::unique_lock lock(post_.mutex);
    Take(lock, from, bytes);
  }
  void Exchange(int to,
                std::span<const std::byte> sent,
                int from,
                std::span<std::byte> received) override {
    std::unique_lock lock(post_.mutex);
    Put(lock, to, sent);
    Take(lock, from, received);
    WaitUntilTaken(lock, to);
  }
  [[noreturn]] void Abort(const std::string& message, int) override {
    throw Error(ErrorKind::kInternal, message);
  }

 private:
  using Lock = std::unique_lock<std::mutex>;

  void Put(Lock& lock, int to, std::span<const std::byte> bytes) {
    KVC_CHECK(to != rank_ && to >= 0 && to < size_, kInternal, "thread ranks: no rank {}", to);
    WaitUntilTaken(lock, to);
    post_.sent[{rank_, to}] = bytes;
    post_.changed.notify_all();
  }
  void WaitUntilTaken(Lock& lock, int to) {
    post_.WaitUntil(lock, [&] { return !post_.sent.contains({rank_, to}); });
  }
  void Take(Lock& lock, int from, std::span<std::byte> bytes) {
    post_.WaitUntil(lock, [&] { return post_.sent.contains({from, rank_}); });
    const auto found = post_.sent.find({from, rank_});
    KVC_CHECK(found->second.size() == bytes.size(), kInternal,
              "thread ranks: expected a message of {}, got {}", bytes.size(), found->second.size());
    if (!bytes.empty()) std::memcpy(bytes.data(), found->second.data(), bytes.size());
    post_.sent.erase(found);
    post_.changed.notify_all();
  }

  Post& post_;
  int rank_;
  int size_;
  std::string host_;
};

}  // namespace

void RunRanks(int size, const std::function<void(Ranks&)>& body) {
  Post post;
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      ThreadRank ranks(post, r, size);
      try {
        body(ranks);
      } catch (...) {
        post.Fail(std::current_exception());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (post.failure) std::rethrow_exception(post.failure);
}

}  // namespace kvc::testing
