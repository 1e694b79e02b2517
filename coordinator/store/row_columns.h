// The columns of rows that every SQL store selects, and how they are read: the
// order is said once. `Sql` has Columns(), which reads a row's columns.
#pragma once

#include <string>
#include <utility>

#include "coordinator/store.h"

namespace selvage::coordinator {

inline constexpr char kTokenColumns[] =
    "id, population, secret_digest, created, expires, uses_max, uses, revoked";
inline constexpr char kDeviceColumns[] =
    "population, device_id, key_digest, token_id, certificate_pem, "
    "certificate_expires, enrolled, nonce_made";
inline constexpr char kTaskColumns[] =
    "id, name, population, state, task_file, program_digest, plan_digest, "
    "plan_signature, initial_digest, created, ended, committed_rounds, "
    "abandoned_rounds, latest_version, revision, evaluated_rounds, end_reason, "
    "measured, last_measured, best_version, best_value, reference, stale";
inline constexpr char kVersionColumns[] =
    "task_id, version, round, checkpoint_digest, checkpoint_codec, "
    "master_digest, created, server_state_digest";

// "SELECT COLUMNS FROM TABLE ", to be continued.
inline std::string Select(const std::string& columns,
                          const std::string& table) {
  return "SELECT " + columns + " FROM " + table + " ";
}

// name, created, the number of its devices.
template <typename Sql>
void ReadRow(Sql& sql, PopulationRow& row) {
  sql.Columns(row.name, row.created, row.device_count);
}

template <typename Sql>
void ReadRow(Sql& sql, TokenRow& row) {
  sql.Columns(row.id, row.population, row.secret_digest, row.created,
              row.expires, row.uses_max, row.uses, row.revoked);
}

template <typename Sql>
void ReadRow(Sql& sql, DeviceRow& row) {
  sql.Columns(row.population, row.device_id, row.key_digest, row.token_id,
              row.certificate_pem, row.certificate_expires, row.enrolled,
              row.nonce_made);
}

template <typename Sql>
void ReadRow(Sql& sql, TaskRow& row) {
  sql.Columns(row.id, row.name, row.population, row.state, row.task_file,
              row.program_digest, row.plan_digest, row.plan_signature,
              row.initial_digest, row.created, row.ended, row.committed_rounds,
              row.abandoned_rounds, row.latest_version, row.revision,
              row.evaluated_rounds, row.end_reason, row.progress.measured,
              row.progress.last_measured, row.progress.best_version,
              row.progress.best_value, row.progress.reference,
              row.progress.stale);
}

template <typename Sql>
void ReadRow(Sql& sql, VersionRow& row) {
  sql.Columns(row.task_id, row.version, row.round, row.checkpoint_digest,
              row.checkpoint_codec, row.master_digest, row.created,
              row.server_state_digest);
}

// In the order of the row's fields.
template <typename Sql>
void ReadRow(Sql& sql, RoundRow& row) {
  sql.Columns(row.key.task_id, row.key.number, row.state, row.epoch,
              row.base_version, row.result_version, row.opened, row.ended,
              row.reason, row.wrapped_key, row.checked_in, row.bytes_up,
              row.metrics, row.mode, row.class_metrics, row.figures);
}

// The assignment's columns but its class, whether it has a receipt, the
// receipt's (NULL if it has none), the class.
template <typename Sql>
void ReadRow(Sql& sql, AssignmentRecord& record) {
  AssignmentRow& row = record.assignment;
  ReceiptRow receipt;
  bool has_receipt = false;
  sql.Columns(row.id, row.round.task_id, row.round.number, row.device_id,
              row.lease_deadline, row.expires, row.state, row.reason,
              has_receipt, receipt.digest, receipt.status, receipt.reason,
              receipt.message, receipt.partial_id, receipt.created,
              row.device_class);
  if (!has_receipt) return;
  receipt.assignment_id = row.id;
  record.receipt = std::move(receipt);
}

}  // namespace selvage::coordinator
