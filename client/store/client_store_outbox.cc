// What waits to be sent, and the record of what became of it.
#include <SQLiteCpp/SQLiteCpp.h>

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "client/store/client_store.h"
#include "client/store/client_store_impl.h"
#include "crypto/aead.h"

namespace selvage::client {

using store_internal::AuditPlace;
using store_internal::AuditRow;
using store_internal::Bind;
using store_internal::BindInPlace;
using store_internal::BlobOf;
using store_internal::DecodeAbout;
using store_internal::EncodeAbout;
using store_internal::OutboxAbout;
using store_internal::OutboxPlace;
using store_internal::PiecePlace;
using store_internal::PieceRow;

namespace {

Bytes EncodeMetrics(std::span<const aggregation::MetricValue> metrics) {
  Bytes out;
  for (const aggregation::MetricValue& metric : metrics) {
    AppendLe(out, metric.numerator);
    AppendLe(out, metric.count);
  }
  return out;
}

Result<std::vector<aggregation::MetricValue>> DecodeMetrics(ByteSpan bytes) {
  std::vector<aggregation::MetricValue> metrics;
  ByteReader reader(bytes);
  while (reader.remaining() > 0) {
    aggregation::MetricValue value;
    SELVAGE_ASSIGN_OR_RETURN(value.numerator, reader.Read<int64_t>("metric"));
    SELVAGE_ASSIGN_OR_RETURN(value.count, reader.Read<int64_t>("metric"));
    metrics.push_back(value);
  }
  return metrics;
}

Bytes EncodeAudit(const AuditEntry& entry) {
  Bytes out;
  AppendLe(out, ToMicros(entry.when));
  AppendLe(out, static_cast<uint32_t>(entry.task.size()));
  AppendBytes(out, AsBytes(entry.task));
  AppendLe(out, entry.round);
  AppendLe(out, entry.version);
  AppendLe(out, entry.size_bytes);
  AppendLe(out, entry.norm);
  AppendLe(out, entry.weight);
  AppendLe(out, static_cast<uint8_t>(entry.result));
  return out;
}

Result<AuditEntry> DecodeAudit(ByteSpan bytes) {
  AuditEntry entry;
  ByteReader reader(bytes);
  SELVAGE_ASSIGN_OR_RETURN(const int64_t when, reader.Read<int64_t>("when"));
  entry.when = FromMicros(when);
  SELVAGE_ASSIGN_OR_RETURN(const uint32_t size, reader.Read<uint32_t>("task"));
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan task, reader.ReadBytes(size, "task"));
  entry.task = ToString(task);
  SELVAGE_ASSIGN_OR_RETURN(entry.round, reader.Read<uint64_t>("round"));
  SELVAGE_ASSIGN_OR_RETURN(entry.version, reader.Read<uint64_t>("version"));
  SELVAGE_ASSIGN_OR_RETURN(entry.size_bytes, reader.Read<uint64_t>("size"));
  SELVAGE_ASSIGN_OR_RETURN(entry.norm, reader.Read<double>("norm"));
  SELVAGE_ASSIGN_OR_RETURN(entry.weight, reader.Read<uint32_t>("weight"));
  SELVAGE_ASSIGN_OR_RETURN(const uint8_t result,
                           reader.Read<uint8_t>("result"));
  if (result > static_cast<uint8_t>(AuditResult::kWithdrawn)) {
    return DataLoss("an audit entry has result " + std::to_string(result));
  }
  entry.result = static_cast<AuditResult>(result);
  return entry;
}

Status AddAudit(SQLite::Database& db, const ValueSeal& seal,
                const AuditEntry& entry) {
  // Its own row number is bound to an entry, so it must be known before.
  int64_t id = 1;
  {
    SQLite::Statement last(
        db, "SELECT seq FROM sqlite_sequence WHERE name = 'audit'");
    if (last.executeStep()) id = last.getColumn(0).getInt64() + 1;
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed,
      seal.Seal(AuditPlace(AuditRow(id)), EncodeAudit(entry)));
  SQLite::Statement insert(db, "INSERT INTO audit (id, entry) VALUES (?, ?)");
  insert.bind(1, id);
  Bind(insert, 2, sealed);
  insert.exec();
  SQLite::Statement trim(db, "DELETE FROM audit WHERE id <= ?");
  trim.bind(1, id - static_cast<int64_t>(kAuditMax));
  trim.exec();
  return OkStatus();
}

AuditEntry AuditOf(const OutboxAbout& about, uint64_t size, Time when,
                   AuditResult result) {
  return {.when = when,
          .task = about.task,
          .round = about.round,
          .version = about.version,
          .size_bytes = size,
          .norm = about.norm,
          .weight = about.weight,
          .result = result};
}

struct OutboxRow {
  std::string assignment_id;
  OutboxAbout about;
  uint64_t payload_size = 0;
  uint64_t pieces = 0;  // that it lies in; 0: in the row itself
};

uint64_t WithoutOverhead(uint64_t sealed_size, uint64_t values) {
  return sealed_size -
         std::min<uint64_t>(sealed_size, values * crypto::kAeadOverhead);
}

// How many pieces there are of an assignment, and what they hold.
struct Pieces {
  uint64_t count = 0;
  uint64_t size_bytes = 0;
};
Pieces CountPieces(SQLite::Database& db, const std::string& assignment_id) {
  SQLite::Statement query(db,
                          "SELECT count(*), coalesce(sum(length(payload)), 0) "
                          "FROM outbox_piece WHERE assignment_id = ?");
  query.bind(1, assignment_id);
  Pieces pieces;
  if (!query.executeStep()) return pieces;
  pieces.count = static_cast<uint64_t>(query.getColumn(0).getInt64());
  pieces.size_bytes = WithoutOverhead(
      static_cast<uint64_t>(query.getColumn(1).getInt64()), pieces.count);
  return pieces;
}

Result<Bytes> ReadPiece(SQLite::Database& db, const ValueSeal& seal,
                        const std::string& assignment_id, uint64_t number) {
  SQLite::Statement query(db,
                          "SELECT payload FROM outbox_piece WHERE "
                          "assignment_id = ? AND number = ?");
  query.bind(1, assignment_id);
  query.bind(2, static_cast<int64_t>(number));
  if (!query.executeStep()) {
    return DataLoss("piece " + std::to_string(number) +
                    " of the update in the outbox is gone");
  }
  const SQLite::Column column = query.getColumn(0);
  // In place: BlobOf() would copy what is large.
  return seal.Open(PiecePlace(PieceRow(assignment_id, number)),
                   ByteSpan(static_cast<const uint8_t*>(column.getBlob()),
                            static_cast<size_t>(column.getBytes())));
}

Result<crypto::Digest> DigestOfPieces(SQLite::Database& db,
                                      const ValueSeal& seal,
                                      const std::string& assignment_id,
                                      uint64_t count) {
  crypto::Sha256Hasher hasher;
  for (uint64_t number = 0; number < count; ++number) {
    SELVAGE_ASSIGN_OR_RETURN(const Bytes piece,
                             ReadPiece(db, seal, assignment_id, number));
    hasher.Update(piece);
  }
  return std::move(hasher).Finish();
}

Result<std::optional<OutboxRow>> ReadOutboxRow(SQLite::Database& db,
                                               const ValueSeal& seal) {
  SQLite::Statement query(
      db, "SELECT assignment_id, about, length(payload) FROM outbox");
  if (!query.executeStep()) return std::optional<OutboxRow>();
  OutboxRow row;
  row.assignment_id = query.getColumn(0).getString();
  SELVAGE_ASSIGN_OR_RETURN(const Bytes about,
                           seal.Open(OutboxPlace("about", row.assignment_id),
                                     BlobOf(query.getColumn(1))));
  SELVAGE_ASSIGN_OR_RETURN(row.about, DecodeAbout(about));
  const auto sealed_size = static_cast<uint64_t>(query.getColumn(2).getInt64());
  const Pieces pieces = CountPieces(db, row.assignment_id);
  row.pieces = pieces.count;
  row.payload_size =
      pieces.count > 0 ? pieces.size_bytes : WithoutOverhead(sealed_size, 1);
  return std::optional<OutboxRow>(std::move(row));
}

}  // namespace

