#include "client/capi/host.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <sstream>
#include <utility>

#include "client/capi/engine/engine_adapter.h"
#include "client/capi/engine_plugin.h"
#include "client/capi/shared_object.h"
#include "client/capi/struct_reader.h"
#include "client/rpc/transport_plugin.h"

namespace selvage::capi {

template <>
inline constexpr size_t kFirstSize<selvage_callbacks> =
    offsetof(selvage_callbacks, sign);

namespace {

constexpr uint64_t kCollectionsMax = 64;
constexpr uint64_t kPlanKeysMax = 16;
constexpr uint32_t kRankMax = 8;

class HostClock final : public Clock {
 public:
  explicit HostClock(const selvage_callbacks& callbacks)
      : callbacks_(callbacks) {}
  Time Now() override { return FromMicros(callbacks_.now_us(callbacks_.user)); }

 private:
  const selvage_callbacks callbacks_;
};

class HostRandom final : public RandomSource {
 public:
  explicit HostRandom(const selvage_callbacks& callbacks)
      : callbacks_(callbacks) {}
  void Fill(std::span<uint8_t> out) override {
    callbacks_.random(callbacks_.user, out.data(), out.size());
  }

 private:
  const selvage_callbacks callbacks_;
};

LogLevel LevelOf(int32_t level) {
  switch (level) {
    case SELVAGE_LOG_DEBUG:
      return LogLevel::kDebug;
    case SELVAGE_LOG_WARNING:
      return LogLevel::kWarning;
    case SELVAGE_LOG_ERROR:
      return LogLevel::kError;
    default:
      return LogLevel::kInfo;
  }
}
int32_t LevelOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return SELVAGE_LOG_DEBUG;
    case LogLevel::kInfo:
      return SELVAGE_LOG_INFO;
    case LogLevel::kWarning:
      return SELVAGE_LOG_WARNING;
    case LogLevel::kError:
      return SELVAGE_LOG_ERROR;
  }
  return SELVAGE_LOG_INFO;
}

// Lines as StreamEventSink writes them, which escapes what needs it.
class HostEvents final : public EventSink {
 public:
  HostEvents(const selvage_callbacks& callbacks, Clock& clock)
      : callbacks_(callbacks),
        clock_(clock),
        level_(LevelOf(callbacks.log_level)) {}

  void Write(LogLevel level, std::string_view event,
             std::initializer_list<LogField> fields) override {
    if (level < level_) return;
    std::ostringstream out;
    StreamEventSink(out, clock_, StreamEventSink::Format::kText, level_)
        .Write(level, event, fields);
    std::string line = std::move(out).str();
    if (line.ends_with('\n')) line.pop_back();
    callbacks_.log(callbacks_.user, LevelOf(level), line.c_str());
  }

 private:
  const selvage_callbacks callbacks_;
  Clock& clock_;
  const LogLevel level_;
};

class HostKey final : public client::StorageKeySource {
 public:
  explicit HostKey(const selvage_callbacks& callbacks)
      : callbacks_(callbacks) {}
  Result<crypto::SecretBytes> LoadOrCreate() override {
    crypto::SecretBytes key(32);
    const selvage_code status =
        callbacks_.storage_key(callbacks_.user, key.writable().data());
    if (status != SELVAGE_OK) {
      return FailedPrecondition("the host gave no storage key (status " +
                                std::to_string(status) + ")");
    }
    return key;
  }

 private:
  const selvage_callbacks callbacks_;
};

Status FromHost(selvage_code status, const char* what) {
  if (status == SELVAGE_OK) return OkStatus();
  const bool known =
      status >= SELVAGE_CANCELLED && status <= SELVAGE_UNAUTHENTICATED;
  return {
      known ? static_cast<StatusCode>(status) : StatusCode::kInternal,
      std::string(what) + " failed (status " + std::to_string(status) + ")"};
}

class HostIdentityKey final : public client::IdentityKey {
 public:
  HostIdentityKey(const selvage_callbacks& callbacks,
                  const crypto::P256PublicKey& public_key)
      : callbacks_(callbacks), public_key_(public_key) {}

