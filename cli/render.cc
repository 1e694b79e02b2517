#include "cli/render.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "cli/text.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::ordered_json;
using Pairs = std::vector<std::pair<std::string, std::string>>;

std::string Hex(const std::string& digest) { return ToHex(AsBytes(digest)); }

std::string ShortHex(const std::string& digest) {
  return digest.empty() ? "-" : Hex(digest).substr(0, 12);
}

// RFC 3339, or null for "not yet".
Json TimeJson(int64_t micros) {
  return micros == 0 ? Json(nullptr) : Json(FormatTime(FromMicros(micros)));
}

Json DigestJson(const std::string& digest) {
  return digest.empty() ? Json(nullptr) : Json(Hex(digest));
}

Json MetricsJson(
    const google::protobuf::RepeatedPtrField<v1::MetricSummary>& metrics) {
  Json out = Json::object();
  for (const v1::MetricSummary& metric : metrics) {
    Json& one = out[metric.name()];
    one = Json{{"mean", metric.mean()},
               {"examples", metric.example_count()},
               {"devices", metric.device_count()}};
    if (metric.has_p10()) one["p10"] = metric.p10();
    if (metric.has_p50()) one["p50"] = metric.p50();
    if (metric.has_p90()) one["p90"] = metric.p90();
  }
  return out;
}

// Sorted, so that the same answer prints the same.
std::map<std::string, uint64_t> Reasons(const v1::Funnel& funnel) {
  return {funnel.reasons().begin(), funnel.reasons().end()};
}

std::string_view CodecText(v1::Codec codec) {
  switch (codec) {
    case v1::FLOAT32:
      return "float32";
    case v1::FLOAT16:
      return "float16";
    case v1::BFLOAT16:
      return "bfloat16";
    case v1::INT8:
      return "int8";
    case v1::TOP_K:
      return "top_k";
    case v1::ROTATED_INT8:
      return "rotated_int8";
    default:
      return "unknown";
  }
}

bool Evaluates(const v1::Round& round) {
  return round.mode() == v1::Assignment::EVALUATE;
}
bool MakesVersion(const v1::Round& round) {
  return round.state() == v1::Round::COMMITTED && !Evaluates(round);
}

std::string Count(uint64_t value) { return std::to_string(value); }

std::string Lines(const Pairs& pairs) {
  size_t width = 0;
  for (const auto& pair : pairs) width = std::max(width, pair.first.size());
  std::string out;
  for (const auto& [key, value] : pairs) {
    out += key + std::string(width - key.size() + 2, ' ') + Printable(value) +
           '\n';
  }
  return out;
}

std::string BestText(const v1::Task& task) {
  if (!task.has_best_version()) return "-";
  std::string out = Count(task.best_version()) + " (" + task.key_metric() +
                    " " + FormatNumber(task.best_value());
  if (task.stale_versions() > 0) {
    out += ", " + Count(task.stale_versions()) + " measured since";
  }
  return out + ")";
}

std::string TokenState(const v1::EnrolmentToken& token, int64_t now_micros) {
  if (token.revoked()) return "REVOKED";
  if (token.expires_micros() <= now_micros) return "EXPIRED";
  if (token.uses() >= token.uses_max()) return "USED_UP";
  return "VALID";
}

}  // namespace

std::string_view StateText(v1::Task::State state) {
  switch (state) {
    case v1::Task::RUNNING:
      return "RUNNING";
    case v1::Task::STOPPED:
      return "STOPPED";
    case v1::Task::FINISHED:
      return "FINISHED";
    default:
      return "UNKNOWN";
  }
}

std::string_view StateText(v1::Round::State state) {
  switch (state) {
    case v1::Round::SELECTING:
      return "SELECTING";
    case v1::Round::COLLECTING:
      return "COLLECTING";
    case v1::Round::CLOSING:
      return "CLOSING";
    case v1::Round::UNMASKING:
      return "UNMASKING";
    case v1::Round::APPLYING:
      return "APPLYING";
    case v1::Round::COMMITTED:
      return "COMMITTED";
    case v1::Round::ABANDONED:
      return "ABANDONED";
    default:
      return "UNKNOWN";
  }
}

