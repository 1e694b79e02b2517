// Selvage for C++17: selvage.h with destructors, strings and exceptions.
//
//   selvage::Options options;
//   options.state_dir = "/var/lib/my-app/selvage";
//   options.cache_dir = "/var/cache/my-app/selvage";
//   options.population = "my-app";
//   selvage::Client client(options);
//   client.AddExample("clothing", {selvage::Tensor::Of(pixels),
//                                  selvage::Tensor::Of(label)});
//   selvage::RunResult result = client.RunOnce();
//
// Header-only over the C ABI alone. The rules are those of selvage.h; what
// fails throws selvage::Error. Whatever a callback throws is taken for its
// failure.
#ifndef SELVAGE_SELVAGE_HPP_
#define SELVAGE_SELVAGE_HPP_

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "selvage.h"

namespace selvage {
// One inline namespace, so that no name here is ever another one in a program
// that has both this header and the library's own C++ code.
inline namespace host {

using SystemTime = std::chrono::system_clock::time_point;
using Microseconds = std::chrono::microseconds;

class Error : public std::runtime_error {
 public:
  Error(selvage_code code, const std::string& message)
      : std::runtime_error(std::string(selvage_code_name(code)) + ": " +
                           message),
        code_(code),
        message_(message) {}
  selvage_code code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }

 private:
  selvage_code code_;
  std::string message_;
};

inline void Check(selvage_code code) {
  if (code != SELVAGE_OK) throw Error(code, selvage_last_error());
}

namespace detail {

struct Free {
  void operator()(void* result) const noexcept { selvage_free(result); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

template <typename T>
T Sized() noexcept {
  T out{};
  out.struct_size = sizeof(T);
  return out;
}

inline SystemTime TimeOf(std::int64_t micros) {
  return SystemTime(
      std::chrono::duration_cast<SystemTime::duration>(Microseconds(micros)));
}
inline std::int64_t MicrosOf(SystemTime time) {
  return std::chrono::duration_cast<Microseconds>(time.time_since_epoch())
      .count();
}
inline std::vector<double> ScoresOf(const double* scores, std::uint64_t count) {
  if (scores == nullptr) return {};
  return std::vector<double>(scores, scores + count);
}

}  // namespace detail

// Bytes that live elsewhere until the call that takes them is over.
struct Tensor {
  const void* data = nullptr;
  std::uint64_t size = 0;  // bytes
  std::int32_t dtype = SELVAGE_DTYPE_ANY;
  std::vector<std::int64_t> shape{};

  // One value or a vector of them: float, std::int64_t or std::uint8_t.
  template <typename T>
  static Tensor Of(const T& value) {
    return {&value, sizeof value, DType<T>(), {}};
  }
  template <typename T>
  static Tensor Of(const std::vector<T>& values) {
    return {values.data(),
            values.size() * sizeof(T),
            DType<T>(),
            {static_cast<std::int64_t>(values.size())}};
  }
  static Tensor Raw(const void* data, std::uint64_t size) {
    return {data, size, SELVAGE_DTYPE_ANY, {}};
  }

  selvage_tensor View() const noexcept {
    auto out = detail::Sized<selvage_tensor>();
    out.dtype = dtype;
    out.data = data;
    out.size = size;
    out.shape = shape.data();
    out.rank = static_cast<std::uint32_t>(shape.size());
    return out;
  }

 private:
  template <typename T>
  static constexpr std::int32_t DType() {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, std::int64_t> ||
                  std::is_same_v<T, std::uint8_t>);
    return std::is_same_v<T, float>          ? SELVAGE_F32
           : std::is_same_v<T, std::int64_t> ? SELVAGE_I64
                                             : SELVAGE_U8;
  }
};

struct Example {
  std::vector<Tensor> inputs;
  std::optional<SystemTime> timestamp{};
  bool local_only = false;
  // Not added if the collection has one of this key.
  std::string key{};