  const crypto::P256PublicKey& public_key() const override {
    return public_key_;
  }
  Result<Bytes> Sign(const crypto::Digest& digest) override {
    Bytes signature(crypto::kP256SignatureSize);
    SELVAGE_RETURN_IF_ERROR(FromHost(
        callbacks_.sign(callbacks_.user, digest.bytes.data(), signature.data()),
        "the host's keystore"));
    return signature;
  }

 private:
  const selvage_callbacks callbacks_;
  const crypto::P256PublicKey public_key_;
};

class HostIterator final : public client::ExampleIterator {
 public:
  HostIterator(const selvage_data_source& source, void* iterator)
      : source_(source), iterator_(iterator) {}
  ~HostIterator() override { source_.close(iterator_); }
  HostIterator(const HostIterator&) = delete;
  HostIterator& operator=(const HostIterator&) = delete;

  Result<std::optional<client::SourcedExample>> Next() override {
    selvage_sourced_example given{};
    given.struct_size = sizeof given;
    SELVAGE_RETURN_IF_ERROR(
        FromHost(source_.next(iterator_, &given), "the host's data source"));
    client::SourcedExample out;
    out.id = given.id;
    SELVAGE_ASSIGN_OR_RETURN(out.example.inputs,
                             ReadTensors(given.inputs, given.input_count));
    out.example.timestamp = ReadTimestamp(given.timestamp_us);
    out.example.consent = (given.flags & SELVAGE_EXAMPLE_LOCAL_ONLY) == 0;
    return std::optional(std::move(out));
  }

 private:
  const selvage_data_source source_;
  void* const iterator_;
};

class HostData final : public client::DataSource {
 public:
  explicit HostData(const selvage_data_source& source) : source_(source) {}
  Result<std::unique_ptr<client::ExampleIterator>> Open(
      std::string_view collection) override {
    void* iterator = nullptr;
    SELVAGE_RETURN_IF_ERROR(FromHost(
        source_.open(source_.user, std::string(collection).c_str(), &iterator),
        "opening the host's data source"));
    return std::unique_ptr<client::ExampleIterator>(
        std::make_unique<HostIterator>(source_, iterator));
  }

 private:
  const selvage_data_source source_;
};

client::Conditions AskConditions(const selvage_callbacks& callbacks) {
  selvage_conditions now{};
  now.struct_size = sizeof now;
  now.charging = now.unmetered = now.idle = 1;
  now.battery = 1;
  client::Conditions out;
  if (callbacks.conditions(callbacks.user, &now) != SELVAGE_OK ||
      now.thermal < SELVAGE_THERMAL_NOMINAL ||
      now.thermal > SELVAGE_THERMAL_CRITICAL) {
    out.thermal = client::Thermal::kCritical;
    return out;
  }
  out.charging = now.charging != 0;
  out.unmetered = now.unmetered != 0;
  out.idle = now.idle != 0;
  out.battery = now.battery;
  out.thermal = static_cast<client::Thermal>(now.thermal);
  return out;
}

int32_t PhaseOf(client::Phase phase) {
  switch (phase) {
    case client::Phase::kEnrolling:
      return SELVAGE_PHASE_ENROLLING;
    case client::Phase::kCheckingIn:
      return SELVAGE_PHASE_CHECKING_IN;
    case client::Phase::kFetching:
      return SELVAGE_PHASE_FETCHING;
    case client::Phase::kTraining:
      return SELVAGE_PHASE_TRAINING;
    case client::Phase::kUploading:
      return SELVAGE_PHASE_UPLOADING;
    case client::Phase::kPersonalizing:
      return SELVAGE_PHASE_PERSONALIZING;
  }
  return SELVAGE_PHASE_CHECKING_IN;
}

// The network is half of the library's size and most of its memory: it comes
// with the first session that needs it.
client::TransportFactory Transports(RandomSource& random) {
  return [&random](const client::Endpoint& endpoint)
             -> Result<std::unique_ptr<client::Transport>> {
    Result<void*> symbol = OpenSharedObject(client::kTransportPluginFile,
                                            client::kTransportPluginEntry);
    if (!symbol.ok()) {
      return symbol.status().WithContext("the network cannot be opened");
    }
    const auto entry =
        reinterpret_cast<client::TransportPluginFunction>(*symbol);
    client::TransportFactory factory;
    if (!entry(client::kTransportPluginBuild, random, factory)) {
      return FailedPrecondition(std::string(client::kTransportPluginFile) +
                                " is of another build");
    }
    return factory(endpoint);
  };
}

}  // namespace