Json ToJson(const v1::ServerInfo& info) {
  return Json{{"version", info.version()},
              {"commit", info.commit()},
              {"schema_version", info.schema_version()},
              {"time", TimeJson(info.now_micros())},
              {"free_bytes", info.free_bytes()},
              {"certificates_issued", info.certificates_issued()},
              {"tls_connections", info.tls_connections()},
              {"socket_bytes_received", info.socket_bytes_received()},
              {"socket_bytes_sent", info.socket_bytes_sent()},
              {"uptime_seconds", info.uptime_seconds()},
              {"device_endpoint", info.device_endpoint()},
              {"instance_id", info.instance_id()}};
}

Json ToJson(const v1::Population& population) {
  return Json{{"name", population.name()},
              {"created", TimeJson(population.created_micros())},
              {"device_count", population.device_count()}};
}

Json ToJson(const v1::Task& task) {
  Json metrics = Json::array();
  for (const std::string& name : task.metrics()) metrics.push_back(name);
  return Json{
      {"name", task.name()},
      {"population", task.population()},
      {"state", StateText(task.state())},
      {"num_rounds", task.num_rounds()},
      {"committed_rounds", task.committed_rounds()},
      {"abandoned_rounds", task.abandoned_rounds()},
      {"latest_version", task.latest_version()},
      {"created", TimeJson(task.created_micros())},
      {"ended", TimeJson(task.ended_micros())},
      {"key_metric", task.key_metric()},
      {"metrics", metrics},
      {"program_digest", DigestJson(task.program_digest())},
      {"plan_digest", DigestJson(task.plan_digest())},
      {"initial_digest", DigestJson(task.initial_digest())},
      {"evaluated_rounds", task.evaluated_rounds()},
      {"best_version",
       task.has_best_version() ? Json(task.best_version()) : Json(nullptr)},
      {"best_value",
       task.has_best_version() ? Json(task.best_value()) : Json(nullptr)},
      {"stale_versions", task.stale_versions()},
      {"end_reason", task.end_reason()},
      {"etag", task.etag()},
      {"task_file", task.task_file()}};
}

Json ToJson(const v1::Round& round) {
  const v1::Funnel& funnel = round.funnel();
  Json reasons = Json::object();
  for (const auto& [reason, count] : Reasons(funnel)) reasons[reason] = count;
  Json out{{"task", round.task()},
           {"round", round.number()},
           {"state", StateText(round.state())},
           {"base_version", round.base_version()},
           {"result_version",
            MakesVersion(round) ? Json(round.result_version()) : Json(nullptr)},
           {"opened", TimeJson(round.opened_micros())},
           {"ended", TimeJson(round.ended_micros())},
           {"seconds", static_cast<double>(RoundMicros(round)) / 1e6},
           {"funnel",
            {{"checked_in", funnel.checked_in()},
             {"assigned", funnel.assigned()},
             {"accepted", funnel.accepted()},
             {"rejected", funnel.rejected()},
             {"late", funnel.late()},
             {"abandoned", funnel.abandoned()},
             {"expired", funnel.expired()},
             {"outstanding", funnel.outstanding()},
             {"reasons", reasons}}},
           {"metrics", MetricsJson(round.metrics())},
           {"bytes_up", round.bytes_up()},
           {"mode", Evaluates(round) ? "EVALUATE" : "TRAIN"}};
  if (Evaluates(round)) {
    Json& classes = out["classes"] = Json::object();
    for (const v1::ClassMetrics& one : round.classes()) {
      classes[one.device_class()] = MetricsJson(one.metrics());
    }
  }
  for (const auto& [name, value] : round.figures()) {
    out["figures"][name] = value;
  }
  if (!round.reason().empty()) out["reason"] = round.reason();
  return out;
}

