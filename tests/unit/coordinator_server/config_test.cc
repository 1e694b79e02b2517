#include "coordinator/server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace selvage::coordinator {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

LoadedConfig Load(const std::string& file,
                  const std::map<std::string, std::string>& variables = {},
                  const std::map<std::string, std::string>& flags = {}) {
  ConfigSources sources;
  sources.file = file;
  sources.file_name = "c.yaml";
  sources.variable =
      [&variables](const std::string& name) -> std::optional<std::string> {
    const auto it = variables.find(name);
    if (it == variables.end()) return std::nullopt;
    return it->second;
  };
  sources.flags = flags;
  return LoadConfig(sources);
}

TEST(LoadConfigTest, Nothing_IsTheDefaults) {
  const LoadedConfig loaded = Load("");
  EXPECT_THAT(loaded.mistakes, IsEmpty());
  EXPECT_EQ(loaded.config.device_address, "0.0.0.0:8443");
  EXPECT_EQ(loaded.config.admin_address, "127.0.0.1:8444");
  EXPECT_FALSE(loaded.config.insecure);
}

TEST(LoadConfigTest, MetricsAddress_IsAnAddressOrAWord) {
  EXPECT_EQ(Load("").config.metrics_address, kMetricsAuto);
  for (const std::string good : {"auto", "off", "0.0.0.0:9464", "[::1]:0"}) {
    const LoadedConfig loaded = Load("metrics: {address: '" + good + "'}\n");
    EXPECT_THAT(loaded.mistakes, IsEmpty()) << good;
    EXPECT_EQ(loaded.config.metrics_address, good);
  }
  for (const std::string bad : {"", "9464", "on", "localhost:x"}) {
    EXPECT_EQ(Load("metrics: {address: '" + bad + "'}\n").mistakes.size(), 1U)
        << bad;
  }
}

TEST(LoadConfigTest, EverySource_FlagsOverVariablesOverFile) {
  const std::string file =
      "data_dir: /file\n"
      "device: {address: 127.0.0.1:1, endpoint: file:1}\n"
      "limits:\n"
      "  upload_bytes: 64MiB\n"
      "pace: {retry_min: 250ms, retry_max: 2m}\n"
      "server_names: [a.example, 10.0.0.1]\n"
      "insecure: true\n"
      "log: {level: debug, format: json}\n";
  const LoadedConfig loaded = Load(file,
                                   {{"SELVAGE_DATA_DIR", "/variable"},
                                    {"SELVAGE_DEVICE_ENDPOINT", "variable:1"},
                                    {"SELVAGE_UNRELATED", "x"}},
                                   {{"data_dir", "/flag"}});
  EXPECT_THAT(loaded.mistakes, IsEmpty());
  EXPECT_EQ(loaded.config.data_dir, "/flag");
  EXPECT_EQ(loaded.config.device_endpoint, "variable:1");
  EXPECT_EQ(loaded.config.device_address, "127.0.0.1:1");
  EXPECT_EQ(loaded.config.upload_bytes_max, uint64_t{64} << 20);
  EXPECT_EQ(loaded.config.retry_min, std::chrono::milliseconds(250));
  EXPECT_EQ(loaded.config.retry_max, std::chrono::minutes(2));
  EXPECT_THAT(loaded.config.server_names, ElementsAre("a.example", "10.0.0.1"));
  EXPECT_TRUE(loaded.config.insecure);
  EXPECT_EQ(loaded.config.log_level, LogLevel::kDebug);
  EXPECT_EQ(loaded.config.log_format, LogFormat::kJson);
}

TEST(LoadConfigTest, Replicas_NeedWhatTheyShare) {
  const LoadedConfig alone = Load("replicas: {enabled: true}\n");
  EXPECT_THAT(
      alone.mistakes,
      ElementsAre(HasSubstr("needs store.postgres: SQLite is for one"),
                  HasSubstr("needs blobs_dir"), HasSubstr("needs keys_dir")));
  const std::string good =
      "store: {postgres: host=db}\nblobs_dir: /mnt/blobs\nkeys_dir: /keys\n";
  const LoadedConfig loaded =
      Load(good +
           "replicas: {enabled: true, name: eu-1, lease: 20s, "
           "poll: 1s}\n");
  EXPECT_THAT(loaded.mistakes, IsEmpty());
  EXPECT_TRUE(loaded.config.replicas_enabled);
  EXPECT_EQ(loaded.config.replicas_name, "eu-1");
  EXPECT_EQ(loaded.config.replicas_lease, std::chrono::seconds(20));
  EXPECT_EQ(loaded.config.replicas_poll, std::chrono::seconds(1));
  // There are others for the balancer to send devices to, once it knows.
  EXPECT_EQ(loaded.config.drain_delay, std::chrono::seconds(10));
  EXPECT_EQ(Load(good + "replicas: {enabled: true}\ndrain: {delay: 0s}\n")
                .config.drain_delay,
            Duration::zero());
  EXPECT_EQ(Load(good).config.drain_delay, Duration::zero());
  EXPECT_THAT(
      Load(good + "replicas: {enabled: true, lease: 2s, poll: 1s}\n").mistakes,
      ElementsAre(HasSubstr("exceeds a quarter of replicas.lease (2s)")));
  EXPECT_THAT(Load("replicas: {name: a/b}\n").mistakes,
              ElementsAre(HasSubstr("\"a/b\" is not 1 to 64 of letters")));
}