Result<plan::DType> ReadDType(int32_t dtype) {
  switch (dtype) {
    case SELVAGE_F32:
      return plan::DType::kFloat32;
    case SELVAGE_I64:
      return plan::DType::kInt64;
    case SELVAGE_U8:
      return plan::DType::kUint8;
    default:
      return InvalidArgument("dtype " + std::to_string(dtype) +
                             " is not F32, I64 or U8");
  }
}

std::optional<Time> ReadTimestamp(int64_t micros) {
  if (micros == 0) return std::nullopt;
  return FromMicros(micros);
}

Result<std::vector<Bytes>> ReadTensors(const selvage_tensor* tensors,
                                       uint64_t count) {
  SELVAGE_ASSIGN_OR_RETURN(
      const std::vector<selvage_tensor> given,
      ReadStructs(tensors, count, plan::kInputCountMax, "tensor"));
  std::vector<Bytes> out;
  for (size_t i = 0; i < given.size(); ++i) {
    const selvage_tensor& tensor = given[i];
    const std::string name = "tensor " + std::to_string(i);
    if (tensor.data == nullptr && tensor.size > 0) {
      return InvalidArgument(name + " has no data");
    }
    if (tensor.size > std::numeric_limits<uint32_t>::max()) {
      return InvalidArgument(name + " has " + std::to_string(tensor.size) +
                             " bytes, more than 4 GiB");
    }
    if (tensor.dtype != SELVAGE_DTYPE_ANY) {
      SELVAGE_ASSIGN_OR_RETURN(const plan::DType dtype,
                               ReadDType(tensor.dtype));
      if (tensor.rank > kRankMax ||
          (tensor.rank > 0 && tensor.shape == nullptr)) {
        return InvalidArgument(name + " of rank " +
                               std::to_string(tensor.rank) + " has no shape");
      }
      uint64_t size = plan::SizeOf(dtype);
      for (uint32_t d = 0; d < tensor.rank; ++d) {
        const int64_t dimension = tensor.shape[d];
        if (dimension <= 0 ||
            static_cast<uint64_t>(dimension) > (uint64_t{1} << 40) / size) {
          return InvalidArgument(name + " has a dimension of " +
                                 std::to_string(dimension));
        }
        size *= static_cast<uint64_t>(dimension);
      }
      if (size != tensor.size) {
        return InvalidArgument(name + " has " + std::to_string(tensor.size) +
                               " bytes, its shape says " +
                               std::to_string(size));
      }
    }
    const auto* bytes = static_cast<const uint8_t*>(tensor.data);
    out.emplace_back(bytes, bytes + tensor.size);
  }
  return out;
}

Result<std::unique_ptr<Host>> Host::Create(const selvage_options& options) {
  std::unique_ptr<Host> host(new Host());
  SELVAGE_RETURN_IF_ERROR(host->TakeOptions(options));
  SELVAGE_RETURN_IF_ERROR(host->TakeFloor(options.floor));
  SELVAGE_RETURN_IF_ERROR(host->TakeLimits(options.limits));
  SELVAGE_RETURN_IF_ERROR(host->TakeCallbacks(options.callbacks));
  if (options.data_source != nullptr) {
    SELVAGE_ASSIGN_OR_RETURN(
        const selvage_data_source source,
        ReadStruct<selvage_data_source>(options.data_source, "data_source"));
    if (source.open == nullptr || source.next == nullptr ||
        source.close == nullptr) {
      return InvalidArgument("data_source has no open, next or close");
    }
    host->data_source_ = std::make_unique<HostData>(source);
  }
  SELVAGE_RETURN_IF_ERROR(
      host->TakeEngine(options.engine, options.engine_library));
  return host;
}

Host::~Host() {
  trainer_.reset();
  if (keep_engine_ && engine_.close != nullptr) engine_.close(engine_.user);
}