Json ToJson(const v1::Evaluation& evaluation) {
  Json metrics = Json::object();
  for (const auto& metric : evaluation.metrics()) {
    metrics[metric.name()] = metric.value();
  }
  return Json{{"task", evaluation.task()},
              {"version", evaluation.version()},
              {"data_set", evaluation.data_set()},
              {"data_digest", DigestJson(evaluation.data_digest())},
              {"model_digest", DigestJson(evaluation.model_digest())},
              {"examples", evaluation.example_count()},
              {"metrics", metrics},
              {"created", TimeJson(evaluation.created_micros())}};
}

Json ToJson(const v1::ModelVersion& version) {
  Json evaluations = Json::object();
  for (const v1::Evaluation& one : version.evaluations()) {
    Json& entry = evaluations[one.data_set()] = ToJson(one);
    for (const char* key : {"task", "version", "data_set", "model_digest"}) {
      entry.erase(key);
    }
  }
  return Json{{"task", version.task()},
              {"version", version.version()},
              {"round", version.round()},
              {"created", TimeJson(version.created_micros())},
              {"checkpoint_digest", DigestJson(version.checkpoint_digest())},
              {"checkpoint_codec", CodecText(version.checkpoint_codec())},
              {"safetensors_digest", DigestJson(version.safetensors_digest())},
              {"program_digest", DigestJson(version.program_digest())},
              {"metrics", MetricsJson(version.metrics())},
              {"evaluations", evaluations}};
}

Json ToJson(const v1::EnrolmentToken& token) {
  return Json{{"id", token.id()},
              {"population", token.population()},
              {"expires", TimeJson(token.expires_micros())},
              {"uses_max", token.uses_max()},
              {"uses", token.uses()},
              {"revoked", token.revoked()}};
}

Json ToJson(const v1::TaskSnapshot& snapshot) {
  Json out{{"task", ToJson(snapshot.task())}};
  // It is long and never changes.
  out["task"].erase("task_file");
  out["round"] =
      snapshot.has_round() ? ToJson(snapshot.round()) : Json(nullptr);
  return out;
}

template <typename T>
Json ListToJson(const std::vector<T>& items) {
  Json out = Json::array();
  for (const T& item : items) out.push_back(ToJson(item));
  return out;
}
template Json ListToJson(const std::vector<v1::Task>&);
template Json ListToJson(const std::vector<v1::Round>&);
template Json ListToJson(const std::vector<v1::ModelVersion>&);
template Json ListToJson(const std::vector<v1::Population>&);
template Json ListToJson(const std::vector<v1::EnrolmentToken>&);

std::string TaskTable(const std::vector<v1::Task>& tasks) {
  Table table({"NAME", "POPULATION", "STATE", "ROUNDS", "ABANDONED", "VERSION",
               "CREATED"});
  for (const v1::Task& task : tasks) {
    table.Add({task.name(), task.population(),
               std::string(StateText(task.state())),
               Count(task.committed_rounds()) + "/" + Count(task.num_rounds()),
               Count(task.abandoned_rounds()), Count(task.latest_version()),
               FormatMicros(task.created_micros())});
  }
  return table.ToString();
}

std::string RoundTable(const std::vector<v1::Round>& rounds) {
  Table table({"ROUND", "STATE", "ASSIGNED", "ACCEPTED", "LOST", "TIME", "UP",
               "METRICS"});
  for (const v1::Round& round : rounds) {
    const v1::Funnel& funnel = round.funnel();
    table.Add({Count(round.number()),
               std::string(StateText(round.state())) +
                   (Evaluates(round) ? " (evaluation)" : ""),
               Count(funnel.assigned()), Count(funnel.accepted()),
               Count(funnel.rejected() + funnel.late() + funnel.abandoned() +
                     funnel.expired()),
               round.ended_micros() == 0
                   ? "-"
                   : FormatDuration(Duration(RoundMicros(round))),
               FormatBytes(round.bytes_up()), MetricsText(round.metrics())});
  }
  return table.ToString();
}