  Example(std::initializer_list<Tensor> tensors) : inputs(tensors) {}
  explicit Example(std::vector<Tensor> tensors) : inputs(std::move(tensors)) {}
};

struct TensorSchema {
  std::string name;
  std::int32_t dtype = SELVAGE_F32;
  std::vector<std::int64_t> shape{};
};
struct Collection {
  std::vector<TensorSchema> tensors{};
  std::chrono::milliseconds ttl{};
  std::uint64_t count_max = 0;
  std::uint64_t bytes_max = 0;
};

struct Conditions {
  bool charging = true;
  bool unmetered = true;
  bool idle = true;
  double battery = 1;
  std::int32_t thermal = SELVAGE_THERMAL_NOMINAL;
};
struct ConsentRequest {
  std::string task;
  std::string collection;
  bool upload = false;
};
struct Progress {
  std::int32_t phase = SELVAGE_PHASE_CHECKING_IN;
  std::string task;
  std::uint64_t step = 0;
  std::uint64_t steps = 0;
};

struct PrivacyFloor {
  int min_cohort = 0;
  bool require_secure_aggregation = false;
  int epochs_max = 0;
  double clip_norm_max = 0;
  int uploads_per_day_max = 0;
  std::vector<std::string> collections{};
  std::vector<std::uint8_t> plan_keys{};  // 32 bytes each
};

using Signature = std::array<std::uint8_t, 64>;  // r, s

struct Options {
  std::string state_dir;
  std::string cache_dir;
  std::string population;
  std::string enrolment_bundle{};
  std::string device_name{};
  std::string device_class{};
  std::string app_version{};
  bool insecure_loopback = false;
  std::string engine_library{};
  // Copied; what it points to must outlive the client.
  const selvage_engine* engine = nullptr;
  const selvage_data_source* data_source = nullptr;
  std::optional<PrivacyFloor> floor{};
  // Set what you like; struct_size is filled in.
  std::optional<selvage_limits> limits{};

  std::int32_t log_level = SELVAGE_LOG_INFO;
  std::function<void(std::int32_t level, const char* line)> log{};
  std::function<Conditions()> conditions{};
  std::function<bool(const ConsentRequest&)> consent{};
  std::function<void(const Progress&)> progress{};
  // Fills in 32 bytes; false fails the opening.
  std::function<bool(std::uint8_t* key)> storage_key{};
  // A key of the platform's keystore that is who this device is: DER or point,
  // and what signs with it (selvage_callbacks). An exception is "not now".
  std::vector<std::uint8_t> identity_public_key{};
  std::function<Signature(const std::uint8_t* digest)> sign{};
  std::function<SystemTime()> now{};
  std::function<void(std::uint8_t* out, std::size_t size)> random{};
};

// Stops what it is given to; from any thread.
class Cancel {
 public:
  Cancel() { Check(selvage_cancel_create(&handle_)); }
  ~Cancel() { selvage_cancel_destroy(handle_); }
  Cancel(const Cancel&) = delete;
  Cancel& operator=(const Cancel&) = delete;

  void Now() { Check(selvage_cancel_now(handle_)); }
  selvage_cancel* handle() noexcept { return handle_; }

 private:
  selvage_cancel* handle_ = nullptr;
};

struct Budget {
  std::chrono::milliseconds time = std::chrono::minutes(10);
  std::uint64_t bytes = 0;
  bool charging_only = false;
};

struct RunResult {
  std::int32_t outcome = SELVAGE_NOTHING_TO_DO;
  std::string reason;
  std::string task;
  std::uint64_t round = 0;
  std::int64_t next_run_us = 0;  // microseconds since 1970
  bool enrolled = false;

