// What a host hands to the device library and gets to see of it: examples and
// their collections, the outbox, the audit, and the seams for a host that keeps
// the storage key or the examples itself.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "base/time.h"
#include "client/core/run_result.h"
#include "crypto/secret.h"
#include "plan/tensor_table.h"

namespace selvage::client {

// One example: the program's inputs in order, each InputSpec::SizeBytes() long.
struct Example {
  std::vector<Bytes> inputs;
  // When it was observed; nullopt: when it is added. Decides what expires and
  // what is evicted first.
  std::optional<Time> timestamp = std::nullopt;
  // False: for this device only. Personalisation may use it; nothing that is
  // computed from it is ever uploaded.
  bool consent = true;
  // The host's own name of it, at most 256 bytes; empty: none. A collection
  // never holds two examples with one key.
  std::string key = {};
};

// One tensor of an example. An empty shape is one element.
struct TensorSchema {
  std::string name;  // 1..64 of [A-Za-z0-9_.-]
  plan::DType dtype = plan::DType::kFloat32;
  std::vector<int64_t> shape = {};

  friend bool operator==(const TensorSchema&, const TensorSchema&) = default;
};

// Zero: no bound. What does not fit goes oldest first, by timestamp and then by
// id; an example that is older than everything there may be what goes.
struct CollectionOptions {
  std::vector<TensorSchema> schema = {};  // empty: any
  Duration ttl{};
  uint64_t count_max = 0;
  uint64_t bytes_max = 0;  // of the examples' inputs

  friend bool operator==(const CollectionOptions&,
                         const CollectionOptions&) = default;
};

// An update that is ready to be sent, or sent and not yet answered.
struct OutboxItem {
  std::string task;
  uint64_t round = 0;
  std::string assignment_id;
  uint64_t size_bytes = 0;  // as it is sent; 0: an evaluation, metrics only
  double norm = 0;          // BuiltUpdate::norm
  uint32_t weight = 0;      // examples it stands for, at most the plan's cap
  Time expires{};           // not sent after it
};

// Something that happened to an update. Every update has a kRecorded entry,
// and one more when it is over.
struct AuditEntry {
  Time when{};
  std::string task;
  uint64_t round = 0;
  uint64_t version = 0;  // of the model it changes
  // 0: an evaluation: metrics were sent and nothing else.
  uint64_t size_bytes = 0;
  double norm = 0;
  uint32_t weight = 0;
  AuditResult result = AuditResult::kRecorded;

  bool metrics_only() const { return size_bytes == 0; }

  friend bool operator==(const AuditEntry&, const AuditEntry&) = default;
};

// Entries that are kept; older ones go.
inline constexpr size_t kAuditMax = 1000;

struct ForgetOptions {
  // Also the record of what was sent. By default it stays: it is the owner's
  // only evidence of it, and holds neither examples nor values.
  bool audit = false;
};

// A key that the host keeps, for instance in a keystore of its platform. Called
// while the client is opened, by the thread that opens it.
class StorageKeySource {
 public:
  virtual ~StorageKeySource() = default;
  // 32 bytes, the same ones every time. An error fails Client::Open() with it.
  virtual Result<crypto::SecretBytes> LoadOrCreate() = 0;
};

// An example that the host stores. The id says what is held out: the same
// example has the same id in every iteration, and no other example has it ever.
struct SourcedExample {
  uint64_t id = 0;
  Example example;
};

class ExampleIterator {
 public:
  virtual ~ExampleIterator() = default;
  // nullopt, or OUT_OF_RANGE, after the last one. CANCELLED interrupts the
  // session; any other error fails it.
  virtual Result<std::optional<SourcedExample>> Next() = 0;
};

// Examples that stay where the host has them. Called by the thread that runs a
// session or trains, never by two at once.
class DataSource {
 public:
  virtual ~DataSource() = default;
  // The examples of a collection, in any order.
  virtual Result<std::unique_ptr<ExampleIterator>> Open(
      std::string_view collection) = 0;
};

}  // namespace selvage::client