TEST(LoadConfigTest, EveryMistake_IsNamedWithItsPlace) {
  const struct {
    std::string file;
    std::string expected;
  } kTable[] = {
      {"device:\n  adress: x:1\n",
       "c.yaml:2: device.adress is not a setting; did you mean "
       "device.address?"},
      {"nonsense_key_of_length: 1\n",
       "c.yaml:1: nonsense_key_of_length is not a setting"},
      {"data_dir: a\ndata_dir: b\n", "c.yaml:2: data_dir is set twice"},
      {"device: {address: nowhere}\n", "\"nowhere\" is not HOST:PORT"},
      {"device: {address: 'x:70000'}\n", "is not HOST:PORT"},
      {"limits: {streams: 0}\n", "limits.streams: 0 is not in 1 .. 10000"},
      {"limits: {connection_age: 9s}\n", "9s is not in 10s .. "},
      {"limits: {call_timeout: 999ms}\n", "999ms is not in 1s .. "},
      {"limits: {upload_rate_min: 2GiB}\n", "2GiB is not in 1 .. 1GiB"},
      {"limits: {connection_idle: 25h}\n", "25h is not in 1s .. "},
      {"limits: {connection_age_grace: 0s}\n", "0s is not in 1s .. "},
      {"admin: {reflection: maybe}\n", "\"maybe\" is none of false, true"},
      {"limits: {connections: 0}\n", "limits.connections: 0 is not in 1 .. "},
      {"limits: {connections: many}\n", "\"many\" is not a value like 1000"},
      {"limits: {upload_bytes: 1KiB}\n", "1KiB is not in 1MiB .. 1024GiB"},
      {"limits: {staged_above: 1KiB}\n", "1KiB is not in 1MiB .. 1024GiB"},
      {"limits: {staged_bytes: 1KiB}\n", "1KiB is not in 1MiB .. 1024GiB"},
      {"limits: {upload_bytes: 99999999999GiB}\n", "is not a value like"},
      {"limits: {held_bytes: 1023KiB}\n",
       "limits.held_bytes: 1023KiB is not in 1MiB .. 1024GiB"},
      {"limits: {held_bytes: 1025GiB}\n", "1025GiB is not in 1MiB .. 1024GiB"},
      {"limits: {held_bytes: plenty}\n", "\"plenty\" is not a value like"},
      {"pace: {retry_min: 5}\n", "\"5\" is not a value like 90s"},
      {"pace: {retry_min: 5m, retry_max: 60s}\n",
       "pace.retry_min (5m) exceeds pace.retry_max (1m)"},
      {"insecure: maybe\n", "\"maybe\" is none of false, true"},
      {"insecure: true\n",
       "device.address is 0.0.0.0:8443: insecure mode is for loopback"},
      {"log: {level: loud}\n",
       "\"loud\" is none of debug, info, warning, error"},
      {"data_dir: ''\n", "data_dir: the path is empty"},
      {"data_dir:\n", "data_dir has no value"},
      {"server_names: 'a,,b'\n", "a name is empty"},
      {"- a\n", "the file is not a map"},
      {"a: [\n", "c.yaml:"},
  };
  for (const auto& row : kTable) {
    EXPECT_THAT(Load(row.file).mistakes, Contains(HasSubstr(row.expected)))
        << row.file;
  }
  EXPECT_THAT(Load("", {{"SELVAGE_INSECURE", "1"}}).mistakes,
              ElementsAre(HasSubstr("SELVAGE_INSECURE: \"1\" is none of")));
  EXPECT_THAT(Load("", {}, {{"device.address", "x"}}).mistakes,
              ElementsAre(HasSubstr("--device-address: address \"x\" is not")));
}