  SystemTime next_run() const { return detail::TimeOf(next_run_us); }

  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  Microseconds cpu{};
  std::uint64_t memory_peak_bytes = 0;
  std::uint64_t memory_estimate_bytes = 0;
};

struct Prediction {
  std::vector<std::int64_t> shape;
  std::vector<float> values;
  std::uint64_t version = 0;  // of the global model; 0: the one installed here
  bool personal = false;      // else the global one answered
};

struct Model {
  std::string task;
  std::uint64_t version = 0;
  bool personal_serving = false;
  std::uint64_t holdout_count = 0;
  std::vector<std::string> metrics;
  std::vector<double> global_scores;
  std::vector<double> personal_scores;
  std::vector<double> alone_scores;
  bool training_paused = false;
  SystemTime paused_until{};
};

struct ModelFiles {
  std::string plan;
  std::string program;
  std::string archive{};
  std::string checkpoint;
};

struct OutboxItem {
  std::string task;
  std::uint64_t round = 0;
  std::string assignment_id;
  std::uint64_t size = 0;
  double norm = 0;
  std::uint32_t weight = 0;
  SystemTime expires{};
};

struct AuditEntry {
  SystemTime when{};
  std::string task;
  std::uint64_t round = 0;
  std::uint64_t version = 0;
  std::uint64_t size = 0;
  double norm = 0;
  std::uint32_t weight = 0;
  std::int32_t result = SELVAGE_AUDIT_RECORDED;
};

// Closed by its destructor. Movable.
class Client {
 public:
  explicit Client(const Options& options)
      : callbacks_(std::make_unique<Options>(options)) {
    auto given = detail::Sized<selvage_options>();
    given.state_dir = options.state_dir.c_str();
    given.cache_dir = options.cache_dir.c_str();
    given.population = options.population.c_str();
    given.enrolment_bundle = options.enrolment_bundle.c_str();
    given.device_name = options.device_name.c_str();
    given.device_class = options.device_class.c_str();
    given.app_version = options.app_version.c_str();
    given.engine_library = options.engine_library.c_str();
    given.engine = options.engine;
    given.data_source = options.data_source;
    if (options.insecure_loopback) {
      given.flags |= SELVAGE_OPEN_INSECURE_LOOPBACK;
    }
    const selvage_callbacks callbacks = Callbacks(callbacks_.get());
    given.callbacks = &callbacks;
    auto limits = options.limits.value_or(selvage_limits{});
    limits.struct_size = sizeof limits;
    given.limits = &limits;
    auto floor = detail::Sized<selvage_privacy_floor>();
    std::vector<const char*> collections;
    if (options.floor.has_value()) {
      const PrivacyFloor& wanted = *options.floor;
      floor.min_cohort = wanted.min_cohort;
      floor.require_secure_aggregation = wanted.require_secure_aggregation;
      floor.epochs_max = wanted.epochs_max;
      floor.clip_norm_max = wanted.clip_norm_max;
      floor.uploads_per_day_max = wanted.uploads_per_day_max;
      for (const std::string& name : wanted.collections) {
        collections.push_back(name.c_str());
      }
      floor.collections = collections.data();
      floor.collection_count = static_cast<std::uint32_t>(collections.size());
      if (wanted.plan_keys.size() % 32 != 0) {
        throw Error(SELVAGE_INVALID_ARGUMENT, "plan keys have 32 bytes each");
      }
      floor.plan_keys = wanted.plan_keys.data();
      floor.plan_key_count =
          static_cast<std::uint32_t>(wanted.plan_keys.size() / 32);
      given.floor = &floor;
    }
    selvage_client* client = nullptr;
    Check(selvage_open(&given, &client));
    client_.reset(client);
  }

  void InstallModel(const ModelFiles& files) {
    auto given = detail::Sized<selvage_model_files>();
    given.plan = files.plan.data();
    given.plan_size = files.plan.size();
    given.program = files.program.data();
    given.program_size = files.program.size();
    given.archive = files.archive.data();
    given.archive_size = files.archive.size();
    given.checkpoint = files.checkpoint.data();
    given.checkpoint_size = files.checkpoint.size();
    Check(selvage_install_model(handle(), &given));
  }

