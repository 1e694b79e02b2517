#include "client/capi/selvage.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/version.h"
#include "client/capi/handles.h"
#include "client/capi/host.h"
#include "client/capi/last_error.h"
#include "client/capi/result_block.h"
#include "client/capi/struct_reader.h"
#include "client/client.h"
#include "crypto/tls_policy.h"

namespace selvage::capi {

selvage_client* Adopt(std::unique_ptr<client::Client> client) {
  auto handle = std::make_unique<selvage_client>();
  handle->client = std::move(client);
  return handle.release();
}

namespace {

constexpr uint64_t kExamplesMax = 1 << 20;  // in one call
constexpr uint64_t kSchemaMax = plan::kInputCountMax;

Status CheckOut(const void* out) {
  return out == nullptr ? InvalidArgument("out is NULL") : OkStatus();
}

template <typename Handle>
Status CheckHandle(const Handle* handle, const char* kind) {
  if (handle == nullptr) return InvalidArgument(std::string(kind) + " is NULL");
  // Only its first word: the rest may be something else, or much smaller.
  if (handle->magic.load(std::memory_order_relaxed) != Handle::kMagic) {
    return InvalidArgument("this is no " + std::string(kind));
  }
  return OkStatus();
}

Status CheckText(const char* text, const char* name) {
  return text == nullptr ? InvalidArgument(std::string(name) + " is NULL")
                         : OkStatus();
}

// Runs `body(client)`, which returns a Status, as the only call on it.
template <typename Body>
selvage_code WithClient(selvage_client* handle, const Body& body) noexcept {
  return Guarded([&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckHandle(handle, "client"));
    CallGate::Call call;
    SELVAGE_RETURN_IF_ERROR(call.EnterAlone(handle->gate));
    return body(*handle->client);
  });
}

Result<client::RunBudget> ReadBudget(const selvage_budget* given) {
  client::RunBudget out;
  if (given == nullptr) return out;
  SELVAGE_ASSIGN_OR_RETURN(const selvage_budget budget,
                           ReadStruct<selvage_budget>(given, "budget"));
  constexpr uint64_t kYearMs = 366ULL * 24 * 3600 * 1000;
  if (budget.time_ms > 0) {
    out.time =
        std::chrono::milliseconds(std::min<uint64_t>(budget.time_ms, kYearMs));
  }
  out.bytes = budget.bytes;
  switch (budget.energy) {
    case SELVAGE_ENERGY_ANY:
      out.energy = client::EnergyClass::kAny;
      break;
    case SELVAGE_ENERGY_CHARGING_ONLY:
      out.energy = client::EnergyClass::kChargingOnly;
      break;
    default:
      return InvalidArgument("budget.energy (" + std::to_string(budget.energy) +
                             ") is unknown");
  }
  return out;
}

// `cancel`, or `never` if it is NULL.
Result<const client::CancelToken*> ReadCancel(
    selvage_cancel* cancel, const client::CancelToken& never) {
  if (cancel == nullptr) return &never;
  SELVAGE_RETURN_IF_ERROR(CheckHandle(cancel, "cancel"));
  return &cancel->token;
}

Result<ByteSpan> ReadBytes(const void* data, uint64_t size, const char* name) {
  if (data == nullptr && size > 0) {
    return InvalidArgument(std::string(name) + " is NULL");
  }
  if (size > std::numeric_limits<size_t>::max() / 2) {
    return InvalidArgument(std::string(name) + " is too large");
  }
  return ByteSpan(static_cast<const uint8_t*>(data), static_cast<size_t>(size));
}

Result<std::vector<client::Example>> ReadExamples(
    const selvage_example* examples, uint64_t count) {
  SELVAGE_ASSIGN_OR_RETURN(
      const std::vector<selvage_example> given,
      ReadStructs(examples, count, kExamplesMax, "example"));
  constexpr uint32_t kFlags = SELVAGE_EXAMPLE_LOCAL_ONLY;
  std::vector<client::Example> out;
  for (const selvage_example& example : given) {
    if ((example.flags & ~kFlags) != 0) {
      return InvalidArgument("example.flags (" + std::to_string(example.flags) +
                             ") has a flag that this version does not have");
    }
    client::Example& to = out.emplace_back();
    SELVAGE_ASSIGN_OR_RETURN(to.inputs,
                             ReadTensors(example.inputs, example.input_count));
    to.timestamp = ReadTimestamp(example.timestamp_us);
    to.consent = (example.flags & SELVAGE_EXAMPLE_LOCAL_ONLY) == 0;
    to.key = TextOf(example.key);
  }
  return out;
}

Result<client::CollectionOptions> ReadCollection(
    const selvage_collection& given) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<selvage_tensor_schema> tensors,
                           ReadStructs(given.tensors, given.tensor_count,
                                       kSchemaMax, "collection.tensors"));
  client::CollectionOptions out;
  for (const selvage_tensor_schema& tensor : tensors) {
    client::TensorSchema schema;
    schema.name = TextOf(tensor.name);
    SELVAGE_ASSIGN_OR_RETURN(schema.dtype, ReadDType(tensor.dtype));
    if (tensor.rank > plan::kTensorRankMax ||
        (tensor.rank > 0 && tensor.shape == nullptr)) {
      return InvalidArgument("tensor " + schema.name + " of rank " +
                             std::to_string(tensor.rank) + " has no shape");
    }
    if (tensor.rank > 0) {
      schema.shape.assign(tensor.shape, tensor.shape + tensor.rank);
    }
    out.schema.push_back(std::move(schema));
  }
  constexpr uint64_t kCenturyMs = 100ULL * 366 * 24 * 3600 * 1000;
  out.ttl =
      std::chrono::milliseconds(std::min<uint64_t>(given.ttl_ms, kCenturyMs));
  out.count_max = given.count_max;
  out.bytes_max = given.bytes_max;
  return out;
}

