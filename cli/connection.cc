#include "cli/connection.h"

#include <yaml-cpp/yaml.h>

#include <array>
#include <nlohmann/json.hpp>

#include "cli/text.h"

namespace selvage::cli {
namespace {

constexpr uint64_t kSmallFileMax = 64 << 10;

// What a running coordinator leaves in its data directory.
constexpr const char* kEndpointsFile = "endpoints.json";
constexpr const char* kCaFile = "ca.pem";
constexpr const char* kTokenFile = "admin.token";

Result<std::string> ReadText(Environment& environment, const Path& path) {
  auto bytes = ReadFile(environment.files, path, kSmallFileMax);
  if (!bytes.ok()) return bytes.status();
  return ToString(*bytes);
}

// An option names a file that cannot be read: the command line is at fault.
Status UnreadableOption(std::string_view what, const Path& path,
                        const Status& cause) {
  return InvalidArgument("cannot read " + std::string(what) + " " +
                         path.string() + ": " + std::string(cause.message()));
}

std::string Trim(std::string text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  text.erase(0, text.find_first_not_of(" \t\r\n"));
  return text;
}

Status SplitAddress(const std::string& address, Connection& out) {
  const size_t colon = address.rfind(':');
  const auto bad = [&] {
    return InvalidArgument("server \"" + Printable(address) +
                           "\" is not HOST:PORT");
  };
  if (colon == std::string::npos) return bad();
  out.host = address.substr(0, colon);
  out.port = address.substr(colon + 1);
  if (out.host.size() > 2 && out.host.front() == '[' &&
      out.host.back() == ']') {
    out.host = out.host.substr(1, out.host.size() - 2);
  } else if (out.host.find(':') != std::string::npos) {
    return bad();  // an IPv6 address needs brackets
  }
  if (out.host.empty() || out.port.empty() || out.port.size() > 5 ||
      out.port.find_first_not_of("0123456789") != std::string::npos ||
      std::stoi(out.port) < 1 || std::stoi(out.port) > 65535) {
    return bad();
  }
  return OkStatus();
}

struct Endpoint {
  std::string address;
  bool insecure = false;
};

// The admin address in endpoints.json.
Result<Endpoint> ReadEndpoint(Environment& environment, const Path& path) {
  auto text = ReadText(environment, path);
  if (!text.ok()) {
    if (text.status().code() == StatusCode::kPermissionDenied) {
      return PermissionDenied("cannot read " + path.string() +
                              ": run as the coordinator's user");
    }
    return Unavailable("no " + path.string() +
                       ": no coordinator is running with this data directory");
  }
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object() || !json.contains("admin") ||
      !json["admin"].is_string()) {
    return DataLoss(path.string() + " has no text \"admin\"");
  }
  const auto insecure = json.find("insecure");
  return Endpoint{json["admin"].get<std::string>(),
                  insecure != json.end() && *insecure == true};
}

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

}  // namespace

std::string Connection::Address() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + port;
}

ConnectionOptions ConnectionFromEnvironment(const GetEnv& get_env) {
  const auto get = [&](const char* name) -> std::optional<std::string> {
    auto value = get_env(name);
    if (value && value->empty()) return std::nullopt;
    return value;
  };
  return {.server = get("SELVAGE_SERVER"),
          .ca = get("SELVAGE_CA"),
          .token_file = get("SELVAGE_TOKEN_FILE"),
          .coordinator = get("SELVAGE_COORDINATOR")};
}

std::optional<Path> ConfigPath(const GetEnv& get_env) {
  if (const auto xdg = get_env("XDG_CONFIG_HOME"); xdg && !xdg->empty()) {
    return Path(*xdg) / "selvage" / "config.yaml";
  }
  if (const auto home = get_env("HOME"); home && !home->empty()) {
    return Path(*home) / ".config" / "selvage" / "config.yaml";
  }
  return std::nullopt;
}