  void DeclareCollection(const std::string& name, const Collection& wanted) {
    std::vector<selvage_tensor_schema> tensors;
    for (const TensorSchema& tensor : wanted.tensors) {
      auto& to = tensors.emplace_back(detail::Sized<selvage_tensor_schema>());
      to.dtype = tensor.dtype;
      to.name = tensor.name.c_str();
      to.shape = tensor.shape.data();
      to.rank = static_cast<std::uint32_t>(tensor.shape.size());
    }
    auto given = detail::Sized<selvage_collection>();
    given.tensors = tensors.data();
    given.tensor_count = static_cast<std::uint32_t>(tensors.size());
    given.ttl_ms = static_cast<std::uint64_t>(wanted.ttl.count());
    given.count_max = wanted.count_max;
    given.bytes_max = wanted.bytes_max;
    Check(selvage_declare_collection(handle(), name.c_str(), &given));
  }

  std::int64_t AddExample(const std::string& collection,
                          const Example& example) {
    return AddExamples(collection, {example}).front();
  }
  std::vector<std::int64_t> AddExamples(const std::string& collection,
                                        const std::vector<Example>& examples) {
    std::vector<std::vector<selvage_tensor>> inputs;
    std::vector<selvage_example> given;
    for (const Example& example : examples) {
      auto& tensors = inputs.emplace_back(Views(example.inputs));
      auto& to = given.emplace_back(detail::Sized<selvage_example>());
      to.input_count = static_cast<std::uint32_t>(tensors.size());
      to.inputs = tensors.data();
      if (example.timestamp.has_value()) {
        to.timestamp_us = detail::MicrosOf(*example.timestamp);
      }
      if (example.local_only) to.flags |= SELVAGE_EXAMPLE_LOCAL_ONLY;
      if (!example.key.empty()) to.key = example.key.c_str();
    }
    std::vector<std::int64_t> ids(examples.size());
    Check(selvage_add_examples(handle(), collection.c_str(), given.data(),
                               given.size(), ids.data()));
    return ids;
  }
  void DeleteExample(std::int64_t id) {
    Check(selvage_delete_example(handle(), id));
  }
  std::uint64_t CountExamples(const std::string& collection) {
    std::uint64_t count = 0;
    Check(selvage_count_examples(handle(), collection.c_str(), &count));
    return count;
  }

  RunResult RunOnce(const Budget& budget = {}, Cancel* cancel = nullptr) {
    const selvage_budget given = BudgetOf(budget);
    selvage_run_result* out = nullptr;
    Check(selvage_run_once(handle(), &given,
                           cancel == nullptr ? nullptr : cancel->handle(),
                           &out));
    const detail::Owned<selvage_run_result> owned(out);
    RunResult result;
    result.outcome = out->outcome;
    result.reason = out->reason;
    result.task = out->task;
    result.round = out->round;
    result.next_run_us = out->next_run_us;
    result.enrolled = out->enrolled != 0;
    result.bytes_sent = out->bytes_sent;
    result.bytes_received = out->bytes_received;
    result.cpu = Microseconds(out->cpu_us);
    result.memory_peak_bytes = out->memory_peak_bytes;
    result.memory_estimate_bytes = out->memory_estimate_bytes;
    return result;
  }

  // The number of training steps.
  std::uint64_t TrainLocally(const std::string& task, const Budget& budget = {},
                             Cancel* cancel = nullptr) {
    const selvage_budget given = BudgetOf(budget);
    std::uint64_t steps = 0;
    Check(selvage_train_locally(handle(), task.c_str(), &given,
                                cancel == nullptr ? nullptr : cancel->handle(),
                                &steps));
    return steps;
  }

  Prediction Predict(const std::string& task, const void* input,
                     std::uint64_t size, std::uint64_t count = 1) {
    selvage_prediction* out = nullptr;
    Check(selvage_predict(handle(), task.c_str(), input, size, count, &out));
    const detail::Owned<selvage_prediction> owned(out);
    const bool newer = out->struct_size >= sizeof(selvage_prediction);
    return {std::vector<std::int64_t>(out->shape, out->shape + out->rank),
            std::vector<float>(out->values, out->values + out->value_count),
            newer ? out->version : 0, newer && out->personal != 0};
  }
  template <typename T>
  Prediction Predict(const std::string& task, const std::vector<T>& input,
                     std::uint64_t count = 1) {
    return Predict(task, input.data(), input.size() * sizeof(T), count);
  }