Result<client::Slot> ReadSlot(int32_t slot) {
  switch (slot) {
    case SELVAGE_SLOT_SERVING:
      return client::Slot::kServing;
    case SELVAGE_SLOT_GLOBAL:
      return client::Slot::kGlobal;
    case SELVAGE_SLOT_PERSONAL:
      return client::Slot::kPersonal;
    case SELVAGE_SLOT_ALONE:
      return client::Slot::kAlone;
    default:
      return InvalidArgument("slot " + std::to_string(slot) + " is unknown");
  }
}

int32_t OutcomeOf(client::RunResult result) {
  switch (result) {
    case client::RunResult::kNothingToDo:
      return SELVAGE_NOTHING_TO_DO;
    case client::RunResult::kContributed:
      return SELVAGE_CONTRIBUTED;
    case client::RunResult::kNotAccepted:
      return SELVAGE_NOT_ACCEPTED;
    case client::RunResult::kInstalled:
      return SELVAGE_INSTALLED;
    case client::RunResult::kDeclined:
      return SELVAGE_DECLINED;
    case client::RunResult::kInterrupted:
      return SELVAGE_INTERRUPTED;
    case client::RunResult::kFailed:
      return SELVAGE_FAILED;
  }
  return SELVAGE_FAILED;
}

int32_t AuditResultOf(client::AuditResult result) {
  switch (result) {
    case client::AuditResult::kRecorded:
      return SELVAGE_AUDIT_RECORDED;
    case client::AuditResult::kAccepted:
      return SELVAGE_AUDIT_ACCEPTED;
    case client::AuditResult::kLate:
      return SELVAGE_AUDIT_LATE;
    case client::AuditResult::kRejected:
      return SELVAGE_AUDIT_REJECTED;
    case client::AuditResult::kWithdrawn:
      return SELVAGE_AUDIT_WITHDRAWN;
  }
  return SELVAGE_AUDIT_WITHDRAWN;
}

uint64_t CountOf(Duration duration) {
  return static_cast<uint64_t>(std::max<int64_t>(duration.count(), 0));
}

// Gives `root`, the first part of `block`, to the host.
template <typename T>
void Give(ResultBlock& block, T** out) {
  *out = static_cast<T*>(block.Release());
}

void GiveModel(const client::ModelInfo& info, selvage_model** out) {
  ResultBlock block;
  auto* model = block.NewStruct<selvage_model>();
  model->personal_serving = info.personal_serving ? 1 : 0;
  model->task = block.Copy(info.task);
  model->version = info.version;
  model->holdout_count = info.holdout_count;
  model->metrics = block.Copy(info.metrics);
  model->metric_count = info.metrics.size();
  const auto scores = [&](const std::vector<double>& values) {
    return values.size() == info.metrics.size() ? block.Copy(values) : nullptr;
  };
  model->global_scores = scores(info.global_scores);
  model->personal_scores = scores(info.personal_scores);
  model->alone_scores = scores(info.alone_scores);
  model->training_paused = info.training_paused ? 1 : 0;
  model->paused_until_us =
      info.training_paused ? ToMicros(info.paused_until) : 0;
  Give(block, out);
}

}  // namespace
}  // namespace selvage::capi

