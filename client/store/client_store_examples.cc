// ClientStore: examples and their collections.
#include <SQLiteCpp/SQLiteCpp.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "client/store/client_store.h"
#include "client/store/client_store_impl.h"
#include "crypto/digest.h"
#include "crypto/hkdf.h"

namespace selvage::client {

using store_internal::Bind;
using store_internal::CountUp;
using store_internal::ExampleRow;
using store_internal::PlaceOf;

namespace {

constexpr size_t kExampleSizeMax = 16 << 20;
// No clock of ours shows a time outside these, and their differences fit.
constexpr int64_t kTimeMax = int64_t{1} << 61;

std::string LayoutOf(std::span<const size_t> sizes) {
  std::string layout;
  for (const size_t size : sizes) {
    if (!layout.empty()) layout += ",";
    layout += std::to_string(size);
  }
  return layout;
}

bool IsTensorName(std::string_view name) {
  return !name.empty() && name.size() <= 64 &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
         });
}

std::string TypeText(const TensorSchema& tensor) {
  std::string text(plan::DTypeName(tensor.dtype));
  text += "[";
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    if (i > 0) text += ",";
    text += std::to_string(tensor.shape[i]);
  }
  return text + "]";
}

// nullopt: a dimension is below one, or it is larger than any example.
std::optional<size_t> SizeOf(const TensorSchema& tensor) {
  size_t size = plan::SizeOf(tensor.dtype);
  for (const int64_t dimension : tensor.shape) {
    if (dimension < 1 ||
        static_cast<uint64_t>(dimension) > kExampleSizeMax / size) {
      return std::nullopt;
    }
    size *= static_cast<size_t>(dimension);
  }
  return size;
}

Status CheckDeclaration(const std::string& name,
                        const CollectionOptions& options) {
  const std::string what = "collection " + name + ": ";
  if (options.schema.size() > plan::kInputCountMax) {
    return InvalidArgument(
        what + "the schema has " + std::to_string(options.schema.size()) +
        " tensors, more than " + std::to_string(plan::kInputCountMax));
  }
  size_t total = 0;
  for (size_t i = 0; i < options.schema.size(); ++i) {
    const TensorSchema& tensor = options.schema[i];
    if (!IsTensorName(tensor.name)) {
      return InvalidArgument(what + "the name of tensor " + std::to_string(i) +
                             " is not 1..64 of [A-Za-z0-9_.-]");
    }
    for (size_t j = 0; j < i; ++j) {
      if (options.schema[j].name == tensor.name) {
        return InvalidArgument(what + "two tensors are named " + tensor.name);
      }
    }
    const std::optional<size_t> size = SizeOf(tensor);
    if (tensor.shape.size() > 8 || !size.has_value()) {
      return InvalidArgument(what + "tensor " + tensor.name + " is " +
                             TypeText(tensor) +
                             ", not of at most 8 dimensions of 1 or more and " +
                             std::to_string(kExampleSizeMax) + " bytes");
    }
    total += *size;
  }
  if (total > kExampleSizeMax) {
    return InvalidArgument(what + "an example has " + std::to_string(total) +
                           " bytes, more than " +
                           std::to_string(kExampleSizeMax));
  }
  if (options.ttl < Duration::zero() || options.ttl.count() > kTimeMax) {
    return InvalidArgument(what + "ttl (" +
                           std::to_string(options.ttl.count()) +
                           " us) is not 0.." + std::to_string(kTimeMax));
  }
  constexpr auto kNumberMax =
      static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (options.count_max > kNumberMax || options.bytes_max > kNumberMax) {
    return InvalidArgument(
        what + "count_max (" + std::to_string(options.count_max) +
        ") or bytes_max (" + std::to_string(options.bytes_max) +
        ") is more than " + std::to_string(kNumberMax));
  }
  if (options.bytes_max > 0 && total > options.bytes_max) {
    return InvalidArgument(what + "an example has " + std::to_string(total) +
                           " bytes, bytes_max is " +
                           std::to_string(options.bytes_max));
  }
  return OkStatus();
}