std::string VersionTable(const std::vector<v1::ModelVersion>& versions) {
  Table table({"VERSION", "ROUND", "CREATED", "SAFETENSORS", "METRICS"});
  for (const v1::ModelVersion& version : versions) {
    std::string metrics = MetricsText(version.metrics());
    for (const v1::Evaluation& evaluation : version.evaluations()) {
      metrics += "; server: " + EvaluationText(evaluation);
    }
    table.Add({Count(version.version()), Count(version.round()),
               FormatMicros(version.created_micros()),
               ShortHex(version.safetensors_digest()), metrics});
  }
  return table.ToString();
}

std::string PopulationTable(const std::vector<v1::Population>& populations) {
  Table table({"NAME", "DEVICES", "CREATED"});
  for (const v1::Population& population : populations) {
    table.Add({population.name(), Count(population.device_count()),
               FormatMicros(population.created_micros())});
  }
  return table.ToString();
}

std::string TokenTable(const std::vector<v1::EnrolmentToken>& tokens,
                       int64_t now_micros) {
  Table table({"ID", "POPULATION", "STATE", "USES", "EXPIRES"});
  for (const v1::EnrolmentToken& token : tokens) {
    table.Add({token.id(), token.population(), TokenState(token, now_micros),
               Count(token.uses()) + "/" + Count(token.uses_max()),
               FormatMicros(token.expires_micros())});
  }
  return table.ToString();
}

std::string Describe(const v1::ServerInfo& info) {
  return Lines(
      {{"Version", info.version() + " (" + info.commit() + ")"},
       {"Schema", Count(info.schema_version())},
       {"Time", FormatMicros(info.now_micros())},
       {"Uptime", FormatDuration(std::chrono::seconds(info.uptime_seconds()))},
       {"Free disk", FormatBytes(info.free_bytes())},
       {"Device endpoint", info.device_endpoint()},
       {"Certificates", Count(info.certificates_issued()) + " issued"},
       {"Connections", Count(info.tls_connections()) + " of devices over TLS"},
       {"Bytes from devices", FormatBytes(info.socket_bytes_received())},
       {"Bytes to devices", FormatBytes(info.socket_bytes_sent())},
       {"Instance", info.instance_id()}});
}

std::string Describe(const v1::Population& population) {
  return Lines({{"Name", population.name()},
                {"Devices", Count(population.device_count())},
                {"Created", FormatMicros(population.created_micros())}});
}

std::string Describe(const v1::Task& task) {
  Pairs pairs = {{"Name", task.name()},
                 {"Population", task.population()},
                 {"State", std::string(StateText(task.state()))},
                 {"Rounds", Count(task.committed_rounds()) + " of " +
                                Count(task.num_rounds()) + " committed, " +
                                Count(task.abandoned_rounds()) + " abandoned"},
                 {"Latest version", Count(task.latest_version())},
                 {"Best version", BestText(task)},
                 {"Created", FormatMicros(task.created_micros())},
                 {"Ended", FormatMicros(task.ended_micros())},
                 {"Key metric", task.key_metric()},
                 {"Program", Hex(task.program_digest())},
                 {"Plan", Hex(task.plan_digest())}};
  if (!task.initial_digest().empty()) {
    pairs.emplace_back("Initial model", Hex(task.initial_digest()));
  }
  if (task.evaluated_rounds() > 0) {
    pairs.emplace_back("Evaluations",
                       Count(task.evaluated_rounds()) + " rounds");
  }
  if (!task.end_reason().empty()) {
    pairs.emplace_back("End", task.end_reason());
  }
  pairs.emplace_back("Etag", task.etag());
  std::string out = Lines(pairs);
  out += "Task file\n";
  std::string line;
  for (const char c : task.task_file() + "\n") {
    if (c != '\n') {
      line += c;
      continue;
    }
    if (!line.empty()) out += "  " + Printable(line) + '\n';
    line.clear();
  }
  return out;
}