using selvage::ByteSpan;
using selvage::InvalidArgument;
using selvage::OkStatus;
using selvage::Result;
using selvage::Status;
using selvage::ToMicros;
using selvage::capi::CallGate;
using selvage::capi::CheckHandle;
using selvage::capi::CheckOut;
using selvage::capi::CheckText;
using selvage::capi::Give;
using selvage::capi::Guarded;
using selvage::capi::ReadStruct;
using selvage::capi::ResultBlock;
using selvage::capi::WithClient;
namespace client = selvage::client;

extern "C" {

uint32_t selvage_abi_version(void) { return SELVAGE_ABI_VERSION; }

const char* selvage_version(void) { return SELVAGE_LIBRARY_VERSION; }

const char* selvage_code_name(selvage_code status) {
  static_assert(SELVAGE_UNAUTHENTICATED ==
                static_cast<int>(selvage::StatusCode::kUnauthenticated));
  if (status < SELVAGE_OK || status > SELVAGE_UNAUTHENTICATED) return "UNKNOWN";
  // String literals, so that they end with a zero byte.
  return selvage::StatusCodeName(static_cast<selvage::StatusCode>(status))
      .data();
}

const char* selvage_outcome_name(int32_t outcome) {
  if (outcome < SELVAGE_NOTHING_TO_DO || outcome > SELVAGE_FAILED) {
    return "UNKNOWN";
  }
  static_assert(SELVAGE_FAILED == static_cast<int>(client::RunResult::kFailed));
  return client::RunResultName(static_cast<client::RunResult>(outcome)).data();
}

void selvage_free(void* result) { selvage::capi::FreeResult(result); }

selvage_code selvage_cancel_create(selvage_cancel** out) {
  return Guarded([&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    *out = new selvage_cancel;
    return OkStatus();
  });
}

selvage_code selvage_cancel_now(selvage_cancel* cancel) {
  return Guarded([&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckHandle(cancel, "cancel"));
    cancel->token.Cancel();
    return OkStatus();
  });
}

void selvage_cancel_destroy(selvage_cancel* cancel) {
  if (!CheckHandle(cancel, "cancel").ok()) return;
  cancel->magic.store(0);
  delete cancel;
}

selvage_code selvage_open(const selvage_options* options,
                          selvage_client** out) {
  return Guarded([&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    SELVAGE_ASSIGN_OR_RETURN(const selvage_options given,
                             ReadStruct<selvage_options>(options, "options"));
    SELVAGE_RETURN_IF_ERROR(selvage::crypto::RequireTls13());
    auto handle = std::make_unique<selvage_client>();
    SELVAGE_ASSIGN_OR_RETURN(handle->host, selvage::capi::Host::Create(given));
    SELVAGE_ASSIGN_OR_RETURN(
        handle->client, client::Client::Open(handle->host->options(),
                                             handle->host->Dependencies()));
    handle->host->KeepEngine();
    *out = handle.release();
    return OkStatus();
  });
}

void selvage_close(selvage_client* client) {
  if (client == nullptr) return;
  const selvage_code closed = Guarded([&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckHandle(client, "client"));
    return client->gate.Close();
  });
  if (closed != SELVAGE_OK) return;
  client->magic.store(0);
  (void)Guarded([&] {
    client->client.reset();
    client->host.reset();
    return OkStatus();
  });
  delete client;
}

selvage_code selvage_install_model(selvage_client* handle,
                                   const selvage_model_files* files) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_ASSIGN_OR_RETURN(const selvage_model_files given,
                             ReadStruct<selvage_model_files>(files, "files"));
    using selvage::capi::ReadBytes;
    SELVAGE_ASSIGN_OR_RETURN(const ByteSpan plan,
                             ReadBytes(given.plan, given.plan_size, "plan"));
    SELVAGE_ASSIGN_OR_RETURN(
        const ByteSpan program,
        ReadBytes(given.program, given.program_size, "program"));
    SELVAGE_ASSIGN_OR_RETURN(
        const ByteSpan archive,
        ReadBytes(given.archive, given.archive_size, "archive"));
    SELVAGE_ASSIGN_OR_RETURN(
        const ByteSpan checkpoint,
        ReadBytes(given.checkpoint, given.checkpoint_size, "checkpoint"));
    return client.InstallModel(selvage::AsText(plan), selvage::AsText(program),
                               archive, checkpoint);
  });
}