Status Host::TakeOptions(const selvage_options& options) {
  constexpr uint32_t kFlags = SELVAGE_OPEN_INSECURE_LOOPBACK;
  if ((options.flags & ~kFlags) != 0) {
    return InvalidArgument("options.flags (" + std::to_string(options.flags) +
                           ") has a flag that this version does not have");
  }
  options_.state_dir = TextOf(options.state_dir);
  options_.cache_dir = TextOf(options.cache_dir);
  options_.population = TextOf(options.population);
  options_.enrolment_bundle = TextOf(options.enrolment_bundle);
  options_.device_name = TextOf(options.device_name);
  options_.device_class = TextOf(options.device_class);
  options_.app_version = TextOf(options.app_version);
  options_.allow_insecure_loopback =
      (options.flags & SELVAGE_OPEN_INSECURE_LOOPBACK) != 0;
  return OkStatus();
}

Status Host::TakeFloor(const selvage_privacy_floor* given) {
  if (given == nullptr) return OkStatus();
  SELVAGE_ASSIGN_OR_RETURN(const selvage_privacy_floor floor,
                           ReadStruct<selvage_privacy_floor>(given, "floor"));
  client::PrivacyFloor& out = options_.floor;
  out.min_cohort = floor.min_cohort;
  out.require_secure_aggregation = floor.require_secure_aggregation != 0;
  out.epochs_max = floor.epochs_max;
  out.clip_norm_max = floor.clip_norm_max;
  out.uploads_per_day_max = floor.uploads_per_day_max;
  if (floor.collection_count > kCollectionsMax ||
      (floor.collection_count > 0 && floor.collections == nullptr)) {
    return InvalidArgument(
        "floor.collections: " + std::to_string(floor.collection_count) +
        " names that are not there, or more than " +
        std::to_string(kCollectionsMax));
  }
  for (uint32_t i = 0; i < floor.collection_count; ++i) {
    out.collections.emplace_back(TextOf(floor.collections[i]));
  }
  if (floor.plan_key_count > kPlanKeysMax ||
      (floor.plan_key_count > 0 && floor.plan_keys == nullptr)) {
    return InvalidArgument(
        "floor.plan_keys: " + std::to_string(floor.plan_key_count) +
        " keys that are not there, or more than " +
        std::to_string(kPlanKeysMax));
  }
  for (uint32_t i = 0; i < floor.plan_key_count; ++i) {
    crypto::Ed25519PublicKey key{};
    std::copy_n(floor.plan_keys + size_t{i} * key.size(), key.size(),
                key.begin());
    out.plan_keys.push_back(key);
  }
  return OkStatus();
}

Status Host::TakeLimits(const selvage_limits* given) {
  if (given == nullptr) return OkStatus();
  SELVAGE_ASSIGN_OR_RETURN(const selvage_limits limits,
                           ReadStruct<selvage_limits>(given, "limits"));
  constexpr uint64_t kDayMs = 24ULL * 3600 * 1000;
  if (limits.threads_max < 0) {
    return InvalidArgument("limits.threads_max (" +
                           std::to_string(limits.threads_max) + ") is below 0");
  }
  options_.threads_max = limits.threads_max;
  options_.daily.metered_bytes = limits.metered_bytes_daily;
  options_.daily.unmetered_bytes = limits.unmetered_bytes_daily;
  // More than a day on every core of any device is no limit.
  options_.daily.cpu = std::chrono::milliseconds(
      std::min<uint64_t>(limits.cpu_ms_daily, kDayMs * 1024));
  options_.memory_bytes_max = limits.memory_bytes;
  if (limits.store_bytes > 0) options_.store_bytes_max = limits.store_bytes;
  if (limits.cache_bytes > 0) options_.cache_bytes_max = limits.cache_bytes;
  return OkStatus();
}

