// The coordinator's configuration: flags over SELVAGE_* variables over a YAML
// file over defaults. One table (config.cc) names every setting; the file's
// keys, the variables and the flags follow from it:
//
//   device.address   SELVAGE_DEVICE_ADDRESS   --device-address
//
// No setting is a secret: secrets are files, and only their paths are set here.
// A connection string with a password is refused.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/log.h"
#include "base/status.h"
#include "base/time.h"

namespace selvage::coordinator {

// For Config::metrics_address: kMetricsAddress, if it is free; nowhere.
inline constexpr char kMetricsAuto[] = "auto";
inline constexpr char kMetricsOff[] = "off";
inline constexpr char kMetricsAddress[] = "127.0.0.1:9464";

enum class LogFormat { kAuto, kText, kJson };  // kAuto: text on a terminal

struct Config {
  Path data_dir = "selvage-data";
  std::string device_address = "0.0.0.0:8443";
  std::string device_endpoint;  // empty: derived from the address and names
  std::vector<std::string> device_proxies;  // names; empty: none is trusted
  std::string admin_address = "127.0.0.1:8444";
  std::vector<std::string> server_names;  // empty: localhost and this host
  Path keys_dir;                          // empty: data_dir
  Path blobs_dir;                         // empty: DATA_DIR/blobs
  Path wrapping_key_file;                 // empty: KEYS_DIR/keys/wrapping.key
  std::string store_postgres;             // empty: SQLite in data_dir
  Path store_password_file;               // empty: PGPASSWORD, ~/.pgpass, none
  Path backup_dir;                        // empty: no backups
  uint64_t store_pool_size = 8;
  Duration store_statement_timeout = std::chrono::seconds(5);
  Duration store_lock_timeout = std::chrono::seconds(3);
  Duration store_operation_timeout = std::chrono::seconds(15);
  bool store_migrate = false;
  bool replicas_enabled = false;
  std::string replicas_name;  // empty: this host and its data directory
  Duration replicas_lease = std::chrono::seconds(10);
  Duration replicas_poll = std::chrono::milliseconds(250);
  std::string metrics_address = kMetricsAuto;
  bool insecure = false;
  uint64_t connections_max = 10'000;
  uint64_t streams_max = 100;
  Duration connection_idle = std::chrono::minutes(2);
  Duration connection_age = std::chrono::minutes(30);
  Duration connection_age_grace = std::chrono::minutes(15);
  bool admin_reflection = true;
  Duration call_timeout = std::chrono::seconds(30);
  uint64_t upload_rate_min = 1 << 10;  // bytes a second
  uint64_t upload_bytes_max = uint64_t{256} << 20;
  uint64_t staged_above = uint64_t{64} << 20;
  uint64_t staged_bytes_max = uint64_t{16} << 30;
  uint64_t held_bytes_max = uint64_t{8} << 30;
  uint64_t artefact_bytes_max = uint64_t{4} << 30;
  uint64_t check_ins_per_second = 2000;
  Duration pace_window_max = std::chrono::hours(24);
  Duration pace_accepted_min{};
  Duration retry_min = std::chrono::seconds(60);
  Duration retry_max = std::chrono::seconds(120);
  Duration certificate_lifetime = std::chrono::hours(24 * 365);
  Duration identity_certificate_lifetime = std::chrono::hours(24);
  Duration drain_delay{};  // LoadConfig: 10 s with replicas_enabled
  Duration drain_timeout = std::chrono::seconds(30);
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kAuto;
};

// One line of the table.
struct Setting {
  std::string_view key;    // "device.address"
  std::string_view value;  // what stands for the value in --help: "HOST:PORT"
  std::string_view help;
  std::function<Status(Config&, const std::string&)> set;
  std::function<std::string(const Config&)> get;

  std::string Variable() const;  // "SELVAGE_DEVICE_ADDRESS"
  std::string Flag() const;      // "--device-address"
};
std::vector<Setting> Settings();

struct ConfigSources {
  std::optional<std::string> file;  // its contents
  std::string file_name;            // for errors
  std::function<std::optional<std::string>(const std::string&)> variable;
  std::map<std::string, std::string> flags;  // by key
};

// The configuration, and every mistake in it, each a line fit to print:
// `selvage.yaml:3: device.adress is not a setting; did you mean
// device.address?`. With a mistake the configuration must not be used.
struct LoadedConfig {
  Config config;
  std::vector<std::string> mistakes;
};
LoadedConfig LoadConfig(const ConfigSources& sources);

// The effective configuration as a YAML file with every key.
std::string PrintConfig(const Config& config);

}  // namespace selvage::coordinator