selvage_code selvage_predict(selvage_client* handle, const char* task,
                             const void* input, uint64_t size, uint64_t count,
                             selvage_prediction** out) {
  return Guarded([&]() -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckHandle(handle, "client"));
    CallGate::Call call;
    SELVAGE_RETURN_IF_ERROR(call.EnterBeside(handle->gate));
    SELVAGE_RETURN_IF_ERROR(CheckText(task, "task"));
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    SELVAGE_ASSIGN_OR_RETURN(const ByteSpan bytes,
                             selvage::capi::ReadBytes(input, size, "input"));
    if (count == 0 || count > size) {
      return InvalidArgument(std::to_string(size) + " bytes do not hold " +
                             std::to_string(count) + " inputs");
    }
    SELVAGE_ASSIGN_OR_RETURN(
        const client::ServedPrediction prediction,
        handle->client->Predict(task, bytes, static_cast<size_t>(count)));
    ResultBlock block;
    auto* result = block.NewStruct<selvage_prediction>();
    result->rank = static_cast<uint32_t>(prediction.shape.size());
    result->shape = block.Copy(prediction.shape);
    result->values = block.Copy(prediction.values);
    result->value_count = prediction.values.size();
    result->version = prediction.version;
    result->personal = prediction.personal ? 1 : 0;
    Give(block, out);
    return OkStatus();
  });
}

selvage_code selvage_get_model(selvage_client* handle, const char* task,
                               selvage_model** out) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckText(task, "task"));
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    SELVAGE_ASSIGN_OR_RETURN(const client::ModelInfo info, client.Info(task));
    selvage::capi::GiveModel(info, out);
    return OkStatus();
  });
}

selvage_code selvage_list_tasks(selvage_client* handle, selvage_names** out) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    SELVAGE_ASSIGN_OR_RETURN(std::vector<std::string> tasks, client.Tasks());
    std::sort(tasks.begin(), tasks.end());
    ResultBlock block;
    auto* names = block.NewStruct<selvage_names>();
    names->names = block.Copy(tasks);
    names->count = tasks.size();
    Give(block, out);
    return OkStatus();
  });
}

selvage_code selvage_evaluate(selvage_client* handle, const char* task,
                              int32_t slot, const selvage_tensor* inputs,
                              uint32_t input_count, uint64_t count,
                              selvage_scores** out) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckText(task, "task"));
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    SELVAGE_ASSIGN_OR_RETURN(const client::Slot wanted,
                             selvage::capi::ReadSlot(slot));
    client::ExampleSet examples;
    examples.count = static_cast<size_t>(count);
    SELVAGE_ASSIGN_OR_RETURN(examples.inputs,
                             selvage::capi::ReadTensors(inputs, input_count));
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<double> scores,
                             client.Evaluate(task, wanted, examples));
    ResultBlock block;
    auto* result = block.NewStruct<selvage_scores>();
    result->values = block.Copy(scores);
    result->count = scores.size();
    Give(block, out);
    return OkStatus();
  });
}

selvage_code selvage_declare_collection(selvage_client* handle,
                                        const char* name,
                                        const selvage_collection* collection) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckText(name, "name"));
    SELVAGE_ASSIGN_OR_RETURN(
        const selvage_collection given,
        ReadStruct<selvage_collection>(collection, "collection"));
    SELVAGE_ASSIGN_OR_RETURN(const client::CollectionOptions options,
                             selvage::capi::ReadCollection(given));
    return client.DeclareCollection(name, options);
  });
}

selvage_code selvage_add_example(selvage_client* client, const char* collection,
                                 const selvage_example* example, int64_t* id) {
  return selvage_add_examples(client, collection, example, 1, id);
}

selvage_code selvage_add_examples(selvage_client* handle,
                                  const char* collection,
                                  const selvage_example* examples,
                                  uint64_t count, int64_t* ids) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckText(collection, "collection"));
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<client::Example> given,
                             selvage::capi::ReadExamples(examples, count));
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<int64_t> added,
                             client.AddExamples(collection, given));
    if (ids != nullptr) std::copy(added.begin(), added.end(), ids);
    return OkStatus();
  });
}

selvage_code selvage_delete_example(selvage_client* handle, int64_t id) {
  return WithClient(
      handle, [&](client::Client& client) { return client.DeleteExample(id); });
}

selvage_code selvage_count_examples(selvage_client* handle,
                                    const char* collection, uint64_t* count) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckText(collection, "collection"));
    SELVAGE_RETURN_IF_ERROR(CheckOut(count));
    SELVAGE_ASSIGN_OR_RETURN(*count, client.CountExamples(collection));
    return OkStatus();
  });
}