  // The mean of each metric; nullopt if the slot is empty.
  std::optional<std::vector<double>> Evaluate(const std::string& task,
                                              std::int32_t slot,
                                              const std::vector<Tensor>& inputs,
                                              std::uint64_t count) {
    const std::vector<selvage_tensor> views = Views(inputs);
    selvage_scores* out = nullptr;
    const selvage_code status =
        selvage_evaluate(handle(), task.c_str(), slot, views.data(),
                         static_cast<std::uint32_t>(views.size()), count, &out);
    if (status == SELVAGE_NOT_FOUND) return std::nullopt;
    Check(status);
    const detail::Owned<selvage_scores> owned(out);
    return detail::ScoresOf(out->values, out->count);
  }

  Model GetModel(const std::string& task) {
    selvage_model* out = nullptr;
    Check(selvage_get_model(handle(), task.c_str(), &out));
    const detail::Owned<selvage_model> owned(out);
    Model model;
    model.task = out->task;
    model.version = out->version;
    model.personal_serving = out->personal_serving != 0;
    model.holdout_count = out->holdout_count;
    model.metrics.assign(out->metrics, out->metrics + out->metric_count);
    model.global_scores =
        detail::ScoresOf(out->global_scores, out->metric_count);
    model.personal_scores =
        detail::ScoresOf(out->personal_scores, out->metric_count);
    model.alone_scores = detail::ScoresOf(out->alone_scores, out->metric_count);
    model.training_paused = out->training_paused != 0;
    model.paused_until = detail::TimeOf(out->paused_until_us);
    return model;
  }

  std::vector<std::string> Tasks() {
    selvage_names* out = nullptr;
    Check(selvage_list_tasks(handle(), &out));
    const detail::Owned<selvage_names> owned(out);
    return std::vector<std::string>(out->names, out->names + out->count);
  }

  std::vector<OutboxItem> InspectOutbox() {
    selvage_outbox* out = nullptr;
    Check(selvage_inspect_outbox(handle(), &out));
    const detail::Owned<selvage_outbox> owned(out);
    std::vector<OutboxItem> items;
    for (std::uint64_t i = 0; i < out->count; ++i) {
      const auto& item = Element(out->items, i);
      items.push_back({item.task, item.round, item.assignment_id, item.size,
                       item.norm, item.weight,
                       detail::TimeOf(item.expires_us)});
    }
    return items;
  }

  std::vector<AuditEntry> Audit(std::uint64_t count_max = 1000) {
    selvage_audit_log* out = nullptr;
    Check(selvage_audit(handle(), count_max, &out));
    const detail::Owned<selvage_audit_log> owned(out);
    std::vector<AuditEntry> entries;
    for (std::uint64_t i = 0; i < out->count; ++i) {
      const auto& entry = Element(out->entries, i);
      entries.push_back({detail::TimeOf(entry.when_us), entry.task, entry.round,
                         entry.version, entry.size, entry.norm, entry.weight,
                         entry.result});
    }
    return entries;
  }

  void ForgetMe(bool audit_too = false) {
    Check(selvage_forget_me(handle(), audit_too ? SELVAGE_FORGET_AUDIT : 0));
  }

  std::string DeviceId() {
    char* out = nullptr;
    Check(selvage_device_id(handle(), &out));
    const detail::Owned<char> owned(out);
    return out;
  }

  selvage_client* handle() const noexcept { return client_.get(); }
  // Takes over what selvage_open gave.
  explicit Client(selvage_client* client) : client_(client) {}

 private:
  struct Close {
    void operator()(selvage_client* client) const noexcept {
      selvage_close(client);
    }
  };

