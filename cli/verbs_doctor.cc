// doctor, strategies, version: about the installation itself.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/version.h"
#include "cli/doctor.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "plan/task.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kGreen = "\x1b[32m";
constexpr const char* kYellow = "\x1b[33m";
constexpr const char* kRed = "\x1b[31m";

std::string Checklist(const std::vector<Finding>& findings, bool color) {
  std::string out;
  for (const Finding& finding : findings) {
    std::string mark(HealthText(finding.health));
    mark.resize(7, ' ');
    if (color) {
      const char* paint = finding.health == Health::kOk        ? kGreen
                          : finding.health == Health::kFailure ? kRed
                                                               : kYellow;
      mark = paint + mark + "\x1b[0m";
    }
    std::string check = finding.check;
    check.resize(std::max<size_t>(check.size(), 13), ' ');
    out += mark + "  " + check + "  " + Printable(finding.text) + '\n';
    if (!finding.advice.empty()) {
      out += std::string(24, ' ') + "-> " + Printable(finding.advice) + '\n';
    }
  }
  return out;
}

Result<ExitCode> Doctor(Context& context) {
  const std::vector<Finding> findings = RunDoctor(context);
  const ExitCode code = WorstOf(findings);
  Json checks = Json::array();
  for (const Finding& finding : findings) {
    Json check{{"check", finding.check},
               {"health", HealthText(finding.health)},
               {"text", finding.text}};
    if (!finding.advice.empty()) check["advice"] = finding.advice;
    checks.push_back(check);
  }
  context.output().Data(
      {{"healthy", code == ExitCode::kOk}, {"checks", checks}},
      [&] { return Checklist(findings, context.output().color()); });
  return code;
}

Result<ExitCode> PrintStrategies(Context& context) {
  const std::vector<plan::StrategyDescription> all = plan::DescribeStrategies();
  Json list = Json::array();
  for (const plan::StrategyDescription& one : all) {
    Json parameters = Json::array();
    for (const plan::StrategyParameter& parameter : one.parameters) {
      Json entry{{"name", parameter.name}, {"bounds", parameter.bounds}};
      if (!parameter.default_value.empty()) {
        entry["default"] = parameter.default_value;
      }
      parameters.push_back(entry);
    }
    list.push_back({{"name", one.name},
                    {"summary", one.summary},
                    {"parameters", parameters}});
  }
  context.output().Data({{"strategies", list}}, [&] {
    Table table({"STRATEGY", "PARAMETER", "BOUNDS", "DEFAULT", "WHAT IT IS"});
    for (const plan::StrategyDescription& one : all) {
      bool first = true;
      for (const plan::StrategyParameter& parameter : one.parameters) {
        table.Add({first ? one.name : "", parameter.name, parameter.bounds,
                   parameter.default_value.empty() ? "(required)"
                                                   : parameter.default_value,
                   first ? one.summary : ""});
        first = false;
      }
    }
    return table.ToString();
  });
  return ExitCode::kOk;
}

Result<ExitCode> PrintVersion(Context& context) {
  context.output().Data({{"version", Version()}, {"commit", Commit()}}, [] {
    return "selvage " + std::string(Version()) + " (" + std::string(Commit()) +
           ")\n";
  });
  return ExitCode::kOk;
}

}  // namespace

void AddDoctorVerbs(CLI::App& app, Verb& chosen) {
  auto* doctor = app.add_subcommand("doctor", "check what could be wrong");
  doctor->footer(
      R"(Checks, in this order: the configuration, the port, the TLS chain and expiry,
that TLS 1.2 is refused, the token, clocks, disk, versions, and LibTorch's BLAS.
Exit code of the first failure, e.g. 8 if nobody listens; warnings do not fail.

Examples:
  selvage doctor
  selvage --server fl.example.org:8444 --ca ca.pem --token-file t doctor -o json)");
  doctor->callback([&chosen] { chosen = Doctor; });
  auto* strategies = app.add_subcommand(
      "strategies", "list what strategy.name can be, and its keys");
  strategies->footer(
      R"(The keys go into `strategy:` of the task file, beside num_rounds, cohort and the
rest. Works without a coordinator.

Examples:
  selvage strategies
  selvage strategies -o json)");
  strategies->callback([&chosen] { chosen = PrintStrategies; });
  auto* version = app.add_subcommand("version", "print version and commit");
  version->footer(R"(Examples:
  selvage version -o json)");
  version->callback([&chosen] { chosen = PrintVersion; });
}

}  // namespace selvage::cli
