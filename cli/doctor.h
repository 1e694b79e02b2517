// `selvage doctor`: what could be wrong, checked one thing after the other.
#pragma once

#include <string>
#include <vector>

#include "cli/context.h"

namespace selvage::cli {

enum class Health { kOk, kWarning, kFailure, kSkipped };
std::string_view HealthText(Health health);  // "ok", "warning", ...

struct Finding {
  std::string check;  // "port", "tls", "tls12", "token", ...
  Health health = Health::kOk;
  std::string text;
  std::string advice;             // what to do; empty if ok
  ExitCode code = ExitCode::kOk;  // of a failure
};

// Pure judgements, given what was measured.
Finding JudgeCertificate(Time not_after, Time now);
Finding JudgeClock(Time ours, Time theirs, Duration round_trip);
Finding JudgeDisk(uint64_t free_bytes);
Finding JudgeVersion(std::string_view ours, std::string_view theirs,
                     uint32_t schema_version);
// `info`: what `selvage-torch info -o json` prints.
Finding JudgeBlas(const std::string& info);

std::vector<Finding> RunDoctor(Context& context);

// The code of the first failure; warnings do not fail.
ExitCode WorstOf(const std::vector<Finding>& findings);

}  // namespace selvage::cli