  static std::vector<selvage_tensor> Views(const std::vector<Tensor>& tensors) {
    std::vector<selvage_tensor> out;
    for (const Tensor& tensor : tensors) out.push_back(tensor.View());
    return out;
  }

  static selvage_budget BudgetOf(const Budget& budget) {
    if (budget.time <= std::chrono::milliseconds::zero()) {
      throw Error(SELVAGE_INVALID_ARGUMENT, "the budget has no time");
    }
    auto out = detail::Sized<selvage_budget>();
    out.time_ms = static_cast<std::uint64_t>(budget.time.count());
    out.bytes = budget.bytes;
    out.energy = budget.charging_only ? SELVAGE_ENERGY_CHARGING_ONLY
                                      : SELVAGE_ENERGY_ANY;
    return out;
  }

  // The library's elements may be larger than ours.
  template <typename T>
  static const T& Element(const T* first, std::uint64_t index) {
    return *reinterpret_cast<const T*>(reinterpret_cast<const char*>(first) +
                                       index * first->struct_size);
  }

  static const Options& Of(void* user) { return *static_cast<Options*>(user); }

  static selvage_callbacks Callbacks(Options* options) {
    auto out = detail::Sized<selvage_callbacks>();
    out.user = options;
    out.log_level = options->log_level;
    if (options->log) {
      out.log = [](void* user, std::int32_t level, const char* line) {
        try {
          Of(user).log(level, line);
        } catch (...) {  // an event that cannot be written is lost
        }
      };
    }
    if (options->conditions) {
      out.conditions = [](void* user, selvage_conditions* to) {
        try {
          const Conditions now = Of(user).conditions();
          to->charging = now.charging;
          to->unmetered = now.unmetered;
          to->idle = now.idle;
          to->battery = now.battery;
          to->thermal = now.thermal;
          return selvage_code{SELVAGE_OK};
        } catch (...) {
          return selvage_code{SELVAGE_INTERNAL};
        }
      };
    }
    if (options->consent) {
      out.consent = [](void* user, const selvage_consent_request* request) {
        try {
          return Of(user).consent(
                     {request->task, request->collection, request->upload != 0})
                     ? std::int32_t{1}
                     : std::int32_t{0};
        } catch (...) {
          return std::int32_t{0};
        }
      };
    }
    if (options->progress) {
      out.progress = [](void* user, const selvage_progress* now) {
        try {
          Of(user).progress({now->phase, now->task, now->step, now->steps});
        } catch (...) {  // only for show
        }
      };
    }
    if (options->storage_key) {
      out.storage_key = [](void* user, std::uint8_t* key) {
        try {
          return selvage_code{Of(user).storage_key(key)
                                  ? SELVAGE_OK
                                  : SELVAGE_FAILED_PRECONDITION};
        } catch (...) {
          return selvage_code{SELVAGE_INTERNAL};
        }
      };
    }
    out.identity_public_key = options->identity_public_key.data();
    out.identity_public_key_size = options->identity_public_key.size();
    if (options->identity_public_key.empty()) out.identity_public_key = nullptr;
    if (options->sign) {
      out.sign = [](void* user, const std::uint8_t* digest, std::uint8_t* to) {
        try {
          const Signature made = Of(user).sign(digest);
          std::copy(made.begin(), made.end(), to);
          return selvage_code{SELVAGE_OK};
        } catch (...) {
          return selvage_code{SELVAGE_UNAVAILABLE};
        }
      };
    }
    // For tests; these two must not throw.
    if (options->now) {
      out.now_us = [](void* user) { return detail::MicrosOf(Of(user).now()); };
    }
    if (options->random) {
      out.random = [](void* user, std::uint8_t* to, std::size_t size) {
        Of(user).random(to, size);
      };
    }
    return out;
  }

  std::unique_ptr<Options> callbacks_;  // outlives the client
  std::unique_ptr<selvage_client, Close> client_;
};

}  // namespace host
}  // namespace selvage

#endif  // SELVAGE_SELVAGE_HPP_