namespace store_internal {

Status DropOutbox(ClientStore::Impl& impl, SQLite::Database& db,
                  AuditResult result) {
  const Result<std::optional<OutboxRow>> row = ReadOutboxRow(db, impl.seal);
  if (row.ok() && row->has_value()) {
    const OutboxRow& dropped = **row;
    if (result != AuditResult::kAccepted) {
      SELVAGE_RETURN_IF_ERROR(SettleResidual(impl, db, dropped.assignment_id,
                                             /*committed=*/false));
    }
    SELVAGE_RETURN_IF_ERROR(
        AddAudit(db, impl.seal,
                 AuditOf(dropped.about, dropped.payload_size, impl.clock.Now(),
                         result)));
  }
  db.exec("DELETE FROM outbox");
  db.exec("DELETE FROM outbox_piece");
  return OkStatus();
}

void DropLoosePieces(SQLite::Database& db) {
  db.exec(
      "DELETE FROM outbox_piece WHERE assignment_id NOT IN "
      "(SELECT assignment_id FROM outbox)");
}

Status PutOutbox(ClientStore::Impl& impl, SQLite::Database& db,
                 const OutboxEntry& entry) {
  const ValueSeal& seal = impl.seal;
  const BuiltUpdate& update = entry.update;
  if (update.stored_bytes == 0) {
    db.exec("DELETE FROM outbox_piece");
  } else if (const Pieces pieces = CountPieces(db, entry.assignment_id);
             pieces.size_bytes != update.stored_bytes) {
    return DataLoss("the pieces of the update have " +
                    std::to_string(pieces.size_bytes) + " bytes, not " +
                    std::to_string(update.stored_bytes));
  }
  OutboxAbout about;
  about.task = entry.task;
  about.round = entry.round;
  about.version = entry.version;
  about.expires = entry.expires;
  about.digest = update.digest;
  about.codec = static_cast<int>(update.codec);
  about.weight = update.weight;
  about.norm = update.norm;
  about.scalars = update.scalars;
  about.metrics = EncodeMetrics(update.metrics);
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed_about,
      seal.Seal(OutboxPlace("about", entry.assignment_id), EncodeAbout(about)));
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes sealed_payload,
      seal.Seal(OutboxPlace("payload", entry.assignment_id), update.encoded));
  SQLite::Statement insert(db,
                           "INSERT OR REPLACE INTO outbox (one, "
                           "assignment_id, about, payload) "
                           "VALUES (1, ?, ?, ?)");
  insert.bind(1, entry.assignment_id);
  Bind(insert, 2, sealed_about);
  BindInPlace(insert, 3, sealed_payload);  // it may be large
  insert.exec();
  DropLoosePieces(db);
  SELVAGE_RETURN_IF_ERROR(
      AddAudit(db, seal,
               AuditOf(about, update.size_bytes(), impl.clock.Now(),
                       AuditResult::kRecorded)));
  return OkStatus();
}

}  // namespace store_internal

