#include "core/mpi/mpi_ranks.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <mpi.h>
#include <unistd.h>

#include "core/base/error.h"

namespace kvc {
namespace {

using Clock = std::chrono::steady_clock;

// Bytes of one message of MPI, which counts in int.
constexpr size_t kPiece = size_t{1} << 30;
constexpr int kDataTag = 1;
// A rank that fails tells rank 0, which answers, is told that the rank will not speak itself,
// prints its message, and says so; then the rank that failed ends all. So one of them prints, and
// the launcher's lines name the one that failed.
constexpr int kFailureTag = 2;  // to rank 0: exit code and message
constexpr int kHeardTag = 3;    // from rank 0, twice
constexpr int kYieldTag = 4;    // to rank 0
// How long a rank that has failed waits for rank 0 to hear of it, which may be computing: after
// that it speaks itself, lower ranks first.
constexpr auto kPatience = std::chrono::seconds(10);
constexpr auto kPatienceByRank = std::chrono::seconds(1);
// How long both wait once they have heard of each other.
constexpr auto kHandshake = std::chrono::seconds(60);

// Ends all ranks. The launcher says which one it was; MPI's own lines would only repeat it.
[[noreturn]] void EndAll(int code) {
  std::fflush(stderr);
  const int nowhere = ::open("/dev/null", O_WRONLY);
  if (nowhere >= 0) ::dup2(nowhere, STDERR_FILENO);
  MPI_Abort(MPI_COMM_WORLD, code);
  _exit(code);
}

// Lets others run: at first for a moment, later for longer.
void Pause(int64_t looks) {
  if (looks < 256) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(std::min<int64_t>(looks - 246, 500)));
  }
}