Status CheckAgainst(const std::string& collection,
                    const CollectionOptions& options, size_t index,
                    const Example& example) {
  const std::string what =
      "collection " + collection + ", example " + std::to_string(index) + ": ";
  const std::vector<TensorSchema>& schema = options.schema;
  if (!schema.empty() && example.inputs.size() != schema.size()) {
    return InvalidArgument(
        what + "it has " + std::to_string(example.inputs.size()) +
        " tensors, the schema " + std::to_string(schema.size()));
  }
  size_t total = 0;
  for (size_t i = 0; i < example.inputs.size(); ++i) {
    const size_t size = example.inputs[i].size();
    total += size;
    if (schema.empty() || size == SizeOf(schema[i])) continue;
    return InvalidArgument(what + "tensor " + schema[i].name + " has " +
                           std::to_string(size) + " bytes, " +
                           TypeText(schema[i]) + " takes " +
                           std::to_string(*SizeOf(schema[i])));
  }
  if (options.bytes_max > 0 && total > options.bytes_max) {
    return ResourceExhausted(what + "it has " + std::to_string(total) +
                             " bytes, bytes_max is " +
                             std::to_string(options.bytes_max));
  }
  if (example.timestamp.has_value() &&
      (*example.timestamp < Time{} ||
       ToMicros(*example.timestamp) > kTimeMax)) {
    return InvalidArgument(what + "its timestamp (" +
                           std::to_string(ToMicros(*example.timestamp)) +
                           " us) is not 0.." + std::to_string(kTimeMax));
  }
  return OkStatus();
}

// "pixels u8 28,28\nlabel i64 \n": names have no white space.
std::string EncodeSchema(const std::vector<TensorSchema>& schema) {
  std::string text;
  for (const TensorSchema& tensor : schema) {
    text +=
        tensor.name + " " + std::string(plan::DTypeName(tensor.dtype)) + " ";
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      if (i > 0) text += ",";
      text += std::to_string(tensor.shape[i]);
    }
    text += "\n";
  }
  return text;
}

Result<std::vector<TensorSchema>> DecodeSchema(std::string_view text) {
  const Status damaged = DataLoss("the schema of a collection is damaged");
  std::vector<TensorSchema> schema;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return damaged;
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    const size_t first = line.find(' ');
    const size_t second = line.find(' ', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) {
      return damaged;
    }
    TensorSchema tensor;
    tensor.name = line.substr(0, first);
    const Result<plan::DType> dtype =
        plan::ParseDType(line.substr(first + 1, second - first - 1));
    if (!dtype.ok()) return damaged;
    tensor.dtype = *dtype;
    std::string_view shape = line.substr(second + 1);
    while (!shape.empty()) {
      const size_t comma = std::min(shape.find(','), shape.size());
      int64_t value = 0;
      for (const char c : shape.substr(0, comma)) {
        if (c < '0' || c > '9' || value > kTimeMax / 10) return damaged;
        value = value * 10 + (c - '0');
      }
      tensor.shape.push_back(value);
      shape.remove_prefix(std::min(comma + 1, shape.size()));
    }
    if (!SizeOf(tensor).has_value()) return damaged;
    schema.push_back(std::move(tensor));
  }
  return schema;
}

// What is kept of a key. Bound to the collection, whose name holds no zero.
Result<crypto::Digest> HashKey(const ValueSeal& seal,
                               const std::string& collection,
                               const std::string& key) {
  SELVAGE_ASSIGN_OR_RETURN(
      const crypto::SecretBytes secret,
      crypto::HkdfSha256(seal.data_key(), {}, AsBytes("selvage/v1 example key"),
                         32));
  return crypto::HmacSha256(secret.ExposeSecret(),
                            AsBytes(collection + '\0' + key));
}

struct Usage {
  uint64_t count = 0;
  uint64_t bytes = 0;
};

Usage UsageOf(SQLite::Database& db, const std::string& collection) {
  SQLite::Statement query(
      db, "SELECT count, bytes FROM usage WHERE collection = ?");
  query.bind(1, collection);
  if (!query.executeStep()) return {};
  return {.count = static_cast<uint64_t>(query.getColumn(0).getInt64()),
          .bytes = static_cast<uint64_t>(query.getColumn(1).getInt64())};
}

