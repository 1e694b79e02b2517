#include "cli/doctor.h"

#include <nlohmann/json.hpp>

#include "base/version.h"
#include "cli/text.h"
#include "cli/tls_probe.h"

namespace selvage::cli {
namespace {

constexpr Duration kProbeTimeout = std::chrono::seconds(5);
constexpr Duration kClockWarning = std::chrono::seconds(2);
constexpr Duration kClockFailure = std::chrono::minutes(10);
constexpr Duration kExpiryWarning = std::chrono::hours(24 * 14);
constexpr uint64_t kDiskFailure = uint64_t{64} << 20;
constexpr uint64_t kDiskWarning = uint64_t{1} << 30;

Finding Ok(std::string check, std::string text) {
  return {std::move(check), Health::kOk, std::move(text), "", ExitCode::kOk};
}
Finding Warn(std::string check, std::string text, std::string advice) {
  return {std::move(check), Health::kWarning, std::move(text),
          std::move(advice), ExitCode::kOk};
}
Finding Fail(std::string check, std::string text, std::string advice,
             ExitCode code) {
  return {std::move(check), Health::kFailure, std::move(text),
          std::move(advice), code};
}
Finding Skip(std::string check, std::string because) {
  return {std::move(check), Health::kSkipped, std::move(because), "",
          ExitCode::kOk};
}

Finding CheckPort(const Connection& to) {
  const Status status = ProbePort(to.host, to.port, kProbeTimeout);
  if (status.ok()) return Ok("port", to.Address() + " accepts connections");
  return Fail("port",
              to.Address() + ": " + std::string(status.message()) + " (from " +
                  to.server_source + ")",
              "start selvage-coordinator, or correct the address; a firewall "
              "may be in between",
              ExitCode::kUnavailable);
}

std::vector<Finding> CheckTls(const Connection& to, Time now) {
  const auto peer =
      ProbeTls(to.host, to.port, to.ca_pem, TlsVersion::kTls13, kProbeTimeout);
  if (!peer.ok()) {
    const bool chain = peer.status().code() == StatusCode::kPermissionDenied;
    return {Fail("tls",
                 (chain ? "the certificate is not accepted: "
                        : "no TLS 1.3 handshake: ") +
                     std::string(peer.status().message()),
                 chain ? "is " + to.ca_source +
                             " this coordinator's ca.pem, and is the name in "
                             "its certificate (server_names)?"
                       : "is this the admin port of a coordinator?",
                 chain ? ExitCode::kAuth : ExitCode::kUnavailable),
            Skip("certificate", "needs TLS"), Skip("tls12", "needs TLS")};
  }
  std::vector<Finding> out = {
      Ok("tls", peer->protocol + ", " + peer->cipher +
                    ", signed by the CA in " + to.ca_source),
      JudgeCertificate(peer->not_after, now)};
  const auto old =
      ProbeTls(to.host, to.port, to.ca_pem, TlsVersion::kTls12, kProbeTimeout);
  out.push_back(old.ok() ? Fail("tls12", "the coordinator still speaks TLS 1.2",
                                "is there a proxy in front of it? end TLS at "
                                "the coordinator, or forbid 1.2 at the proxy",
                                ExitCode::kGeneric)
                         : Ok("tls12", "TLS 1.2 is refused"));
  return out;
}

std::vector<Finding> CheckServer(Context& context) {
  const auto unreached = [] {
    return std::vector<Finding>{Skip("clock", "needs the coordinator"),
                                Skip("disk", "needs the coordinator"),
                                Skip("version", "needs the coordinator")};
  };
  const auto admin = context.Admin();
  Clock& clock = context.environment().clock;
  const Time before = clock.Now();
  const auto info = admin.ok() ? (*admin)->GetServerInfo()
                               : Result<v1::ServerInfo>(admin.status());
  const Time after = clock.Now();
  std::vector<Finding> out;
  if (!info.ok()) {
    out.push_back(Fail("token", std::string(info.status().message()),
                       HintFor(info.status()),
                       ExitCodeOf(info.status().code())));
    for (Finding& skipped : unreached()) out.push_back(std::move(skipped));
    return out;
  }
  out.push_back(Ok("token", "accepted"));
  const Duration round_trip = after - before;
  out.push_back(JudgeClock(before + round_trip / 2,
                           FromMicros(info->now_micros()), round_trip));
  out.push_back(JudgeDisk(info->free_bytes()));
  out.push_back(
      JudgeVersion(Version(), info->version(), info->schema_version()));
  return out;
}

Finding CheckBlas(Context& context) {
  if (!context.torch().path()) {
    return Skip("blas", "selvage-torch is not installed here");
  }
  const auto info = context.torch().Run({"info", "-o", "json"});
  if (!info.ok()) {
    return Warn("blas", std::string(info.status().message()),
                "reinstall selvage-torch and libtorch");
  }
  return JudgeBlas(*info);
}

}  // namespace

std::string_view HealthText(Health health) {
  switch (health) {
    case Health::kOk:
      return "ok";
    case Health::kWarning:
      return "warning";
    case Health::kFailure:
      return "failure";
    case Health::kSkipped:
      return "skipped";
  }
  return "unknown";
}

Finding JudgeCertificate(Time not_after, Time now) {
  const std::string until = FormatMicros(ToMicros(not_after));
  const char* advice = "restart the coordinator: it renews its certificate";
  if (not_after <= now) {
    return Fail("certificate", "expired " + until, advice, ExitCode::kAuth);
  }
  if (not_after - now < kExpiryWarning) {
    return Warn("certificate", "expires soon: " + until, advice);
  }
  return Ok("certificate", "valid until " + until);
}

Finding JudgeClock(Time ours, Time theirs, Duration round_trip) {
  const Duration difference = ours > theirs ? ours - theirs : theirs - ours;
  const std::string text = FormatDuration(difference) + " apart" +
                           (ours > theirs ? " (here is ahead)" : "");
  const char* advice = "synchronise both clocks (NTP)";
  if (difference > kClockFailure) {
    return Fail("clock", text, advice, ExitCode::kPrecondition);
  }
  if (difference > kClockWarning + round_trip) {
    return Warn("clock", text, advice);
  }
  return Ok("clock", text);
}

Finding JudgeDisk(uint64_t free_bytes) {
  const std::string text =
      FormatBytes(free_bytes) + " free in the coordinator's data directory";
  const char* advice = "free space or move the data directory";
  if (free_bytes < kDiskFailure) {
    return Fail("disk", text, advice, ExitCode::kPrecondition);
  }
  if (free_bytes < kDiskWarning) return Warn("disk", text, advice);
  return Ok("disk", text);
}

Finding JudgeVersion(std::string_view ours, std::string_view theirs,
                     uint32_t schema_version) {
  const std::string text = "coordinator " + Printable(theirs) + ", schema " +
                           std::to_string(schema_version);
  if (schema_version == 0) {
    return Fail("version", text, "the coordinator's database has no schema",
                ExitCode::kPrecondition);
  }
  if (ours != theirs) {
    return Warn("version", text + "; selvage is " + std::string(ours),
                "use the same version on both sides");
  }
  return Ok("version", text);
}

Finding JudgeBlas(const std::string& info) {
  const auto json = nlohmann::json::parse(info, nullptr, false);
  const auto data = json.is_object() ? json.value("data", nlohmann::json())
                                     : nlohmann::json();
  if (!data.is_object()) {
    return Warn("blas", "selvage-torch info does not say",
                "use the same version of selvage and selvage-torch");
  }
  const std::string library = data.value("blas_library", "");
  bool fast = data.value("openblas", false);
  for (const char* name : {"mkl", "blis", "atlas"}) {
    fast = fast || library.find(name) != std::string::npos;
  }
  if (!fast) {
    return Warn("blas", "LibTorch uses a reference BLAS here: " + library,
                "training is up to 30 times slower: apt-get install "
                "libopenblas0-pthread");
  }
  return Ok("blas",
            "LibTorch " + data.value("libtorch", "") + " with " + library);
}

std::vector<Finding> RunDoctor(Context& context) {
  std::vector<Finding> out;
  const auto connection = context.ResolvedConnection();
  if (!connection.ok()) {
    out.push_back(Fail("configuration",
                       std::string(connection.status().message()), "",
                       ExitCodeOf(connection.status().code())));
  } else {
    out.push_back(Ok("configuration", "coordinator at " +
                                          connection->Address() + " (" +
                                          connection->server_source + ")"));
    out.push_back(CheckPort(*connection));
    if (out.back().health == Health::kOk) {
      const Time now = context.environment().clock.Now();
      if (connection->insecure) {
        out.push_back(Warn("tls", "the coordinator runs without TLS",
                           "start it without --insecure for anything but "
                           "experiments"));
      } else {
        for (Finding& finding : CheckTls(*connection, now)) {
          out.push_back(std::move(finding));
        }
      }
      for (Finding& finding : CheckServer(context)) {
        out.push_back(std::move(finding));
      }
    }
  }
  out.push_back(CheckBlas(context));
  return out;
}

ExitCode WorstOf(const std::vector<Finding>& findings) {
  for (const Finding& finding : findings) {
    if (finding.health == Health::kFailure) return finding.code;
  }
  return ExitCode::kOk;
}

}  // namespace selvage::cli