class MpiRanks : public Ranks {
 public:
  explicit MpiRanks(std::function<void(const std::string&)> print) : print_(std::move(print)) {
    int provided = 0;
    Check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "start");
    Check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "start");
    Check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "start");
    Check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "start");
  }

  ~MpiRanks() override {
    try {
      Barrier();  // MPI's own end waits without sleeping
    } catch (const Error&) {
      EndAll(1);
    }
    MPI_Finalize();
  }

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }
  [[nodiscard]] const std::string& host() const override { return host_; }

  void Send(int to, std::span<const std::byte> bytes) override {
    std::vector<MPI_Request> requests;
    StartSend(to, bytes, requests);
    Wait(requests, to);
  }
  void Receive(int from, std::span<std::byte> bytes) override {
    std::vector<MPI_Request> requests;
    StartReceive(from, bytes, requests);
    Wait(requests, from);
  }
  void Exchange(int to,
                std::span<const std::byte> sent,
                int from,
                std::span<std::byte> received) override {
    std::vector<MPI_Request> requests;
    StartReceive(from, received, requests);
    StartSend(to, sent, requests);
    Wait(requests, from);
  }

  // Only rank 0 hears of failures; it ends the others.
  void Poll() override {
    if (rank_ != 0 || std::this_thread::get_id() != thread_) return;
    int found = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, kFailureTag, MPI_COMM_WORLD, &found, &status) != MPI_SUCCESS ||
        found == 0) {
      return;
    }
    int length = 0;
    MPI_Get_count(&status, MPI_BYTE, &length);
    std::string report(length, '\0');
    MPI_Recv(report.data(), length, MPI_BYTE, status.MPI_SOURCE, kFailureTag, MPI_COMM_WORLD,
             MPI_STATUS_IGNORE);
    const int from = status.MPI_SOURCE;
    DoneBefore(Clock::now() + kHandshake, {Signal(from, kHeardTag), Await(from, kYieldTag)});
    // The exit code, then the message.
    const auto code = report.empty() ? 1 : static_cast<unsigned char>(report.front());
    print_(report.substr(std::min<size_t>(report.size(), 1)));
    // Completed by nobody: this process is ended here.
    DoneBefore(Clock::now() + kPatience, {Signal(from, kHeardTag), Await(from, kYieldTag)});
    EndAll(code);
  }

  [[noreturn]] void Abort(const std::string& message, int code) override {
    if (rank_ != 0) {
      const std::string report = static_cast<char>(code) + message;
      MPI_Request sent{};
      MPI_Isend(report.data(), static_cast<int>(report.size()), MPI_BYTE, 0, kFailureTag,
                MPI_COMM_WORLD, &sent);
      const auto end = Clock::now() + kPatience + rank_ * kPatienceByRank;
      if (DoneBefore(end, {sent, Await(0, kHeardTag)})) {
        DoneBefore(Clock::now() + kHandshake, {Signal(0, kYieldTag), Await(0, kHeardTag)});
        EndAll(code);
      }
    }
    print_(message);
    EndAll(code);
  }

 private:
  static void Check(int result, const std::string& what) {
    if (result == MPI_SUCCESS) return;
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(result, text.data(), &length);
    KVC_THROW(kIo, "MPI: expected to {}, got \"{}\"; is the other rank's machine reachable?", what,
              text.data());
  }

  // Messages without bytes, on their way.
  static MPI_Request Signal(int to, int tag) {
    MPI_Request request{};
    MPI_Isend(nullptr, 0, MPI_BYTE, to, tag, MPI_COMM_WORLD, &request);
    return request;
  }
  static MPI_Request Await(int from, int tag) {
    MPI_Request request{};
    MPI_Irecv(nullptr, 0, MPI_BYTE, from, tag, MPI_COMM_WORLD, &request);
    return request;
  }
  // Waits for messages until `end`; returns whether all have gone and come.
  static bool DoneBefore(Clock::time_point end, std::vector<MPI_Request> requests) {
    while (Clock::now() < end) {
      int done = 0;
      MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
      if (done != 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  // Calls one(piece) for the pieces of bytes; of none, for one empty piece.
  template <class Bytes, class One>
  static void ForEachPiece(Bytes bytes, const One& one) {
    do {
      const size_t length = std::min(bytes.size(), kPiece);
      one(bytes.first(length));
      bytes = bytes.subspan(length);
    } while (!bytes.empty());
  }
  static void StartSend(int to,
                        std::span<const std::byte> bytes,
                        std::vector<MPI_Request>& requests) {
    ForEachPiece(bytes, [&](std::span<const std::byte> piece) {
      requests.emplace_back();
      Check(MPI_Isend(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, to, kDataTag,
                      MPI_COMM_WORLD, &requests.back()),
            "send to rank " + std::to_string(to));
    });
  }
  static void StartReceive(int from,
                           std::span<std::byte> bytes,
                           std::vector<MPI_Request>& requests) {
    ForEachPiece(bytes, [&](std::span<std::byte> piece) {
      requests.emplace_back();
      Check(MPI_Irecv(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, from, kDataTag,
                      MPI_COMM_WORLD, &requests.back()),
            "hear from rank " + std::to_string(from));
    });
  }
  void Wait(std::vector<MPI_Request>& requests, int other) {
    for (int64_t looks = 0;; ++looks) {
      int done = 0;
      Check(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done,
                        MPI_STATUSES_IGNORE),
            "hear from rank " + std::to_string(other));
      if (done != 0) return;
      if (looks % 64 == 63) Poll();
      Pause(looks);
    }
  }

  std::function<void(const std::string&)> print_;
  std::thread::id thread_ = std::this_thread::get_id();
  int rank_ = 0;
  int size_ = 1;
  std::string host_ = OneRank().host();
};

}  // namespace

std::string MpiVersion() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string version(text.data(), length);
  std::string name = version.substr(0, version.find(','));  // the rest tells of its package
  const size_t v = name.find(" v");
  return v == std::string::npos ? name : name.erase(v + 1, 1);
}

std::unique_ptr<Ranks> StartMpi(const Launch& launch,
                                std::function<void(const std::string& message)> print) {
  KVC_CHECK(launch.has_mpi, kUsage,
            "srun: expected a plugin for MPI, got none; start with srun --mpi=pmix (srun "
            "--mpi=list names those of this Slurm), or with mpirun inside the job");
  auto ranks = std::make_unique<MpiRanks>(std::move(print));
  KVC_CHECK(ranks->size() == launch.size, kUsage,
            "{}: expected {} ranks of one command, MPI finds {}; use the mpirun of this MPI ({}), "
            "or another --mpi of srun",
            launch.by, launch.size, ranks->size(), MpiVersion());
  return ranks;
}

}  // namespace kvc