Result<std::optional<OutboxEntry>> ClientStore::LoadOutbox() {
  const ValueSeal& seal = impl_->seal;
  return impl_->Run([&](SQLite::Database& db)
                        -> Result<std::optional<OutboxEntry>> {
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<OutboxRow> row,
                             ReadOutboxRow(db, seal));
    if (!row.has_value()) return std::optional<OutboxEntry>();
    OutboxEntry entry;
    entry.assignment_id = row->assignment_id;
    entry.task = row->about.task;
    entry.round = row->about.round;
    entry.version = row->about.version;
    entry.expires = row->about.expires;
    entry.update.digest = row->about.digest;
    const int codec = row->about.codec;
    if (codec < 0 || codec > static_cast<int>(plan::CodecName::kRotatedInt8)) {
      return DataLoss("the outbox names codec " + std::to_string(codec));
    }
    entry.update.codec = static_cast<plan::CodecName>(codec);
    entry.update.weight = row->about.weight;
    entry.update.norm = row->about.norm;
    entry.update.scalars = row->about.scalars;
    SELVAGE_ASSIGN_OR_RETURN(entry.update.metrics,
                             DecodeMetrics(row->about.metrics));
    crypto::Digest digest;
    if (row->pieces > 0) {
      entry.update.stored_bytes = row->payload_size;
      SELVAGE_ASSIGN_OR_RETURN(
          digest, DigestOfPieces(db, seal, entry.assignment_id, row->pieces));
    } else {
      SQLite::Statement query(db, "SELECT payload FROM outbox");
      if (!query.executeStep()) return std::optional<OutboxEntry>();
      SELVAGE_ASSIGN_OR_RETURN(
          entry.update.encoded,
          seal.Open(OutboxPlace("payload", entry.assignment_id),
                    BlobOf(query.getColumn(0))));
      // An evaluation has no bytes but its metrics.
      digest = entry.update.encoded.empty()
                   ? aggregation::DigestOf(entry.update.metrics)
                   : crypto::Sha256(entry.update.encoded);
    }
    if (digest != entry.update.digest) {
      return DataLoss("the update in the outbox does not have its digest");
    }
    return std::optional<OutboxEntry>(std::move(entry));
  });
}

