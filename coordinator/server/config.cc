#include "coordinator/server/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>
#include <set>

#include "coordinator/postgres/connection.h"
#include "coordinator/rpc/listener.h"
#include "crypto/x509.h"

namespace selvage::coordinator {
namespace {

// Balancers notice that long after a replica says NOT_SERVING that it ends.
constexpr Duration kReplicaDrainDelay = std::chrono::seconds(10);
constexpr size_t kReplicaNameSizeMax = 64;

using std::chrono::hours;
using std::chrono::seconds;

struct Unit {
  std::string_view name;
  uint64_t factor;
};
// Largest first: the printer takes the first that divides.
constexpr std::array kByteUnits = {Unit{"GiB", uint64_t{1} << 30},
                                   Unit{"MiB", uint64_t{1} << 20},
                                   Unit{"KiB", uint64_t{1} << 10}, Unit{"", 1}};
constexpr std::array kDurationUnits = {
    Unit{"d", uint64_t{86'400'000'000}}, Unit{"h", uint64_t{3'600'000'000}},
    Unit{"m", uint64_t{60'000'000}}, Unit{"s", uint64_t{1'000'000}},
    Unit{"ms", uint64_t{1'000}}};

template <size_t N>
Result<uint64_t> ParseQuantity(const std::string& text,
                               const std::array<Unit, N>& units,
                               std::string_view example) {
  const Status bad = InvalidArgument("\"" + text + "\" is not a value like " +
                                     std::string(example));
  uint64_t number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc()) return bad;
  const std::string_view suffix(end, static_cast<size_t>(last - end));
  for (const Unit& unit : units) {
    if (suffix != unit.name) continue;
    uint64_t product = 0;
    if (__builtin_mul_overflow(number, unit.factor, &product)) return bad;
    return product;
  }
  return bad;
}

template <size_t N>
std::string PrintQuantity(uint64_t value, const std::array<Unit, N>& units) {
  for (const Unit& unit : units) {
    if (value % unit.factor == 0 && (value != 0 || unit.factor == 1)) {
      return std::to_string(value / unit.factor) + std::string(unit.name);
    }
  }
  return "0" + std::string(units.back().name);
}

Status OutOfBounds(const std::string& text, const std::string& low,
                   const std::string& high) {
  return InvalidArgument(text + " is not in " + low + " .. " + high);
}

// Setters of one type each; `member` is where the value goes.
Setting TextSetting(std::string_view key, std::string_view value,
                    std::string_view help, std::string Config::*member) {
  return {key, value, help,
          [member](Config& config, const std::string& text) {
            config.*member = text;
            return OkStatus();
          },
          [member](const Config& config) { return config.*member; }};
}

Setting AddressSetting(std::string_view key, std::string_view help,
                       std::string Config::*member) {
  Setting setting = TextSetting(key, "HOST:PORT", help, member);
  setting.set = [member](Config& config, const std::string& text) -> Status {
    SELVAGE_RETURN_IF_ERROR(ParseHostPort(text).status());
    config.*member = text;
    return OkStatus();
  };
  return setting;
}

// Its text is never in an error: it may have a password.
Setting PostgresSetting() {
  Setting setting = TextSetting(
      "store.postgres", "ADDRESS",
      "a PostgreSQL database instead of SQLite in the data directory: a "
      "postgresql:// address or key=value pairs, without a password",
      &Config::store_postgres);
  setting.set = [](Config& config, const std::string& text) -> Status {
    if (!text.empty()) SELVAGE_RETURN_IF_ERROR(CheckConnectionString(text));
    config.store_postgres = text;
    return OkStatus();
  };
  return setting;
}

Setting MetricsSetting() {
  Setting setting = TextSetting(
      "metrics.address", "HOST:PORT|auto|off",
      "HTTP for operators, without a password: /metrics, /healthz, /readyz; "
      "auto: 127.0.0.1:9464, or nowhere if another process is there",
      &Config::metrics_address);
  setting.set = [](Config& config, const std::string& text) -> Status {
    if (text != kMetricsAuto && text != kMetricsOff) {
      SELVAGE_RETURN_IF_ERROR(ParseHostPort(text).status());
    }
    config.metrics_address = text;
    return OkStatus();
  };
  return setting;
}

Setting PathSetting(std::string_view key, std::string_view value,
                    std::string_view help, Path Config::*member) {
  return {key, value, help,
          [member](Config& config, const std::string& text) -> Status {
            if (text.empty()) return InvalidArgument("the path is empty");
            config.*member = text;
            return OkStatus();
          },
          [member](const Config& config) { return (config.*member).string(); }};
}

Setting BytesSetting(std::string_view key, std::string_view help, uint64_t low,
                     uint64_t high, uint64_t Config::*member) {
  return {key, "BYTES", help,
          [=](Config& config, const std::string& text) -> Status {
            SELVAGE_ASSIGN_OR_RETURN(const uint64_t bytes,
                                     ParseQuantity(text, kByteUnits, "64MiB"));
            if (bytes < low || bytes > high) {
              return OutOfBounds(text, PrintQuantity(low, kByteUnits),
                                 PrintQuantity(high, kByteUnits));
            }
            config.*member = bytes;
            return OkStatus();
          },
          [member](const Config& config) {
            return PrintQuantity(config.*member, kByteUnits);
          }};
}

Setting CountSetting(std::string_view key, std::string_view help, uint64_t low,
                     uint64_t high, uint64_t Config::*member) {
  constexpr std::array kPlain = {Unit{"", 1}};
  return {key, "N", help,
          [=](Config& config, const std::string& text) -> Status {
            SELVAGE_ASSIGN_OR_RETURN(const uint64_t count,
                                     ParseQuantity(text, kPlain, "1000"));
            if (count < low || count > high) {
              return OutOfBounds(text, std::to_string(low),
                                 std::to_string(high));
            }
            config.*member = count;
            return OkStatus();
          },
          [member](const Config& config) {
            return std::to_string(config.*member);
          }};
}

std::string PrintDuration(Duration d) {
  return PrintQuantity(static_cast<uint64_t>(d.count()), kDurationUnits);
}

Setting DurationSetting(std::string_view key, std::string_view help,
                        Duration low, Duration high, Duration Config::*member) {
  return {
      key, "DURATION", help,
      [=](Config& config, const std::string& text) -> Status {
        SELVAGE_ASSIGN_OR_RETURN(const uint64_t micros,
                                 ParseQuantity(text, kDurationUnits, "90s"));
        if (micros < static_cast<uint64_t>(low.count()) ||
            micros > static_cast<uint64_t>(high.count())) {
          return OutOfBounds(text, PrintDuration(low), PrintDuration(high));
        }
        config.*member = Duration(static_cast<int64_t>(micros));
        return OkStatus();
      },
      [member](const Config& config) { return PrintDuration(config.*member); }};
}

// One of a few words.
template <typename T>
Setting ChoiceSetting(std::string_view key, std::string_view value,
                      std::string_view help,
                      std::vector<std::pair<std::string_view, T>> choices,
                      T Config::*member) {
  return {key, value, help,
          [=](Config& config, const std::string& text) -> Status {
            std::string words;
            for (const auto& [word, choice] : choices) {
              if (text == word) {
                config.*member = choice;
                return OkStatus();
              }
              words += (words.empty() ? "" : ", ") + std::string(word);
            }
            return InvalidArgument("\"" + text + "\" is none of " + words);
          },
          [=](const Config& config) -> std::string {
            for (const auto& [word, choice] : choices) {
              if (config.*member == choice) return std::string(word);
            }
            return "";
          }};
}

// Part of file names and of the log.
Setting ReplicaNameSetting() {
  Setting setting = TextSetting(
      "replicas.name", "NAME",
      "this process among the replicas; another one of the same name takes its "
      "place; default: this host's name and the data directory",
      &Config::replicas_name);
  setting.set = [](Config& config, const std::string& text) -> Status {
    const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
             (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
    });
    if (!plain || text.empty() || text.size() > kReplicaNameSizeMax) {
      return InvalidArgument("\"" + text +
                             "\" is not 1 to 64 of letters, digits, - . _");
    }
    config.replicas_name = text;
    return OkStatus();
  };
  return setting;
}

// Comma-separated; each is good if `check` says so.
Setting ListSetting(std::string_view key, std::string_view help,
                    std::vector<std::string> Config::*member,
                    std::function<Status(const std::string&)> check) {
  return {key, "NAME,...", help,
          [=](Config& config, const std::string& text) -> Status {
            (config.*member).clear();
            size_t begin = 0;
            while (begin <= text.size()) {
              const size_t end = std::min(text.find(',', begin), text.size());
              std::string name = text.substr(begin, end - begin);
              name.erase(0, name.find_first_not_of(' '));
              name.erase(name.find_last_not_of(' ') + 1);
              if (name.empty()) return InvalidArgument("a name is empty");
              SELVAGE_RETURN_IF_ERROR(check(name));
              (config.*member).push_back(std::move(name));
              begin = end + 1;
            }
            return OkStatus();
          },
          [=](const Config& config) {
            std::string out;
            for (const std::string& name : config.*member) {
              out += (out.empty() ? "" : ",") + name;
            }
            return out;
          }};
}

// Levenshtein's distance.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

std::string UnknownKey(const std::string& key,
                       const std::vector<Setting>& settings) {
  std::string out = key + " is not a setting";
  const auto nearest = std::min_element(
      settings.begin(), settings.end(),
      [&key](const Setting& a, const Setting& b) {
        return EditDistance(key, a.key) < EditDistance(key, b.key);
      });
  if (EditDistance(key, nearest->key) <= 3) {
    out += "; did you mean " + std::string(nearest->key) + "?";
  }
  return out;
}

// A value of the file and where it stands.
struct FileValue {
  std::string where;
  std::string key;
  std::string value;
};

// Flattens the file: sections one deep, lists to comma-separated text.
void Flatten(const YAML::Node& node, const std::string& prefix,
             const std::string& file_name, std::vector<FileValue>& values,
             std::vector<std::string>& mistakes) {
  for (const auto& entry : node) {
    const std::string where =
        file_name + ":" + std::to_string(entry.first.Mark().line + 1) + ": ";
    if (!entry.first.IsScalar()) {
      mistakes.push_back(where + "a key must be a word");
      continue;
    }
    const std::string key = prefix + entry.first.Scalar();
    const bool repeated =
        std::any_of(values.begin(), values.end(),
                    [&key](const FileValue& v) { return v.key == key; });
    if (repeated) {
      mistakes.push_back(where + key + " is set twice");
    } else if (entry.second.IsMap() && prefix.empty()) {
      Flatten(entry.second, key + ".", file_name, values, mistakes);
    } else if (entry.second.IsScalar()) {
      values.push_back({where, key, entry.second.Scalar()});
    } else if (entry.second.IsSequence()) {
      std::string list;
      for (const auto& item : entry.second) {
        if (!item.IsScalar()) continue;
        list += (list.empty() ? "" : ",") + item.Scalar();
      }
      values.push_back({where, key, list});
    } else {
      mistakes.push_back(where + key + " has no value");
    }
  }
}

void ReadConfigFile(const ConfigSources& sources,
                    std::vector<FileValue>& values,
                    std::vector<std::string>& mistakes) {
  try {
    const YAML::Node root = YAML::Load(*sources.file);
    if (root.IsMap()) {
      Flatten(root, "", sources.file_name, values, mistakes);
    } else if (!root.IsNull()) {
      mistakes.push_back(sources.file_name + ":1: the file is not a map");
    }
  } catch (const YAML::Exception& e) {
    mistakes.push_back(sources.file_name + ":" +
                       std::to_string(e.mark.line + 1) + ": " + e.msg);
  }
}

// What only holds across settings.
void CheckTogether(const Config& config, std::vector<std::string>& mistakes) {
  if (config.retry_min > config.retry_max) {
    mistakes.push_back("pace.retry_min (" + PrintDuration(config.retry_min) +
                       ") exceeds pace.retry_max (" +
                       PrintDuration(config.retry_max) + ")");
  }
  if (config.pace_window_max < config.retry_max) {
    mistakes.push_back("pace.retry_max (" + PrintDuration(config.retry_max) +
                       ") exceeds pace.window_max (" +
                       PrintDuration(config.pace_window_max) + ")");
  }
  if (config.pace_accepted_min > config.pace_window_max) {
    mistakes.push_back("pace.accepted_min (" +
                       PrintDuration(config.pace_accepted_min) +
                       ") exceeds pace.window_max (" +
                       PrintDuration(config.pace_window_max) + ")");
  }
  if (config.store_postgres.empty() &&
      (!config.store_password_file.empty() || config.store_migrate)) {
    mistakes.push_back(
        "store.password_file and store.migrate are for store.postgres, which "
        "is not set");
  }
  if (config.replicas_enabled) {
    if (config.store_postgres.empty()) {
      mistakes.push_back(
          "replicas.enabled needs store.postgres: SQLite is for one process");
    }
    if (config.blobs_dir.empty()) {
      mistakes.push_back(
          "replicas.enabled needs blobs_dir, a directory that all replicas "
          "share");
    }
    if (config.keys_dir.empty()) {
      mistakes.push_back(
          "replicas.enabled needs keys_dir, with the keys that all replicas "
          "share");
    }
    if (config.replicas_lease < 4 * config.replicas_poll) {
      mistakes.push_back("replicas.poll (" +
                         PrintDuration(config.replicas_poll) +
                         ") exceeds a quarter of replicas.lease (" +
                         PrintDuration(config.replicas_lease) + ")");
    }
  }
  if (!config.insecure) return;
  if (!config.device_proxies.empty()) {
    mistakes.push_back(
        "device.proxies is set: insecure mode has no certificates to trust");
  }
  for (const auto& [key, address] :
       {std::pair("device.address", config.device_address),
        std::pair("admin.address", config.admin_address)}) {
    const Result<HostPort> parsed = ParseHostPort(address);
    if (parsed.ok() && !IsLoopback(parsed->host)) {
      mistakes.push_back(std::string(key) + " is " + address +
                         ": insecure mode is for loopback addresses only");
    }
  }
}

}  // namespace

std::string Setting::Variable() const {
  std::string out = "SELVAGE_" + std::string(key);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) {
    if (c == '.') return '_';
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return out;
}

std::string Setting::Flag() const {
  std::string out = "--" + std::string(key);
  std::replace(out.begin(), out.end(), '.', '-');
  std::replace(out.begin(), out.end(), '_', '-');
  return out;
}

std::vector<Setting> Settings() {
  return {
      PathSetting("data_dir", "DIRECTORY",
                  "database, models, keys; created with mode 0700",
                  &Config::data_dir),
      AddressSetting("device.address",
                     "where devices connect; port 0 takes a free one",
                     &Config::device_address),
      TextSetting("device.endpoint", "HOST:PORT",
                  "what enrolment bundles tell devices to connect to; default: "
                  "the host of device.address, or this host's name",
                  &Config::device_endpoint),
      ListSetting("device.proxies",
                  "balancers that end TLS in front of device.address and are "
                  "believed about whose certificate it was (proxy-certificate "
                  "makes theirs); default: none",
                  &Config::device_proxies,
                  [](const std::string& name) {
                    return crypto::ProxyUri(name).status();
                  }),
      AddressSetting("admin.address", "where the selvage command connects",
                     &Config::admin_address),
      ChoiceSetting<bool>(
          "admin.reflection", "true|false", "grpc.reflection on the admin port",
          {{"false", false}, {"true", true}}, &Config::admin_reflection),
      MetricsSetting(),
      ListSetting("server_names",
                  "DNS names and IP addresses in the server's certificate; "
                  "default: localhost, 127.0.0.1, ::1 and this host's name",
                  &Config::server_names,
                  [](const std::string&) { return OkStatus(); }),
      PathSetting("keys_dir", "DIRECTORY",
                  "ca.pem, admin.token and the keys that replicas share; "
                  "default: DATA_DIR",
                  &Config::keys_dir),
      PathSetting("blobs_dir", "DIRECTORY",
                  "models and partial sums, on a mount that replicas share; "
                  "default: DATA_DIR/blobs",
                  &Config::blobs_dir),
      PathSetting("wrapping_key_file", "FILE",
                  "the key that wraps round keys; keep it out of backups; "
                  "default: KEYS_DIR/keys/wrapping.key",
                  &Config::wrapping_key_file),
      PathSetting(
          "backup_dir", "DIR",
          "where `selvage admin backup` puts backups; default: nowhere, "
          "and it is refused",
          &Config::backup_dir),
      PostgresSetting(),
      PathSetting("store.password_file", "FILE",
                  "its password, a line; default: PGPASSWORD, PGPASSFILE or "
                  "~/.pgpass",
                  &Config::store_password_file),
      CountSetting("store.pool_size",
                   "connections of this process to it, at most", 1, 1000,
                   &Config::store_pool_size),
      DurationSetting("store.statement_timeout", "of one statement",
                      std::chrono::milliseconds(100), std::chrono::minutes(10),
                      &Config::store_statement_timeout),
      DurationSetting("store.lock_timeout", "of waiting for one lock",
                      std::chrono::milliseconds(100), std::chrono::minutes(10),
                      &Config::store_lock_timeout),
      DurationSetting("store.operation_timeout",
                      "of a whole transaction, with its retries and its wait "
                      "for a connection",
                      std::chrono::milliseconds(100), std::chrono::minutes(10),
                      &Config::store_operation_timeout),
      ChoiceSetting<bool>("store.migrate", "true|false",
                          "bring its schema up to date at the start, as "
                          "`selvage-coordinator migrate` does",
                          {{"false", false}, {"true", true}},
                          &Config::store_migrate),
      ChoiceSetting<bool>(
          "replicas.enabled", "true|false",
          "several coordinators over one store.postgres, blobs_dir and "
          "keys_dir; without it a second one is refused",
          {{"false", false}, {"true", true}}, &Config::replicas_enabled),
      ReplicaNameSetting(),
      DurationSetting("replicas.lease",
                      "how long nobody drives the rounds of one that died",
                      std::chrono::seconds(1), std::chrono::minutes(10),
                      &Config::replicas_lease),
      DurationSetting("replicas.poll",
                      "how late one may hear of what the others did",
                      std::chrono::milliseconds(10), std::chrono::minutes(1),
                      &Config::replicas_poll),
      ChoiceSetting<bool>(
          "insecure", "true|false",
          "no TLS at all, for experiments; loopback addresses only",
          {{"false", false}, {"true", true}}, &Config::insecure),
      CountSetting("limits.connections", "connections on the device port", 1,
                   1'000'000, &Config::connections_max),
      CountSetting("limits.streams", "calls at a time of one connection", 1,
                   10'000, &Config::streams_max),
      DurationSetting("limits.connection_idle",
                      "a device's connection without a call ends after this",
                      std::chrono::seconds(1), hours(24),
                      &Config::connection_idle),
      DurationSetting("limits.connection_age",
                      "any of a device ends after this, a tenth more or less",
                      std::chrono::seconds(10), hours(24),
                      &Config::connection_age),
      DurationSetting("limits.connection_age_grace",
                      "and its running calls have this much longer",
                      std::chrono::seconds(1), hours(24),
                      &Config::connection_age_grace),
      DurationSetting("limits.call_timeout",
                      "a check-in that waited so long is ended, whatever its "
                      "own deadline",
                      std::chrono::seconds(1), std::chrono::minutes(10),
                      &Config::call_timeout),
      BytesSetting("limits.upload_rate_min",
                   "an upload slower than this many bytes a second for half a "
                   "minute is ended",
                   1, uint64_t{1} << 30, &Config::upload_rate_min),
      BytesSetting("limits.upload_bytes",
                   "memory for uploads in flight; what does not fit waits in "
                   "line",
                   uint64_t{1} << 20, uint64_t{1} << 40,
                   &Config::upload_bytes_max),
      BytesSetting("limits.staged_above",
                   "larger uploads are staged on disk, sealed",
                   uint64_t{1} << 20, uint64_t{1} << 40, &Config::staged_above),
      BytesSetting("limits.staged_bytes",
                   "disk for staged uploads; what does not fit waits in line",
                   uint64_t{1} << 20, uint64_t{1} << 40,
                   &Config::staged_bytes_max),
      BytesSetting("limits.held_bytes",
                   "disk for the updates of one round that a robust strategy "
                   "compares",
                   uint64_t{1} << 20, uint64_t{1} << 40,
                   &Config::held_bytes_max),
      BytesSetting("limits.artefact_bytes",
                   "largest program or model that may be uploaded",
                   uint64_t{1} << 20, uint64_t{4} << 30,
                   &Config::artefact_bytes_max),
      DurationSetting("pace.retry_min",
                      "devices with nothing to do come back between this ...",
                      std::chrono::milliseconds(10), hours(24),
                      &Config::retry_min),
      DurationSetting("pace.retry_max", "... and this",
                      std::chrono::milliseconds(10), hours(24 * 7),
                      &Config::retry_max),
      CountSetting("pace.check_ins_per_second",
                   "of one population at this process: above it devices come "
                   "back later, and twice as many get further than memory",
                   1, 1'000'000, &Config::check_ins_per_second),
      DurationSetting(
          "pace.window_max", "no device is told to stay away longer",
          std::chrono::minutes(1), hours(24 * 7), &Config::pace_window_max),
      DurationSetting("pace.accepted_min",
                      "devices whose update was taken stay away at least so "
                      "long",
                      Duration::zero(), hours(24 * 7),
                      &Config::pace_accepted_min),
      DurationSetting("certificates.lifetime", "of a device's certificate",
                      hours(1), hours(24 * 3650),
                      &Config::certificate_lifetime),
      DurationSetting("certificates.identity_lifetime",
                      "of a certificate of a device with an identity key",
                      hours(1), hours(24),
                      &Config::identity_certificate_lifetime),
      DurationSetting("drain.delay",
                      "after SIGTERM, keep answering this long while load "
                      "balancers notice; 10s with replicas.enabled",
                      Duration::zero(), hours(1), &Config::drain_delay),
      DurationSetting("drain.timeout",
                      "after that, let running uploads finish this long",
                      Duration::zero(), hours(1), &Config::drain_timeout),
      ChoiceSetting<LogLevel>("log.level", "debug|info|warning|error",
                              "what is logged",
                              {{"debug", LogLevel::kDebug},
                               {"info", LogLevel::kInfo},
                               {"warning", LogLevel::kWarning},
                               {"error", LogLevel::kError}},
                              &Config::log_level),
      ChoiceSetting<LogFormat>("log.format", "auto|text|json",
                               "auto: text on a terminal, else JSON",
                               {{"auto", LogFormat::kAuto},
                                {"text", LogFormat::kText},
                                {"json", LogFormat::kJson}},
                               &Config::log_format),
  };
}

LoadedConfig LoadConfig(const ConfigSources& sources) {
  LoadedConfig out;
  const std::vector<Setting> settings = Settings();
  std::vector<FileValue> values;
  if (sources.file.has_value()) {
    ReadConfigFile(sources, values, out.mistakes);
  }
  std::set<std::string_view> given;
  const auto set = [&out, &given](const Setting& setting,
                                  const std::string& where,
                                  const std::string& value) {
    given.insert(setting.key);
    const Status status = setting.set(out.config, value);
    if (!status.ok()) {
      out.mistakes.push_back(where + ": " + std::string(status.message()));
    }
  };
  for (const FileValue& value : values) {
    const auto setting =
        std::find_if(settings.begin(), settings.end(),
                     [&value](const Setting& s) { return s.key == value.key; });
    if (setting == settings.end()) {
      out.mistakes.push_back(value.where + UnknownKey(value.key, settings));
    } else {
      set(*setting, value.where + value.key, value.value);
    }
  }
  for (const Setting& setting : settings) {
    const std::string variable = setting.Variable();
    if (const auto value = sources.variable(variable); value.has_value()) {
      set(setting, variable, *value);
    }
  }
  for (const Setting& setting : settings) {
    const auto flag = sources.flags.find(std::string(setting.key));
    if (flag != sources.flags.end()) set(setting, setting.Flag(), flag->second);
  }
  if (out.config.replicas_enabled && !given.contains("drain.delay")) {
    out.config.drain_delay = kReplicaDrainDelay;
  }
  CheckTogether(out.config, out.mistakes);
  return out;
}

std::string PrintConfig(const Config& config) {
  std::string out;
  std::string section;
  for (const Setting& setting : Settings()) {
    const std::string key(setting.key);
    const size_t dot = key.find('.');
    const std::string in = dot == std::string::npos ? "" : key.substr(0, dot);
    if (!in.empty() && in != section) out += in + ":\n";
    section = in;
    const std::string value = setting.get(config);
    // An empty value means: derived; YAML has no word for that but silence.
    out += (in.empty() ? "" : "  ") + std::string(value.empty() ? "# " : "") +
           key.substr(dot == std::string::npos ? 0 : dot + 1) + ": ";
    YAML::Emitter emitter;
    emitter << YAML::DoubleQuoted << value;
    const bool plain =
        !value.empty() &&
        value.find_first_not_of(
            "abcdefghijklmnopqrstuvwxyz"
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-") == std::string::npos;
    out += (plain ? value : std::string(emitter.c_str())) + "\n";
  }
  return out;
}

}  // namespace selvage::coordinator
