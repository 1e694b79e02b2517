// What top_k left out of updates, for the next one (error feedback), and the
// control variates of scaffold. It moves only when the outcome of a round is
// known: until then an update's change of it is staged under its assignment.
#include <SQLiteCpp/SQLiteCpp.h>

#include <cstring>
#include <string>
#include <utility>

#include "client/core/session.h"
#include "client/store/client_store.h"
#include "client/store/client_store_impl.h"

namespace selvage::client {

using store_internal::Bind;
using store_internal::BlobOf;

namespace {

// The row of what is settled.
constexpr const char* kSettled = "";

Bytes RowOf(const std::string& task, const std::string& assignment) {
  return ToBytes(task + "\n" + assignment);
}

ValuePlace PlaceOfRow(const Bytes& row) {
  return {.table = "residual", .column = "change", .row = row};
}

Result<std::vector<float>> FloatsOf(const Bytes& bytes) {
  if (bytes.size() % sizeof(float) != 0) {
    return DataLoss("a residual has " + std::to_string(bytes.size()) +
                    " bytes, not a number of floats");
  }
  std::vector<float> floats(bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(floats.data(), bytes.data(), bytes.size());
  return floats;
}

Status Write(SQLite::Database& db, const ValueSeal& seal,
             const std::string& assignment, const ResidualChange& change) {
  const Bytes row = RowOf(change.task, assignment);
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed,
      seal.Seal(PlaceOfRow(row),
                AsBytes(std::span<const float>(change.values))));
  SQLite::Statement insert(db,
                           "INSERT OR REPLACE INTO residual (task, assignment, "
                           "program, change) VALUES (?, ?, ?, ?)");
  insert.bind(1, change.task);
  insert.bind(2, assignment);
  Bind(insert, 3, change.program_digest.span());
  Bind(insert, 4, sealed);
  insert.exec();
  return OkStatus();
}

}  // namespace

namespace store_internal {

// nullopt: there is none, or it is damaged, which is counted and told.
Result<std::optional<ResidualChange>> ReadResidual(
    ClientStore::Impl& impl, SQLite::Database& db, const std::string& task,
    const std::string& assignment) {
  using Answer = std::optional<ResidualChange>;
  SQLite::Statement query(db,
                          "SELECT program, change FROM residual WHERE task = ? "
                          "AND assignment = ?");
  query.bind(1, task);
  query.bind(2, assignment);
  if (!query.executeStep()) return Answer();
  ResidualChange change;
  change.task = task;
  SELVAGE_ASSIGN_OR_RETURN(
      change.program_digest,
      crypto::Digest::FromBytes(BlobOf(query.getColumn(0))));
  const Bytes row = RowOf(task, assignment);
  SELVAGE_ASSIGN_OR_RETURN(
      const std::optional<Bytes> bytes,
      impl.OpenOrDrop(db, PlaceOfRow(row), query.getColumn(1)));
  if (!bytes.has_value()) return Answer();
  SELVAGE_ASSIGN_OR_RETURN(change.values, FloatsOf(*bytes));
  return Answer(std::move(change));
}

Status StageResidual(ClientStore::Impl& impl, SQLite::Database& db,
                     const std::string& assignment,
                     const ResidualChange& change) {
  SELVAGE_RETURN_IF_ERROR(Write(db, impl.seal, assignment, change));
  // A session remembers so many assignments without an outcome.
  SQLite::Statement trim(
      db,
      "DELETE FROM residual WHERE assignment <> '' AND rowid NOT IN (SELECT "
      "rowid FROM residual WHERE assignment <> '' ORDER BY rowid DESC LIMIT "
      "?)");
  trim.bind(1, static_cast<int64_t>(kUnsettledMax));
  trim.exec();
  return OkStatus();
}

Status SettleResidual(ClientStore::Impl& impl, SQLite::Database& db,
                      const std::string& assignment, bool committed) {
  std::string task;
  {
    SQLite::Statement query(db,
                            "SELECT task FROM residual WHERE assignment = ?");
    query.bind(1, assignment);
    if (assignment.empty() || !query.executeStep()) return OkStatus();
    task = query.getColumn(0).getString();
  }
  if (committed) {
    SELVAGE_ASSIGN_OR_RETURN(std::optional<ResidualChange> change,
                             ReadResidual(impl, db, task, assignment));
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<ResidualChange> settled,
                             ReadResidual(impl, db, task, kSettled));
    if (change.has_value()) {
      // One of another program is of no use to this one.
      if (settled.has_value() &&
          settled->program_digest == change->program_digest &&
          settled->values.size() == change->values.size()) {
        for (size_t i = 0; i < change->values.size(); ++i) {
          change->values[i] += settled->values[i];
        }
      }
      SELVAGE_RETURN_IF_ERROR(Write(db, impl.seal, kSettled, *change));
    }
  }
  SQLite::Statement remove(db, "DELETE FROM residual WHERE assignment = ?");
  remove.bind(1, assignment);
  remove.exec();
  return OkStatus();
}

}  // namespace store_internal

Result<std::vector<float>> ClientStore::LoadResidual(
    const std::string& task, const crypto::Digest& program) {
  return impl_->Run([&](SQLite::Database& db) -> Result<std::vector<float>> {
    SELVAGE_ASSIGN_OR_RETURN(
        std::optional<ResidualChange> settled,
        store_internal::ReadResidual(*impl_, db, task, kSettled));
    if (!settled.has_value() || settled->program_digest != program) {
      return std::vector<float>();
    }
    return std::move(settled->values);
  });
}

}  // namespace selvage::client