TEST(LoadConfigTest, HeldBytes_FromEverySource) {
  EXPECT_EQ(Load("").config.held_bytes_max, uint64_t{8} << 30);
  EXPECT_EQ(Load("limits: {held_bytes: 1MiB}\n").config.held_bytes_max,
            uint64_t{1} << 20);
  EXPECT_EQ(Load("", {{"SELVAGE_LIMITS_HELD_BYTES", "1024GiB"}})
                .config.held_bytes_max,
            uint64_t{1} << 40);
  EXPECT_EQ(Load("", {}, {{"limits.held_bytes", "2GiB"}}).config.held_bytes_max,
            uint64_t{2} << 30);
}

TEST(LoadConfigTest, SeveralMistakes_AreAllTold) {
  EXPECT_EQ(Load("a: 1\nb: 2\nlog: {level: x}\n").mistakes.size(), 3U);
}

TEST(LoadConfigTest, Proxies_AreIdentifiers_AndNeedTls) {
  const LoadedConfig loaded = Load("device: {proxies: [edge-1, edge-2]}\n");
  EXPECT_THAT(loaded.mistakes, IsEmpty());
  EXPECT_THAT(loaded.config.device_proxies, ElementsAre("edge-1", "edge-2"));
  EXPECT_THAT(Load("device: {proxies: [\"edge 1\"]}\n").mistakes,
              ElementsAre(HasSubstr("proxy name must be letters")));
  EXPECT_THAT(Load("insecure: true\n"
                   "device: {proxies: [edge], address: \"127.0.0.1:1\"}\n")
                  .mistakes,
              ElementsAre(HasSubstr("insecure mode has no certificates")));
  EXPECT_THAT(Load("").config.device_proxies, IsEmpty());
}

TEST(PrintConfigTest, PrintedFile_LoadsBack) {
  const LoadedConfig loaded = Load("", {},
                                   {{"data_dir", "/with space"},
                                    {"server_names", "a.example,::1"},
                                    {"device.proxies", "edge-1,edge-2"},
                                    {"pace.retry_min", "1500ms"},
                                    {"drain.delay", "0s"},
                                    {"device.address", "[::1]:0"}});
  ASSERT_THAT(loaded.mistakes, IsEmpty());
  const std::string printed = PrintConfig(loaded.config);
  const LoadedConfig again = Load(printed);
  EXPECT_THAT(again.mistakes, IsEmpty()) << printed;
  EXPECT_EQ(PrintConfig(again.config), printed);
  EXPECT_EQ(again.config.data_dir, "/with space");
  EXPECT_EQ(again.config.retry_min, std::chrono::milliseconds(1500));
}

TEST(LoadConfigTest, PostgresAddressWithAPassword_IsRefusedUnprinted) {
  for (const std::string& address :
       {std::string("postgresql://selvage:hunter2@db/selvage"),
        std::string("host=db password=hunter2"), std::string("hunter2")}) {
    const LoadedConfig loaded = Load("", {}, {{"store.postgres", address}});
    ASSERT_EQ(loaded.mistakes.size(), 1U) << address;
    EXPECT_THAT(loaded.mistakes[0], Not(HasSubstr("hunter2")));
    EXPECT_THAT(PrintConfig(loaded.config), Not(HasSubstr("hunter2")));
  }
}

TEST(LoadConfigTest, Postgres_SettingsAndBounds) {
  const LoadedConfig loaded = Load(
      "store: {postgres: \"host=/run/pg dbname=selvage\", pool_size: 3, "
      "statement_timeout: 2s, migrate: true}\n");
  EXPECT_THAT(loaded.mistakes, IsEmpty());
  EXPECT_EQ(loaded.config.store_postgres, "host=/run/pg dbname=selvage");
  EXPECT_EQ(loaded.config.store_pool_size, 3U);
  EXPECT_EQ(loaded.config.store_statement_timeout, std::chrono::seconds(2));
  EXPECT_TRUE(loaded.config.store_migrate);
  EXPECT_EQ(Load("store: {pool_size: 0}\n").mistakes.size(), 1U);
  EXPECT_EQ(Load("store: {pool_size: 1001}\n").mistakes.size(), 1U);
  EXPECT_EQ(Load("store: {lock_timeout: 1ms}\n").mistakes.size(), 1U);
  EXPECT_EQ(Load("store: {migrate: true}\n").mistakes.size(), 1U);
}

TEST(SettingsTest, Names_FollowFromTheKey) {
  const std::vector<Setting> settings = Settings();
  EXPECT_EQ(settings[1].key, "device.address");
  EXPECT_EQ(settings[1].Variable(), "SELVAGE_DEVICE_ADDRESS");
  EXPECT_EQ(settings[1].Flag(), "--device-address");
}

}  // namespace
}  // namespace selvage::coordinator