Status ClientStore::AddOutboxPiece(const std::string& assignment_id,
                                   uint64_t number, ByteSpan bytes) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes sealed,
        impl_->seal.Seal(PiecePlace(PieceRow(assignment_id, number)), bytes));
    SQLite::Statement insert(
        db,
        "INSERT INTO outbox_piece (assignment_id, number, payload) "
        "VALUES (?, ?, ?)");
    insert.bind(1, assignment_id);
    insert.bind(2, static_cast<int64_t>(number));
    BindInPlace(insert, 3, sealed);
    insert.exec();
    return OkStatus();
  });
}

Result<Bytes> ClientStore::LoadOutboxPiece(const std::string& assignment_id,
                                           uint64_t number) {
  return impl_->Run([&](SQLite::Database& db) -> Result<Bytes> {
    return ReadPiece(db, impl_->seal, assignment_id, number);
  });
}

Status ClientStore::DropLoosePieces() {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    store_internal::DropLoosePieces(db);
    return OkStatus();
  });
}

Result<std::vector<OutboxItem>> ClientStore::InspectOutbox() {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::vector<OutboxItem>> {
        SELVAGE_ASSIGN_OR_RETURN(const std::optional<OutboxRow> row,
                                 ReadOutboxRow(db, impl_->seal));
        std::vector<OutboxItem> items;
        if (!row.has_value()) return items;
        items.push_back({.task = row->about.task,
                         .round = row->about.round,
                         .assignment_id = row->assignment_id,
                         .size_bytes = row->payload_size,
                         .norm = row->about.norm,
                         .weight = row->about.weight,
                         .expires = row->about.expires});
        return items;
      });
}

Result<std::vector<AuditEntry>> ClientStore::Audit(size_t count_max) {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::vector<AuditEntry>> {
        SQLite::Statement query(
            db, "SELECT id, entry FROM audit ORDER BY id DESC LIMIT ?");
        query.bind(1, static_cast<int64_t>(std::min(count_max, kAuditMax)));
        std::vector<AuditEntry> entries;
        while (query.executeStep()) {
          const int64_t id = query.getColumn(0).getInt64();
          SELVAGE_ASSIGN_OR_RETURN(
              const Bytes plain, impl_->seal.Open(AuditPlace(AuditRow(id)),
                                                  BlobOf(query.getColumn(1))));
          SELVAGE_ASSIGN_OR_RETURN(AuditEntry entry, DecodeAudit(plain));
          entries.push_back(std::move(entry));
        }
        return entries;
      });
}

}  // namespace selvage::client
