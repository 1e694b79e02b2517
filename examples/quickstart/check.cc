#include "examples/quickstart/check.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "crypto/digest.h"
#include "examples/quickstart/report.h"

namespace selvage::quickstart {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kFileSizeMax = uint64_t{1} << 30;

// Collects what is wrong.
class Checker {
 public:
  Checker(FileSystem& files, const Path& directory)
      : files_(files), directory_(directory) {}

  void Expect(bool holds, const std::string& otherwise) {
    if (!holds) problems_.push_back(otherwise);
  }
  // "" if there is none, which is noted.
  std::string Read(const char* name) {
    const auto bytes = ReadFile(files_, directory_ / name, kFileSizeMax);
    if (!bytes.ok()) {
      problems_.push_back(std::string(name) + ": " +
                          std::string(bytes.status().message()));
      return "";
    }
    Expect(!bytes->empty(), std::string(name) + " is empty");
    return ToString(*bytes);
  }
  std::vector<std::string> problems() && { return std::move(problems_); }

 private:
  FileSystem& files_;
  const Path& directory_;
  std::vector<std::string> problems_;
};

void CheckSummary(const Json& summary, const Expectations& expected,
                  Checker& checker) {
  for (const char* group : {"alone", "global", "personal"}) {
    const Json& spread = summary.at(group);
    const auto mean = spread.at("mean").get<double>();
    const auto p10 = spread.at("p10").get<double>();
    const auto worst = spread.at("worst").get<double>();
    checker.Expect(
        0 <= worst && worst <= p10 && p10 <= 100 && worst <= mean &&
            mean <= 100 && mean > 10,
        std::string("summary.json: ") + group + " is " + spread.dump());
  }
  for (const char* when : {"before", "after"}) {
    const auto value = summary.at("newcomers").at(when).get<double>();
    checker.Expect(value > 10 && value <= 100,
                   std::string("summary.json: newcomers.") + when + " is " +
                       std::to_string(value));
  }
  const auto global = summary.at("global").at("mean").get<double>();
  const auto alone = summary.at("alone").at("mean").get<double>();
  const auto personal = summary.at("personal").at("mean").get<double>();
  checker.Expect(personal > global,
                 "summary.json: personal is no better than global");
  if (expected.targets) {
    checker.Expect(personal >= 84.5, "personal is below 84.5");
    checker.Expect(personal >= global + 3.5,
                   "personal is less than 3.5 points above global");
    checker.Expect(personal >= alone + 3.5,
                   "personal is less than 3.5 points above alone");
  }
  const auto devices = summary.at("devices").get<uint64_t>();
  for (const char* counter : {"certificates", "connections"}) {
    checker.Expect(
        summary.at(counter).get<uint64_t>() >= devices,
        std::string("summary.json: fewer ") + counter + " than devices");
  }
  for (const char* counter : {"bytes_up", "bytes_down"}) {
    checker.Expect(
        summary.at(counter).get<uint64_t>() > 100'000,
        std::string("summary.json: ") + counter + " is too small for a model");
  }
  checker.Expect(summary.at("seconds").get<double>() > 0,
                 "summary.json: seconds is not positive");
  checker.Expect(summary.at("seed").is_number_unsigned(),
                 "summary.json: seed is no number");
  checker.Expect(!summary.at("model").get<std::string>().empty(),
                 "summary.json: model is empty");
  if (expected.devices) {
    checker.Expect(devices == static_cast<uint64_t>(*expected.devices),
                   "summary.json: devices is " + std::to_string(devices));
  }
  const auto rounds = summary.at("rounds").get<uint64_t>();
  if (expected.rounds) {
    checker.Expect(rounds == static_cast<uint64_t>(*expected.rounds),
                   "summary.json: rounds is " + std::to_string(rounds));
  }
}

void CheckRounds(const std::string& text, uint64_t rounds, Checker& checker) {
  const auto history = ParseRounds(text);
  if (!history.ok()) {
    checker.Expect(false, std::string(history.status().message()));
    return;
  }
  uint64_t committed = 0;
  for (const RoundPoint& round : *history) committed += round.committed ? 1 : 0;
  checker.Expect(committed == rounds,
                 "rounds.jsonl has " + std::to_string(committed) +
                     " committed rounds; the summary says " +
                     std::to_string(rounds));
}

}  // namespace

std::vector<std::string> CheckArtefacts(FileSystem& files,
                                        const Path& directory,
                                        const Expectations& expected) {
  Checker checker(files, directory);
  const std::string rounds = checker.Read("rounds.jsonl");
  const std::string html = checker.Read("report.html");
  const std::string values = checker.Read("model.safetensors");
  const std::string archive = checker.Read("model.pt");
  checker.Expect(archive.starts_with("PK"), "model.pt is not an archive");
  for (const char* link :
       {"http:", "https:", "src=", "href=", "url(", "@import", "<script"}) {
    checker.Expect(html.find(link) == std::string::npos,
                   std::string("report.html is not self-contained: ") + link);
  }
  checker.Expect(html.find("<svg") != std::string::npos,
                 "report.html has no drawing");
  try {
    const Json summary = Json::parse(checker.Read("summary.json"));
    CheckSummary(summary, expected, checker);
    CheckRounds(rounds, summary.at("rounds").get<uint64_t>(), checker);
    checker.Expect(
        summary.at("model_digest") == crypto::Sha256(AsBytes(values)).ToHex(),
        "summary.json: model_digest is not model.safetensors'");
  } catch (const Json::exception& e) {
    checker.Expect(false, std::string("summary.json: ") + e.what());
  }
  return std::move(checker).problems();
}

}  // namespace selvage::quickstart