Result<Config> ParseConfig(std::string_view yaml, const Path& directory) {
  static const std::vector<std::string> kKeys = {"server", "ca", "token_file",
                                                 "coordinator", "output"};
  try {
    const YAML::Node root = YAML::Load(std::string(yaml));
    Config config;
    if (root.IsNull()) return config;
    if (!root.IsMap()) return InvalidArgument("not a map of keys");
    for (const auto& item : root) {
      const std::string where =
          "line " + std::to_string(item.first.Mark().line + 1) + ": ";
      const auto key = item.first.as<std::string>();
      if (!item.second.IsScalar()) {
        return InvalidArgument(where + key + " is not text");
      }
      const auto value = item.second.as<std::string>();
      const std::string file = (directory / value).string();
      ConnectionOptions& out = config.connection;
      if (key == "server") {
        out.server = value;
      } else if (key == "ca") {
        out.ca = file;
      } else if (key == "token_file") {
        out.token_file = file;
      } else if (key == "coordinator") {
        out.coordinator = file;
      } else if (key == "output") {
        config.output = value;
      } else {
        const std::string nearest = Nearest(key, kKeys);
        return InvalidArgument(
            where + key + " is not a key here" +
            (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
      }
    }
    return config;
  } catch (const YAML::Exception& e) {
    return InvalidArgument(e.what());
  }
}

Result<Config> LoadConfig(Environment& environment) {
  const auto path = ConfigPath(environment.get_env);
  if (!path) return Config{};
  auto text = ReadText(environment, *path);
  if (!text.ok()) {
    if (text.status().code() == StatusCode::kNotFound) return Config{};
    return UnreadableOption("the configuration file", *path, text.status());
  }
  auto config = ParseConfig(*text, path->parent_path());
  if (!config.ok()) return config.status().WithContext(path->string());
  return config;
}

Result<Connection> ResolveConnection(Environment& environment,
                                     const ConnectionOptions& flags,
                                     const ConnectionOptions& env,
                                     const ConnectionOptions& file) {
  struct Level {
    const ConnectionOptions& options;
    const char* name;
  };
  const std::array<Level, 3> levels = {Level{flags, "the command line"},
                                       Level{env, "the environment"},
                                       Level{file, "the configuration file"}};
  Connection out;
  std::string address;
  Path ca;
  Path token;
  for (const auto& [options, name] : levels) {
    const auto direct = std::string(name);
    if (address.empty() && options.server) {
      address = *options.server;
      out.server_source = direct;
    }
    if (ca.empty() && options.ca) {
      ca = *options.ca;
      out.ca_source = ca.string();
    }
    if (token.empty() && options.token_file) {
      token = *options.token_file;
      out.token_source = token.string();
    }
    if (!options.coordinator) continue;
    const Path directory = *options.coordinator;
    if (address.empty()) {
      const Path path = directory / kEndpointsFile;
      SELVAGE_ASSIGN_OR_RETURN(const Endpoint endpoint,
                               ReadEndpoint(environment, path));
      address = endpoint.address;
      out.insecure = endpoint.insecure;
      out.server_source = path.string();
    }
    if (ca.empty()) {
      ca = directory / kCaFile;
      out.ca_source = ca.string();
    }
    if (token.empty()) {
      token = directory / kTokenFile;
      out.token_source = token.string();
    }
  }
  if (address.empty()) {
    return InvalidArgument(
        "no coordinator given: pass --coordinator DIR (its data directory, on "
        "its machine), or --server HOST:PORT --ca FILE --token-file FILE; the "
        "environment (SELVAGE_COORDINATOR, SELVAGE_SERVER, SELVAGE_CA, "
        "SELVAGE_TOKEN_FILE) and ~/.config/selvage/config.yaml work too");
  }
  SELVAGE_RETURN_IF_ERROR(SplitAddress(address, out));
  if (out.insecure && !IsLoopback(out.host)) {
    return FailedPrecondition("the coordinator at " + address +
                              " runs without TLS on an address that is not "
                              "this machine's");
  }
  if (ca.empty()) {
    return InvalidArgument("no CA given for " + address +
                           ": pass --ca FILE (the coordinator's ca.pem)");
  }
  if (token.empty()) {
    return InvalidArgument("no token given for " + address +
                           ": pass --token-file FILE (the coordinator's "
                           "admin.token)");
  }
  if (!out.insecure) {
    auto ca_text = ReadText(environment, ca);
    if (!ca_text.ok()) {
      return UnreadableOption("the CA", ca, ca_text.status());
    }
    out.ca_pem = *ca_text;
  }
  auto token_text = ReadText(environment, token);
  if (!token_text.ok()) {
    return UnreadableOption("the token", token, token_text.status());
  }
  out.token = Trim(*token_text);
  // It becomes a header: one printable word.
  if (out.token.empty() || out.token.size() > 4096 ||
      Printable(out.token) != out.token ||
      out.token.find(' ') != std::string::npos) {
    return InvalidArgument("the token file " + token.string() +
                           " does not hold one word");
  }
  return out;
}

}  // namespace selvage::cli