Status Host::TakeCallbacks(const selvage_callbacks* given) {
  if (given != nullptr) {
    SELVAGE_ASSIGN_OR_RETURN(callbacks_,
                             ReadStruct<selvage_callbacks>(given, "callbacks"));
    if (callbacks_.log_level < 0 || callbacks_.log_level > SELVAGE_LOG_ERROR) {
      return InvalidArgument("callbacks.log_level (" +
                             std::to_string(callbacks_.log_level) +
                             ") is not 0..4");
    }
  }
  if (callbacks_.now_us != nullptr) {
    clock_ = std::make_unique<HostClock>(callbacks_);
  } else {
    clock_ = std::make_unique<SystemClock>();
  }
  if (callbacks_.random != nullptr) {
    random_ = std::make_unique<HostRandom>(callbacks_);
  } else {
    random_ = std::make_unique<OsRandom>();
  }
  if (callbacks_.log != nullptr) {
    events_ = std::make_unique<HostEvents>(callbacks_, *clock_);
  } else {
    events_ = std::make_unique<NullEventSink>();
  }
  if (callbacks_.storage_key != nullptr) {
    storage_key_ = std::make_unique<HostKey>(callbacks_);
  }
  return TakeIdentityKey();
}

Status Host::TakeIdentityKey() {
  const uint64_t size = callbacks_.identity_public_key_size;
  const bool has_key = callbacks_.identity_public_key != nullptr;
  if (has_key != (callbacks_.sign != nullptr) || has_key != (size > 0)) {
    return InvalidArgument(
        "callbacks.sign and callbacks.identity_public_key belong together");
  }
  if (!has_key) return OkStatus();
  if (size > crypto::kP256PublicKeySize) {
    return InvalidArgument("callbacks.identity_public_key has " +
                           std::to_string(size) + " bytes, more than " +
                           std::to_string(crypto::kP256PublicKeySize));
  }
  Result<crypto::P256PublicKey> key = crypto::P256PublicKey::Parse(
      ByteSpan(callbacks_.identity_public_key, static_cast<size_t>(size)));
  if (!key.ok()) {
    return key.status().WithContext("callbacks.identity_public_key");
  }
  identity_key_ = std::make_unique<HostIdentityKey>(callbacks_, *key);
  callbacks_.identity_public_key = nullptr;  // the host's, for the call only
  return OkStatus();
}

Status Host::TakeEngine(const selvage_engine* given, const char* library) {
  if (given == nullptr) {
    trainer_ = MakePluginTrainer(Path(TextOf(library)), *events_);
    return OkStatus();
  }
  if (!TextOf(library).empty()) {
    return InvalidArgument("both engine and engine_library are given");
  }
  SELVAGE_ASSIGN_OR_RETURN(engine_,
                           ReadStruct<selvage_engine>(given, "engine"));
  SELVAGE_RETURN_IF_ERROR(ValidateEngine(engine_));
  selvage_engine borrowed = engine_;
  borrowed.close = nullptr;
  trainer_ = MakeEngineTrainer(borrowed);
  return OkStatus();
}

client::ClientDependencies Host::Dependencies() {
  client::ClientDependencies out{.clock = *clock_,
                                 .random = *random_,
                                 .events = *events_,
                                 .files = files_,
                                 .trainer = *trainer_,
                                 .transport = Transports(*random_)};
  out.storage_key = storage_key_.get();
  out.identity_key = identity_key_.get();
  out.data_source = data_source_.get();
  const selvage_callbacks callbacks = callbacks_;
  if (callbacks.conditions != nullptr) {
    out.conditions = [callbacks] { return AskConditions(callbacks); };
  }
  if (callbacks.consent != nullptr) {
    out.consent = [callbacks](const client::ConsentRequest& request) {
      selvage_consent_request asked{};
      asked.struct_size = sizeof asked;
      asked.upload = request.upload ? 1 : 0;
      asked.task = request.task.c_str();
      asked.collection = request.collection.c_str();
      return callbacks.consent(callbacks.user, &asked) == 1;
    };
  }
  if (callbacks.progress != nullptr) {
    out.progress = [callbacks](const client::Progress& progress) {
      selvage_progress now{};
      now.struct_size = sizeof now;
      now.phase = PhaseOf(progress.phase);
      now.task = progress.task.c_str();
      now.step = progress.step;
      now.steps = progress.steps;
      callbacks.progress(callbacks.user, &now);
    };
  }
  return out;
}

}  // namespace selvage::capi
