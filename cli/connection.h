// Which coordinator, and how to prove who we are: flags, then environment, then
// the configuration file.
#pragma once

#include <optional>
#include <string>

#include "base/status.h"
#include "cli/environment.h"

namespace selvage::cli {

// As given at one level; everything optional.
struct ConnectionOptions {
  std::optional<std::string> server = {};  // HOST:PORT of the admin service
  std::optional<std::string> ca = {};      // file: the coordinator's CA, PEM
  std::optional<std::string> token_file = {};  // file: the bearer token
  // Data directory of a coordinator on this machine: gives all three.
  std::optional<std::string> coordinator = {};
};

struct Connection {
  std::string host;
  std::string port;
  std::string ca_pem;  // empty if insecure
  std::string token;
  // A coordinator on this machine says that it runs without TLS.
  bool insecure = false;
  // Where each came from, for `doctor` and for errors.
  std::string server_source;
  std::string ca_source;
  std::string token_source;

  std::string Address() const;  // HOST:PORT, an IPv6 host in brackets
};

// SELVAGE_SERVER, SELVAGE_CA, SELVAGE_TOKEN_FILE, SELVAGE_COORDINATOR.
ConnectionOptions ConnectionFromEnvironment(const GetEnv& get_env);

// $XDG_CONFIG_HOME/selvage/config.yaml, else ~/.config/selvage/config.yaml;
// nullopt without a home directory.
std::optional<Path> ConfigPath(const GetEnv& get_env);

struct Config {
  ConnectionOptions connection;
  std::optional<std::string> output;
};
// Keys server, ca, token_file, coordinator, output; strict. Relative file names
// are relative to `directory`.
Result<Config> ParseConfig(std::string_view yaml, const Path& directory);
// Empty if there is no file.
Result<Config> LoadConfig(Environment& environment);

// Takes each of server, CA and token from the first of flags, environment and
// file that gives it; at one level the direct option beats `coordinator`.
// INVALID_ARGUMENT says what is missing and how to give it; UNAVAILABLE if the
// coordinator's directory has no endpoints.json (it is not running).
Result<Connection> ResolveConnection(Environment& environment,
                                     const ConnectionOptions& flags,
                                     const ConnectionOptions& env,
                                     const ConnectionOptions& file);

}  // namespace selvage::cli
