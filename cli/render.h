// What the admin service answers, as JSON and as rows of tables. The JSON is an
// interface: fields are only added (docs/cli.md).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "selvage/v1/admin.pb.h"

namespace selvage::cli {

std::string_view StateText(v1::Task::State state);
std::string_view StateText(v1::Round::State state);

nlohmann::ordered_json ToJson(const v1::ServerInfo& info);
nlohmann::ordered_json ToJson(const v1::Population& population);
nlohmann::ordered_json ToJson(const v1::Task& task);
nlohmann::ordered_json ToJson(const v1::Round& round);
nlohmann::ordered_json ToJson(const v1::Evaluation& evaluation);
nlohmann::ordered_json ToJson(const v1::ModelVersion& version);
nlohmann::ordered_json ToJson(const v1::EnrolmentToken& token);
nlohmann::ordered_json ToJson(const v1::TaskSnapshot& snapshot);

template <typename T>
nlohmann::ordered_json ListToJson(const std::vector<T>& items);

std::string TaskTable(const std::vector<v1::Task>& tasks);
std::string RoundTable(const std::vector<v1::Round>& rounds);
std::string VersionTable(const std::vector<v1::ModelVersion>& versions);
std::string PopulationTable(const std::vector<v1::Population>& populations);
// States are judged at `now_micros`.
std::string TokenTable(const std::vector<v1::EnrolmentToken>& tokens,
                       int64_t now_micros);

// One thing in detail: "key  value" lines.
std::string Describe(const v1::ServerInfo& info);
std::string Describe(const v1::Population& population);
std::string Describe(const v1::Task& task);
std::string Describe(const v1::Round& round);
std::string Describe(const v1::ModelVersion& version);

// "accuracy 0.7812, loss 0.6131"; "-" without metrics.
std::string MetricsText(
    const google::protobuf::RepeatedPtrField<v1::MetricSummary>& metrics);
// "accuracy 0.7812, loss 0.6131 (10000 examples of default)"
std::string EvaluationText(const v1::Evaluation& evaluation);
// "checked in 30, assigned 10, accepted 8, outstanding 2": what is not zero.
std::string FunnelText(const v1::Funnel& funnel);
// Time from opening to end; zero while open.
int64_t RoundMicros(const v1::Round& round);

}  // namespace selvage::cli