// Removes the oldest with ids below `keep_from`, of `collection` or of all
// (empty), until at least `count` and `bytes` are gone, or all are. How many
// went.
uint64_t RemoveOldest(SQLite::Database& db, const std::string& collection,
                      uint64_t count, uint64_t bytes,
                      int64_t keep_from = std::numeric_limits<int64_t>::max()) {
  std::vector<int64_t> ids;
  {
    SQLite::Statement query(
        db, collection.empty()
                ? "SELECT id, size FROM example WHERE id < ? "
                  "ORDER BY timestamp, id"
                : "SELECT id, size FROM example WHERE id < ? AND collection = "
                  "? ORDER BY timestamp, id");
    query.bind(1, keep_from);
    if (!collection.empty()) query.bind(2, collection);
    uint64_t freed = 0;
    while ((ids.size() < count || freed < bytes) && query.executeStep()) {
      ids.push_back(query.getColumn(0).getInt64());
      freed += static_cast<uint64_t>(query.getColumn(1).getInt64());
    }
  }
  SQLite::Statement remove(db, "DELETE FROM example WHERE id = ?");
  for (const int64_t id : ids) {
    remove.reset();
    remove.bind(1, id);
    remove.exec();
  }
  return ids.size();
}

uint64_t UsedBytes(SQLite::Database& db) {
  const auto number = [&](const char* pragma) {
    return static_cast<uint64_t>(db.execAndGet(pragma).getInt64());
  };
  return (number("PRAGMA page_count") - number("PRAGMA freelist_count")) *
         number("PRAGMA page_size");
}

}  // namespace

Status ClientStore::Impl::LoadCollections(SQLite::Database& database) {
  SQLite::Statement query(
      database,
      "SELECT name, schema, ttl, count_max, bytes_max FROM collection");
  while (query.executeStep()) {
    CollectionOptions options;
    SELVAGE_ASSIGN_OR_RETURN(options.schema,
                             DecodeSchema(query.getColumn(1).getString()));
    options.ttl = Duration(query.getColumn(2).getInt64());
    options.count_max = static_cast<uint64_t>(query.getColumn(3).getInt64());
    options.bytes_max = static_cast<uint64_t>(query.getColumn(4).getInt64());
    collections[query.getColumn(0).getString()] = std::move(options);
  }
  return OkStatus();
}

CollectionOptions ClientStore::Impl::OptionsOf(
    const std::string& collection) const {
  const auto it = collections.find(collection);
  return it == collections.end() ? CollectionOptions() : it->second;
}

void ClientStore::Impl::Expire(SQLite::Database& database,
                               const std::string& collection,
                               const CollectionOptions& options) {
  if (options.ttl == Duration::zero()) return;
  const int64_t oldest = ToMicros(clock.Now()) - options.ttl.count();
  SQLite::Statement remove(
      database, "DELETE FROM example WHERE collection = ? AND timestamp <= ?");
  remove.bind(1, collection);
  remove.bind(2, oldest);
  const auto gone = static_cast<uint64_t>(remove.exec());
  if (gone == 0) return;
  CountUp(database, "examples_expired", gone);
  events.Write(LogLevel::kInfo, "examples_expired",
               {{"collection", collection}, {"count", gone}});
}

void ClientStore::Impl::EvictFrom(SQLite::Database& database,
                                  const std::string& collection,
                                  const CollectionOptions& options) {
  Expire(database, collection, options);
  const Usage usage = UsageOf(database, collection);
  const auto over = [](uint64_t used, uint64_t bound) {
    return bound > 0 && used > bound ? used - bound : 0;
  };
  const uint64_t gone =
      RemoveOldest(database, collection, over(usage.count, options.count_max),
                   over(usage.bytes, options.bytes_max));
  if (gone == 0) return;
  CountUp(database, "examples_evicted", gone);
  events.Write(
      LogLevel::kInfo, "examples_evicted",
      {{"collection", collection}, {"count", gone}, {"bound", "collection"}});
}

