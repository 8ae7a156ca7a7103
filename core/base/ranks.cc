#include "core/base/ranks.h"

#include <algorithm>
#include <array>

#include <unistd.h>

#include "core/base/error.h"
#include "core/base/rank_bytes.h"

namespace kvc {
namespace {

std::string HostName() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "this host";
  return name.data();
}

class SoleRank : public Ranks {
 public:
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int size() const override { return 1; }
  [[nodiscard]] const std::string& host() const override { return host_; }
  void Send(int, std::span<const std::byte>) override { Refuse(); }
  void Receive(int, std::span<std::byte>) override { Refuse(); }
  void Exchange(int, std::span<const std::byte>, int, std::span<std::byte>) override { Refuse(); }
  [[noreturn]] void Abort(const std::string& message, int) override {
    throw Error(ErrorKind::kInternal, message);
  }

 private:
  [[noreturn]] static void Refuse() {
    KVC_THROW(kInternal, "ranks: expected another rank, got one only");
  }
  std::string host_ = HostName();
};

// Strings one after the other, each behind its length.
std::string Pack(const std::vector<std::string>& strings) {
  std::string packed;
  for (const std::string& text : strings) {
    const uint64_t length = text.size();
    AppendBytes(packed, std::span(&length, 1));
    packed += text;
  }
  return packed;
}

std::vector<std::string> Unpack(const std::string& packed) {
  std::vector<std::string> strings;
  std::string_view left = packed;
  while (!left.empty()) {
    const uint64_t length = TakeValues<uint64_t>(left, 1)[0];
    strings.emplace_back(left.substr(0, length));
    left.remove_prefix(length);
  }
  return strings;
}

std::vector<std::string> Flat(const RankFacts& facts, const std::string& host) {
  std::vector<std::string> flat = {host};
  for (const auto& [name, value] : facts) {
    flat.push_back(name);
    flat.push_back(value);
  }
  return flat;
}

// Returns the entry, or "nothing" where the list is shorter.
std::string At(const std::vector<std::string>& list, size_t i) {
  return i < list.size() ? list[i] : "nothing";
}

}  // namespace

void Ranks::Barrier() {
  std::byte token{};
  // After step d a rank knows that the 2 d ranks before it have arrived.
  for (int d = 1; d < size(); d *= 2) {
    Exchange((rank() + d) % size(), {&token, 1}, (rank() - d % size() + size()) % size(),
             {&token, 1});
  }
}

void Ranks::Broadcast(std::span<std::byte> values, int root) {
  const int ranks = size();
  const int from_root = (rank() - root + ranks) % ranks;
  // A binomial tree: with d = 1, 2, 4, ... the first d ranks behind the root hand on to the next d.
  for (int d = 1; d < ranks; d *= 2) {
    if (from_root < d) {
      if (from_root + d < ranks) Send((rank() + d) % ranks, values);
    } else if (from_root < 2 * d) {
      Receive((rank() - d + ranks) % ranks, values);
    }
  }
}

std::string Ranks::Broadcast(std::string bytes, int root) {
  if (is_only()) return bytes;
  uint64_t length = bytes.size();
  Broadcast(std::as_writable_bytes(std::span(&length, 1)), root);
  bytes.resize(length);
  Broadcast(std::as_writable_bytes(std::span(bytes)), root);
  return bytes;
}

void Ranks::SendString(int to, const std::string& bytes) {
  const uint64_t length = bytes.size();
  Send(to, std::as_bytes(std::span(&length, 1)));
  Send(to, std::as_bytes(std::span(bytes)));
}

std::string Ranks::ReceiveString(int from) {
  uint64_t length = 0;
  Receive(from, std::as_writable_bytes(std::span(&length, 1)));
  std::string bytes(length, '\0');
  Receive(from, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

std::vector<std::string> Ranks::Gather(const std::string& bytes, int root) {
  std::vector<std::string> all;
  if (rank() != root) {
    SendString(root, bytes);
    return all;
  }
  for (int r = 0; r < size(); ++r) all.push_back(r == root ? bytes : ReceiveString(r));
  return all;
}

std::vector<std::string> Ranks::AllGather(const std::string& bytes) {
  if (is_only()) return {bytes};
  return Unpack(Broadcast(Pack(Gather(bytes))));
}

int64_t Ranks::Total(int64_t mine) {
  int64_t total = 0;
  for (const std::string& bytes : AllGather(std::to_string(mine))) total += std::stoll(bytes);
  return total;
}

std::vector<int64_t> Ranks::PartsOf(int64_t count) const {
  std::vector<int64_t> parts;
  for (int64_t part = rank(); part < count; part += size()) parts.push_back(part);
  return parts;
}

std::vector<std::string> Ranks::GatherParts(const std::vector<std::string>& mine, int64_t count) {
  KVC_CHECK(mine.size() == PartsOf(count).size(), kInternal,
            "ranks: expected {} parts of this rank, got {}", PartsOf(count).size(), mine.size());
  if (is_only()) return mine;
  const std::vector<std::string> packed = Gather(Pack(mine));
  std::vector<std::string> parts(packed.empty() ? 0 : count);
  for (int r = 0; r < std::ssize(packed); ++r) {
    std::vector<std::string> theirs = Unpack(packed[r]);
    for (int64_t i = 0; i < std::ssize(theirs); ++i) parts[r + i * size()] = std::move(theirs[i]);
  }
  return parts;
}

std::vector<std::string> Ranks::AllGatherParts(const std::vector<std::string>& mine,
                                               int64_t count) {
  const std::vector<std::string> parts = GatherParts(mine, count);
  return is_only() ? parts : Unpack(Broadcast(Pack(parts)));
}

Ranks& OneRank() {
  static SoleRank one;
  return one;
}

std::string RankName(const Ranks& ranks) {
  return "rank " + std::to_string(ranks.rank()) + " on " + ranks.host();
}

void CheckAgreement(Ranks& ranks, const RankFacts& facts) {
  if (ranks.is_only()) return;
  const std::vector<std::string> all = ranks.AllGather(Pack(Flat(facts, ranks.host())));
  const std::vector<std::string> first = Unpack(all[0]);
  for (size_t r = 1; r < all.size(); ++r) {
    const std::vector<std::string> other = Unpack(all[r]);
    // Behind the host: name and value in turns.
    for (size_t i = 1; i < std::max(first.size(), other.size()); i += 2) {
      if (At(first, i) == At(other, i) && At(first, i + 1) == At(other, i + 1)) continue;
      KVC_THROW(kUsage,
                "rank {} on {}: {}: expected {} as on rank 0 ({}), got {}; start all ranks with "
                "the same kvc, options and inputs",
                r, other[0], At(i < first.size() ? first : other, i), At(first, i + 1), first[0],
                At(other, i + 1));
    }
  }
}

}  // namespace kvc