std::string Describe(const v1::Round& round) {
  Pairs pairs = {{"Task", round.task()},
                 {"Round", Count(round.number())},
                 {"State", std::string(StateText(round.state()))},
                 {"Base version", Count(round.base_version())},
                 {"Result version",
                  MakesVersion(round) ? Count(round.result_version()) : "-"},
                 {"Opened", FormatMicros(round.opened_micros())},
                 {"Ended", FormatMicros(round.ended_micros())},
                 {"Time", FormatDuration(Duration(RoundMicros(round)))},
                 {"Funnel", FunnelText(round.funnel())}};
  for (const auto& [reason, count] : Reasons(round.funnel())) {
    pairs.emplace_back("  " + reason, Count(count));
  }
  pairs.emplace_back("Bytes up", FormatBytes(round.bytes_up()));
  pairs.emplace_back("Metrics", MetricsText(round.metrics()));
  if (Evaluates(round)) {
    pairs.insert(pairs.begin() + 3, {"Mode", "EVALUATE: it makes no version"});
    for (const v1::ClassMetrics& one : round.classes()) {
      const uint64_t devices =
          one.metrics().empty() ? 0 : one.metrics(0).device_count();
      pairs.emplace_back(
          "  " + one.device_class(),
          MetricsText(one.metrics()) + " (" + Count(devices) + " devices)");
    }
  }
  for (const auto& [name, value] : std::map<std::string, double>(
           round.figures().begin(), round.figures().end())) {
    pairs.emplace_back(name, FormatNumber(value));
  }
  if (!round.reason().empty()) pairs.emplace_back("Reason", round.reason());
  return Lines(pairs);
}

std::string Describe(const v1::ModelVersion& version) {
  Pairs pairs = {{"Task", version.task()},
                 {"Version", Count(version.version())},
                 {"Round", Count(version.round())},
                 {"Created", FormatMicros(version.created_micros())},
                 {"Safetensors", Hex(version.safetensors_digest())},
                 {"Checkpoint",
                  Hex(version.checkpoint_digest()) + " (" +
                      std::string(CodecText(version.checkpoint_codec())) + ")"},
                 {"Program", Hex(version.program_digest())},
                 {"Metrics", MetricsText(version.metrics())}};
  for (const v1::Evaluation& evaluation : version.evaluations()) {
    pairs.emplace_back("Server evaluation", EvaluationText(evaluation));
  }
  return Lines(pairs);
}

std::string EvaluationText(const v1::Evaluation& evaluation) {
  std::string out;
  for (const auto& metric : evaluation.metrics()) {
    if (!out.empty()) out += ", ";
    out += metric.name() + " " + FormatNumber(metric.value());
  }
  return out + " (" + Count(evaluation.example_count()) + " examples of " +
         evaluation.data_set() + ")";
}

std::string MetricsText(
    const google::protobuf::RepeatedPtrField<v1::MetricSummary>& metrics) {
  std::string out;
  for (const v1::MetricSummary& metric : metrics) {
    if (!out.empty()) out += ", ";
    out += metric.name() + " " + FormatNumber(metric.mean());
  }
  return out.empty() ? "-" : out;
}

std::string FunnelText(const v1::Funnel& funnel) {
  std::string out = "checked in " + Count(funnel.checked_in()) + ", assigned " +
                    Count(funnel.assigned()) + ", accepted " +
                    Count(funnel.accepted());
  const std::pair<const char*, uint64_t> others[] = {
      {"rejected", funnel.rejected()},
      {"late", funnel.late()},
      {"abandoned", funnel.abandoned()},
      {"expired", funnel.expired()},
      {"outstanding", funnel.outstanding()}};
  for (const auto& [name, count] : others) {
    if (count > 0) out += ", " + std::string(name) + " " + Count(count);
  }
  return out;
}

int64_t RoundMicros(const v1::Round& round) {
  return round.ended_micros() == 0
             ? 0
             : std::max<int64_t>(0,
                                 round.ended_micros() - round.opened_micros());
}

}  // namespace selvage::cli