Status ClientStore::Impl::EvictFromAll(SQLite::Database& database,
                                       int64_t keep_from) {
  if (bytes_max == 0) return OkStatus();
  uint64_t gone = 0;
  while (true) {
    const uint64_t used = UsedBytes(database);
    if (used <= bytes_max) break;
    const uint64_t removed =
        RemoveOldest(database, "", 1, used - bytes_max, keep_from);
    if (removed == 0) {
      return ResourceExhausted(
          "the store has " + std::to_string(used) +
          " bytes without any older example, store_bytes_max is " +
          std::to_string(bytes_max));
    }
    gone += removed;
  }
  if (gone == 0) return OkStatus();
  CountUp(database, "examples_evicted", gone);
  events.Write(LogLevel::kWarning, "examples_evicted",
               {{"collection", "*"}, {"count", gone}, {"bound", "store"}});
  return OkStatus();
}

Status ClientStore::DeclareCollection(const std::string& name,
                                      const CollectionOptions& options) {
  SELVAGE_RETURN_IF_ERROR(CheckDeclaration(name, options));
  return impl_->Run([&](SQLite::Database& db) -> Status {
    const auto before = impl_->collections.find(name);
    // Hosts declare at every start: that must not cost a sync.
    if (before != impl_->collections.end() && before->second == options) {
      return OkStatus();
    }
    SQLite::Transaction transaction(db);
    SQLite::Statement insert(
        db,
        "INSERT OR REPLACE INTO collection (name, schema, ttl, count_max, "
        "bytes_max) VALUES (?, ?, ?, ?, ?)");
    insert.bind(1, name);
    insert.bind(2, EncodeSchema(options.schema));
    insert.bind(3, options.ttl.count());
    insert.bind(4, static_cast<int64_t>(options.count_max));
    insert.bind(5, static_cast<int64_t>(options.bytes_max));
    insert.exec();
    impl_->EvictFrom(db, name, options);
    transaction.commit();
    impl_->collections[name] = options;
    return OkStatus();
  });
}

Result<std::vector<int64_t>> ClientStore::AddExamples(
    std::string_view collection, std::span<const Example> examples) {
  const std::string name(collection);
  const ValueSeal& seal = impl_->seal;
  return impl_->Run([&](SQLite::Database& db) -> Result<std::vector<int64_t>> {
    const CollectionOptions options = impl_->OptionsOf(name);
    for (size_t i = 0; i < examples.size(); ++i) {
      SELVAGE_RETURN_IF_ERROR(CheckAgainst(name, options, i, examples[i]));
    }
    std::vector<int64_t> ids;
    SQLite::Transaction transaction(db);
    // The id is bound to the values, so it must be known before; ids of deleted
    // examples are never given again (AUTOINCREMENT).
    int64_t id = 0;
    {
      SQLite::Statement last(
          db, "SELECT seq FROM sqlite_sequence WHERE name = 'example'");
      if (last.executeStep()) id = last.getColumn(0).getInt64();
    }
    const Time now = impl_->clock.Now();
    SQLite::Statement insert(
        db,
        "INSERT INTO example (id, collection, layout, inputs, timestamp, "
        "consent, size, key) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    SQLite::Statement find(db, "SELECT id FROM example WHERE key = ?");
    const int64_t first_new = id + 1;
    for (const Example& example : examples) {
      std::optional<crypto::Digest> key;
      if (!example.key.empty()) {
        SELVAGE_ASSIGN_OR_RETURN(key, HashKey(seal, name, example.key));
        find.reset();
        Bind(find, 1, key->span());
        if (find.executeStep()) {
          ids.push_back(find.getColumn(0).getInt64());
          continue;
        }
      }
      std::vector<size_t> sizes;
      Bytes all;
      for (const Bytes& input : example.inputs) {
        sizes.push_back(input.size());
        AppendBytes(all, input);
      }
      ++id;
      const std::string layout = LayoutOf(sizes);
      const Time timestamp = example.timestamp.value_or(now);
      SELVAGE_ASSIGN_OR_RETURN(
          const Bytes sealed,
          seal.Seal(
              PlaceOf(ExampleRow(id, name, layout, timestamp, example.consent)),
              all));
      insert.reset();
      insert.bind(1, id);
      insert.bind(2, name);
      insert.bind(3, layout);
      Bind(insert, 4, sealed);
      insert.bind(5, ToMicros(timestamp));
      insert.bind(6, example.consent ? 1 : 0);
      insert.bind(7, static_cast<int64_t>(all.size()));
      if (key.has_value()) {
        Bind(insert, 8, key->span());
      } else {
        insert.bind(8);  // NULL
      }
      insert.exec();
      ids.push_back(id);
    }
    impl_->EvictFrom(db, name, options);
    SELVAGE_RETURN_IF_ERROR(impl_->EvictFromAll(db, first_new));
    transaction.commit();
    return ids;
  });
}

Status ClientStore::DeleteExample(int64_t id) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Statement remove(db, "DELETE FROM example WHERE id = ?");
    remove.bind(1, id);
    if (remove.exec() == 0) {
      return NotFound("there is no example " + std::to_string(id));
    }
    // secure_delete overwrote it in the pages; the log goes too.
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    return OkStatus();
  });
}

