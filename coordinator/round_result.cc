#include "coordinator/round_result.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "aggregation/contribution.h"
#include "aggregation/robust/rules.h"
#include "base/check.h"

namespace selvage::coordinator {

namespace {

void Scale(std::span<double> values, double factor) {
  for (double& value : values) value *= factor;
}

}  // namespace

void ScaleMean(const TaskDefinition& definition, double factor,
               uint64_t update_count, size_t first, std::span<double> mean) {
  if (factor != 1) {
    for (const aggregation::ElementRange& range : definition.shared) {
      Scale(aggregation::Within(range, first, mean), factor);
    }
  }
  if (definition.contribution.name != plan::ContributionName::kScaffold) return;
  const plan::TensorTable& table = definition.program.table;
  const double part =
      static_cast<double>(update_count) /
      static_cast<double>(definition.spec.strategy.population_size);
  Scale(
      aggregation::Within(
          {table.update_count(), aggregation::SharedCount(table)}, first, mean),
      std::min(1.0, part));
}

Result<RoundContent> RoundContent::Gather(const TaskDefinition& definition,
                                          const RoundKey& round, Store& store,
                                          BlobStore& blobs,
                                          const crypto::SecretBytes& round_key,
                                          RunningSums* sums) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<PartialRow> partials,
                           store.ListPartials(round));
  RoundContent content(definition);
  if (plan::HoldsUpdates(definition.spec.strategy.name)) {
    SELVAGE_ASSIGN_OR_RETURN(
        content.held_,
        HeldUpdates::Open(definition, round, partials, blobs, round_key));
    content.update_count_ = content.held_->update_count();
    content.metrics_ = content.held_->metrics();
    return content;
  }
  content.metrics_ = aggregation::MetricSums(definition.program.metrics.size());
  content.scalars_.resize(definition.scalar_count);
  if (sums != nullptr) content.kept_ = sums->Take(partials);
  uint64_t kept_count = 0;
  for (const PartialRow& partial : partials) {
    SELVAGE_ASSIGN_OR_RETURN(
        PartialReader reader,
        PartialReader::Open({round_key, round, partial.id},
                            definition.stretches.size(), blobs));
    const PartialHead& head = reader.head();
    if (head.update_count != partial.update_count ||
        head.scalars.size() != content.scalars_.size()) {
      return DataLoss("partial " + partial.id + " holds " +
                      std::to_string(head.update_count) +
                      " updates, its row says " +
                      std::to_string(partial.update_count));
    }
    for (size_t i = 0; i < head.scalars.size(); ++i) {
      if (__builtin_add_overflow(content.scalars_[i], head.scalars[i],
                                 &content.scalars_[i])) {
        return DataLoss("partial " + partial.id + " has an impossible scalar");
      }
    }
    SELVAGE_RETURN_IF_ERROR(content.metrics_.MergeWith(head.metrics));
    content.update_count_ += head.update_count;
    if (content.kept_.has_value() && content.kept_->ids.contains(partial.id)) {
      kept_count += head.update_count;
    } else {
      content.partials_.push_back(std::move(reader));
    }
  }
  if (content.kept_.has_value()) {
    for (const aggregation::ExactSum& sum : content.kept_->sums) {
      SELVAGE_CHECK(sum.update_count() == kept_count);
    }
  }
  return content;
}

std::map<std::string, double> RoundContent::Figures() const {
  std::map<std::string, double> figures;
  if (definition_->spec.strategy.name == plan::StrategyName::kNormBound) {
    figures["clip_fraction"] =
        static_cast<double>(scalars_[0]) /
        static_cast<double>(std::max<uint64_t>(1, update_count_));
  }
  const plan::ContributionName contribution = definition_->contribution.name;
  if (contribution == plan::ContributionName::kFedNova) {
    figures["local_steps"] = factor_;
  } else if (contribution == plan::ContributionName::kQFedAvg) {
    figures["fair_step"] = factor_;
  }
  return figures;
}

Result<std::vector<double>> RoundContent::NextMean(size_t threads) {
  if (held_ != nullptr) {
    const std::unique_ptr<HeldUpdates> held = std::move(held_);
    return aggregation::AggregateRobustly(definition_->spec.strategy, *held,
                                          definition_->buffers, threads);
  }
  SELVAGE_CHECK(next_ < definition_->stretches.size());
  Result<aggregation::ExactSum> begun =
      kept_.has_value()
          ? std::move(kept_->sums.at(next_))
          : aggregation::ExactSum::Create(definition_->stretches[next_].layout);
  SELVAGE_ASSIGN_OR_RETURN(aggregation::ExactSum sum, std::move(begun));
  const size_t first = definition_->stretches[next_].first;
  ++next_;
  for (PartialReader& partial : partials_) {
    SELVAGE_RETURN_IF_ERROR(partial.MergeNext(sum));
  }
  const plan::ContributionName contribution = definition_->contribution.name;
  if (aggregation::DeclaredScalars(contribution) > 0) {
    factor_ =
        aggregation::MeanFactor(contribution, sum.weight_sum(), scalars_.at(0));
  }
  SELVAGE_ASSIGN_OR_RETURN(std::vector<double> mean,
                           std::move(sum).FinishMean());
  ScaleMean(*definition_, factor_, update_count_, first, mean);
  return mean;
}

std::string FiguresText(const std::map<std::string, double>& figures) {
  std::string text;
  for (const auto& [name, value] : figures) {
    char number[32];
    std::snprintf(number, sizeof number, "%.17g", value);
    text += name + "=" + number + "\n";
  }
  return text;
}

Result<std::map<std::string, double>> ParseFigures(const std::string& text) {
  std::map<std::string, double> figures;
  for (size_t at = 0; at < text.size();) {
    const size_t equals = text.find('=', at);
    const size_t end = text.find('\n', at);
    if (end == std::string::npos || equals > end) {
      return DataLoss("figures of a round end early");
    }
    double value = 0;
    const std::string number = text.substr(equals + 1, end - equals - 1);
    char* after = nullptr;
    value = std::strtod(number.c_str(), &after);
    if (number.empty() || *after != '\0' || !std::isfinite(value)) {
      return DataLoss("a figure of a round is " + number);
    }
    figures[text.substr(at, equals - at)] = value;
    at = end + 1;
  }
  return figures;
}

Bytes ReleasableMetrics(const aggregation::MetricSums& metrics,
                        uint64_t min_cohort) {
  for (const aggregation::MetricSums::Sum& sum : metrics.sums()) {
    if (static_cast<uint64_t>(sum.device_count) < min_cohort) return {};
  }
  return metrics.Serialize();
}

}  // namespace selvage::coordinator
