#pragma once
// Ranks: processes of one command on one or several machines, which a launcher (mpirun, srun) has
// started together. Each does a share of the work, and all of them have the same results.
//
// Work is cut into parts (windows, layers, prompts) whose number and sizes depend on the input
// alone. Part p belongs to rank p mod size. What ranks compute is put together in the order of the
// parts (core/base/ordered_sum.h, GatherParts), so that the bytes of a result do not depend on the
// number of ranks.
//
// The functions that every rank must call, in the same order and with the same sizes, are called
// collective below. They are built from three operations between two ranks, which are all that an
// implementation has: OneRank here, MPI in core/mpi, threads in tests/support/thread_ranks.h.
// A Ranks object belongs to the thread that made it. Every operation throws kIo, naming the other
// rank, when that rank cannot be reached.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvc {

class Ranks {
 public:
  Ranks() = default;
  virtual ~Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  [[nodiscard]] virtual int rank() const = 0;                 // 0 .. size - 1
  [[nodiscard]] virtual int size() const = 0;                 // 1 or more
  [[nodiscard]] virtual const std::string& host() const = 0;  // name of this rank's machine
  // Rank 0 prints, draws the progress bar and writes outputs.
  [[nodiscard]] bool is_first() const { return rank() == 0; }
  [[nodiscard]] bool is_only() const { return size() == 1; }

  // Sends bytes to another rank, which must receive exactly as many. May wait until it does.
  virtual void Send(int to, std::span<const std::byte> bytes) = 0;
  // Receives bytes of another rank. Messages between two ranks arrive in the order of sending.
  virtual void Receive(int from, std::span<std::byte> bytes) = 0;
  // Sends and receives at the same time, as rings of ranks need it; `to` and `from` may be equal.
  virtual void Exchange(int to,
                        std::span<const std::byte> sent,
                        int from,
                        std::span<std::byte> received) = 0;

  // Looks whether another rank has failed, which then ends this process too. Waiting does it by
  // itself; long computations call it now and then (the commands' Progress does).
  virtual void Poll() {}
  // Ends all ranks with exit code `code` and one message. `message` should name this rank
  // (RankName); where several ranks fail, one of their messages is printed; an empty one is not.
  // OneRank throws it.
  [[noreturn]] virtual void Abort(const std::string& message, int code) = 0;

  // Collective: returns when all ranks have called it.
  void Barrier();
  // Collective: returns the bytes of rank `root` on all ranks; those of the others are ignored.
  [[nodiscard]] std::string Broadcast(std::string bytes, int root = 0);
  // Collective, in place: `values` of rank `root` on all ranks, equally many everywhere.
  void Broadcast(std::span<std::byte> values, int root = 0);
  // Collective: returns the bytes of every rank, by rank, on rank `root`; nothing on the others.
  [[nodiscard]] std::vector<std::string> Gather(const std::string& bytes, int root = 0);
  // Collective: the same on all ranks.
  [[nodiscard]] std::vector<std::string> AllGather(const std::string& bytes);

  // Collective: returns the sum of the ranks' numbers.
  [[nodiscard]] int64_t Total(int64_t mine);

  // Returns the rank that a part belongs to.
  [[nodiscard]] int OwnerOf(int64_t part) const { return static_cast<int>(part % size()); }
  [[nodiscard]] bool Owns(int64_t part) const { return OwnerOf(part) == rank(); }
  // Returns this rank's parts of `count`: rank, rank + size, ...
  [[nodiscard]] std::vector<int64_t> PartsOf(int64_t count) const;
  // Collective: returns the bytes of all `count` parts in their order on rank 0, nothing on the
  // others. `mine` has one entry for each of PartsOf(count). Throws kInternal for another number.
  [[nodiscard]] std::vector<std::string> GatherParts(const std::vector<std::string>& mine,
                                                     int64_t count);
  // Collective: the same on all ranks.
  [[nodiscard]] std::vector<std::string> AllGatherParts(const std::vector<std::string>& mine,
                                                        int64_t count);

 private:
  // Bytes whose number the receiver does not know.
  void SendString(int to, const std::string& bytes);
  [[nodiscard]] std::string ReceiveString(int from);
};

// Returns the one rank of a command that no launcher has started: no operation waits.
[[nodiscard]] Ranks& OneRank();

// Returns "rank 2 on node3".
[[nodiscard]] std::string RankName(const Ranks& ranks);

// Names and values that must be equal on all ranks: version, options, hashes of inputs.
using RankFacts = std::vector<std::pair<std::string, std::string>>;

// Collective: throws kUsage on all ranks, naming the fact, its two values and the first rank that
// differs from rank 0, with its host.
void CheckAgreement(Ranks& ranks, const RankFacts& facts);

}  // namespace kvc