Result<uint64_t> ClientStore::CountExamples(std::string_view collection) {
  return impl_->Run([&](SQLite::Database& db) -> Result<uint64_t> {
    const std::string name(collection);
    SQLite::Transaction transaction(db);
    impl_->Expire(db, name, impl_->OptionsOf(name));
    transaction.commit();
    return UsageOf(db, name).count;
  });
}

Result<std::vector<int64_t>> ClientStore::ExampleIds(
    std::string_view collection, std::span<const size_t> input_sizes,
    bool consented) {
  return impl_->Run([&](SQLite::Database& db) -> Result<std::vector<int64_t>> {
    const std::string name(collection);
    {
      SQLite::Transaction transaction(db);
      impl_->Expire(db, name, impl_->OptionsOf(name));
      transaction.commit();
    }
    SQLite::Statement query(db,
                            "SELECT id FROM example WHERE collection = ? AND "
                            "layout = ? AND consent >= ? ORDER BY id");
    query.bind(1, name);
    query.bind(2, LayoutOf(input_sizes));
    query.bind(3, consented ? 1 : 0);
    std::vector<int64_t> ids;
    while (query.executeStep()) ids.push_back(query.getColumn(0).getInt64());
    return ids;
  });
}

Result<ExampleSet> ClientStore::LoadExamples(
    std::span<const int64_t> ids, std::span<const size_t> input_sizes) {
  size_t total = 0;
  for (const size_t size : input_sizes) total += size;
  ExampleSet set;
  set.inputs.resize(input_sizes.size());
  return impl_->Run([&](SQLite::Database& db) -> Result<ExampleSet> {
    for (size_t i = 0; i < input_sizes.size(); ++i) {
      set.inputs[i].reserve(ids.size() * input_sizes[i]);
    }
    std::vector<int64_t> damaged;
    SQLite::Statement query(db,
                            "SELECT collection, layout, timestamp, consent, "
                            "inputs FROM example WHERE id = ?");
    for (const int64_t id : ids) {
      query.reset();
      query.bind(1, id);
      if (!query.executeStep()) {
        return NotFound("there is no example " + std::to_string(id));
      }
      const SQLite::Column column = query.getColumn(4);
      const Result<Bytes> opened = impl_->seal.Open(
          PlaceOf(ExampleRow(id, query.getColumn(0).getString(),
                             query.getColumn(1).getString(),
                             FromMicros(query.getColumn(2).getInt64()),
                             query.getColumn(3).getInt() != 0)),
          ByteSpan(static_cast<const uint8_t*>(column.getBlob()),
                   static_cast<size_t>(column.getBytes())));
      if (!opened.ok()) {
        damaged.push_back(id);
        continue;
      }
      if (opened->size() != total) {
        return DataLoss("example " + std::to_string(id) + " has " +
                        std::to_string(opened->size()) + " bytes, not " +
                        std::to_string(total));
      }
      ++set.count;
      ByteSpan rest = *opened;
      for (size_t i = 0; i < input_sizes.size(); ++i) {
        AppendBytes(set.inputs[i], rest.first(input_sizes[i]));
        rest = rest.subspan(input_sizes[i]);
      }
    }
    query.reset();
    if (!damaged.empty()) {
      SQLite::Transaction transaction(db);
      SQLite::Statement remove(db, "DELETE FROM example WHERE id = ?");
      for (const int64_t id : damaged) {
        remove.reset();
        remove.bind(1, id);
        remove.exec();
        impl_->TellDamaged(db, PlaceOf({}));
      }
      transaction.commit();
    }
    return std::move(set);
  });
}

}  // namespace selvage::client