selvage_code selvage_run_once(selvage_client* handle,
                              const selvage_budget* budget,
                              selvage_cancel* cancel,
                              selvage_run_result** out) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    const client::CancelToken never;
    SELVAGE_ASSIGN_OR_RETURN(const client::RunBudget wanted,
                             selvage::capi::ReadBudget(budget));
    SELVAGE_ASSIGN_OR_RETURN(const client::CancelToken* token,
                             selvage::capi::ReadCancel(cancel, never));
    SELVAGE_ASSIGN_OR_RETURN(const client::RunOutcome outcome,
                             client.RunOnce(wanted, *token));
    ResultBlock block;
    auto* result = block.NewStruct<selvage_run_result>();
    result->outcome = selvage::capi::OutcomeOf(outcome.result);
    result->reason = block.Copy(outcome.reason);
    result->task = block.Copy(outcome.task);
    result->round = outcome.round;
    result->next_run_us = ToMicros(outcome.next_run);
    result->enrolled = outcome.enrolled ? 1 : 0;
    result->bytes_sent = outcome.usage.bytes_sent;
    result->bytes_received = outcome.usage.bytes_received;
    result->cpu_us = selvage::capi::CountOf(outcome.usage.cpu);
    result->memory_peak_bytes = outcome.usage.memory_peak_bytes;
    result->memory_estimate_bytes = outcome.usage.memory_estimate_bytes;
    Give(block, out);
    return OkStatus();
  });
}

selvage_code selvage_train_locally(selvage_client* handle, const char* task,
                                   const selvage_budget* budget,
                                   selvage_cancel* cancel, uint64_t* steps) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckText(task, "task"));
    const client::CancelToken never;
    SELVAGE_ASSIGN_OR_RETURN(const client::RunBudget wanted,
                             selvage::capi::ReadBudget(budget));
    SELVAGE_ASSIGN_OR_RETURN(const client::CancelToken* token,
                             selvage::capi::ReadCancel(cancel, never));
    SELVAGE_ASSIGN_OR_RETURN(const client::LocalOutcome outcome,
                             client.TrainLocally(task, wanted, *token));
    if (steps != nullptr) *steps = outcome.steps;
    return OkStatus();
  });
}

selvage_code selvage_inspect_outbox(selvage_client* handle,
                                    selvage_outbox** out) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    SELVAGE_ASSIGN_OR_RETURN(const std::vector<client::OutboxItem> items,
                             client.InspectOutbox());
    ResultBlock block;
    auto* outbox = block.NewStruct<selvage_outbox>();
    auto* to = block.NewArray<selvage_outbox_item>(items.size());
    outbox->items = to;
    outbox->count = items.size();
    for (const client::OutboxItem& item : items) {
      to->struct_size = sizeof *to;
      to->weight = item.weight;
      to->task = block.Copy(item.task);
      to->round = item.round;
      to->assignment_id = block.Copy(item.assignment_id);
      to->size = item.size_bytes;
      to->norm = item.norm;
      to->expires_us = ToMicros(item.expires);
      ++to;
    }
    Give(block, out);
    return OkStatus();
  });
}

selvage_code selvage_audit(selvage_client* handle, uint64_t count_max,
                           selvage_audit_log** out) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<client::AuditEntry> entries,
        client.Audit(static_cast<size_t>(
            std::min<uint64_t>(count_max, client::kAuditMax))));
    ResultBlock block;
    auto* log = block.NewStruct<selvage_audit_log>();
    auto* to = block.NewArray<selvage_audit_entry>(entries.size());
    log->entries = to;
    log->count = entries.size();
    for (const client::AuditEntry& entry : entries) {
      to->struct_size = sizeof *to;
      to->result = selvage::capi::AuditResultOf(entry.result);
      to->when_us = ToMicros(entry.when);
      to->task = block.Copy(entry.task);
      to->round = entry.round;
      to->version = entry.version;
      to->size = entry.size_bytes;
      to->norm = entry.norm;
      to->weight = entry.weight;
      ++to;
    }
    Give(block, out);
    return OkStatus();
  });
}

selvage_code selvage_forget_me(selvage_client* handle, uint32_t flags) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    constexpr uint32_t kFlags = SELVAGE_FORGET_AUDIT;
    if ((flags & ~kFlags) != 0) {
      return InvalidArgument("flags (" + std::to_string(flags) +
                             ") has a flag that this version does not have");
    }
    return client.ForgetMe({.audit = (flags & SELVAGE_FORGET_AUDIT) != 0});
  });
}

selvage_code selvage_device_id(selvage_client* handle, char** out) {
  return WithClient(handle, [&](client::Client& client) -> Status {
    SELVAGE_RETURN_IF_ERROR(CheckOut(out));
    ResultBlock block;
    (void)block.Copy(client.device_id());
    Give(block, out);
    return OkStatus();
  });
}

}  // extern "C"
