// A coordinator process and raw devices that talk to it over mutual TLS: what
// the tests of faults and of the whole system share.
#pragma once

#include <selvage/v1/admin.grpc.pb.h>
#include <selvage/v1/device.grpc.pb.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "plan/checkpoint.h"
#include "plan/program.h"
#include "tests/integration/faults/one_hot.h"
#include "tests/integration/faults/process.h"

namespace selvage::test {

inline constexpr char kPopulation[] = "demo";

// Fails the test and ends the process if there is no value.
template <typename T>
T Take(Result<T> result, const char* what = "");

// An empty directory of the running test; removed by nobody but its successor.
Path FreshDirectory();
std::string ReadText(const Path& path);
Status FromGrpc(const grpc::Status& status);

// A coordinator on free loopback ports that serves from a data directory.
class CoordinatorUnderTest {
 public:
  struct Options {
    std::string binary;  // empty: the shipped selvage-coordinator
    std::map<std::string, std::string> environment{};
    std::vector<std::string> flags{};
    std::string device_address = "127.0.0.1:0";
  };
  // Blocks until it serves or has ended.
  CoordinatorUnderTest(const Path& data_dir, const Options& options);
  explicit CoordinatorUnderTest(const Path& data_dir)
      : CoordinatorUnderTest(data_dir, Options{}) {}

  bool serving() const { return serving_; }
  ChildProcess& process() { return *process_; }
  const Path& data_dir() const { return data_dir_; }
  const std::string& admin_address() const { return admin_address_; }
  const std::string& device_address() const { return device_address_; }
  const std::string& ca_certificate() const { return ca_certificate_; }

  v1::AdminService::Stub& admin() { return *admin_; }
  // With the bearer token and a deadline.
  std::unique_ptr<grpc::ClientContext> AdminContext() const;

  Status CreatePopulation(const std::string& name = kPopulation);
  // An enrolment bundle for `uses` devices, as JSON.
  Result<std::string> CreateBundle(uint32_t uses,
                                   const std::string& population = kPopulation);
  Result<crypto::Digest> UploadArtefact(ByteSpan bytes);
  // The same request_id every time: repeating it is harmless.
  Result<v1::Task> CreateTask(const std::string& task_file,
                              const plan::Program& program,
                              const crypto::Digest& initial = {});
  Result<v1::Round> GetRound(const std::string& task, uint64_t number);
  Result<std::vector<v1::Round>> ListRounds(const std::string& task);
  Result<v1::ServerInfo> Info();
  Result<Bytes> Download(const std::string& digest);
  // The float32 master of the newest version.
  Result<plan::Checkpoint> LatestModel(const std::string& task,
                                       const plan::TensorTable& table);
  // Follows the task until a snapshot satisfies `enough`.
  Result<v1::TaskSnapshot> Watch(
      const std::string& task,
      const std::function<bool(const v1::TaskSnapshot&)>& enough);
  Result<v1::TaskSnapshot> WatchUntilEnded(const std::string& task);

 private:
  const Path data_dir_;
  std::unique_ptr<ChildProcess> process_;
  bool serving_ = false;
  std::string admin_address_;
  std::string device_address_;
  std::string ca_certificate_;
  std::string admin_token_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

struct DeviceCredentials {
  std::string id;
  std::string private_key_pem;
  std::string certificate_pem;
};

// Channel to the device port; empty credentials: none are shown.
std::shared_ptr<grpc::Channel> DeviceChannel(const CoordinatorUnderTest& server,
                                             const std::string& private_key_pem,
                                             const std::string& certificate);

// The same to any address where a server of this authority is behind.
std::shared_ptr<grpc::Channel> DeviceChannel(const std::string& ca_certificate,
                                             const std::string& address,
                                             const std::string& private_key_pem,
                                             const std::string& certificate);

Result<DeviceCredentials> EnrolDevice(const CoordinatorUnderTest& server,
                                      const std::string& bundle,
                                      const std::string& name);

// One device without a client library: it says exactly what the test tells it.
class RawDevice {
 public:
  RawDevice(const CoordinatorUnderTest& server,
            const DeviceCredentials& credentials,
            std::string population = kPopulation);
  RawDevice(const std::string& ca_certificate, const std::string& address,
            const DeviceCredentials& credentials,
            std::string population = kPopulation);

  Result<v1::CheckInResponse> CheckIn();

  struct UploadOptions {
    std::optional<uint64_t> cancel_after{};  // bytes sent
    size_t chunk_size = 1 << 16;
  };
  struct UploadAnswer {
    Status status;  // of the stream
    std::optional<v1::Receipt> receipt{};
    std::optional<uint64_t> resumed_at{};

    // "ACCEPTED", "LATE", a reason such as "BAD_SIZE", or the status' code.
    std::string Name() const;
  };
  UploadAnswer Upload(const v1::UploadHeader& header, ByteSpan bytes,
                      const UploadOptions& options);
  UploadAnswer Upload(const v1::UploadHeader& header, ByteSpan bytes) {
    return Upload(header, bytes, UploadOptions{});
  }
  v1::DeviceService::Stub& stub() { return *stub_; }
  const std::shared_ptr<grpc::Channel>& channel() { return channel_; }

 private:
  const std::string population_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::DeviceService::Stub> stub_;
};

// A deadline for anything that should take milliseconds.
std::unique_ptr<grpc::ClientContext> ShortContext();

// ---- the one-hot oracle (one_hot.h)

plan::Program OneHotProgram(int64_t elements);
// Bytes of device `index`'s update: float32, no framing.
Bytes OneHotUpdate(size_t elements, size_t index, float value = kOneHotValue);
v1::UploadHeader OneHotHeader(const v1::Assignment& assignment,
                              ByteSpan update);
// How often each device's update is in `model`, given how many updates were
// averaged. INTERNAL if that is not a whole number.
Result<std::vector<int>> CountedUpdates(const plan::Checkpoint& model,
                                        uint64_t updates);

template <typename T>
T Take(Result<T> result, const char* what) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s: %s\n", what, result.status().ToString().c_str());
    std::abort();
  }
  return *std::move(result);
}

}  // namespace selvage::test
